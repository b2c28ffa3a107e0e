"""The steps of a native exchange: what a language model is asked, and what came of it.

`NativePredictor` writes an exchange once, as a generator that yields questions and takes answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ...adapters.compiled_signature import Message
from ...adapters.function_calling import is_native_by_default
from ...adapters.parsing import PASSED_BY
from ...adapters.reply_reader import Outputs, ReadableCompletion, ReplyReader
from ...errors import AdapterParseError
from ...types.logprobs import Logprobs, logprobs_of

if TYPE_CHECKING:
    from ...adapters.adapter_record import AdapterRecord

ASKED_AGAIN = ("chat", "xml")  # adapters after which DSPy asks once more, in json


class LanguageModel(Protocol):
    """The attributes of an LM record that the exchange reads."""

    @property
    def model(self) -> str: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def n(self) -> int: ...
    @property
    def structured_outputs(self) -> bool | None: ...
    @property
    def supports_schema(self) -> bool: ...
    @property
    def supports_tools(self) -> bool: ...


# Not frozen, for they are made for every call: a frozen one takes three times as long to make.


@dataclass(slots=True)
class NativeCall:
    """The checked inputs of one call. The second request takes the settings as the first left them, as in DSPy."""

    inputs: Mapping[str, Any]
    settings: dict[str, Any]
    started: float
    deadline: float | None


@dataclass(slots=True)
class NativeQuestion:
    """One request, and who reads its answer."""

    lm: LanguageModel
    reader: ReplyReader
    messages: list[Message]
    options: dict[str, Any]


@dataclass(slots=True)
class NativeAnswer:
    """What came of a question."""

    completion: ReadableCompletion
    outputs: Outputs | AdapterParseError
    was_shown: bool = False


def may_be_asked_again(answer: NativeAnswer) -> bool:
    """Return whether DSPy would ask again: nothing was shown, and it is an error that its adapter says itself.

    What Python says of absurd answers (a TypeError, a RecursionError) passes DSPy's adapters by.
    """
    return not answer.was_shown and not isinstance(getattr(answer.outputs, "__cause__", None), PASSED_BY)


def native_calls(adapter: str | AdapterRecord, given: bool | None) -> bool:
    """Return whether the model gives tool calls by its own interface: as given, else as the adapter has it."""
    own = None if isinstance(adapter, str) else adapter.use_native_function_calling
    given = own if given is None else given
    return is_native_by_default(adapter if isinstance(adapter, str) else adapter.name) if given is None else given


def finish_reason(completion: ReadableCompletion) -> str:
    """Return why the first answer ended; "" where whoever completes it does not say."""
    reasons: Sequence[str] = getattr(completion, "finish_reasons", ())
    return reasons[0] if reasons else ""


def logprobs_in(completion: ReadableCompletion, count: int) -> list[Logprobs]:
    """Return the log probabilities of each answer; without tokens where the provider gave none, as in DSPy."""
    given: Sequence[Any] = getattr(completion, "logprobs", ())
    return [logprobs_of(given[at] if at < len(given) else None) for at in range(count)]


def default_adapter(lm: LanguageModel) -> str:
    """Return the adapter when none is named: json for a model that is held to a schema, else chat."""
    return "json" if lm.structured_outputs else "chat"
