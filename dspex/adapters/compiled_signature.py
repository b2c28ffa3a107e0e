"""Compile a signature for one adapter: its system message once, then messages and answers in microseconds.

A `CompiledSignature` is immutable; what it computes late (validators, schemas) any thread may compute twice. It
does not know language models: which adapter to take, and what to do when an answer cannot be read, is
the native route's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ..errors import AdapterParseError, SignatureError, UnknownName, UsageError
from ..signatures.field import Field
from ..signatures.signature import Signature, SignatureLike, signature
from ..types import markers
from ..types.parse_budget import ParseBudget, begin, end
from . import history as turns
from .adapter_names import ADAPTERS
from .formats import format_named
from .function_calling import is_native_by_default
from .injection import refuse_markers
from .parsing import UNREADABLE
from .response_format import response_format
from .unsupported import holds_dspy_types, unsupported_reason, unsupported_schema

Message = dict[str, Any]
Demo = Mapping[str, Any]

_RESULTS: Final = {turns.RESULTS: Field(turns.RESULTS, "input", annotation=object)}
_INCOMPLETE: Final = "This is an example of the task, though some input or output fields are not supplied."
SHOWN_ERRORS_MOST: Final = 100
_NOT_SUPPLIED: Final = "Not supplied for this particular example. "


def compile_signature(
    sig: SignatureLike, adapter: str = "chat", *, use_native_function_calling: bool | None = None
) -> CompiledSignature:
    """Return the signature made ready for "chat", "json", "xml", "baml" or "two_step"; made once for each.

    `use_native_function_calling` is the adapter's option in DSPy, and its default there: True for json and baml, else
    False. Here it decides how tool calls of a history are shown, and what the response format says of them. For types
    that only a worker can render, the result has `unsupported` set. With "two_step" the messages are those of the first
    step, whose answer its extraction model reads: `parse` cannot.

    Raises:
        UnknownName: any other adapter.
        SignatureError: a type without a schema, or one that this adapter cannot show.
    """
    if adapter not in ADAPTERS:
        raise UnknownName("adapter", adapter, ADAPTERS)
    known = sig if isinstance(sig, Signature) else signature(sig)
    is_native = use_native_function_calling
    if is_native is None:
        is_native = is_native_by_default(adapter)
    key = f"compiled.{adapter}.native" if is_native else f"compiled.{adapter}"
    return known.derive(key, lambda made: CompiledSignature(made, adapter, is_native))


class CompiledSignature:
    """Builds messages from inputs, and reads values from answers, as DSPy's adapter of that name does.

    `unsupported` is None, or the reason why only a worker can do it; then `messages` and `parse` raise UsageError.
    """

    def __init__(self, sig: Signature, adapter: str, uses_native_calls: bool) -> None:
        self.signature = sig
        self.adapter = adapter
        self.uses_native_calls = uses_native_calls
        self.unsupported: str | None = None
        self._format = format_named(adapter)
        self.dspy_adapter = self._format.dspy_name
        self.is_object = self._format.is_object
        self._history = turns.history_field(sig)
        self._user_fields = {name: field for name, field in sig.input_fields.items() if name != self._history}
        self._plain_fields = {name: field for name, field in sig.input_fields.items() if not holds_dspy_types(field)}
        self._readers = {name: self._format.reader(field) for name, field in sig.output_fields.items()}
        try:
            self.unsupported = unsupported_reason(sig) or self._format.unsupported(sig)
            self._requirements = "" if self.unsupported else self._format.requirements(sig.output_fields)
            self._system = "" if self.unsupported else self._format.system(sig)
        except Exception as error:  # pydantic has many classes for a type without a schema
            if not type(error).__module__.startswith("pydantic"):
                raise
            raise SignatureError(f"The signature {sig} holds a type without a JSON schema: {error}") from error

    # --- asking ---

    def messages(
        self, inputs: Mapping[str, Any], demos: Sequence[Demo] = (), *, allow_markers: bool = False
    ) -> list[Message]:
        """Return what DSPy's adapter would send: system, demos, history, the request; extra inputs are ignored.

        Raises:
            UnsafeInput: a text holds DSPy's custom-type marker, unless `allow_markers`.
            InvalidInput: a value that DSPy could not render either.
            UsageError: this signature is `unsupported`.
        """
        self._require_support()
        made = [{"role": "system", "content": self._system}]
        if demos:
            made.extend(self._demo_messages(demos, allow_markers))
        if self._history is not None:
            made.extend(self._history_messages(inputs, allow_markers))
        text = self._format.user(self._user_fields, inputs, self._requirements)
        made.append(self._user(text, inputs, allow_markers))
        return made

    def prefix(self, demos: Sequence[Demo] = ()) -> list[Message]:
        """Return the messages that do not depend on the inputs: system and demos."""
        self._require_support()
        return [{"role": "system", "content": self._system}, *self._demo_messages(demos, True)]

    def prefix_hash(self, demos: Sequence[Demo] = ()) -> str:
        """Return the sha256 (hex) of the prefix as compact JSON in UTF-8: what a saved program is checked by."""
        text = json.dumps(self.prefix(demos), ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def unsupported_with(self, lm: Any) -> str | None:
        """Return why this signature with this LM needs a worker; None when it can be served here."""
        return self.unsupported or (unsupported_schema(self.signature) if lm.supports_schema else None)

    def response_format(self) -> dict[str, Any] | None:
        """Return what json and baml ask of a model that takes schemas; None for the others.

        Raises:
            UsageError: outputs whose schema only workers can make.
        """
        if not self.is_object:
            return None
        if reason := unsupported_schema(self.signature):
            raise UsageError(f"This signature cannot be served natively: {reason}. Run it in a worker.")
        is_native = self.uses_native_calls
        return self.signature.derive(
            f"response_format.{is_native}", lambda sig: response_format(sig.output_fields, is_native=is_native)
        )

    # --- reading the answer ---

    def parse(self, text: str, *, budget: ParseBudget | None = None) -> dict[str, Any]:
        """Return the outputs that DSPy would read from `text`, in the signature's order, as Python values.

        The work is bounded by the text's length, or by the `budget`.

        Raises:
            AdapterParseError: a field is missing or does not fit its type, or reading would cost too
                much.
            Paused: the budget of a trial is used up.
        """
        self._require_support()
        budget = ParseBudget(len(text)) if budget is None else budget
        values: dict[str, Any] = {}
        token = begin(budget)
        try:
            why, error = self._read(text, values, budget)
        finally:
            end(token)
        if why is not None:
            raise self._unread(why, text, values) from _short(error)
        return self._complete(values, text)

    def _read(self, text: str, values: dict[str, Any], budget: ParseBudget) -> tuple[str | None, BaseException | None]:
        """Put the fields into `values`; return why reading cannot go on, if it cannot."""
        try:
            parts = self._format.split(text, self._readers)
        except UNREADABLE as error:
            return budget.refusal or self._format.no_parts(error), error
        for name, part in parts.items():
            budget.refusal = None  # of a field that was read in another way
            try:
                values[name] = self._readers[name].read(part)
            except UNREADABLE as error:
                why = f": {budget.refusal}" if budget.refusal else f" does not fit its type: {_reason(error)}"
                return f"the field {name!r}{why}", error
        return None, None

    def _complete(self, values: dict[str, Any], text: str) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        missing: list[str] = []
        for name, reader in self._readers.items():
            if name in values:
                whole[name] = values[name]
            elif reader.is_optional:
                whole[name] = reader.absent()
            else:
                missing.append(name)
        if missing:
            raise self._unread(f"it lacks {', '.join(map(repr, missing))}", text, whole)
        return whole

    def _unread(self, why: str, text: str, parsed: dict[str, Any]) -> AdapterParseError:
        message = f"The model's answer cannot be read by the {self.adapter} adapter: {why.removesuffix('.')}."
        return AdapterParseError(
            message,
            adapter=self.dspy_adapter,
            expected=tuple(self._readers),
            parsed=parsed,
            lm_response=text,
        )

    # --- text ---

    def _user(
        self, text: str, values: Mapping[str, Any], allow_markers: bool, fields: Mapping[str, Field] | None = None
    ) -> Message:
        message = {"role": "user", "content": text}
        if markers.START not in text:
            return message
        if not allow_markers:
            refuse_markers(self.signature.input_fields if fields is None else fields, values)
        return markers.expand(message) if self._format.shows_markers else message

    def _demo_messages(self, demos: Sequence[Demo], allow_markers: bool) -> Iterator[Message]:
        whole, partial = _sorted_demos(self.signature, demos)
        inputs, outputs = self.signature.input_fields, self.signature.output_fields
        for first, missing, group in ((_INCOMPLETE, _NOT_SUPPLIED, partial), ("", None, whole)):
            for demo in group:
                # A saved demo holds its images as marked text; only fields without such types are suspected.
                yield self._user(self._format.user(inputs, demo, first=first), demo, allow_markers, self._plain_fields)
                yield {"role": "assistant", "content": self._format.answer(outputs, demo, missing)}

    def _history_messages(self, inputs: Mapping[str, Any], allow_markers: bool) -> Iterator[Message]:
        for turn in turns.turns_of(inputs.get(self._history or "")):
            asked = any(name in turn for name in self._user_fields)
            text = self._format.user(self._user_fields, turn, self._requirements if asked else "")
            if text:
                yield self._user(text, turn, allow_markers)
            answered = turns.HistoryTurn(turn, self.signature.output_fields, self._format)
            if self.uses_native_calls and answered.calls is not None:
                yield from answered.as_messages()
                continue
            if answer := answered.as_text():
                yield {"role": "assistant", "content": answer}
            if answered.results is not None:
                shown = {turns.RESULTS: answered.results}
                yield self._user(self._format.user(_RESULTS, shown), shown, allow_markers, _RESULTS)

    def _require_support(self) -> None:
        if self.unsupported:
            raise UsageError(f"This signature cannot be served natively: {self.unsupported}. Run it in a worker.")


def _sorted_demos(sig: Signature, demos: Iterable[Demo]) -> tuple[list[Demo], list[Demo]]:
    """Return complete demos, and those with at least one input and one output; others are left out, as in DSPy."""
    whole: list[Demo] = []
    partial: list[Demo] = []
    for demo in demos:
        if all(name in demo and demo[name] is not None for name in sig.fields):
            whole.append(demo)
        elif any(name in demo for name in sig.input_fields) and any(name in demo for name in sig.output_fields):
            partial.append(demo)
    return whole, partial


def _short(error: BaseException | None) -> BaseException | None:
    """Return the error as a cause that may be kept and shown: pydantic's holds, and prints, a line per wrong item."""
    count = getattr(error, "error_count", None)
    return None if count is not None and count() > SHOWN_ERRORS_MOST else error


def _reason(error: Any) -> str:
    """Return why a value does not fit, without the value: pydantic's own messages quote the model's answer."""
    listed = getattr(error, "errors", None)
    if listed is None or not hasattr(error, "error_count"):
        return (
            str(error)
            if isinstance(error, ValueError) and "not a value or name of" in str(error)
            else type(error).__name__
        )
    if error.error_count() > SHOWN_ERRORS_MOST:  # listing them costs more than the answer did
        return f"{error.error_count():,} of its parts are wrong"
    first = listed(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    own = first["type"] in ("value_error", "assertion_error")
    return f"{place + ': ' if place else ''}{first['type'] if own else first['msg']}"
