"""An adapter with options: DSPy's own adapters, by classes of the same names, and its objects taken as such.

A record is plain data that any thread may share. One without options is the same as its name, and becomes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import SettingsError
from ..lm.given_lms import takes_lms
from ..types.dspy_objects import dspy_type_name

if TYPE_CHECKING:
    from ..lm.named_lms import LMLike
    from ..lm.record import LM

NATIVE_TYPES: Final = ("Citations", "Reasoning")  # which DSPy's adapters leave to the model where it can give them


@dataclass(frozen=True)
class AdapterRecord:
    """One of DSPy's adapters: its `name`, and what differs from DSPy's defaults."""

    name: str
    use_native_function_calling: bool | None = None
    parallel_tool_calls: bool | None = None
    use_json_adapter_fallback: bool = True
    native_response_types: tuple[str, ...] = ()
    extraction_model: LM | str | None = None  # of two_step; None for the LM of the call itself

    def __post_init__(self) -> None:
        for key in ("use_native_function_calling", "parallel_tool_calls"):
            _require_switch(key, getattr(self, key), or_none=True)
        _require_switch("use_json_adapter_fallback", self.use_json_adapter_fallback)

    @property
    def options(self) -> dict[str, Any]:
        """The options that differ from DSPy's defaults, but the extraction model."""
        own = {
            "use_native_function_calling": self.use_native_function_calling,
            "parallel_tool_calls": self.parallel_tool_calls,
            "use_json_adapter_fallback": None if self.use_json_adapter_fallback else False,
            "native_response_types": list(self.native_response_types) or None,
        }
        return {name: value for name, value in own.items() if value is not None}

    @property
    def is_plain(self) -> bool:
        """Whether its name says all of it."""
        return not self.options and self.extraction_model is None

    def __repr__(self) -> str:
        given = {**self.options, **({} if self.extraction_model is None else {"extraction_model": "..."})}
        return f"<adapter {self.name}{''.join(f', {name}={value!r}' for name, value in given.items())}>"


class ChatAdapter(AdapterRecord):
    """DSPy's ChatAdapter: fields under headers, in prompts and answers."""

    def __init__(
        self,
        *,
        use_native_function_calling: bool = False,
        native_response_types: Sequence[Any] | None = None,
        use_json_adapter_fallback: bool = True,
        parallel_tool_calls: bool | None = None,
    ) -> None:
        """`use_json_adapter_fallback=False`: an answer that cannot be read is not asked for again as JSON.

        Raises:
            SettingsError: a value that cannot be.
        """
        super().__init__(
            "chat",
            _other_than(False, use_native_function_calling),
            parallel_tool_calls,
            use_json_adapter_fallback,
            type_names(native_response_types),
        )


class XMLAdapter(AdapterRecord):
    """DSPy's XMLAdapter: each field in an XML element of its name."""

    def __init__(
        self,
        *,
        use_native_function_calling: bool = False,
        native_response_types: Sequence[Any] | None = None,
        use_json_adapter_fallback: bool = True,
        parallel_tool_calls: bool | None = None,
    ) -> None:
        """`use_json_adapter_fallback=False`: an answer that cannot be read is not asked for again as JSON.

        Raises:
            SettingsError: a value that cannot be.
        """
        super().__init__(
            "xml",
            _other_than(False, use_native_function_calling),
            parallel_tool_calls,
            use_json_adapter_fallback,
            type_names(native_response_types),
        )


class JSONAdapter(AdapterRecord):
    """DSPy's JSONAdapter: the answer is one JSON object, of the model's own schema where it takes one."""

    def __init__(self, *, use_native_function_calling: bool = True, parallel_tool_calls: bool | None = None) -> None:
        """

        Raises:
            SettingsError: a value that cannot be.
        """
        super().__init__("json", _other_than(True, use_native_function_calling), parallel_tool_calls)


class BAMLAdapter(AdapterRecord):
    """DSPy's BAMLAdapter: as JSON, with the types of the outputs shown as a short sketch."""

    def __init__(self, *, use_native_function_calling: bool = True, parallel_tool_calls: bool | None = None) -> None:
        """

        Raises:
            SettingsError: a value that cannot be.
        """
        super().__init__("baml", _other_than(True, use_native_function_calling), parallel_tool_calls)


class TwoStepAdapter(AdapterRecord):
    """DSPy's TwoStepAdapter: the LM answers in plain words, and `extraction_model` takes the outputs out of them."""

    @takes_lms
    def __init__(
        self,
        extraction_model: LMLike | None = None,
        *,
        use_native_function_calling: bool = False,
        native_response_types: Sequence[Any] | None = None,
        parallel_tool_calls: bool | None = None,
    ) -> None:
        """`extraction_model` is an LM, a model's name or a configured name; without it the LM of the call itself.

        Raises:
            SettingsError: a value that cannot be.
        """
        super().__init__(
            "two_step",
            _other_than(False, use_native_function_calling),
            parallel_tool_calls,
            True,
            type_names(native_response_types),
            _lm_or_name(extraction_model),
        )


def type_names(kinds: Sequence[Any] | None) -> tuple[str, ...]:
    """Return the names of DSPy's types that an adapter leaves to the model; none for DSPy's default.

    Raises:
        SettingsError: another type.
    """
    names = tuple(_type_name(kind) for kind in kinds or ())
    return () if set(names) == set(NATIVE_TYPES) else names


def _type_name(kind: Any) -> str:
    is_dspys = str(getattr(kind, "__module__", "")).startswith("dspy.adapters.types.")
    name = kind if isinstance(kind, str) else kind.__name__ if is_dspys else dspy_type_name(kind) or ""
    name = name.removeprefix("dspy.")
    if name.isidentifier():
        return name
    raise SettingsError(
        f"native_response_types holds {kind!r}; it is a list of DSPy's own types, such as dspy.Reasoning. An adapter "
        f"with a type of your own is given as an object of DSPy's, which a worker takes.",
        key="native_response_types",
    )


def _other_than(default: bool, given: Any) -> bool | None:
    _require_switch("use_native_function_calling", given, or_none=True)
    return None if given is default else given


def _require_switch(key: str, value: Any, *, or_none: bool = False) -> None:
    if not isinstance(value, bool) and not (or_none and value is None):
        raise SettingsError(f"{key} is {value!r}; it is True or False{' or None' if or_none else ''}.", key=key)


def _lm_or_name(given: Any) -> LM | str | None:
    from ..lm.named_lms import is_name, lm_from

    if given is None:
        return None
    return str(given) if is_name(given) else lm_from(given, "extraction_model")
