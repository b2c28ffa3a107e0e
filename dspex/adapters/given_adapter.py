"""Take an adapter in the forms in which users give one: a name, a path, options, an object or class of DSPy's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from ..errors import SettingsError, UnknownName
from ..lm.given_lms import takes_lms
from .adapter_names import ADAPTERS, AdapterName
from .adapter_record import (
    AdapterRecord,
    BAMLAdapter,
    ChatAdapter,
    JSONAdapter,
    TwoStepAdapter,
    XMLAdapter,
    type_names,
)
from .own_adapter import OwnAdapter, is_adapter_class, is_live


class PromptAdapter(Protocol):
    """An adapter of DSPy's, as far as it is looked at here."""

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any: ...
    def parse(self, signature: Any, completion: Any) -> Any: ...


Adapter = str | AdapterRecord | OwnAdapter  # as programs keep it; a name is one of `ADAPTERS`
AdapterLike = AdapterName | AdapterRecord | OwnAdapter | Mapping[str, Any] | PromptAdapter | type[PromptAdapter]

_MAKERS: Final[Mapping[str, Any]] = {
    "chat": ChatAdapter,
    "json": JSONAdapter,
    "xml": XMLAdapter,
    "baml": BAMLAdapter,
    "two_step": TwoStepAdapter,
}
_OF_DSPY: Final[Mapping[str, str]] = {
    "ChatAdapter": "chat",
    "JSONAdapter": "json",
    "XMLAdapter": "xml",
    "BAMLAdapter": "baml",
    "TwoStepAdapter": "two_step",
}
_OPTIONS: Final = ("use_native_function_calling", "parallel_tool_calls", "use_json_adapter_fallback")
_DSPYS: Final = frozenset((*_OPTIONS, "callbacks", "native_response_types", "extraction_model"))


@takes_lms
def adapter(what: Any, /, **arguments: Any) -> Any:
    """Return an adapter: of a class of your own, by "package.module:Class" or as the class, made with `arguments`.

    Names of DSPy's ("chat", "json", "xml", "baml", "two_step") take their options here too. An adapter of your own runs
    in workers: one named is imported there, a class of a script or a notebook and a live adapter are sent by value.

    Raises:
        UnknownName, SettingsError: it is none, or takes no such option.
    """
    if isinstance(what, str) and ":" not in what:
        return adapter_from({"name": what, **arguments}, whole=True)
    made = adapter_from(what)
    if not arguments:
        return made
    if not isinstance(made, OwnAdapter) or is_live(made.thing):
        raise SettingsError(f"{what!r} is made already and takes no arguments: {', '.join(arguments)}.", key="adapter")
    return OwnAdapter(made.path, made.thing, MappingProxyType(dict(arguments)))


def adapter_from(given: Any, *, where: str | None = None, whole: bool = False) -> Adapter:
    """Return an adapter in the form in which programs keep it; with `whole` a record stays one.

    Raises:
        UnknownName: a name that no adapter has, or an option that this one does not have.
        SettingsError: it is no adapter, or one with an option that cannot be taken.
    """
    if isinstance(given, str):
        return _named(given, where)
    if isinstance(given, OwnAdapter):
        return given
    made: AdapterRecord | OwnAdapter | None = given if isinstance(given, AdapterRecord) else None
    if isinstance(given, Mapping):
        made = _of_mapping(given, where)
    elif made is None and not isinstance(given, type):
        made = _of_dspy_object(given)
    if isinstance(made, AdapterRecord):
        return made.name if made.is_plain and not whole else made
    return made if isinstance(made, OwnAdapter) else _own(given)


def record_of(adapter: str | AdapterRecord) -> AdapterRecord:
    """Return the record of a name."""
    return AdapterRecord(adapter) if isinstance(adapter, str) else adapter


def _named(name: str, where: str | None) -> Adapter:
    if name in ADAPTERS:
        return name
    if name in _OF_DSPY or name.removeprefix("dspy.") in _OF_DSPY:
        return _OF_DSPY[name.removeprefix("dspy.")]
    if ":" in name:
        return OwnAdapter(_path(name))
    raise UnknownName("adapter", name, ADAPTERS, where=where or "")


def _path(name: str) -> str:
    module, _, qualified = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *qualified.split("."))):
        raise SettingsError(f"The adapter {name!r} is no import path: that is 'package.module:Class'.", key="adapter")
    return name


def _of_mapping(given: Mapping[str, Any], where: str | None) -> AdapterRecord | OwnAdapter:
    options = {str(name): value for name, value in given.items()}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise SettingsError(f"adapter is {given!r}; a mapping has the adapter's name under 'name'.", key="adapter")
    found = _named(name, where)
    if isinstance(found, OwnAdapter):
        return OwnAdapter(found.path, None, MappingProxyType(options))
    maker = _MAKERS[str(found)]
    known = [each for each in maker.__init__.__annotations__ if each != "return"]
    for option in options:
        if option not in known:
            raise UnknownName("option", option, known, where=f"the {found} adapter")
    made: AdapterRecord = maker(**options)
    return made


def _of_dspy_object(given: Any) -> AdapterRecord | OwnAdapter | None:
    """Return the record of an adapter of DSPy's own class; None for what is none.

    Raises:
        SettingsError: it has callbacks of its own.
    """
    kind = type(given)
    if not is_adapter_class(kind) or not kind.__module__.startswith("dspy.adapters.") or kind.__name__ not in _OF_DSPY:
        return None
    if given.callbacks:
        raise SettingsError(
            f"adapter is a dspy.{kind.__name__} with callbacks of its own; give them to the program, as in "
            f"using(callbacks=[...]), or to dspex.configure(callbacks=[...]).",
            key="adapter",
        )
    if vars(given).keys() - _DSPYS:
        return OwnAdapter(thing=given)
    name = _OF_DSPY[kind.__name__]
    options = {option: getattr(given, option) for option in _OPTIONS if hasattr(given, option)}
    if name in ("json", "baml"):
        options.pop("use_json_adapter_fallback", None)  # which these never look at
    try:
        types = type_names(given.native_response_types)
    except SettingsError:  # a type of the user's: an object of DSPy's, that a worker takes as it is
        return OwnAdapter(thing=given)
    if types:
        if name in ("json", "baml"):
            return OwnAdapter(thing=given)
        options["native_response_types"] = types
    if name == "two_step":
        options["extraction_model"] = given.extraction_model
    made: AdapterRecord = _MAKERS[name](**options)
    return made


def _own(given: Any) -> Adapter:
    if isinstance(given, type) and is_adapter_class(given):
        if given.__module__.startswith("dspy.adapters.") and given.__name__ in _OF_DSPY:
            return _OF_DSPY[given.__name__]
        return OwnAdapter(thing=given)
    if is_live(given):
        return OwnAdapter(thing=given)
    raise SettingsError(
        f"adapter is {given!r:.200}; it is one of {', '.join(map(repr, ADAPTERS))}, an adapter of DSPy's or of a class "
        f"of your own, or the path of one: 'package.module:Class'.",
        key="adapter",
    )
