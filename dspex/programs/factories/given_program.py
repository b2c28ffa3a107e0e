"""Find the program in what jobs over many examples are given: a program, what is optimized, a module, a signature."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...signatures.signature import Signature
from ..calling.program import Program
from ..modules.module import module
from ..modules.module_program import ModuleProgram
from ..modules.named_signatures import signature_if_named
from .program_factories import predictor

if TYPE_CHECKING:
    from ...pools.supervising import Supervising


def given_program(what: Any, supervisor: Supervising | None = None) -> Program[Any] | None:
    """Return the program that is given, or made of what is given; None for what is no program.

    A `dspy.Module`, its class or its "package.module:Class" is a user's own module, a signature predicts, also one that
    "package.module:Class" names; `supervisor` is whose workers may be asked which of both it is.

    Raises:
        SignatureError, InvalidInput: a text or class that cannot be read.
    """
    inner = what if isinstance(what, Program) else getattr(what, "program", None)
    if isinstance(inner, Program):
        return inner
    if isinstance(what, str) and (named := signature_if_named(what, supervisor)) is not None:
        return predictor("predict", named)
    if _is_module(what):
        return module(what)
    if isinstance(what, str | Mapping | Signature) or (isinstance(what, type) and hasattr(what, "input_fields")):
        return predictor("predict", what)
    return None


def known_inputs(program: Program[Any]) -> Sequence[str]:
    """Return the inputs that an example's fields are taken for, where nothing names them.

    An input that a user's own module may do without could have a label's name: it is given only if it is named.
    """
    if isinstance(program, ModuleProgram) and program.is_open:
        required = tuple(program.described["required"])
        if not required and program.described["takes_any"]:
            raise InvalidInput(
                f"{program.name_shown} takes any input: say which fields of the examples go in, by inputs=[...] or "
                f"dspy.Example(...).with_inputs(...).",
                field="inputs",
            )
        return required
    return program.inputs


def is_open(program: Program[Any]) -> bool:
    """Whether it is a user's own module without a signature."""
    return isinstance(program, ModuleProgram) and program.is_open


def _is_module(what: Any) -> bool:
    if isinstance(what, str):
        return ":" in what and "->" not in what
    kind = getattr(sys.modules.get("dspy"), "Module", None)  # not loaded: then it is no object of it
    return kind is not None and (isinstance(what, kind) or (isinstance(what, type) and issubclass(what, kind)))
