"""Find errors in a body of any status or in a stream's event, whatever their envelope.

Gateways answer 200 and say inside that it went wrong, each in its own way: `{"error": {...}}`, `{"error": "text"}`,
`{"object": "error"}` (vLLM), `{"type": "error"}` (Anthropic), `choices[0].error` (OpenRouter), a list of these
(Gemini), `{"detail": ...}` (FastAPI). Pure.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import LMProviderError
from . import error_classes
from .error_kinds import kind_of

if TYPE_CHECKING:
    from ..record import LM

_DEEPEST = 4  # envelopes within envelopes
_MESSAGES = (
    *("message", "detail", "msg", "error_message", "error_msg", "errors", "title", "reason"),
    *("errorMessage", "errorMsg", "errmsg", "error_description", "Message"),
)
_CODES = ("code", "type", "status", "status_code", "error_type", "error_code", "errorCode", "errcode", "__type")
_BROKEN_OFF = ("error", "abort", "cancel", "fail", "insufficient")  # in the reason why an answer ended
_BODY_MOST = 1024 * 1024  # bytes of a refusal that are read
_PAGE_MOST = 20_000  # characters
_LISTED_MOST = 5  # of a list of errors
_CODE_MOST = 1000  # characters
_NO_CODES = frozenset(("error", "none", "null"))


@dataclass(frozen=True, slots=True)
class Fault:
    """The contents of an error's envelope: the message, and its codes, the most precise first."""

    message: str
    codes: tuple[str, ...] = ()

    def error(self, lm: LM, *, status: int | None = None, **facts: Any) -> LMProviderError:
        """Return the error to raise; `status` is the response's own, None where that was a success."""
        kind = kind_of(self.message, self.codes, status=status)
        code = self.codes[0] if self.codes else None
        return error_classes.failure(lm, kind, self.message, status=status, code=code, **facts)


def fault_in(payload: Any) -> Fault | None:
    """Return the error that a JSON value is or holds; None if it holds none."""
    if isinstance(payload, list):
        return next((fault for item in payload if (fault := fault_in(item)) is not None), None)
    if not isinstance(payload, dict):
        return None
    if error := payload.get("error"):
        return _fault(error, payload)
    if payload.get("type") == "error" or payload.get("object") == "error":
        return _fault(payload, {})
    return _in_choices(payload.get("choices"))


def complaint_in(payload: Any) -> Fault | None:
    """Return the error text in a JSON value that is no answer; None if it has none."""
    if not isinstance(payload, dict):
        return None
    if any(payload.get(name) for name in _MESSAGES) or any(map(_says_failure, payload.items())):
        return _fault(payload, {})
    return complaint_in(payload.get("response"))


def text_fault(text: str) -> Fault:
    """Return the error that a text is."""
    return Fault(text[:10_000])


def fault_of(body: bytes) -> Fault:
    """Return the error that the body of a refusal is: JSON in any envelope, an event with it, a page, or plain text."""
    text = body[:_BODY_MOST].decode("utf-8", "replace").strip()
    if text.startswith(("data:", "event:")):
        text = "\n".join(line[5:].strip() for line in text.splitlines() if line.startswith("data:")) or text
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text_fault(_words_of_page(text) if text.startswith("<") else text)
    found = fault_in(data) or complaint_in(data)
    return found or text_fault(text if data else "")


def _words_of_page(page: str) -> str:
    """Return a page's title, or else its words: what is in it is markup for the most part."""
    title = re.search(r"<title[^<>]*>([^<]{1,1000})</title", page[:_PAGE_MOST], re.IGNORECASE)
    words = title[1] if title else re.sub(r"<[^<>]{0,1000}>", " ", page[:_PAGE_MOST])
    return " ".join(html.unescape(words).split())


def _in_choices(choices: Any) -> Fault | None:
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        for part in (choice, choice.get("delta"), choice.get("message")):
            if isinstance(part, dict) and (error := part.get("error")):
                return _fault(error, {})
        reason = choice.get("finish_reason")
        if not reason or reason == "stop":  # nearly always, and each answer passes here
            continue
        said = str(reason).lower()
        if any(word in said for word in _BROKEN_OFF):
            return Fault(f"The provider broke the answer off ({str(reason)[:100]}).")
    return None


def _says_failure(member: tuple[str, Any]) -> bool:
    """Whether a member of an object that is no answer says that it failed: an error, though an empty one, or a status.

    Statuses are HTTP's or a service's own, which begin higher; of MiniMax's `base_resp` any is one but 0.
    """
    name, value = member[0].lower(), member[1]
    if name in ("success", "ok"):
        return value is False
    if name in ("status", "status_code", "code"):
        return value in ("error", "failed", "failure") or (type(value) is int and value >= 400)
    if name == "base_resp":
        return isinstance(value, dict) and value.get("status_code", 0) != 0
    return name.startswith("err") and value not in (None, 0, "")


def _fault(error: Any, outer: Mapping[str, Any]) -> Fault:
    layers = [*_layers(error), outer]
    codes = dict.fromkeys(code for layer in layers for code in _codes(layer))
    message, upstream = _message(error, layers), _upstream(layers)
    if upstream is None:
        return Fault(message, tuple(codes))
    return Fault(f"{message}: {upstream.message}", tuple(dict.fromkeys((*codes, *upstream.codes))))


def _upstream(layers: list[Mapping[str, Any]]) -> Fault | None:
    """Return what the provider behind a gateway said, where the gateway passes that on (OpenRouter)."""
    kept: dict[str, Any] = next((layer["metadata"] for layer in layers if isinstance(layer.get("metadata"), dict)), {})
    raw = kept.get("raw")
    return fault_of(raw.encode("utf-8", "replace")) if isinstance(raw, str) and raw and not _is_nested(raw) else None


def _is_nested(raw: str) -> bool:
    return '"metadata"' in raw or "\\" * 4 in raw  # a gateway behind a gateway: what it says is enough


def _layers(error: Any) -> list[Mapping[str, Any]]:
    """Return the objects that an error is wrapped in, the innermost first."""
    found: list[Mapping[str, Any]] = []
    while isinstance(error, dict | list) and error and len(found) < _DEEPEST:
        if isinstance(error, list):
            error = error[0]
            continue
        found.insert(0, error)
        error = error.get("error") or error.get("base_resp")
    return found


def _codes(layer: Mapping[str, Any]) -> Iterator[str]:
    for name in _CODES:
        code = layer.get(name)
        if isinstance(code, str | int) and not isinstance(code, bool) and str(code).lower() not in _NO_CODES:
            yield str(code)[:_CODE_MOST]


def _message(error: Any, layers: list[Mapping[str, Any]]) -> str:
    message = next((layer[name] for layer in layers for name in (*_MESSAGES, "status_msg") if layer.get(name)), None)
    return _said(error if message is None else message)


def _said(message: Any, depth: int = 0) -> str:
    """Return a message as words: of FastAPI's lists, where and what, but not the input that they repeat."""
    if isinstance(message, str):
        return message
    if isinstance(message, list) and message and depth < _DEEPEST:
        return "; ".join(_said(item, depth + 1) for item in message[:_LISTED_MOST])
    if isinstance(message, dict) and depth < _DEEPEST:
        inner = next((message[name] for name in _MESSAGES if message.get(name)), None)
        place = message.get("loc")
        where = ".".join(map(str, place[:10])) + ": " if isinstance(place, list) else ""
        if inner is not None:
            return where + _said(inner, depth + 1)
    return json.dumps(message, ensure_ascii=False)
