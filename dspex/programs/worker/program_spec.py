"""Describe a program: its module, signature, state and call options, and their form on the wire."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ... import defaults
from ...adapters.adapter_names import name_of
from ...adapters.compiled_signature import compile_signature
from ...adapters.function_calling import asked_signature
from ...adapters.injection import refuse_marked_texts
from ...adapters.plain_data import is_json
from ...adapters.validation import CrossedInputs, checked_inputs, crossed_inputs, typed_outputs
from ...lm.call_history import CallHistory
from ...lm.strict_schemas import with_plain_format
from ...scoped_defaults import scoped
from ...services.sent_types import SentTypes
from ...services.tools import new_set_id, specs_of
from ...signatures.annotations import classes_in, is_dspy_type
from ...signatures.field import InputField, OutputField
from ...signatures.signature import Signature
from ...signatures.wire_form import imports_types
from ...types.dspy_objects import value_here
from ..files.program_state import NativeState, demos_of, native_state
from ..native.exchange_steps import default_adapter, native_calls
from ..options import program_options
from ..options.bound_lm import bound_lm, unbound
from ..options.predictor_names import ONLY_PREDICTORS, require_predictors
from ..options.routing import NATIVE_MODULES

if TYPE_CHECKING:
    from ...adapters.adapter_record import AdapterRecord
    from ...adapters.given_adapter import Adapter
    from ...adapters.own_adapter import OwnAdapter
    from ...lm.record import LM
    from ...pools.supervising import Supervising
    from ...services.services import Services
    from ...types.tool import Tool
    from ..native.observer import Observer

_OF_REQUESTS = frozenset({"dspy.Predict", "dspy.ChainOfThought", "dspy.MultiChainComparison"})
_sources = itertools.count(1)
_AGENTS = frozenset({"dspy.ReAct", "dspy.ReActV2"})


@dataclass(frozen=True)
class ProgramSpec:
    """A module, its signature and state, and how it is called; immutable.

    Raises:
        SettingsError, UnknownName, InvalidInput: a call option that cannot be right.
    """

    module: str
    signature: Signature
    options: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    state: Mapping[str, Any] | None = None
    demos: tuple[Mapping[str, Any], ...] = ()
    lm: LM | str | None = None  # a name is looked up when a call is made
    lms: Mapping[str, LM | str] = field(default_factory=dict)  # by predictor
    adapter: Adapter | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    implementation: str = "auto"
    timeout: float | None = None
    rollout_id: int | None = None
    supervisor: Supervising | None = None
    use_native_function_calling: bool | None = None  # None: as DSPy's adapter has it, json yes, chat no
    prefix_sha256: str | None = None  # of a saved program: what DSPy rendered when it was saved
    allow_markers: bool = False
    trace: bool = False  # whether predictions have one
    kept: CallHistory | bool | None = None  # its own history; False: in none; None: in the process's, if that is on
    callbacks: tuple[Any, ...] = ()
    idempotent: bool | None = None  # None: it may run again after a worker's death if it is made of LM requests alone
    is_named_by_file: bool = False  # a file named its module: the pool's `imports` say whether workers may import it
    tool_set: str = ""  # the id under which workers ask for what is of the host's

    def __post_init__(self) -> None:
        if isinstance(self.config, Mapping):
            object.__setattr__(self, "config", with_plain_format(self.config))
        program_options.require_valid(self)
        if self.lms:
            require_predictors(self.module, self.lms)
        if not self.tool_set and (self.tools or self.module not in NATIVE_MODULES):
            object.__setattr__(self, "tool_set", new_set_id())

    @property
    def is_open(self) -> bool:
        """Whether it has no signature: a user's module, which takes and gives what it likes."""
        return False

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own module or function, whose code may behave otherwise when it is awaited."""
        return False

    @property
    def withheld(self) -> tuple[str, ...]:
        """The names of its constructor's arguments that no file can hold."""
        return ()

    @property
    def name_shown(self) -> str:
        """Its name for people."""
        return self.module

    # -- the signature -------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)

    @property
    def described(self) -> Mapping[str, Any]:
        """What is known of its inputs: their names, those that are required, and whether it takes any others."""
        fields = self.signature.input_fields
        required = [name for name, field in fields.items() if not field.has_default]
        return {"inputs": list(fields), "required": required, "takes_any": False}

    def inputs_named(self, described: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the inputs that a caller gives, out of what is `described`."""
        return tuple(described["inputs"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output fields of the signature as it was written; what a module adds (`reasoning`) is not among them."""
        return tuple(self.signature.output_fields)

    @property
    def answered(self) -> Signature:
        """The signature with what the module adds to the outputs."""
        return reasoned(self.signature) if self.module == "dspy.ChainOfThought" else self.signature

    @property
    def taken(self) -> Signature:
        """The signature with what the module takes beside its inputs: a conversation to go on with."""
        return _continued(self.signature) if self.module == "dspy.ReActV2" else self.signature

    @cached_property
    def served(self) -> NativeState:
        """What the native side serves: the signature with what the module adds and the state says, and the demos."""
        return native_state(self.module, self.answered, self.state, self.demos)

    def fields_shown(self) -> Iterator[tuple[str, Any]]:
        """Yield its inputs, outputs and instructions."""
        yield "inputs", ", ".join(self.inputs)
        yield "outputs", ", ".join(self.outputs)
        yield "instructions", self.signature.instructions

    def facts(self) -> Iterator[tuple[str, Any]]:
        """Yield what it is, as names and values, for who looks at it."""
        yield from self.fields_shown()
        for name, many in (("demos", self.demos), ("tools", self.tools)):
            if many:
                yield name, len(many)
        for name in ("adapter", "timeout", "rollout_id", "idempotent"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        if self.config:
            yield "config", dict(self.config)
        if self.lm is not None:
            yield "lm", self.lm if isinstance(self.lm, str) else self.lm.model
        yield "implementation", self.implementation
        if self.state is not None:
            yield "state", f"of {len(self.state)} parts"

    # -- how it is called ----------------------------------------------------------------------------------------

    @property
    def lm_used(self) -> LM:
        """Its own language model, or the configured one; of a module of one predictor, what `lms` says of that.

        Raises:
            NotConfigured: there is neither.
            UnknownName: it is named, and no configured LM has the name; or it has no such option as `config` names.
            SettingsError, LMConfigurationError, LMUnsupportedFeatureError: an option of `config` is not for this LM.
        """
        only = self.lms.get(ONLY_PREDICTORS.get(self.module, "")) if self.lms else None
        own = only or self.lm
        if own is None:
            lm = defaults.configured_lm(self.supervisor)
        else:
            lm = defaults.named_lm(own, self.supervisor) if isinstance(own, str) else own
        return self._bound(lm, self.config_given) if self.config or scoped().config else lm

    def _bound(self, lm: LM, config: Mapping[str, Any]) -> LM:
        """Return the LM with what of the options becomes part of it; the same object as long as both are the same."""
        known: tuple[LM, Mapping[str, Any], LM] | None = self.__dict__.get("_bound_lm")
        if known is not None and known[0] is lm and known[1] == config:
            return known[2]
        made = bound_lm(lm, config)
        self.__dict__["_bound_lm"] = (lm, config, made)
        return made

    @property
    def lms_used(self) -> dict[str, LM]:
        """The language models of predictors that have one of their own.

        Raises:
            UnknownName: one is named, and no configured LM has the name.
        """
        config = self.config_given
        return {name: bound_lm(defaults.as_lm(lm, self.supervisor), config) for name, lm in self.lms.items()}

    @property
    def direct_lms(self) -> dict[str, LM]:
        """The language models that connect from workers, by the names under which their use is reported there."""
        known = defaults.configured_lms(self.supervisor)
        asked = [self.lm_of_workers, known.default, *self.lms_used.values(), *known.by_name.values()]
        every = [each for lm in asked if lm is not None for each in (lm, *lm.fallbacks)]
        carried = {lm.model for lm in every if not lm.direct}  # what passes by this process is counted there
        named = {name: lm for name, lm in known.by_name.items() if lm.direct}
        return named | {lm.model: lm for lm in every if lm.direct and lm.model not in carried}

    @property
    def adapter_used(self) -> Adapter | None:
        """Its own adapter, that of the open `dspex.context`, or the process's; None for what the LM suggests."""
        return self.adapter or defaults.adapter_of_calls()

    @property
    def own_adapter(self) -> OwnAdapter | None:
        """The adapter that it uses, if that is of a class of the user's own."""
        adapter = self.adapter_used
        is_dspys = adapter is None or isinstance(adapter, str) or hasattr(adapter, "options")
        return None if is_dspys else cast("OwnAdapter", adapter)

    @property
    def extraction_lm(self) -> LM | None:
        """The language model of its adapter's second step; None where that has none of its own.

        Raises:
            UnknownName: it is named, and no configured LM has the name.
        """
        given = getattr(self.adapter_used, "extraction_model", None)
        return None if given is None else defaults.as_lm(given, self.supervisor)

    @property
    def is_trusted(self) -> bool:
        """Whether its calls may name any code; of one that a file names, the pool's `imports` decide."""
        own = self.own_adapter
        return not self.is_named_by_file and (own is None or not own.is_named_by_file)

    @property
    def lm_of_workers(self) -> LM | None:
        """What workers get as its language model; None for a program that may need none.

        Raises:
            NotConfigured: it needs one, and none is configured.
        """
        return self.lm_used

    @property
    def config_given(self) -> Mapping[str, Any]:
        """The options of its LM calls: its own, then those of the open `dspex.context`."""
        outer = scoped().config
        return {**outer, **self.config} if outer else self.config

    @property
    def config_used(self) -> Mapping[str, Any]:
        """The options of its LM calls that are not part of `lm_used`."""
        return unbound(self.config_given)

    @property
    def supervisor_used(self) -> Supervising:
        """The supervisor whose workers run it."""
        return self.supervisor or defaults.default_supervisor()

    @property
    def may_repeat(self) -> bool:
        """Whether it may run once more when its worker dies: as `idempotent` says, else if no code of a user's runs.

        LM requests are cached or harmless; a module, a tool, a retriever, a reward or a type of the user's might do
        something twice.
        """
        return self.is_of_requests if self.idempotent is None else self.idempotent

    @property
    def is_of_requests(self) -> bool:
        """Whether it is made of LM requests alone: a module of DSPy's, without anything that a user wrote."""
        return self.module in _OF_REQUESTS and not self.tools and not imports_types(self.signature)

    @property
    def packages(self) -> frozenset[str]:
        """The packages whose classes it may give beside those of its signature; none, but for a user's own module."""
        return frozenset()

    # -- seeing it -----------------------------------------------------------------------------------------------

    @cached_property
    def history_key(self) -> int:
        """The number that tells it apart in a history that it shares."""
        return next(_sources)

    @property
    def observer(self) -> Observer | None:
        """What sees a call of it; None where nobody wants to see anything."""
        observing, scope = defaults.observing(), scoped()
        if observing.is_idle and self.kept is None and not (self.trace or self.callbacks or scope.sees):
            return None
        own = (self.kept,) if isinstance(self.kept, CallHistory) else ()
        records = observing.records if scope.history is None else scope.history
        histories = (observing.history, *own) if own or (records and self.kept is not False) else ()
        callbacks = (*observing.callbacks, *scope.callbacks, *self.callbacks)
        trace = self.trace or scope.trace
        if not (histories or callbacks or trace):
            return None
        from ..native.observer import (  # at first need: a process that sees nothing imports nothing for it
            Observer,
            Watch,
        )

        return Observer(Watch(trace, histories, callbacks, observing, self.history_key))

    # -- for a worker --------------------------------------------------------------------------------------------

    @property
    def sent(self) -> SentTypes:
        """How its types get to workers.

        Raises:
            SignatureError, EncodeError, FrameTooLarge, MissingDependency: one cannot.
        """
        return SentTypes.of(self.signature, as_themselves=self.is_own or self.shows_objects)

    @property
    def shows_objects(self) -> bool:
        """Whether its adapter shows types and values as Python has them, which plain data does not say."""
        return name_of(self.adapter_used) not in (None, "chat", "json", "xml")

    def checked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked inputs as native code takes them.

        Raises:
            InvalidInput, UnsafeInput, EncodeError: see `checked_inputs`.
        """
        return checked_inputs(self.taken, inputs, allow_markers=self.allow_markers)

    def crossed(self, inputs: Mapping[str, Any]) -> CrossedInputs:
        """Return the checked inputs, ready for a worker.

        Raises:
            InvalidInput, UnsafeInput, EncodeError: see `checked_inputs`.
        """
        return crossed_inputs(self.taken, inputs, allow_markers=self.allow_markers, is_exact=self.shows_objects)

    def typed(self, outputs: Mapping[str, Any], objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a worker's outputs with their Python types; `objects` are those that are not plain data.

        Raises:
            AdapterParseError: a value does not fit its type.
        """
        return typed_outputs(self.answered, outputs, objects)

    def to_wire(self) -> dict[str, Any]:
        """Return what a worker builds the module from.

        Raises:
            UnsafeInput: a demo has DSPy's custom-type marker in a field of another type, and allow_markers is False.
        """
        if not self.allow_markers:
            self._refuse_marked_demos()
        wire: dict[str, Any] = {
            "module": self.module,
            "signature": self.sent.wire,
            "options": dict(self.options),
            "state": self.state,
        }
        if self.allow_markers:
            wire["allow_markers"] = True
        if self.demos:
            wire |= self._demos_to_wire()
        if self.tools or self.module in _AGENTS:
            wire["tools"] = specs_of(self.tools, self.tool_set)
        return wire

    def _demos_to_wire(self) -> dict[str, Any]:
        """Return the demos: as data, with DSPy's types as prompts show them, or as Python objects in text."""
        demos = [value_here(dict(demo.items())) for demo in self.demos]
        if all(map(is_json, demos)):
            return {"demos": demos}
        carried = self.sent.carried({"demos": demos})
        assert carried is not None
        return {"carried_demos": base64.b64encode(carried).decode("ascii")}

    def wire_lms(self, services: Services) -> dict[str, Any]:
        """Return what a worker is told of the predictors' language models, beside `to_wire`."""
        lms = {name: services.lm_record(lm) for name, lm in self.lms_used.items()}
        return {"lms": lms} if lms else {}

    def _refuse_marked_demos(self) -> None:
        """As the native side does. Which fields a user's module has inside, and of which types, is not known here."""
        demos = (*self.demos, *(demos_of(self.state) if ":" not in self.module else ()))
        if not demos:
            return
        sig = self.signature
        may_be_marked = {
            name for name, field in sig.input_fields.items() if any(map(is_dspy_type, classes_in(field.annotation)))
        }
        for demo in demos:
            refuse_marked_texts(demo, but=may_be_marked | sig.output_fields.keys())

    def wire_adapter(self, lm: LM | None) -> str | dict[str, Any] | None:
        """Return the adapter as a worker takes it; None leaves it to a user's module what it configured.

        Raises:
            EncodeError, FrameTooLarge, MissingDependency, SettingsError: one of the user's own cannot be sent.
            SignatureError: an output that the adapter cannot show.
        """
        adapter, is_native = self.adapter_used, self.use_native_function_calling
        if adapter is None and is_native is None and self.is_own:
            return None
        adapter = adapter or _default_adapter(lm)
        if name_of(adapter) == "baml" and not self.is_open:
            compile_signature(self.signature, "baml")  # refused now, and not by DSPy in a worker
        if isinstance(adapter, str):
            return adapter if is_native is None else {"name": adapter, "use_native_function_calling": is_native}
        from ...services.services import services_of  # and with it the pools, which a native call does not need
        from .sent_adapter import SentAdapter, require_no_option, wire_of

        services = services_of(self.supervisor_used)
        if (own := self.own_adapter) is not None:
            require_no_option(own, is_native)
            return SentAdapter.of(own).with_lms(services)
        record: Any = adapter
        if is_native is not None:
            record = replace(record, use_native_function_calling=is_native)
        return wire_of(record, self.extraction_lm, services)

    def require_tools(self, lm: LM | None) -> None:
        """Check that there are tools where the model is to give tool calls by its own interface.

        Raises:
            InvalidInput: no input holds tools.
        """
        adapter = self.adapter_used or (None if lm is None else default_adapter(lm))
        if lm is not None and adapter is not None and self.own_adapter is None and name_of(adapter) != "two_step":
            is_native = native_calls(cast("str | AdapterRecord", adapter), self.use_native_function_calling)
            asked_signature(self.signature, lm, is_native)

    def registered(self, services: Services) -> AbstractContextManager[None]:
        """Register what `to_wire` refers to, for the time of the block: the tools, and types that are sent by value."""
        tools, codes = services.tools.registered(self.tool_set, self.tools), [*self.sent.codes.values()]
        if (own := self.own_adapter) is not None:
            from .sent_adapter import SentAdapter

            codes += SentAdapter.of(own).codes
        return _both(tools, services.code.registered(codes)) if codes else tools


@contextlib.contextmanager
def _both(one: AbstractContextManager[None], other: AbstractContextManager[None]) -> Generator[None]:
    with one, other:
        yield


def _default_adapter(lm: LM | None) -> str:
    return "chat" if lm is None else default_adapter(lm)


def _continued(sig: Signature) -> Signature:
    """Return the signature with the `history` that ReActV2 takes and gives."""
    if "history" in sig.fields:
        return sig  # which DSPy refuses
    return sig.derive("continued", lambda plain: plain.append("history", InputField(), _history_type()))


def _history_type() -> Any:
    from ...types.content import History

    return History | None


def reasoned(sig: Signature) -> Signature:
    """Return the signature with the `reasoning` that ChainOfThought puts before the outputs."""
    return sig.derive("reasoned", lambda plain: plain.prepend("reasoning", OutputField(desc="${reasoning}"), str))
