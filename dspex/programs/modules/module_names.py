"""Read the text that names a user's module: "package.module:Class", or what is close enough to say what is meant."""

from __future__ import annotations

from ...errors import InvalidInput
from ...services.code import VALUE
from ..options.program_kinds import KINDS


def module_path(text: str) -> str:
    """Return the "package.module:Class" that a text is; DSPy's own classes may be written with a dot.

    Raises:
        InvalidInput: it is none; the message says what to write.
    """
    if is_path(text) and not text.startswith(VALUE):
        return text
    if text in KINDS:
        raise _no_path(text, f"it is a kind of predictor: dspex.predictor({text!r}, 'question -> answer')")
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise _no_path(text, "write 'package.module:Class', or give the class itself")
    if parts[0] == "dspy":
        return f"dspy:{'.'.join(parts[1:])}"
    cut = next((at for at, part in enumerate(parts) if at and part[0].isupper()), len(parts) - 1)
    meant = f"{'.'.join(parts[:cut])}:{'.'.join(parts[cut:])}"
    raise _no_path(text, f"a colon goes before the class or function. Did you mean {meant!r}?", "")


def is_path(text: str) -> bool:
    """Whether it has the form of "package.module:Class"."""
    module_name, colon, qualified = text.partition(":")
    parts = [*module_name.split("."), *qualified.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def _no_path(text: str, why: str, end: str = ".") -> InvalidInput:
    return InvalidInput(f"{text!r} names no module: {why}{end}", field="what")
