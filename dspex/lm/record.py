"""`LM`: a frozen record of a model, its endpoint and options, resolved once. It opens nothing.

Environment names (keys, base URLs) are read when the record is made (`resolution`), and never later. A worker gets
`to_wire()`, which holds no key. Any thread. Rules: DESIGN §4, RULES I4, I5 and X3.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Unpack

from ..errors import LMConfigurationError, SettingsError
from ..unshown_values import UnshownOptions, without_frames
from .clouds.cloud_options import CLOUD_OPTIONS, SECRET_OPTIONS, CloudOptions, concealed
from .connection_options import connection_options, network_for
from .lm_options import ALIASES, AliasedOptions, ClientOptions, ProviderOptions, ServerOptions
from .model_types import model_type_of, provider_for, require_reachable
from .record_checks import (
    claim,
    frozen,
    header_pairs,
    is_number,
    price_of,
    require_kinds,
    seconds,
    switch,
    thawed,
    whole,
)
from .record_facts import LMFacts
from .record_wire import wire_form
from .resolution import base_url_for, cloud_account_for, key_for, provider_of
from .secret_settings import HoldsSecrets
from .sent_options import (
    EXTRA,
    require_consistent,
    require_direct,
    require_sendable,
    unknown_option,
)
from .strict_schemas import with_plain_format

EMBEDDED_MAX_TOKENS = 1000  # else the embedded model may write until its context is full, for minutes
_RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}


class FurtherOptions(ProviderOptions, ServerOptions, ClientOptions, AliasedOptions, CloudOptions, total=False):
    """The options of `dspex.LM` beside those that its signature names."""

    fallbacks: LM | Iterable[LM]  # asked in turn when this one fails


class LMChanges(FurtherOptions, total=False):
    """All settings of an `LM`, by the names that `LM.replace` takes."""

    model: str
    api_base: str | None
    api_key: str | None
    temperature: float | None
    max_tokens: int | None
    cache: bool


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class LM(LMFacts):
    """A language model to call: `LM("openai/gpt-4o-mini", temperature=0.2, timeout=30)`.

    Args:
        model: `provider/name`; see `providers.PROVIDERS` for the providers.
        api_base: The endpoint; default: `<PROVIDER>_BASE_URL` or `_API_BASE` in the environment, else the provider's.
        api_key: The key; default: the provider's environment name. Never shown, never sent to a worker.
        temperature: None leaves it out of the request.
        max_tokens: None leaves it out of the request; the embedded model (`local/...`) then gets 1,000.
        cache: Whether answers may be served from DSPex's cache.
        further: See `FurtherOptions`: what the client does (`n`, `timeout` in seconds of one attempt,
            default 600, `retries`, `headers`, `fallbacks`, `price`, ...), and what is sent (`top_p`, `seed`, `stop`,
            ...); `extra_body` holds parameters of any name, `extra_headers` is `headers`. With `direct=True` any other
            option is passed to `dspy.LM`, in the worker that connects by itself.

    Raises:
        UnknownName: a provider or option that does not exist.
        SettingsError: a value out of its range.
        LMConfigurationError: settings that the model's family refuses.
        LMUnsupportedFeatureError: an option that this provider does not have, and that would be lost on the way.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = True,
        **further: Unpack[FurtherOptions],
    ) -> None:
        try:
            self._make(model, api_base, api_key, temperature, max_tokens, cache, further)
        except Exception as error:  # any refusal: its frames hold options
            refusal = without_frames(error)
        else:
            return
        del api_base, api_key, further  # reporters of errors show the variables of each frame
        raise refusal

    def _make(
        self,
        model: str,
        api_base: str | None,
        api_key: str | None,
        temperature: float | None,
        max_tokens: int | None,
        cache: bool,
        further: FurtherOptions,
    ) -> None:
        put = self._put
        given = concealed(further)
        is_direct = given.get("direct", False) is True
        provider, name = provider_of(model, is_direct=is_direct)
        model_type = model_type_of(given.pop("model_type", None))
        provider = provider if is_direct else provider_for(provider, model_type, model)
        put("model_type", model_type)
        key, source = key_for(provider, api_key, has_identity=not is_direct and any(map(given.get, SECRET_OPTIONS)))
        put("api_key", key)
        put("key_source", source)
        options, others = _sorted_out(given, is_direct=is_direct)
        put("direct_options", MappingProxyType(others))
        cloud = {name: options.pop(name) for name in [*options] if name in CLOUD_OPTIONS}
        options = dict(with_plain_format(options))
        require_kinds(options)
        put("extra_body", MappingProxyType(thawed(frozen(options.pop(EXTRA, None) or {}))))
        base = options.pop("api_base", None) if api_base is None else api_base
        put("model", model)
        put("provider", provider)
        put("name", name)
        account = None if is_direct else cloud_account_for(model, provider, name, cloud, base, self)
        require_reachable(model_type, account, model)
        put("account", account)
        url, query = (account.base_url, account.query) if account is not None else base_url_for(provider, base)
        put("api_base", url)
        put("query", query)
        put("temperature", temperature)
        put("max_tokens", EMBEDDED_MAX_TOKENS if max_tokens is None and provider.prefix == "local" else max_tokens)
        put("cache", switch("cache", cache))
        count = options.pop("n", None)
        put("n", 1 if count is None else whole("n", count, 1))
        put("timeout", seconds("timeout", options.pop("timeout", 600.0)))
        put("retries", whole("retries", options.pop("retries", 3), 0))
        put("headers", header_pairs(options.pop("headers", ())))
        connection = connection_options(options)
        for option, value in connection.items():
            put(option, value)
        put("network", network_for(model, self.api_base, connection, is_direct=is_direct))
        structured = options.pop("structured_outputs", None)
        put("structured_outputs", claim("structured_outputs", provider.prefix == "local" or structured))
        put("function_calling", claim("function_calling", options.pop("function_calling", None)))
        is_sent = isinstance(options.get("reasoning"), Mapping)  # OpenRouter's word; else a claim about the model
        put("reasoning", None if is_sent else claim("reasoning", options.pop("reasoning", None)))
        put("private", switch("private", options.pop("private", False)))
        ttl = options.pop("cache_ttl", None)
        put("cache_ttl", None if ttl is None else seconds("cache_ttl", ttl))
        put("fallbacks", _lms(options.pop("fallbacks", ())))
        rate = options.pop("requests_per_minute", None)
        put("requests_per_minute", None if rate is None else seconds("requests_per_minute", rate))
        put("price", price_of(options.pop("price", None)))
        put("direct", switch("direct", options.pop("direct", False)))
        put("config", tuple((option, frozen(value)) for option, value in options.items() if value is not None))
        put("ref", self._digest())
        self._check()

    def replace(self, **changes: Unpack[LMChanges]) -> LM:
        """Return the same record with other settings."""
        given = UnshownOptions({**self.settings(), **changes})
        del changes
        return LM(**given)

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make this record again, the key included."""
        names = (*HoldsSecrets.__slots__, *(field.name for field in fields(self)))
        plain = {name: getattr(self, name) for name in names if name not in _DERIVED}
        plain[EXTRA] = dict(self.extra_body)
        if self.proxy is None:  # given as None it means that there is none
            del plain["proxy"]
        if self.account is not None:
            plain |= {"api_base": self.account.endpoint, **self.account.options}
        elif self.query:
            plain["api_base"] = f"{self.api_base}?{self.query}"
        return {**plain, **{option: thawed(value) for option, value in self.config}, **self.direct_options}

    def to_wire(self) -> dict[str, Any]:
        """Return what a worker needs to build the same `dspy.LM`: plain data, no key, no headers."""
        return wire_form(self)

    def __repr__(self) -> str:
        if not hasattr(self, "ref"):
            return "<an LM that is being made>"
        shown = [repr(self.model)]
        if self.api_base != self.provider.base_url:
            shown.append(f"api_base={self.api_base.split('?')[0]!r}")
        shown += [f"{name}={value!r}" for name, value in self.options().items() if name != EXTRA]
        shown += [f"{EXTRA}={{{', '.join(f'{name!r}: ...' for name in self.extra_body)}}}"] if self.extra_body else []
        shown.append("api_key=" + ("'***'" if self.api_key else "None"))
        return f"LM({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return self.ref == other.ref if isinstance(other, LM) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.ref)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("An LM holds a key and is not pickled; send to_wire() or make the LM where it is used.")

    def _put(self, field: str, value: Any) -> None:
        """The one way into a frozen record, while it is made."""
        object.__setattr__(self, field, value)

    def _digest(self) -> str:
        """A digest of all settings; the key enters as a digest of its own, so that equal refs mean equal keys."""
        plain = {k: v for k, v in self.settings().items() if k not in ("api_key", "fallbacks")}
        plain["key"] = hashlib.sha256(f"dspex.key:{self.api_key}".encode()).hexdigest()
        plain["fallbacks"] = [lm.ref for lm in self.fallbacks]
        of_cloud = self.account.options if self.account is not None else {}
        plain |= {name: id(value) for name, value in of_cloud.items() if callable(value)}
        plain |= {name: str(value) for name, value in of_cloud.items() if isinstance(value, os.PathLike)}
        plain["network"] = self.network.digest()
        try:
            text = json.dumps(plain, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"An option of LM({self.model!r}) is not plain data: {error}.") from None
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _check(self) -> None:
        for option, (low, high) in _RANGES.items():
            value = self.temperature if option == "temperature" else dict(self.config).get(option)
            if value is not None and not (is_number(value) and low <= value <= high):
                raise SettingsError(f"{option} must be a number from {low:g} to {high:g}, not {value!r}.", key=option)
        if self.max_tokens is not None:
            whole("max_tokens", self.max_tokens, 1)
        if self.is_reasoning_model:
            low_tokens = self.max_tokens is not None and self.max_tokens < 16000
            if self.temperature not in (None, 0, 1) or low_tokens:
                raise LMConfigurationError(
                    "OpenAI's reasoning models take temperature=1.0 or None and max_tokens of at least 16000 or None.",
                    model=self.model,
                    provider=self.provider.prefix,
                )
        if self.direct:
            require_direct(self.provider, self.model, self.settings())
        else:
            require_sendable(self.provider, self.model, self.options(), "LM()")
            require_consistent(self.provider, self.model, self.options())


KNOWN = LMChanges.__optional_keys__ - ALIASES.keys()
"""The options of `LM`, without their other names."""

_DERIVED = frozenset(
    {"account", "config", "direct_options", "key_source", "network", "provider", "name", "query", "ref"}
)


def _sorted_out(options: Mapping[str, Any], *, is_direct: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that are known here, and those that only DSPy knows, which a direct LM may have."""
    known: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for option, value in options.items():
        name = ALIASES.get(option, option)
        if is_direct and name in CLOUD_OPTIONS:
            others |= {} if value is None else {name: value}
        elif name in KNOWN:
            known[name] = value
        elif is_direct:
            others[option] = value
        else:
            raise unknown_option(option, KNOWN, "LM()")
    return known, others


def _lms(given: Iterable[LM]) -> tuple[LM, ...]:
    lms = (given,) if isinstance(given, LM) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(lm, LM) for lm in lms):
        kinds = ", ".join(sorted({type(lm).__name__ for lm in lms if not isinstance(lm, LM)}))
        raise SettingsError(f"fallbacks must be LMs (dspex.LM), not of type {kinds}.", key="fallbacks")
    return lms
