"""`FakeLM`: a scripted language model for tests, over real HTTP on the loopback interface.

It is a real endpoint, so it works on both routes: the parent's native calls and the workers' reach the same server.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ..lm.record import LM
from .fake_server import FakeServer
from .script import FakeRequest, Script, player


class FakeLM(LM):
    """An `LM` whose answers are scripted.

    Args:
        answers: A str (always that), a list (one after the other), a dict from substrings or compiled regexes to
            answers (looked for in the last message, then in all of them), or a function of the messages. An answer is a
            str, a dict of output fields (worded as the request's adapter wants it), or a `FakeReply`.
        cycle: Begin a list again at its end, instead of refusing (an `LMInvalidRequestError` that says so).
        latency: Seconds before every reply.
        model: The name to go by; an `anthropic/...` name makes it speak that dialect.
        options: As for `LM`; `cache` is off unless asked for.

    The server ends with `close()`, with the `with` block, or when the object is collected.
    """

    __slots__ = ("__weakref__", "_finalizer", "_server")

    _server: FakeServer
    _finalizer: weakref.finalize[Any, Any]

    def __init__(
        self,
        answers: Script = "",
        *,
        cycle: bool = False,
        latency: float = 0.0,
        model: str = "openai/fake",
        **options: Any,
    ) -> None:
        server = FakeServer(player(answers, cycle=cycle), latency=latency)
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "_finalizer", weakref.finalize(self, server.close))
        options = {"cache": False, **options, "api_base": f"http://127.0.0.1:{server.port}/v1", "api_key": server.key}
        try:
            super().__init__(model, **options)
        except BaseException:  # also Ctrl-C, or a test's timeout: its thread would go on
            server.close()
            raise

    @property
    def requests(self) -> list[FakeRequest]:
        """The requests that arrived, in order."""
        return self._server.requests

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

    def close(self) -> None:
        """Stop the server; waits for its thread."""
        self._finalizer()

    def __enter__(self) -> FakeLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
