"""Security: a client that writes its own frames: it answers callbacks oddly, and asks for what is not its to ask."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.control import Client, error_messages, protocol
from dspex.control.client_pool import ANSWERS
from dspex.control.dial import dial, request_frame
from dspex.control.protocol import Kind, Message, Role
from dspex_worker.wire import FrameBuffer
from tests.support.client_service import KEY, ServiceOfPrograms, served

SIGNATURE = "question -> answer"


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceOfPrograms]:
    with served(size=1, concurrency=2, pools=("dspy",)) as running:
        yield running


class RawClient:
    """A connection whose frames a test writes itself."""

    def __init__(self, service: ServiceOfPrograms) -> None:
        hello = dial(service.socket, role=Role.CLIENT)
        self.sock: socket.socket = hello.sock
        self._frames: FrameBuffer = hello.frames
        self._messages: list[Message] = []
        self.sock.settimeout(60)

    def send(self, kind: Kind, *fields: Any) -> None:
        self.sock.sendall(request_frame(kind, *fields))

    def next(self) -> Message:
        """Return the next message; an empty one at the end."""
        while not self._messages:
            data = self.sock.recv(65536)
            if not data:
                return []
            self._messages += map(protocol.read, self._frames.feed(data))
        return self._messages.pop(0)

    def error(self, verb: str, fields: dict[str, Any], meta: dict[str, Any] | None = None) -> BaseException:
        """Make a request that is refused; return the error."""
        self.send(Kind.CALL, 1, verb, fields, meta or {})
        message = self.next()
        assert message[0] == Kind.ERROR, message
        return error_messages.rebuild(message[2])

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def agents_call(service: ServiceOfPrograms) -> dict[str, Any]:
    """Return the fields of an agent's call, as a client writes them."""
    with Client(service.socket) as client:
        agent = dspex.react(SIGNATURE, tools=[lookup], supervisor=client)
        made: list[dict[str, Any]] = []
        client.make = lambda fields, cancel=None: made.append(fields) or _stop()  # type: ignore[method-assign,func-returns-value]
        with pytest.raises(InterruptedError):
            agent(question="<odd>")
        return {**made[0], "timeout": 60.0, "callbacks": ANSWERS}


def lookup(key: str) -> str:
    """Look a key up."""
    return key


def _stop() -> Any:
    raise InterruptedError


ODD: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "a pickle": lambda id: (Kind.RESULT, id, {"carried": b"cos\nsystem\n(S'touch /tmp/x'\ntR."}, None),
    "another shape": lambda id: (Kind.RESULT, id, ["value"], None),
    "nothing": lambda id: (Kind.RESULT, id, None, None),
    "an end of a stream that it is not": lambda id: (Kind.END, id, {"value": 1, "more": 2}, None),
    "an error without a shape": lambda id: (Kind.ERROR, id, {"kind": ["LMError"], "message": 5, "facts": 3}, None),
    "an error of ours with odd facts": lambda id: (
        Kind.ERROR, id, {"kind": "BudgetExceeded", "message": "m", "facts": {"args": 5, "raised": 7}}, None,
    ),
    "a huge text": lambda id: (Kind.ERROR, id, {"type": "E" * 100_000, "message": "m" * 5_000_000}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_answers_cost_the_call_that_they_are_for(case: str, service: ServiceOfPrograms) -> None:
    """security: the agent sees an error at most; the worker and the service serve others, and this client again."""
    fields = agents_call(service)
    with RawClient(service) as raw:
        raw.send(Kind.CALL, 1, "call", fields, {})
        asked = raw.next()
        assert asked[0] == Kind.CALL and asked[2] == "tool.call" and asked[4]["for"] == 1
        raw.send(*ODD[case](asked[1]))
        while (message := raw.next())[0] == Kind.CALL:
            raw.send(Kind.RESULT, message[1], {"value": "v"}, None)
        assert message[:2] == [Kind.RESULT, 1] or message[0] == Kind.ERROR
        raw.send(Kind.CALL, 2, "call", {"pool": "dspy", "command": "ping", "arguments": {}}, {})
        assert raw.next()[:2] == [Kind.RESULT, 2]
    with Client(service.socket) as other:
        rows = other.stats()["dspy"]["workers"]
        assert [row["generation"] for row in rows] == [1] and dspex.predict(
            SIGNATURE, {"question": "<fine>"}, supervisor=other, implementation="python"
        ).answer == "fine"


def test_answers_that_nobody_asked_for_are_dropped(service: ServiceOfPrograms) -> None:
    """security: also to the callbacks of another client, whose numbers are its own."""
    with RawClient(service) as raw:
        for id in (0, 1, 2, 10**9):
            raw.send(Kind.RESULT, id, {"value": 1}, None)
            raw.send(Kind.CHUNK, id, b"x")
        assert "callback" in str(raw.error("call", {**agents_call(service), "within": 1}))
    with RawClient(service) as raw:
        assert isinstance(raw.error("call", {**agents_call(service), "within": "1"}), dspex.InvalidInput)


REFUSED: dict[str, tuple[str, dict[str, Any], type[Exception]]] = {
    "code by value": ("call", {"callbacks": ["code.get"]}, dspex.UnknownName),
    "a path of the host": ("call", {"callbacks": ["code.path"]}, dspex.UnknownName),
    "every callback": ("call", {"callbacks": "tool.call"}, dspex.InvalidInput),
    "a thousand models": ("call", {"own_lms": ["x"] * 1001}, dspex.InvalidInput),
    "an endpoint": ("lm.complete", {"options": {"config": {"api_base": "http://127.0.0.1:9"}}}, dspex.InvalidInput),
    "a header": ("lm.complete", {"options": {"config": {"extra_headers": {"x": "y"}}}}, dspex.InvalidInput),
    "another route": ("lm.complete", {"options": {"config": {"extra_body": {"models": ["x"]}}}}, dspex.InvalidInput),
    "another model": ("lm.complete", {"lm": "service:other/x/"}, dspex.LMConfigurationError),
    "a model's address": ("lm.complete", {"lm": 'service:default/x/{"api_base":"x"}'}, dspex.LMConfigurationError),
    "no model": ("lm.complete", {"lm": 5}, dspex.InvalidInput),
    "no messages": ("lm.complete", {"messages": []}, dspex.InvalidInput),
    "odd messages": ("lm.complete", {"messages": ["x"]}, dspex.InvalidInput),
    "a state without a session": ("session.open", {"state": {"k": b"\x01"}}, dspex.InvalidInput),
    "a state that is none": ("session.open", {"durable": True, "state": {"k": b"\xc1"}}, dspex.InvalidInput),
    "a state that is too large": ("session.open", {"durable": True, "state": {"k": b"x" * 2**21}}, dspex.InvalidInput),
}
GOOD: dict[str, dict[str, Any]] = {
    "call": {"pool": "dspy", "command": "ping", "arguments": {}},
    "lm.complete": {"lm": "service:default/x/", "messages": [{"role": "user", "content": "q"}], "options": {}},
    "session.open": {"pool": "dspy", "id": "s"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_clients_to_ask_is_refused(case: str, service: ServiceOfPrograms) -> None:
    """security: by name, before anything is asked of a language model; no key is in what is said."""
    verb, fields, expected = REFUSED[case]
    asked = len(service.lm.requests)
    with RawClient(service) as raw:
        error = raw.error(verb, {**GOOD[verb], **fields})
    assert isinstance(error, expected) and KEY not in str(error)
    assert len(service.lm.requests) == asked


def test_a_name_that_cannot_be_gets_no_place(service: ServiceOfPrograms) -> None:
    """security: the client is told why."""
    for name in ("a/b", "x" * 500):
        with pytest.raises(dspex.InvalidInput, match="name"):
            Client(service.socket, client=name)
    with pytest.raises(dspex.InvalidInput, match="budget_usd"):
        Client(service.socket, budget_usd=-1)
