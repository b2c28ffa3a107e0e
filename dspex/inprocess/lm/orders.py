"""Orders made from calls: which bytes go where, under which key. Pure but for the prepared heads it remembers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dspex.errors import LMConfigurationError, LMNotConfiguredError, LMUnsupportedFeatureError
from dspex.inprocess.cache import key_of
from dspex.inprocess.lm.dialects import anthropic, openai
from dspex.inprocess.lm.dialects.answer import Dialect, Message, encode
from dspex.inprocess.lm.exchange import Order
from dspex.inprocess.lm.http.message import request_head
from dspex.inprocess.lm.http.target import Target, target_of
from dspex.inprocess.lm.inquiry import Inquiry
from dspex.inprocess.lm.record import LM

USER_AGENT = "dspex"
# What a worker may not decide: whose key is used, and how the connection is run.
_OWNED_HERE = frozenset(
    """authorization x-api-key x-goog-api-key api-key proxy-authorization cookie host content-length connection
    transfer-encoding te trailer upgrade expect keep-alive accept-encoding user-agent""".split()
)
_Head = tuple[Target, bytes]


class Orders:
    """Makes orders; remembers per LM the part of the HTTP head that does not change."""

    def __init__(self) -> None:
        self._heads: dict[str, _Head] = {}
        self._lock = threading.Lock()

    def native(self, call: Inquiry, messages: Sequence[Message], candidate: int, *, stream: bool) -> Order:
        """The order for a call of the parent itself.

        Raises:
            LMNotConfiguredError: the LM has no key.
            LMUnsupportedFeatureError: the parent does not speak this model's dialect.
            InvalidInput: messages or options that are malformed.
        """
        lm = call.lm
        dialect = dialect_of(lm)
        if lm.direct or not lm.provider.native:
            raise LMUnsupportedFeatureError(
                f"{lm.provider.prefix} models are called by workers only.", model=lm.model, provider=lm.provider.id
            )
        head = self._heads.get(lm.ref) or self._remember(lm, dialect.endpoint(lm))
        try:
            body = dialect.body(lm, messages, call.options, stream)
        except LMUnsupportedFeatureError:
            encode({"messages": list(messages)})  # text that nobody can send is found first, as in DSPy
            raise
        key = self._key(lm, head[0].url, body, call.rollout_id, candidate) if call.cache else None
        return Order(lm, dialect, head[0], head[1], body, key, stream, lm.timeout, call.deadline)

    def forwarded(self, lm: LM, request: Mapping[str, Any], *, deadline: float | None) -> Order:
        """The order for a worker's request; the key is added here, and only for the LM's own endpoint.

        Raises:
            LMConfigurationError: the URL is not under the LM's `api_base`.
        """
        url = str(request["url"])
        require_own_url(lm, url)
        given = request.get("headers") or ()
        pairs = given.items() if isinstance(given, Mapping) else given
        headers = [(n, v) for n, v in pairs if n.lower() not in _OWNED_HERE]
        target, head = _prepare(lm, url, headers, method=str(request.get("method") or "POST"))
        body = request["body"] if isinstance(request["body"], bytes) else str(request["body"]).encode()
        key = None
        if lm.cache and request.get("cache", True):
            key = self._key(lm, url, body, request.get("rollout_id"), int(request.get("candidate") or 0))
        timeout = min(lm.timeout, float(request.get("timeout") or lm.timeout))
        return Order(lm, dialect_of(lm), target, head, body, key, bool(request.get("stream")), timeout, deadline)

    def _remember(self, lm: LM, url: str) -> _Head:
        prepared = _prepare(lm, url, [("content-type", "application/json")])
        if len(self._heads) > 1000:  # records made per call: keep the table bounded
            self._heads.clear()
        self._heads[lm.ref] = prepared
        return prepared

    @staticmethod
    def _key(lm: LM, url: str, body: bytes, rollout_id: int | None, candidate: int) -> bytes:
        secret = lm.api_key if lm.private else None
        return key_of(url, body, rollout_id=rollout_id, candidate=candidate, secret=secret)


def dialect_of(lm: LM) -> Dialect:
    """The dialect's module. Gemini's errors are read by OpenAI's rules, which suffice for passing them on."""
    return anthropic if lm.provider.dialect == "anthropic" else openai


def require_own_url(lm: LM, url: str) -> None:
    """Raises LMConfigurationError unless the URL lies under the LM's own: the key must not be sent elsewhere."""
    path = url[len(lm.api_base) :].partition("?")[0]
    inside = url.startswith(f"{lm.api_base}/") and "\\" not in url
    if not inside or any(part in ("..", ".") for part in path.lower().replace("%2e", ".").split("/")):
        raise LMConfigurationError(
            f"The request does not go to the LM's own endpoint {lm.api_base.split('?')[0]!r}: no key is sent there.",
            model=lm.model,
        )


def reroute(order: Order, api_base: str, key: str) -> Order:
    """The same order to another server (the embedded one, whose address is known only once it runs)."""
    lm = order.lm
    url = api_base + order.target.url[len(lm.api_base) :]
    headers = [("content-type", "application/json"), ("authorization", f"Bearer {key}"), ("user-agent", USER_AGENT)]
    target = target_of(url, "")
    return replace(order, target=target, head=request_head("POST", target.path, target.host, headers))


def _prepare(lm: LM, url: str, headers: list[tuple[str, str]], *, method: str = "POST") -> _Head:
    if lm.api_key is None:
        names = " or ".join(lm.provider.key_names)
        raise LMNotConfiguredError(
            f"No API key: set {names} or pass api_key= to LM().", model=lm.model, provider=lm.provider.id
        )
    target = target_of(url, lm.proxy)
    own = {name for name, _ in lm.headers}
    lines = [(name, value) for name, value in headers if name.lower() not in own]
    given = {name.lower() for name, _ in lines} | own
    if lm.provider.dialect == "anthropic" and "anthropic-version" not in given:
        lines.append(("anthropic-version", anthropic.API_VERSION))
    if "user-agent" not in own:
        lines.append(("user-agent", USER_AGENT))
    lines += [("accept-encoding", "identity"), _credential(lm), *lm.headers]
    if target.proxy_header is not None:
        lines.append(target.proxy_header)
    try:
        return target, request_head(method, target.path, target.host, lines)
    except (ValueError, UnicodeEncodeError):
        raise LMConfigurationError("A header or the key cannot be sent.", model=lm.model) from None


def _credential(lm: LM) -> tuple[str, str]:
    key = lm.api_key or ""
    return ("authorization", f"Bearer {key}") if lm.provider.auth == "bearer" else (lm.provider.auth, key)
