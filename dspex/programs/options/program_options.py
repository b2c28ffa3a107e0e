"""Name the options by which every program is called, and check their values when a program is made. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from ...adapters.adapter_names import ADAPTERS
from ...errors import InvalidInput, SettingsError, UnknownName
from ...lm.lm_options import GENERATION_OPTIONS, GenerationOptions
from ...lm.record_checks import require_kinds
from ...lm.sent_options import CONNECTION
from .routing import Implementation

if TYPE_CHECKING:
    from ...adapters.given_adapter import Adapter, AdapterLike
    from ...defaults import LMLike
    from ...pools.supervising import Supervising

IMPLEMENTATIONS: tuple[str, ...] = get_args(Implementation)


class CallConfig(GenerationOptions, total=False):
    """The LM's options for one program's calls, which go before the LM's own."""

    n: int | None
    cache: bool
    rollout_id: int | None
    headers: Mapping[str, str] | None
    extra_headers: Mapping[str, str] | None


class ProgramOptions(TypedDict, total=False):
    """How a program is called.

    `lm` is an LM, a model's name, or the name of a configured one; without it, the program asks the LM of the open
    `dspex.context`, of the supervisor that it names, or of the process. `lms` gives some of its predictors LMs of their
    own, by the names that DSPy's `named_predictors()` gives ({"generate_query.predict": "cheap"}). `timeout` is in
    seconds: None is the pool's default, math.inf no limit. Calls under another `rollout_id` are not answered from a
    cache. `adapter` is "chat", "json", "xml", "baml" or "two_step", one of them with options (`dspex.ChatAdapter(...)`,
    an adapter of DSPy's), or one of your own: see `dspex.adapter`. `idempotent=True` lets a call run once more when its
    worker dies, False forbids it; None allows it to what is made of LM requests alone.

    `trace=True` gives its predictions a `trace`. `history=True` keeps what it asks and is answered, in a history of its
    own (`program.history`) and in the process's; a number keeps so many, False keeps none even where the process does.
    `callbacks` are called beside the process's: see `dspex.BaseCallback`.
    """

    lm: LMLike | None
    lms: Mapping[str, LMLike] | None
    adapter: AdapterLike | None
    config: CallConfig | Mapping[str, Any] | None
    implementation: Implementation
    timeout: float | None
    supervisor: Supervising | None
    demos: Sequence[Mapping[str, Any]]
    rollout_id: int | None
    use_native_function_calling: bool | None
    idempotent: bool | None
    trace: bool
    history: bool | int | None
    callbacks: Sequence[Any]


NAMES = ProgramOptions.__optional_keys__


def require_valid(options: Any) -> None:
    """Check the values of a program's call options, given as its attributes.

    Raises:
        SettingsError, UnknownName, InvalidInput: one of them cannot be right; the message says what to write.
    """
    if options.implementation not in IMPLEMENTATIONS:
        raise _not_among("implementation", options.implementation, IMPLEMENTATIONS)
    require_adapter(options.adapter)
    require_seconds(options.timeout)
    if options.rollout_id is not None:
        require_whole("rollout_id", options.rollout_id, 0)
    if not isinstance(options.config, Mapping):
        raise _mistyped("config", options.config, "a mapping of LM options, such as {'temperature': 0.2}")
    require_config(options.config)
    for key in ("use_native_function_calling", "idempotent"):
        value = getattr(options, key)
        if value is not None and not isinstance(value, bool):
            raise _mistyped(key, value, _SWITCHES[key])
    if not isinstance(options.trace, bool):
        raise _mistyped("trace", options.trace, "True or False")
    require_supervisor(options.supervisor)


def checked_adapter(given: Any, where: str | None = None) -> Adapter:
    """Return an adapter as programs keep it: a name, a record with options, or one of the user's own.

    Raises:
        UnknownName, SettingsError: it is none.
    """
    if isinstance(given, str) and given in ADAPTERS:
        return given
    from ...adapters.given_adapter import adapter_from  # at first need: most programs name one

    return adapter_from(given, where=where)


def require_adapter(adapter: Any) -> None:
    """Check that an adapter is in the form in which programs keep it.

    Raises:
        UnknownName, SettingsError: it is none.
    """
    if adapter is not None and not (isinstance(adapter, str) and adapter in ADAPTERS):
        made = checked_adapter(adapter)
        if type(made) is not type(adapter) or isinstance(made, str):
            raise _mistyped("adapter", adapter, "what dspex.adapter(...) gives, when it is put into a program")


def checked_demos(demos: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the demonstrations as a tuple.

    Raises:
        InvalidInput: it is no list of mappings from field names to values.
    """
    expected = "a list of examples, each a mapping of field names to values"
    if isinstance(demos, str | bytes | Mapping) or not isinstance(demos, Iterable):
        raise InvalidInput(f"demos is {demos!r}; it is {expected}.", field="demos")
    made = tuple(demos)
    for demo in made:
        if not hasattr(demo, "items"):  # a dspy.Example is no Mapping, and has all of one
            raise InvalidInput(f"demos holds {demo!r}; it is {expected}.", field="demos")
    return made


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Check a count.

    Raises:
        InvalidInput: it is no whole number, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"{name} is {value!r}; it is a whole number, {least} or more.", field=name)


def require_seconds(timeout: Any) -> None:
    """Check a timeout.

    Raises:
        SettingsError: it is neither None nor a number of seconds.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or math.isnan(timeout) or timeout < 0:
        raise _mistyped("timeout", timeout, "a number of seconds, such as 3 or 0.5, or math.inf for no limit")


def require_config(config: Mapping[str, Any]) -> None:
    """Check the names and values of the LM's options, as far as DSPex knows them; a provider may have others.

    Raises:
        UnknownName: an option's name is nearly that of one.
        SettingsError: a value that cannot be.
    """
    for name in config:
        if name in CONNECTION:  # refused as what it is, once the LM is known
            continue
        if name not in _CONFIG and difflib.get_close_matches(str(name), _CONFIG, n=1, cutoff=_NEAR):
            raise UnknownName("option", str(name), _CONFIG, where="config")
    require_kinds(config)


def require_supervisor(supervisor: Any) -> None:
    """Check a supervisor.

    Raises:
        SettingsError: it is neither None nor a supervisor.
    """
    if supervisor is not None and not callable(getattr(supervisor, "pool", None)):
        raise _mistyped("supervisor", supervisor, "a dspex.Supervisor, or a client of one (dspex.connect)")


_CONFIG = GENERATION_OPTIONS | CallConfig.__optional_keys__
_NEAR = 0.85  # how like a known name is a mistake: "temprature", "max_token"; "max_new_tokens" is none
_SWITCHES = {
    "idempotent": "True (it may run once more if its worker dies), False, or None (only what is made of LM requests "
    "alone may)",
    "use_native_function_calling": "True, False, or None (as DSPy's adapter has it: json yes, chat no)",
}


def _mistyped(key: str, value: Any, expected: str) -> SettingsError:
    return SettingsError(f"{key} is {value!r}; it is {expected}.", key=key)


def _not_among(key: str, value: Any, known: Sequence[str]) -> SettingsError:
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return SettingsError(f"{key} is {value!r}; it is one of {', '.join(map(repr, known))}.{hint}", key=key)
