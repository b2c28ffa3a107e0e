"""The prompt of the first of two steps: a task in plain words, answered in plain words (DSPy's TwoStepAdapter).

The second step has another model take the outputs out of that answer: `extraction` is its signature, in the chat
format. Follows dspy/adapters/two_step_adapter.py 3.4.1; which model is asked when is the native route's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ..errors import AdapterParseError
from ..signatures.field import Field
from ..signatures.signature import Signature, signature_of_fields
from ..types.markers import START
from .chat_format import ChatFormat
from .rendering import described
from .unsupported import holds_dspy_types

TEXT: Final = "text"  # the input of the second step


class TwoStepFormat(ChatFormat):
    """Writes the first step's prompt; its answer has no format. Stateless."""

    name: ClassVar[str] = "two_step"
    dspy_name: ClassVar[str] = "TwoStepAdapter"
    shows_markers: ClassVar[bool] = False

    def system(self, sig: Signature) -> str:
        parts = [
            "You are a helpful assistant that can solve tasks based on user input.",
            f"As input, you will be provided with:\n{described(sig.input_fields)}",
            f"Your outputs must contain:\n{described(sig.output_fields)}",
            "You should lay out your outputs in detail so that your answer can be understood by another agent",
        ]
        if sig.instructions:
            parts.append(f"Specific instructions: {sig.instructions}")
        return "\n".join(parts)

    def requirements(self, outputs: Mapping[str, Field]) -> str:
        return ""

    def user(self, fields: Mapping[str, Field], values: Mapping[str, Any], last: str = "", first: str = "") -> str:
        return _listed(fields, values, first)

    def answer(self, outputs: Mapping[str, Field], values: Mapping[str, Any], missing: str | None) -> str:
        return _listed(outputs, values, "")

    def split(self, text: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Read nothing: the outputs are for the second step to find.

        Raises:
            AdapterParseError: always.
        """
        raise AdapterParseError(
            "An answer of the two_step adapter's first step is read by its extraction model, not by a parser.",
            adapter=self.dspy_name,
            expected=tuple(wanted),
            lm_response=text,
        )

    def unsupported(self, sig: Signature) -> str | None:
        for field in sig.fields.values():
            if holds_dspy_types(field):
                return f"the {field.kind} {field.name!r} is of a type of DSPy's, which this adapter shows in workers"
        if TEXT in sig.output_fields:
            return f"the output {TEXT!r} has the name of what the second step reads"
        return None


def extraction(sig: Signature) -> Signature:
    """Return the signature of the second step: the outputs out of a text."""
    return sig.derive("extraction", _extraction)


def unread(sig: Signature, text: str, why: str) -> AdapterParseError:
    """Return the error for a first step's answer that the second step cannot read."""
    return AdapterParseError(
        f"The model's answer cannot be read by the two_step adapter: {why}",
        adapter=TwoStepFormat.dspy_name,
        expected=tuple(sig.output_fields),
        lm_response=text,
    )


def require_unmarked(sig: Signature, text: str) -> None:
    """Check that an answer, which is shown to the second model, has no block of another kind in it.

    Raises:
        AdapterParseError: it holds DSPy's custom-type marker, which a provider might fetch a URL for.
    """
    if START in text:
        raise unread(sig, text, "it holds DSPy's custom-type marker, which is not shown to another model.")


def _extraction(sig: Signature) -> Signature:
    names = ", ".join(f"`{name}`" for name in sig.output_fields)
    # The words, and the gap in them, are DSPy's: they are part of the prompt.
    task = (
        f"The input is a text that should contain all the necessary information to produce the fields {names}."
        f"{' ' * 13}Your job is to extract the fields from the text verbatim. "
        "Extract precisely the appropriate value (content) for each field."
    )
    fields = {TEXT: Field(TEXT, "input", annotation=str), **sig.output_fields}
    return signature_of_fields(fields, task)


def _listed(fields: Mapping[str, Field], values: Mapping[str, Any], first: str) -> str:
    parts = [first, *(f"{name}: {values[name]}" for name in fields if name in values), ""]
    return "\n\n".join(parts).strip()
