"""The base of the dialects' stream readers: server-sent events, and every way in which one reports failure."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ...errors import LMEmptyStreamError, LMError, LMStreamAssemblyError, LMTransportError
from .answer import Answer, arguments_of, refused, tool_call
from .error_envelopes import Fault, complaint_in, fault_in, text_fault
from .event_splitter import EventSplitter
from .json_body import json_in

if TYPE_CHECKING:
    from ..record import LM

EVENT_LIMIT = 1024 * 1024
EVENT_CHECKED = 128 * 1024  # bytes; a longer event is looked at before it is read
EVENT_CONTAINERS = 100_000  # objects and lists in it: 20 to 40 ms
_FIELDS = frozenset((b"", b"data", b"event", b"id", b"retry"))  # of an event; b"" is a comment
_FAILED = (b"error", b"exception", b"fail")  # in the name of an event that reports one


class StreamReader(ABC):
    """Reads server-sent events: feed it bytes, get text deltas, then `finish()` for the whole answer.

    An error inside the stream, in whatever form, is raised; of a stream that is none (a JSON body, a page) the first
    event says so.
    """

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.logprobs: list[Any] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.usage: dict[str, Any] = {}
        self.model = lm.name
        self.finish_reason: str | None = None
        self.ended = False
        self._events = EventSplitter()

    @property
    def has_begun(self) -> bool:
        """Whether something of an answer was read, so that it cannot be asked for again unnoticed."""
        return bool(self.text or self.reasoning or self.refusal or self.calls or self.finish_reason)

    def feed(self, data: bytes) -> list[str]:
        """Return the text that arrived, in order.

        Raises:
            LMError: the provider reported an error inside the stream.
        """
        events = self._events.feed(data)
        if self._events.pending > EVENT_LIMIT:
            raise LMTransportError("A streamed event is over 1 MiB.", model=self.lm.model)
        before = len(self.text)
        for event in events:
            self._event(event)
        return self.text[before:]

    def finish(self) -> Answer:
        """Return the whole answer.

        Raises:
            LMEmptyStreamError: the stream held no answer at all.
            LMRefusedError: it holds a refusal instead.
            LMStreamAssemblyError: the stream ended before the provider said so.
        """
        pending = self._events.rest()
        if pending.strip():
            self._last(pending)
        if not self.has_begun:
            raise self._empty("The stream ended without an answer.")
        if not self.ended:
            raise self._cut()
        calls = [self._call(index, self.calls[index]) for index in sorted(self.calls)]
        text = "".join(self.text)
        if not (text or calls) and (self.refusal or self.finish_reason == "content_filter"):
            raise refused(self.lm, "".join(self.refusal))
        return Answer(
            text=text if self.text or not calls else None,
            model=self.model,
            finish_reason="tool_call" if calls else self.finish_reason or "stop",
            usage=self.usage,
            tool_calls=calls,
            reasoning="".join(self.reasoning) or None,
            logprobs=self.logprobs or None,
        )

    @abstractmethod
    def _data(self, payload: dict[str, Any]) -> None:
        """Take one event's JSON object."""

    def _event(self, event: bytes) -> None:
        lines = event.split(b"\n")
        data = b"\n".join([line[5:].lstrip() for line in lines if line.startswith(b"data:")])
        is_error = any(map(_reports_failure, lines))
        if data == b"[DONE]":
            self.ended = True
        elif data:
            self._take(data, is_error)
        elif is_error:
            said = b"\n".join([line[6:].lstrip() for line in lines if line.startswith(b"error:")])
            self._take(said or b'"The provider reported an error inside the stream."', is_error)
        elif any(map(_is_no_field, lines)):
            raise self._no_stream(event)

    def _take(self, data: bytes, is_error: bool) -> None:
        if len(data) > EVENT_CHECKED and data.count(b"{") + data.count(b"[") > EVENT_CONTAINERS:
            raise text_fault(f"A streamed event holds over {EVENT_CONTAINERS:,} objects and lists.").error(self.lm)
        try:
            payload = json.loads(data)
        except ValueError:
            text = data.decode("utf-8", "replace") if is_error else "The stream holds an event that is not JSON."
            raise text_fault(text).error(self.lm) from None
        fault = fault_in(payload)
        if fault is None and is_error:
            fault = complaint_in(payload) or text_fault(data.decode("utf-8", "replace"))
        if fault is not None:
            raise self._failed(fault)
        if isinstance(payload, dict):
            self._data(payload)
        elif payload is not None:
            raise text_fault("The stream holds an event that is no JSON object.").error(self.lm)

    def _last(self, pending: bytes) -> None:
        """Return what follows the last whole event: an event without its blank line, or half of one."""
        try:
            self._event(pending)
        except LMError:
            if not self.has_begun or fault_in(json_in(pending.partition(b"data:")[2])) is not None:
                raise
            raise self._cut() from None

    def _no_stream(self, body: bytes) -> LMError:
        """Return the error for a body that is no stream."""
        payload = json_in(body)
        if fault := fault_in(payload) or complaint_in(payload):
            return self._failed(fault)
        said = "The reply is whole JSON, though a stream was asked for."
        if not isinstance(payload, dict | list):
            said = "The reply is no stream; a gateway or proxy in front of the provider is the usual cause."
        return self._failed(text_fault(said)) if self.has_begun else self._empty(said)

    def _failed(self, fault: Fault) -> LMError:
        """Return the error that a fault inside the stream is."""
        return fault.error(self.lm)

    def _cut(self) -> LMError:
        return self._assembly(LMStreamAssemblyError, "The stream ended before the answer was whole.")

    def _empty(self, message: str) -> LMError:
        return self._assembly(LMEmptyStreamError, message)

    def _assembly(self, kind: type[LMStreamAssemblyError], message: str) -> LMError:
        return kind(message, code="stream_assembly", model=self.lm.model, provider=self.lm.provider.id)

    def _finished(self, reason: str) -> None:
        self.finish_reason = reason
        self.ended = True

    def _fragment(self, index: Any, id: Any, name: Any, arguments: Any) -> None:
        if not all(part is None or isinstance(part, str) for part in (id, name, arguments)):
            raise text_fault("The stream holds a tool call whose id, name or arguments are no text.").error(self.lm)
        call = self.calls.setdefault(int(index or 0), {"id": "", "name": "", "arguments": []})
        call["id"] = call["id"] or id or ""
        call["name"] = call["name"] or name or ""
        call["arguments"].append(arguments or "")  # pieces: adding to a text would copy it each time

    def _call(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        if not call["name"]:
            raise self._assembly(LMStreamAssemblyError, "The model streamed a tool call without a name.")
        id = call["id"] or f"tool_call_{index}"  # as DSPy names it
        arguments = arguments_of("".join(call["arguments"]), constants=False)
        return tool_call(self.lm, id, call["name"], arguments)


def _reports_failure(line: bytes) -> bool:
    """Whether a line is the name of an event that reports an error, or a field "error" (llama.cpp)."""
    if line.startswith(b"event:"):
        name = line.lower()
        return any(word in name for word in _FAILED)
    return line.startswith(b"error:")


def _is_no_field(line: bytes) -> bool:
    """Whether a line is none of an event's, but of a page or a message."""
    return bool(line.strip()) and line.partition(b":")[0] not in _FIELDS
