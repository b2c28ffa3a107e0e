"""`LMPort`: the way to another process that has a language model, and asks it for this one.

It has the verbs of `LMClient`, each with the meter that counts here what the other process says that an answer took.
It names no types of requests and answers: records know their port, and those know records.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Protocol


class LMPort(Protocol):
    """The way to the process that has a language model."""

    def complete(self, usage: Any, lm: Any, messages: Any, options: Any) -> Any:
        """Return a Completion."""
        ...

    async def acomplete(self, usage: Any, lm: Any, messages: Any, options: Any) -> Any:
        """`complete`, awaited."""
        ...

    def stream(self, usage: Any, lm: Any, messages: Any, options: Any) -> Generator[Any, None, None]:
        """Yield the answer's text, then the Completion."""
        ...

    def astream(self, usage: Any, lm: Any, messages: Any, options: Any) -> AsyncGenerator[Any, None]:
        """`stream`, asynchronously."""
        ...

    def embed(self, usage: Any, lm: Any, asked: Any) -> Sequence[Any]:
        """Return vectors."""
        ...

    async def aembed(self, usage: Any, lm: Any, asked: Any) -> Sequence[Any]:
        """`embed`, awaited."""
        ...
