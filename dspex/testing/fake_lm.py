"""`FakeLM`: a scripted language model for tests, over real HTTP on the loopback interface.

It is a real endpoint, so it works on both routes: the parent's native calls and the workers' reach the same server.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Protocol, Unpack

from ..lm.lm_client import close_idle_connections
from ..lm.record import LM, FurtherOptions
from .fake_server import FakeServer
from .replies.embedding_replies import EmbeddingScript
from .script import FakeRequest, Player, Script, player
from .scripted_fields import FieldScript, SignatureScript, asked_for, by_field, by_signature, in_turn


class FakeLM(LM):
    """An `LM` whose answers are scripted; it can be made, used and closed inside a running event loop too.

    Args:
        answers: A str (always that), a list (one after the other), a dict from substrings or compiled regexes to
            answers (looked for in the last message, then in all of them), or a function of the messages. An answer is a
            str, a dict of output fields (worded as the request's adapter wants it), a `FakeReply`, or a function of the
            messages that returns one of these.
        by_field: Answers by output field, for programs of any number of predictors: a value (always that), a list of
            values (one after the other), or a function of the `FakeRequest`. A value that is itself a list stands in a
            list: `{"tags": [["a", "b"]]}`.
        by_signature: Answers by predictor, which a request shows by its fields: `"question -> query"`, or `"-> query"`
            for any inputs, or a Signature. An answer as above (but a str is the value of its only output field), a list
            of them, or a function of the `FakeRequest`.
        embeddings: The vector of a text, for `dspex.embed` and indexes: a function of the text, which may return a
            `FakeReply` instead. Default: a vector of 64 numbers (or as many as are asked for) counts the text's words,
            so texts with words in common are near each other. Embeddings take no answer from the script.
        cycle: Begin a list again at its end, instead of refusing (an `LMInvalidRequestError` that says so).
        latency: Seconds before every reply.
        model: The name to go by; an `anthropic/...` name makes it speak that dialect, as does
            `model_type="responses"` OpenAI's Responses API.
        api_key: The key that it asks for; default: one of its own.
        temperature: As for `LM`.
        max_tokens: As for `LM`.
        cache: As for `LM`, but off unless asked for.
        further: As for `LM`.

    `by_signature` is asked first, then `by_field`, then `answers`. The server ends with `close()`, with the `with` or
    `async with` block, or when the object is collected; this process's kept connections to it are closed with it.
    """

    __slots__ = ("__weakref__", "_finalizer", "_server")

    _server: FakeServer
    _finalizer: weakref.finalize[Any, Any]

    def __init__(
        self,
        answers: Script | None = None,
        *,
        by_field: FieldScript | None = None,
        by_signature: SignatureScript | None = None,
        embeddings: EmbeddingScript | None = None,
        cycle: bool = False,
        latency: float = 0.0,
        model: str = "openai/fake",
        api_key: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = False,
        **further: Unpack[FurtherOptions],
    ) -> None:
        play = _played(answers, by_field, by_signature, cycle)
        server = FakeServer(play, latency=latency, key=api_key, embeddings=embeddings)
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "_finalizer", weakref.finalize(self, _end, server))
        try:
            super().__init__(
                model,
                api_base=f"http://127.0.0.1:{server.port}/v1",
                api_key=server.key,
                temperature=temperature,
                max_tokens=max_tokens,
                cache=cache,
                **further,
            )
        except BaseException:  # also Ctrl-C, or a test's timeout: its thread would go on
            server.close()
            raise

    @property
    def requests(self) -> list[FakeRequest]:
        """The requests that arrived, in order."""
        return self._server.requests

    def requests_for(self, what: Any) -> list[FakeRequest]:
        """Return the requests for an output field (`"query"`), or of a predictor's signature (`"question -> query"`).

        Raises:
            ValueError: it is neither.
        """
        is_meant = asked_for(what)
        return [request for request in self.requests if is_meant(request)]

    @property
    def hung_up(self) -> int:
        """How many clients went away before their reply was whole."""
        return self._server.hung_up

    @property
    def lm(self) -> LM:
        """A plain `LM` for this server."""
        return self.replace()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until the condition holds; it is looked at again after every arrival and hang-up.

        Raises:
            TimeoutError: it did not hold in time.
        """
        self._server.wait_for(condition, timeout)

    async def await_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """`wait_for` in a coroutine: its event loop goes on meanwhile.

        Raises:
            TimeoutError: it did not hold in time.
        """
        await self._server.await_for(condition, timeout)

    def close(self) -> None:
        """Stop the server; waits for its thread."""
        self._finalizer()

    async def aclose(self) -> None:
        """`close` in a coroutine: its event loop goes on meanwhile."""
        await self._server.aclose()
        self._finalizer()
        await asyncio.sleep(0)  # closed transports give their sockets back on the loop's next turn

    def __enter__(self) -> FakeLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> FakeLM:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class FakeLMMaker(Protocol):
    """What the fixture `fake_lm` gives: it makes `FakeLM`s, which are closed after the test."""

    def __call__(
        self,
        answers: Script | None = None,
        *,
        by_field: FieldScript | None = None,
        by_signature: SignatureScript | None = None,
        embeddings: EmbeddingScript | None = None,
        cycle: bool = False,
        latency: float = 0.0,
        model: str = "openai/fake",
        api_key: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = False,
        **further: Unpack[FurtherOptions],
    ) -> FakeLM:
        """Make one; the arguments are those of `FakeLM`."""
        ...


def _played(
    answers: Script | None, fields: FieldScript | None, signatures: SignatureScript | None, cycle: bool
) -> Player:
    players: list[Player] = []
    if signatures is not None:
        players.append(by_signature(signatures, cycle=cycle))
    if fields is not None:
        players.append(by_field(fields, cycle=cycle))
    if answers is not None or not players:
        players.append(player("" if answers is None else answers, cycle=cycle))
    return in_turn(players)


def _end(server: FakeServer) -> None:
    server.close()
    close_idle_connections("127.0.0.1", server.port)
