"""`DescribedLMs`: find or make the LM that user code in a worker asks for, as in `dspy.LM("openai/gpt-4o-mini")`.

What is configured is found by its name or its model. Where the pool's setting `lms` is "any", another LM is made of the
host's variables; it is the worker's own, and no other worker's. The host's keys go nowhere but to the endpoints that
the host knows; a key that the user's code gives goes where that code says. Any thread.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import defaults
from ..errors import (
    DspexError,
    InvalidInput,
    LMConfigurationError,
    LMUnsupportedFeatureError,
    SettingsError,
    UnknownName,
)
from ..lm.named_lms import NamedLMs, is_name
from ..lm.providers import PROVIDERS
from ..lm.record import LM
from ..lm.redaction import redact
from ..lm.resolution import provider_of
from ..lm.sent_options import DECIDING
from ..scoped_defaults import scoped

if TYPE_CHECKING:
    from ..pools.callbacks import Callback
    from ..pools.supervising import Supervising
    from ..pools.worker import Worker

KEPT = 256  # LMs of one worker's own; the least recently asked go, and are described again
MODEL_MOST = 500  # characters
KEY_MOST = 16 * 1024
URL_MOST = 8 * 1024
RETRIES_MOST = 20
TIMEOUT_MOST = 24 * 3600.0  # seconds
NO_KEY = "EMPTY"  # for an endpoint that the host does not know: servers without keys take any
_MOST = {
    **dict.fromkeys(("model", "provider", "model_type", "api_version", "of"), MODEL_MOST),
    "api_key": KEY_MOST,
    "api_base": URL_MOST,
}
_FIELDS = frozenset(
    {"model", "provider", "api_key", "api_base", "api_version", "model_type", "of", "retries", "timeout"}
)


class DescribedLMs:
    """The LMs that the workers of one supervisor describe. `policy` is for pools that set none."""

    def __init__(
        self,
        supervisor: Supervising,
        record_of: Callable[[LM], dict[str, Any]],
        lm_of: Callable[[str], LM | None] = lambda ref: None,
    ) -> None:
        self.policy = "any"
        self._supervisor = supervisor
        self._record_of = record_of
        self._lm_of = lm_of
        self._lock = threading.Lock()
        self._own: weakref.WeakKeyDictionary[Worker, OrderedDict[str, LM]] = weakref.WeakKeyDictionary()

    def describe(self, request: Callback) -> dict[str, Any]:
        """Answer an "lm.describe": {"record": what a worker needs of the LM, "is_shared": whether other calls find it}.

        Raises:
            InvalidInput: the description is malformed.
            LMConfigurationError: the pool takes configured LMs only, and this is none.
            LMUnsupportedFeatureError: only DSPy itself can reach the model.
        """
        asked = _checked(request.arguments)
        known = defaults.configured_lms(self._supervisor)
        is_endpoint_given = asked.get("api_key") is not None or asked.get("api_base") is not None
        policy = self._supervisor.pool(request.pool.name).config.lms or self.policy
        found = None if is_endpoint_given else _configured(known, asked)
        if found is None and not is_endpoint_given and (of_call := self._of_call(asked)) is not None:
            return {"record": self._record_of(_within_limits(of_call, asked)), "is_shared": False}
        if found is None and policy != "any":
            raise _refused(asked, known, request.pool.name, is_endpoint_given=is_endpoint_given)
        if found is None:
            lm = _within_limits(_made(asked, known), asked)
            self._keep(request.worker, lm)
            return {"record": lm.to_wire(), "is_shared": True}
        return {"record": self._record_of(_within_limits(found, asked)), "is_shared": not scoped().is_of_lms}

    def of(self, worker: Worker) -> Mapping[str, LM]:
        """Return the worker's own LMs, by their refs."""
        return self._own.get(worker) or {}

    def _of_call(self, asked: Mapping[str, Any]) -> LM | None:
        """Return the connection of an LM that came with the call, for another of its endpoint's APIs."""
        lm = self._lm_of(asked.get("of", ""))
        if lm is None or lm.model != asked["model"]:
            return None
        return _connection_of(lm).replace(model_type=asked.get("model_type"))

    def _keep(self, worker: Worker, lm: LM) -> None:
        with self._lock:
            own = self._own.setdefault(worker, OrderedDict())
            own[lm.ref] = lm
            own.move_to_end(lm.ref)
            while len(own) > KEPT:
                own.popitem(last=False)


def _checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description whose fields have the right types and lengths."""
    for name in arguments:
        if name not in _FIELDS:
            raise InvalidInput(f"A description of a language model has no {str(name)[:50]!r}.", field=str(name)[:50])
    asked = {name: value for name, value in arguments.items() if value is not None}
    for name, most in _MOST.items():
        _require_text(asked, name, most)
    if "model" not in asked:
        raise InvalidInput("A description of a language model names its model.", field="model")
    retries, timeout = asked.get("retries", 0), asked.get("timeout", 1.0)
    if type(retries) is not int or retries < 0:
        raise InvalidInput("The retries of a language model are a whole number of 0 or more.", field="retries")
    if type(timeout) not in (int, float) or not math.isfinite(timeout) or timeout <= 0:
        raise InvalidInput("The timeout of a language model is a number of seconds.", field="timeout")
    return asked


def _require_text(asked: Mapping[str, Any], name: str, most: int) -> None:
    text = asked.get(name, "x")
    if not isinstance(text, str) or not 0 < len(text) <= most or not text.isprintable():
        raise InvalidInput(
            f"The {name} of a language model is text of 1 to {most:,} characters on one line.", field=name
        )


def _configured(known: NamedLMs, asked: Mapping[str, Any]) -> LM | None:
    """Return what is configured: by its name with all its options, by its model with its connection alone."""
    model, model_type = asked["model"], asked.get("model_type")
    if is_name(model):
        named = known.by_name.get(model)
        return named if named is None or model_type is None else named.replace(model_type=model_type)
    found = known.of_model(model)
    return None if found is None else _connection_of(found).replace(model_type=model_type)


def _connection_of(lm: LM) -> LM:
    """Return the LM without its options for answers: these are for the code that asks.

    Where a gateway may ask is no such option, and stays.
    """
    options: dict[str, Any] = dict.fromkeys((name for name, _ in lm.config if name not in DECIDING), None)
    body = {name: value for name, value in lm.extra_body.items() if name in DECIDING}
    return lm.replace(temperature=None, max_tokens=None, n=1, extra_body=body, **options)


def _made(asked: Mapping[str, Any], known: NamedLMs) -> LM:
    """Return an LM of the host's variables, and of what the user's code says of the endpoint."""
    model, key, base = asked["model"], asked.get("api_key"), asked.get("api_base")
    model_type = asked.get("model_type")
    if is_name(model):
        model = _with_provider(asked, known)
    try:
        if base is None or key is not None:
            version = asked.get("api_version")
            return LM(model, api_key=key, api_base=base, api_version=version, model_type=model_type)
        return _without_hosts_key(model, base, known, asked.get("api_version")).replace(model_type=model_type)
    except UnknownName as error:
        raise _unsupported(model, error) from None
    except SettingsError as error:
        raise LMConfigurationError(redact(str(error), key), model=model) from None


def _without_hosts_key(model: str, base: str, known: NamedLMs, version: str | None) -> LM:
    """Return the LM at an address that the code names: the host's key goes there only if the host knows it."""
    placeholder = provider_of(model)[0].placeholder_key or NO_KEY
    made = LM(model, api_base=base, api_version=version, api_key=placeholder)
    try:
        usual = [LM(model, api_version=version)]
    except LMConfigurationError:  # of a cloud that the host has no account of
        usual = []
    everyone = (*usual, *(() if known.default is None else (known.default,)), *known.by_name.values())
    for lm in everyone:
        if lm.provider.prefix == made.provider.prefix and lm.api_base == made.api_base:
            of_cloud: dict[str, Any] = {**(lm.account.options if lm.account is not None else {})}
            of_cloud |= {"api_version": version} if version is not None else {}
            return LM(model, api_base=base, api_key=lm.api_key, headers=lm.headers, **lm.connection(), **of_cloud)
    return made


def _with_provider(asked: Mapping[str, Any], known: NamedLMs) -> str:
    """Return the model of a name without provider, as DSPy understands it ("gpt-4o-mini")."""
    model, id = asked["model"], asked.get("provider")
    prefix = next((each.prefix for each in PROVIDERS.values() if each.id == id), None) if id else None
    if prefix is not None:
        return f"{prefix}/{model}"
    raise LMConfigurationError(
        f"{_no_such(model, known)} A model is named with its provider, such as 'openai/{model}'.", model=model
    )


def _within_limits(lm: LM, asked: Mapping[str, Any]) -> LM:
    """Return the LM with the retries and the timeout that the code wants, where it says."""
    changes: dict[str, Any] = {}
    if "retries" in asked and (retries := min(asked["retries"], RETRIES_MOST)) != lm.retries:
        changes["retries"] = retries
    if "timeout" in asked and (timeout := min(float(asked["timeout"]), TIMEOUT_MOST)) != lm.timeout:
        changes["timeout"] = timeout
    return lm.replace(**changes) if changes else lm


def _no_such(model: str, known: NamedLMs) -> str:
    return str(UnknownName("language model", model, known.by_name, where="the configured LMs"))


def _refused(asked: Mapping[str, Any], known: NamedLMs, pool: str, *, is_endpoint_given: bool) -> DspexError:
    model = asked["model"]
    models = sorted({lm.model for lm in (known.default, *known.by_name.values()) if lm is not None})
    what = (
        f"The code gives the language model {model!r} a key or an address of its own"
        if is_endpoint_given
        else f"The code asks for the language model {model!r}, which is not configured (names: "
        f"{', '.join(sorted(known.by_name)) or 'none'}; models: {', '.join(models) or 'none'})"
    )
    return LMConfigurationError(
        f'{what}, and the pool {pool!r} takes configured ones only (its setting lms is "named", the default of a '
        f'service). Configure it, in the [lm] table or as [lms.<name>], or set lms = "any" for the pool.',
        model=model,
    )


def _unsupported(model: str, error: UnknownName) -> DspexError:
    return LMUnsupportedFeatureError(
        f"{error} The host cannot carry requests to {model!r}. If DSPy itself can reach it, configure "
        f"dspex.LM({model!r}, direct=True) in the host, as lm or in lms: then dspy.LM({model!r}) in a worker connects "
        f"by itself.",
        model=model,
    )
