"""Ask a service's language models from a client's native programs: `LMPort` over the control socket.

What is asked goes to the service, which has the key, the cache, the limits and the budgets; the answer comes back as a
`Completion`. Its usage counts here too, for the accounts that are open in this process.
"""

from __future__ import annotations

import array
import math
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import LMConfigurationError, ProtocolError
from ..lm.call_options import CallOptions
from ..lm.completion import Completion
from ..lm.named_lms import NamedLMs
from ..lm.served_lm import DEFAULT, ServedLM
from ..pools.streams import AsyncStream, Stream
from .protocol import Verb
from .request_fields import Fields

if TYPE_CHECKING:
    from ..lm.dialects.dialect import Message
    from ..lm.dialects.embeddings import Vector
    from ..lm.embedding_plan import EmbeddingPlan
    from ..lm.record import LM
    from ..lm.usage import UsageMeter

PATIENCE = 120.0  # seconds of an answer without a deadline, before the service is asked whether it lives
_COMPLETION = frozenset(Completion.__dataclass_fields__)


class LMRequester(Protocol):
    """The requests that the port makes through its client."""

    def ask_lm(self, verb: str, fields: Fields, *, wait: float) -> Any: ...
    async def aask_lm(self, verb: str, fields: Fields, *, wait: float) -> Any: ...
    def stream_lm(self, fields: Fields, *, wait: float) -> Stream: ...
    async def astream_lm(self, fields: Fields, *, wait: float) -> AsyncStream: ...


class ServicePort:
    """The way to one service's language models."""

    def __init__(self, client: LMRequester) -> None:
        self._client = client

    def complete(self, usage: UsageMeter, lm: LM, messages: Sequence[Message], options: CallOptions) -> Completion:
        """See `LMClient.complete`."""
        usage.check()
        fields, wait = _asked(lm, messages, options)
        return _counted(usage, lm, self._client.ask_lm(Verb.COMPLETE, fields, wait=wait))

    async def acomplete(
        self, usage: UsageMeter, lm: LM, messages: Sequence[Message], options: CallOptions
    ) -> Completion:
        """See `LMClient.acomplete`."""
        usage.check()
        fields, wait = _asked(lm, messages, options)
        return _counted(usage, lm, await self._client.aask_lm(Verb.COMPLETE, fields, wait=wait))

    def stream(
        self, usage: UsageMeter, lm: LM, messages: Sequence[Message], options: CallOptions
    ) -> Generator[str | Completion, None, None]:
        """See `LMClient.stream`."""
        usage.check()
        fields, wait = _asked(lm, messages, options)
        with self._client.stream_lm(fields, wait=wait) as texts:
            for text in texts:
                yield _text(text)
            yield _counted(usage, lm, texts.value)

    async def astream(
        self, usage: UsageMeter, lm: LM, messages: Sequence[Message], options: CallOptions
    ) -> AsyncGenerator[str | Completion, None]:
        """See `LMClient.astream`."""
        usage.check()
        fields, wait = _asked(lm, messages, options)
        async with await self._client.astream_lm(fields, wait=wait) as texts:
            async for text in texts:
                yield _text(text)
            yield _counted(usage, lm, texts.value)

    def embed(self, usage: UsageMeter, lm: LM, asked: EmbeddingPlan) -> Sequence[Vector]:
        """See `LMClient.embed`."""
        usage.check()
        fields, wait = _embedding(lm, asked)
        return _vectors(self._client.ask_lm(Verb.EMBED, fields, wait=wait))

    async def aembed(self, usage: UsageMeter, lm: LM, asked: EmbeddingPlan) -> Sequence[Vector]:
        """See `LMClient.aembed`."""
        usage.check()
        fields, wait = _embedding(lm, asked)
        return _vectors(await self._client.aask_lm(Verb.EMBED, fields, wait=wait))


def served_lms(port: ServicePort, told: Any) -> NamedLMs:
    """Return the language models that a service told of; one that cannot be made here is left out."""
    made: dict[str, LM] = {}
    for name, facts in told.items() if isinstance(told, Mapping) else ():
        try:
            made[str(name)] = ServedLM(port, str(name), facts)
        except Exception:  # of another version's options, say: programs that name it say that there is none
            continue
    default = made.pop(DEFAULT, None)
    return NamedLMs(default, made if default is None else {**made, DEFAULT: default})


def _asked(lm: LM, messages: Sequence[Message], options: CallOptions) -> tuple[Fields, float]:
    deadline = options.get("deadline")
    left = PATIENCE if deadline is None else max(0.0, deadline - time.monotonic())
    given = {name: options.get(name) for name in ("config", "response_format", "tools", "rollout_id")}
    fields: Fields = {
        "lm": lm.ref,
        "messages": [dict(message) for message in messages],
        "options": {name: _plain(value) for name, value in given.items() if value is not None},
    }
    if deadline is not None and math.isfinite(left):
        fields["timeout"] = left
    return fields, left


def _embedding(lm: LM, asked: EmbeddingPlan) -> tuple[Fields, float]:
    left = PATIENCE if asked.deadline is None else max(0.0, asked.deadline - time.monotonic())
    fields: Fields = {
        "lm": lm.ref,
        "texts": list(asked.texts),
        "dimensions": asked.dimensions,
        "encoding_format": asked.encoding_format,
        "cache": asked.cache,
        "members": _plain(asked.members),
    }
    return fields if asked.deadline is None else {**fields, "timeout": left}, left


def _plain(value: Any) -> Any:
    """Return options as they are sent: a schema's class has been made one by the adapter."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return value
    raise LMConfigurationError(f"An option of a {type(value).__name__} cannot be sent to the service's language model.")


def _counted(usage: UsageMeter, lm: LM, told: Any) -> Completion:
    if not isinstance(told, dict) or told.keys() != _COMPLETION or not isinstance(told.get("texts"), list):
        raise ProtocolError("The service answered for its language model with something that is no completion.")
    made = Completion(**told)
    if made.cached:
        usage.add_cached()
    else:
        usage.add(lm, made.usage)
    return made


def _text(chunk: Any) -> str:
    if not isinstance(chunk, str):
        raise ProtocolError("The service streamed something that is no text.")
    return chunk


def _vectors(told: Any) -> list[Vector]:
    if not isinstance(told, list) or not all(isinstance(each, bytes) and len(each) % 4 == 0 for each in told):
        raise ProtocolError("The service answered with something that is no vectors.")
    return [array.array("f", each) for each in told]
