"""Ask a model through the parent without lm15: one Chat Completions request per answer, for DSPy before 3.4.

What DSPy 3.3 would have LiteLLM send, for endpoints that speak OpenAI's format. Any thread; cancelling the call wakes a
waiting request. Not covered: other formats, `model_type` other than "chat" (use `LM(..., direct=True)`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from ...failure import Failure
from .direct_lms import Viewer
from .lm_transport import PLACEHOLDER_KEY, ParentTransport, current_lm_call

_DIALECTS = {"anthropic": "anthropic", "gemini": "gemini"}  # by the prefix of a record that names none
_DEFAULT_BASE = "https://api.openai.com/v1"
_NOT_SENT = frozenset({"cache", "rollout_id", "num_retries", "timeout", "api_key", "api_base", "base_url"})


class ReplyPart(dict[str, Any]):
    """A JSON object whose members are attributes too, as DSPy reads replies; what is missing is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.get(name)


@dataclass(frozen=True, slots=True)
class ChatRequests:
    """The requests for one LM record."""

    record: Mapping[str, Any]
    transport: ParentTransport

    def require_possible(self) -> None:
        """Check that the record's model can be asked this way.

        Raises:
            Failure: LMUnsupportedFeatureError.
        """
        dialect = self.record.get("dialect") or _DIALECTS.get(str(self.record["model"]).partition("/")[0], "openai")
        if dialect == "openai" and (self.record.get("model_type") or "chat") == "chat":
            return
        raise Failure(
            "LMUnsupportedFeatureError",
            f"DSPy {dspy.__version__} has no provider library of its own, so the parent can carry Chat Completions "
            f"requests for it, and {self.record['model']} takes others. Use LM(..., direct=True), which lets the "
            f"worker connect by itself, or install DSPy 3.4.",
            model=str(self.record["model"]),
        )

    def ask(self, messages: list[dict[str, Any]], options: Mapping[str, Any], viewer: Viewer | None) -> ReplyPart:
        """Return the reply to these messages; with a viewer it is streamed to it.

        Raises:
            LMError: a subclass of DSPy's, as the parent has classified the refusal.
        """
        body = self.body(messages, options)
        if viewer is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        try:
            return self._asked(_Request(self._url, text), viewer)
        except MemoryError as error:  # as 3.4 does: optimizers swallow it, and whoever looks finds the cause
            raise dspy_errors.LMUnexpectedError(f"{type(error).__name__} during the request") from error

    def _asked(self, request: _Request, viewer: Viewer | None) -> ReplyPart:
        _, chunks = self.transport.opened(request)
        with contextlib.closing(chunks):
            reply = _reply(b"".join(chunks)) if viewer is None else _streamed(chunks, viewer)
        if not reply.get("choices"):
            raise dspy_errors.LMServerError("The endpoint's reply holds no choices.", model=str(self.record["model"]))
        return reply

    def body(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request's body; options that are None stay out."""
        sent = {name: value for name, value in options.items() if value is not None and name not in _NOT_SENT}
        form = sent.get("response_format")
        if isinstance(form, type):  # a pydantic model, which DSPy leaves to LiteLLM to word
            schema = {"name": form.__name__, "schema": form.model_json_schema(), "strict": True}  # type: ignore[attr-defined]
            sent["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {"model": str(self.record["model"]).partition("/")[2], "messages": messages, **sent}

    @property
    def _url(self) -> str:
        base, mark, query = str(self.record.get("api_base") or _DEFAULT_BASE).partition("?")
        return f"{base.rstrip('/')}/chat/completions{mark}{query}"


@dataclass(frozen=True, slots=True)
class _Request:
    """What `ParentTransport` reads of a request, as lm15 has it."""

    url: str
    text: str
    method: str = "POST"
    read_timeout: float | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("content-type", "application/json"), ("authorization", f"Bearer {PLACEHOLDER_KEY}")]

    @property
    def body(self) -> bytes:
        return self.text.encode("utf-8", "surrogatepass")


def usage_paid(replies: list[ReplyPart]) -> ReplyPart:
    """Return the sum of what several replies used; what came from the parent's cache was paid before."""
    asked = current_lm_call()
    cached = asked.were_cached[-len(replies) :] if asked is not None else []
    total = ReplyPart()
    for at, reply in enumerate(replies):
        used = reply.get("usage")
        if isinstance(used, Mapping) and not (at < len(cached) and cached[at]):
            counts = {name: value for name, value in used.items() if isinstance(value, int | float)}
            total.update({name: total.get(name, 0) + value for name, value in counts.items()})
    return total


def _reply(raw: bytes) -> ReplyPart:
    try:
        reply: Any = json.loads(raw, object_hook=ReplyPart)
    except ValueError:
        reply = None
    if not isinstance(reply, ReplyPart):
        raise dspy_errors.LMServerError("The endpoint's reply is no JSON object.")
    return reply


def _streamed(chunks: Iterator[bytes], viewer: Viewer) -> ReplyPart:
    """Return the reply that the events make up; the viewer sees its text as it comes."""
    text, last, reply = [], ReplyPart(), ReplyPart()
    calls: dict[int, ReplyPart] = {}
    reasoning: list[str] = []
    for event in _events(chunks):
        reply |= {name: value for name, value in event.items() if name != "choices" and value is not None}
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            last |= {"finish_reason": choice.get("finish_reason") or last.get("finish_reason")}
            reasoning.append(delta.get("reasoning_content") or "")
            for call in delta.get("tool_calls") or ():
                _add_call(calls, call)
            if piece := delta.get("content"):
                text.append(piece)
                if viewer.show(piece) and (asked := current_lm_call()) is not None:
                    asked.turn.was_shown = True
    viewer.finish()
    message = ReplyPart(role="assistant", content="".join(text) if text or not calls else None)
    if any(reasoning):
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return ReplyPart({**reply, "choices": [ReplyPart(index=0, message=message, **last)]})


def _events(chunks: Iterator[bytes]) -> Iterator[ReplyPart]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield _reply(data)


def _add_call(calls: dict[int, ReplyPart], part: Mapping[str, Any]) -> None:
    call = calls.setdefault(int(part.get("index") or 0), ReplyPart(type="function", function=ReplyPart(arguments="")))
    call |= {name: part[name] for name in ("id", "type") if part.get(name)}
    function = part.get("function") or {}
    call["function"]["name"] = function.get("name") or call["function"].get("name")
    call["function"]["arguments"] += function.get("arguments") or ""
