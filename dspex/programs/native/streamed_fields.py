"""`StreamedFields`: split one streamed answer into chunks, and keep the whole answer."""

from __future__ import annotations

from collections.abc import Iterator

from dspex_worker.types.xml_fields import XMLFields

from ...adapters.compiled_signature import CompiledSignature
from ...adapters.reply_reader import LOOP_CHARS_MOST, ReadableCompletion
from ...adapters.streaming import ChatFields, JsonFields
from ...errors import LMStreamAssemblyError
from ...types.chunk import Chunk


class StreamedFields:
    """Splits an LM's stream into chunks of the output fields; `was_shown` once there was one."""

    def __init__(self, compiled: CompiledSignature, predictor: str) -> None:
        self._predictor = predictor
        self._pieces = _splitter(compiled)
        self._completion: ReadableCompletion | None = None
        self.was_shown = False

    def chunks(self, item: str | ReadableCompletion) -> Iterator[Chunk]:
        """Yield the chunks of a delta; the completion, which comes last, has none."""
        if not isinstance(item, str):
            self._completion = item
            return
        for name, text in self._pieces.feed(item):
            self.was_shown = True
            yield Chunk(name, text, self._predictor)

    def last(self) -> Iterator[Chunk]:
        """Yield what was held back."""
        for name, text in self._pieces.finish():
            self.was_shown = True
            yield Chunk(name, text, self._predictor)

    def completion(self) -> ReadableCompletion:
        """Return the whole answer.

        Raises:
            LMStreamAssemblyError: the stream ended without one.
        """
        if self._completion is None:
            raise LMStreamAssemblyError("The model's stream ended without its completion.")
        return self._completion


def parts_of(item: str | ReadableCompletion) -> Iterator[str | ReadableCompletion]:
    """Cut a delta into pieces that take an event loop a few milliseconds each."""
    if not isinstance(item, str) or len(item) <= LOOP_CHARS_MOST:
        yield item
        return
    for at in range(0, len(item), LOOP_CHARS_MOST):
        yield item[at : at + LOOP_CHARS_MOST]


def _splitter(compiled: CompiledSignature) -> ChatFields | JsonFields | XMLFields:
    wanted = compiled.signature.output_fields
    if compiled.is_object:
        return JsonFields(wanted)
    if compiled.adapter == "xml":
        return XMLFields(wanted, [name for name, field in wanted.items() if field.annotation is str])
    # The first of two steps is answered in plain words, which are no field's.
    return ChatFields(() if compiled.adapter == "two_step" else wanted)
