"""`CallLMs`: find what carries the requests of an LM that user code made, as in `dspy.LM("openai/gpt-4o-mini")`.

An LM of the call's own (of its `lm` and `lms`) is recognized by its model; any other is described to the parent,
once per worker, which answers with a record or refuses. Options for answers (temperature, max_tokens, ...) stay with
the code that asks; the key and the address that it gives go to the parent, and come back in no error. Any thread.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import dspy
from dspy.utils.exceptions import LMConfigurationError, LMUnsupportedFeatureError

from ...failure import Failure
from ...starting import HELD_KEY
from ..calls.call_context import running
from ..dspy_errors import ParentRefused, error_of
from ..dspy_parts import CLIENT_KEYS
from .lm_fallbacks import FallbackLM
from .worker_lm import LMCache, lm15_provider

LMS = "dspex_lms"  # among DSPy's settings: the CallLMs of the running call
KEPT = 256  # descriptions kept per worker
SECRET_LEAST = 4  # characters; what is shorter is a word of any error's text
_LIMITS = ("max_tokens", "max_completion_tokens")
_CARRIED = frozenset({"api_key", "api_base", "api_version", "base_url", "headers", "extra_headers", "timeout"})
_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie"})

Record = Mapping[str, Any]


class UserLM(Protocol):
    """What the parent is told of, as `dspy.LM` has it."""

    @property
    def model(self) -> str: ...
    @property
    def model_type(self) -> str: ...
    @property
    def num_retries(self) -> int: ...


class Descriptions:
    """The parent's answers that hold for every call of this worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[str, Record] = OrderedDict()

    def get(self, digest: str) -> Record | None:
        """Return the record that answered this description."""
        return self._records.get(digest)

    def put(self, digest: str, record: Record) -> None:
        """Keep an answer."""
        with self._lock:
            self._records[digest] = record
            self._records.move_to_end(digest)
            while len(self._records) > KEPT:
                self._records.popitem(last=False)

    def forget(self, record: Record) -> None:
        """Forget an answer: the parent knows the LM no more."""
        with self._lock:
            for digest in [digest for digest, kept in self._records.items() if kept is record]:
                del self._records[digest]


class CallLMs:
    """The LMs of one call: those that came with it, and those that its code asks for."""

    def __init__(self, own: tuple[Record, ...], made: LMCache, shared: Descriptions) -> None:
        self._own = own
        self._made = made
        self._shared = shared
        self._asked = Descriptions()  # answers that hold for this call alone

    def carrier(self, lm: dspy.LM, options: Mapping[str, Any]) -> FallbackLM:
        """Return the LM that carries what user code's `lm` asks with these options of a call.

        Raises:
            LMError: of the kinds that DSPy knows; the parent refused, or cannot carry it.
        """
        found = self._made.get(self.record(lm, {**lm.kwargs, **options}))
        assert isinstance(found, FallbackLM)
        return found

    def record(self, lm: UserLM, options: Mapping[str, Any]) -> Record:
        """Return the parent's record of a language model; as `carrier`."""
        clients = {name: value for name, value in options.items() if name in CLIENT_KEYS and value != HELD_KEY}
        return self._of_call(lm, clients) or self._described(lm, clients)

    def forget(self, carrier: FallbackLM) -> bool:
        """Forget what described this LM, which the parent knows no more; False if it came with the call."""
        if any(self._made.get(record) is carrier for record in self._own):
            return False
        for answers in (self._asked, self._shared):
            for record in tuple(answers._records.values()):
                if self._made.get(record) is carrier:
                    answers.forget(record)
        return True

    def _of_call(self, lm: UserLM, clients: Mapping[str, Any]) -> Record | None:
        """Return the record of the call's own that is of this model, without its options for answers."""
        if any(clients.get(name) is not None for name in ("api_key", "api_base", "base_url")):
            return None
        for record in self._own:
            if lm.model == record.get("named") and lm.model_type == (record.get("model_type") or "chat"):
                limit = record["max_tokens"] if lm.model.startswith("local/") else None  # which it never is without
                return {**record, "temperature": None, "max_tokens": limit, "n": 1, "options": {}, "is_bare": True}
        return None

    def _own_of(self, model: str) -> str | None:
        """Return by which the parent knows the call's own LM of a model."""
        return next((str(record["ref"]) for record in self._own if record.get("named") == model), None)

    def _described(self, lm: UserLM, clients: Mapping[str, Any]) -> Record:
        description = _description(lm, clients)
        if (own := self._own_of(lm.model)) is not None and not description.keys() & {"api_key", "api_base"}:
            description["of"] = own  # of whose endpoint another API is asked
        digest = json.dumps(description, sort_keys=True)
        record = self._asked.get(digest) or self._shared.get(digest)
        if record is not None:
            return record
        call = running()
        if len(key := description.get("api_key", "")) >= SECRET_LEAST:
            call.conceal(key)
        try:
            answer = call.call_parent("lm.describe", description)
        except Failure as failure:
            raise error_of(failure) from failure
        found: Record = answer["record"]
        (self._shared if answer["is_shared"] else self._asked).put(digest, found)
        return found


def lms_of_call(lm: dspy.LM) -> CallLMs:
    """Return the LMs of the call that this thread works for.

    Raises:
        LMConfigurationError: it works for none.
    """
    lms: CallLMs | None = dspy.settings.get(LMS)
    if lms is None:
        raise LMConfigurationError(
            f"dspy.LM({lm.model!r}) is asked where no call runs: while a module is imported, or in a thread that is "
            f"no call's. Ask it inside a call; making and configuring it is possible anywhere.",
            model=lm.model,
        )
    return lms


def is_of_user(lm: Any) -> bool:
    """Whether user code made this LM, and DSPy would connect for it."""
    is_dspys = isinstance(lm, dspy.LM) and not isinstance(lm, FallbackLM)
    return is_dspys and isinstance(getattr(lm, "engine", "auto"), str)


def options_for(carrier: FallbackLM, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a user's LM call as what carries it takes them: its own where the code gives none."""
    options = {name: value for name, value in given.items() if value is not None and name not in CLIENT_KEYS}
    own = {name: value for name, value in carrier.kwargs.items() if value is not None}
    if any(name in options for name in _LIMITS):  # one limit takes the place of the other
        own = {name: value for name, value in own.items() if name not in _LIMITS}
    return own | options


def is_forgotten(refused: ParentRefused) -> bool:
    """Whether the parent refused because it knows the LM no more."""
    return refused.failure.kind == "UnknownName"


def headers_of(lm: UserLM, options: Mapping[str, Any]) -> list[list[str]]:
    """Return the headers that user code adds to its LM's requests; the parent drops those that are its own to set.

    Raises:
        LMConfigurationError: one is a credential, or they are no text.
    """
    given: dict[str, Any] = {}
    for name in ("headers", "extra_headers"):
        given |= dict(options.get(name) or {})
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise LMConfigurationError("The headers of an LM are text.", model=lm.model)
        if name.lower() in _CREDENTIALS:
            raise LMConfigurationError(
                f"The header {name!r} is a credential, which a worker's requests cannot bring: give api_key= instead.",
                model=lm.model,
            )
    return [[name, value] for name, value in given.items()]


def _description(lm: UserLM, clients: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the parent is told of an LM."""
    if lm.model_type not in ("chat", "responses"):
        raise _uncarried(lm, f"model_type={lm.model_type!r}")
    for name in sorted(clients.keys() - _CARRIED):
        if clients[name] is not None:
            raise _uncarried(lm, f"{name}=")
    base = clients.get("api_base") or clients.get("base_url")
    described = {
        "model": lm.model,
        "provider": None if "/" in lm.model else lm15_provider(lm.model),
        "api_key": clients.get("api_key"),
        "api_base": base,
        "api_version": clients.get("api_version"),
        "model_type": None if lm.model_type == "chat" else lm.model_type,
        "retries": lm.num_retries,
        "timeout": _seconds(clients.get("timeout")),
    }
    for name in ("api_key", "api_base", "api_version"):
        if described[name] is not None and not isinstance(described[name], str):
            raise _uncarried(lm, f"{name}= that is a {type(described[name]).__name__}")
    return {name: value for name, value in described.items() if value is not None}


def _seconds(timeout: Any) -> float | None:
    """Return a timeout's seconds; of an httpx.Timeout, those of a wait for the next bytes."""
    value = getattr(timeout, "read", timeout)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _uncarried(lm: UserLM, what: str) -> LMUnsupportedFeatureError:
    return LMUnsupportedFeatureError(
        f"dspy.LM({lm.model!r}) has {what}, which requests through the parent cannot have. Configure "
        f"dspex.LM({lm.model!r}, direct=True) with it in the host, as lm or in lms: then a worker connects by itself.",
        model=lm.model,
    )
