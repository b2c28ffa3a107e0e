"""`RequestFactory`: make requests of calls: URL, headers, body and cache key. Pure but for the heads it keeps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ..errors import LMConfigurationError, LMNotConfiguredError, LMUnsupportedFeatureError
from .asked_request import asked_of, refused
from .cache import key_of
from .call_options import CallPlan
from .clouds.cloud_urls import with_query, without_key
from .dialects import anthropic, embeddings, gemini, openai
from .dialects.dialect import Dialect, Message
from .dialects.embeddings import EmbeddingsDialect
from .dialects.json_body import encode
from .dialects.lm15_dialect import Lm15Dialect, streamed
from .dialects.lm15_dialect import with_renamed as renamed
from .dialects.media_blocks import blocks_of, with_blocks
from .dialects.media_checks import require_media
from .embedding_plan import EmbeddingPlan, require_embeddings
from .http.endpoint import Endpoint, target_of
from .http.http_message import request_head
from .record import LM
from .redaction import Redactor, redactor_of
from .request import Request
from .worker_bodies import with_members

USER_AGENT = "dspex"
_JSON = ("content-type", "application/json")
_HEADS_MOST = 1000
_KEPT_MOST = 4096  # bytes of a head that is kept: a worker may send as much as it likes
# What a worker may not decide: whose key is used, and how the connection is run.
_OWNED_HERE = frozenset(
    """authorization x-api-key x-goog-api-key api-key proxy-authorization cookie host content-length connection
    transfer-encoding te trailer upgrade expect keep-alive accept-encoding user-agent anthropic-workspace-id x-amz-date
    x-amz-security-token x-amz-content-sha256 x-goog-user-project""".split()
)
# Headers that say nothing of the answer; any other may decide it, and is part of the cache's key.
_COMMON = frozenset(
    (
        ("accept", "*/*"),
        ("accept", "application/json"),
        ("accept", "text/event-stream"),
        ("anthropic-version", anthropic.API_VERSION),
        ("content-type", "application/json"),
    )
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110: what a header's name may be
_DIALECTS: dict[str, Dialect] = {"openai": openai, "anthropic": anthropic, "gemini": gemini}
_BY_LM15: dict[str, Dialect] = {}


@dataclass(frozen=True, slots=True)
class _Head:
    """The part of a request that does not depend on its body."""

    target: Endpoint
    lines: bytes = field(repr=False)  # holds the key
    redactor: Redactor = field(repr=False)
    digest: str | None  # of the headers that may decide the answer


class RequestFactory:
    """Makes requests; keeps the heads of the last ones, which rarely change. Any thread."""

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], _Head] = {}

    def native(self, plan: CallPlan, messages: Sequence[Message], candidate: int, *, stream: bool) -> Request:
        """Make the request for a call of the parent itself.

        Raises:
            LMNotConfiguredError: the LM has no key.
            LMUnsupportedFeatureError: the parent does not speak this model's dialect.
            InvalidInput: messages or options that are malformed.
        """
        lm = plan.lm
        dialect = dialect_of(lm)
        if lm.direct or not lm.provider.native:
            raise LMUnsupportedFeatureError(
                f"{lm.provider.prefix} models are called by workers only.", model=lm.model, provider=lm.provider.id
            )
        try:
            require_media(lm, messages)
            head = self._heads.get((lm.ref, stream)) or self._native_head(lm, dialect.endpoint(lm), stream)
            body = dialect.body(lm, messages, plan.options, stream)
        except LMUnsupportedFeatureError:
            encode({"messages": list(messages)})  # text that nobody can send is found first, as in DSPy
            raise
        key = self._key(lm, head, body, plan.rollout_id, candidate) if plan.cache else None
        return Request(
            lm, dialect, head.target, head.lines, head.redactor, body, key, stream, lm.timeout, plan.deadline
        )

    def embedding(self, lm: LM, asked: EmbeddingPlan) -> Request:
        """Make the request for the vectors of some texts.

        Raises:
            LMNotConfiguredError: the LM has no key.
            LMUnsupportedFeatureError: its endpoint has no embeddings that the parent can ask for.
            InvalidInput: a text that is no Unicode.
        """
        require_embeddings(lm)
        dialect = EmbeddingsDialect(len(asked.texts), asked.dimensions)
        url = with_query(dialect.endpoint(lm), lm.query)
        head = self._heads.get((lm.ref, url)) or self._keep((lm.ref, url), _prepare(lm, url, [_JSON]))
        body = embeddings.body(lm, asked.texts, asked.encoding_format, asked.members_for(lm))
        key = self._key(lm, head, body, None, 0) if asked.cache and lm.cache else None
        return Request(
            lm, dialect, head.target, head.lines, head.redactor, body, key, False, lm.timeout, asked.deadline
        )

    def forwarded(self, lm: LM, given: Mapping[str, Any], *, deadline: float | None) -> Request:
        """Make the request of a worker; the key is added here, and only for a completion of the LM's own model.

        Raises:
            LMConfigurationError: it is for another endpoint, another model, or no completion.
            LMUnsupportedFeatureError: it holds sound or a file that cannot be sent there.
        """
        url = str(given["url"])
        dialect = dialect_of(lm)
        is_embedding = lm.provider.dialect == "openai" and embeddings.owns(lm, url)
        dialect = EmbeddingsDialect() if is_embedding else dialect
        if str(given.get("method") or "POST") != "POST" or not dialect.owns(lm, url):
            raise refused(lm, "The request does not go to the LM's own endpoint: no key is sent there.")
        head = self._worker_head(lm, _resolved(lm, url), given.get("headers") or ())
        body = given["body"] if isinstance(given["body"], bytes) else str(given["body"]).encode()
        asked = asked_of(lm, dialect, body)
        made_whole = dialect.reporting(asked)
        if media := given.get("media"):
            made_whole = with_blocks(made_whole, blocks_of(lm, media))
        dialect = EmbeddingsDialect.of_request(asked) if is_embedding else dialect
        made_whole = with_members(lm, made_whole, given.get("members") or {}, is_bare=bool(given.get("is_bare")))
        made_whole = renamed(lm, made_whole)
        if made_whole is not asked:  # a stream's tokens would be counted by nobody, or an option be lost
            body = encode(made_whole)
        key = None
        if lm.cache and given.get("cache", True):
            key = self._key(lm, head, body, given.get("rollout_id"), int(given.get("candidate") or 0))
        timeout = min(lm.timeout, float(given.get("timeout") or lm.timeout))
        stream = dialect.streams(url, asked)  # by the request itself, whatever the worker says beside it
        made = Request(lm, dialect, head.target, head.lines, head.redactor, body, key, stream, timeout, deadline)
        made.for_worker = True
        return made

    def _native_head(self, lm: LM, url: str, stream: bool) -> _Head:
        url = with_query(streamed(url) if stream else url, lm.query)
        return self._keep((lm.ref, stream), _prepare(lm, url, [_JSON]))

    def _worker_head(self, lm: LM, url: str, given: Mapping[str, str] | Iterable[tuple[str, str]]) -> _Head:
        named = cast("Any", given)
        pairs = [(name, value) for name, value in (named.items() if isinstance(given, Mapping) else named)]
        key = (lm.ref, url, *pairs)
        head = self._heads.get(key)
        if head is not None:
            return head
        head = _prepare(lm, url, _own_headers(lm, pairs))
        return self._keep(key, head) if len(head.lines) <= _KEPT_MOST else head

    def _keep(self, key: tuple[Any, ...], head: _Head) -> _Head:
        if len(self._heads) >= _HEADS_MOST:  # records made per call, headers that change: keep the table bounded
            self._heads.clear()
        self._heads[key] = head
        return head

    @staticmethod
    def _key(lm: LM, head: _Head, body: bytes, rollout_id: int | None, candidate: int) -> bytes:
        secret = lm.identity if lm.private else None
        url, digest = head.target.url, head.digest
        return key_of(url, body, rollout_id=rollout_id, candidate=candidate, secret=secret, headers=digest)


def dialect_of(lm: LM) -> Dialect:
    """Return the dialect of an LM's provider; the rarer ones are loaded when they are first asked for."""
    provider = lm.provider
    name = provider.dialect
    if provider.by_lm15:
        if name not in _BY_LM15:
            _BY_LM15[name] = Lm15Dialect(_dialect(name))
        return _BY_LM15[name]
    return _DIALECTS.get(name) or _dialect(name)


def _dialect(name: str) -> Dialect:
    found = _DIALECTS.get(name)
    if found is None:
        from .dialects import responses

        found = _DIALECTS["responses"] = responses
    return found


def reroute(request: Request, api_base: str, key: str) -> Request:
    """Return the same request to another server (the embedded one, whose address is known only once it runs)."""
    lm = request.lm
    url = api_base + request.target.url[len(lm.api_base) :]
    headers = [("content-type", "application/json"), ("authorization", f"Bearer {key}"), ("user-agent", USER_AGENT)]
    target, redactor = target_of(url, ""), redactor_of((key,))
    return replace(
        request, target=target, head=request_head("POST", target.path, target.host, headers), redactor=redactor
    )


def _resolved(lm: LM, url: str) -> str:
    """Return where a worker's request goes: workers name neither deployments nor the endpoint's query."""
    if lm.account is not None:
        url = without_key(url)
    return with_query(lm.api_base + url[len(lm.worker_base) :], lm.query)


def _own_headers(lm: LM, given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a worker's headers without those that are ours to set."""
    headers = [(name, value) for name, value in given if name.lower() not in _OWNED_HERE]
    odd = next((name for name, _ in headers if not _TOKEN.fullmatch(name)), None)
    if odd is not None:
        raise refused(lm, f"{odd[:50]!r} is no name of a header.")
    return headers


def _digest(lm: LM, headers: list[tuple[str, str]]) -> str | None:
    """Return a digest of the headers that may decide the answer (x-tenant, say); None when there are none."""
    lines = sorted((name.lower(), value) for name, value in (*headers, *lm.headers))
    deciding = [line for line in lines if line not in _COMMON]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest() if deciding else None


def _prepare(lm: LM, url: str, headers: list[tuple[str, str]]) -> _Head:
    if lm.api_key is None and lm.signer is None:
        names = " or ".join(lm.provider.key_names)
        raise LMNotConfiguredError(
            f"No API key: set {names} or pass api_key= to LM().", model=lm.model, provider=lm.provider.id
        )
    target = target_of(url, network=lm.network)
    head = _head_bytes(lm, headers, target)
    if head is None:  # raised here: what could not be encoded holds the key, and would be this error's context
        raise LMConfigurationError("A header or the key cannot be sent.", model=lm.model)
    return _Head(target, head, redactor_of((*lm.secrets, *target.secrets)), _digest(lm, headers))


def _head_bytes(lm: LM, headers: list[tuple[str, str]], target: Endpoint) -> bytes | None:
    """Return a request's head, None if it cannot be sent."""
    try:
        return request_head("POST", target.path, target.host, _lines(lm, headers, target))
    except (ValueError, UnicodeEncodeError):
        return None


def _lines(lm: LM, headers: list[tuple[str, str]], target: Endpoint) -> list[tuple[str, str]]:
    """Return all headers of a request but its host and length."""
    own = {name for name, _ in lm.headers}
    lines = [(name, value) for name, value in headers if name.lower() not in own]
    given = {name.lower() for name, _ in lines} | own
    if lm.provider.dialect == "anthropic" and not lm.provider.path and "anthropic-version" not in given:
        lines.append(("anthropic-version", anthropic.API_VERSION))
    if "user-agent" not in own:
        lines.append(("user-agent", USER_AGENT))
    lines += [("accept-encoding", "identity"), *_credential(lm), *lm.headers]
    if target.proxy_header is not None:
        lines.append(target.proxy_header)
    return lines


def _credential(lm: LM) -> list[tuple[str, str]]:
    """Return the header that holds the key, and those that a cloud wants beside it; a signer adds its own later."""
    of_cloud = list(lm.account.headers) if lm.account is not None else []
    if lm.signer is not None:
        return of_cloud
    key, auth = lm.api_key or "", lm.provider.auth
    is_token = lm.account is not None and lm.account.is_token(key)
    return [*of_cloud, ("authorization", f"Bearer {key}") if auth == "bearer" or is_token else (auth, key)]
