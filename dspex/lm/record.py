"""`LM`: a frozen record of a model, its endpoint and options, resolved once. It opens nothing.

Environment names (keys, base URLs) are read when the record is made (`resolution`), and never later. A worker gets
`to_wire()`, which holds no key. Any thread. Rules: DESIGN §4, RULES I4, I5 and X3.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Unpack, cast

from ..errors import LMConfigurationError, SettingsError
from .credentials import credentials_in, secrets_of
from .lm_options import ALIASES, AliasedOptions, ClientOptions, ProviderOptions, ServerOptions
from .model_table import model_facts
from .providers import Provider
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
from .resolution import base_url_for, key_for, provider_of, proxy_for
from .sent_options import (
    EXTRA,
    MARKS,
    members_in,
    refused_by,
    require_consistent,
    require_sendable,
    unknown_option,
    worded_by,
)

EMBEDDED_MAX_TOKENS = 1000  # else the embedded model may write until its context is full, for minutes
_RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}
# OpenAI's reasoning families; their "-chat" variants are ordinary models (DSPy 3.4.1, clients/lm.py).
_REASONING = re.compile(r"^(?:o[1345](?:-(?:mini|nano|pro))?(?:-\d{4}-\d\d-\d\d)?|gpt-5(?:\.\d+)*(?!-chat)(?:-.*)?)$")


class FurtherOptions(ProviderOptions, ServerOptions, ClientOptions, AliasedOptions, total=False):
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


class HoldsSecrets:
    """What of a record is no field: loggers and encoders write down all fields of a dataclass."""

    __slots__ = ("api_key", "direct_options", "extra_body", "headers", "proxy")

    api_key: str | None
    direct_options: Mapping[str, Any]
    extra_body: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...]
    proxy: str | None


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class LM(HoldsSecrets):
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

    model: str
    api_base: str
    temperature: float | None
    max_tokens: int | None
    cache: bool
    config: tuple[tuple[str, Any], ...]
    n: int
    timeout: float
    retries: int
    structured_outputs: bool | None
    function_calling: bool | None
    reasoning: bool | None
    private: bool
    cache_ttl: float | None
    fallbacks: tuple[LM, ...]
    requests_per_minute: float | None
    price: tuple[float, float] | None
    direct: bool
    key_source: str
    provider: Provider
    name: str
    ref: str

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
        put = self._put
        is_direct = further.get("direct", False) is True
        provider, name = provider_of(model, is_direct=is_direct)
        key, source = key_for(provider, api_key)
        put("api_key", key)
        put("key_source", source)
        del api_key, key  # reporters of errors show the variables of each frame
        options, others = _sorted_out(further, is_direct=is_direct)
        put("direct_options", MappingProxyType(others))
        require_kinds(options)
        put("extra_body", MappingProxyType(thawed(frozen(options.pop(EXTRA, None) or {}))))
        base = options.pop("api_base", None) if api_base is None else api_base
        put("model", model)
        put("provider", provider)
        put("name", name)
        put("api_base", base_url_for(provider, base))
        put("temperature", temperature)
        put("max_tokens", EMBEDDED_MAX_TOKENS if max_tokens is None and provider.prefix == "local" else max_tokens)
        put("cache", switch("cache", cache))
        given = options.pop("n", None)
        put("n", 1 if given is None else whole("n", given, 1))
        put("timeout", seconds("timeout", options.pop("timeout", 600.0)))
        put("retries", whole("retries", options.pop("retries", 3), 0))
        put("headers", header_pairs(options.pop("headers", ())))
        put("proxy", proxy_for(options.pop("proxy", None)))
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

    @property
    def supports_schema(self) -> bool:
        """Whether a JSON-schema response format may be sent (DSPy's `supports_response_schema`)."""
        known = self.structured_outputs
        return model_facts(self.provider, self.name).response_schema if known is None else known

    @property
    def supports_tools(self) -> bool:
        """Whether the model takes native function tools (DSPy's `supports_function_calling`)."""
        known = self.function_calling
        return model_facts(self.provider, self.name).function_calling if known is None else known

    @property
    def supports_reasoning(self) -> bool:
        """Whether the model has a reasoning dial."""
        known = self.reasoning
        return model_facts(self.provider, self.name).reasoning if known is None else known

    @property
    def rates(self) -> tuple[float, float, float] | None:
        """USD per input token, per output token and per input token read from a cache; None when unknown."""
        if self.price is not None:
            per_input, per_output = self.price
            return per_input / 1e6, per_output / 1e6, per_input / 1e6
        facts = model_facts(self.provider, self.name)
        if facts.price is None:
            return None
        per_input, per_output = facts.price
        return per_input, per_output, per_input if facts.cached_price is None else facts.cached_price

    @property
    def native(self) -> bool:
        """Whether the parent itself can call this model, and its fallbacks; else only workers can."""
        is_own = self.provider.native and not self.direct
        return is_own and (not self.fallbacks or all(lm.native for lm in self.fallbacks))

    @property
    def is_reasoning_model(self) -> bool:
        """Whether this is one of OpenAI's reasoning families, which fix temperature and want many tokens."""
        return _REASONING.match(self.model.rsplit("/", 1)[-1].lower()) is not None

    @property
    def is_temperature_fixed(self) -> bool:
        """Whether it refuses a temperature that others choose: OpenAI's reasoning families, and any that thinks."""
        return self.is_reasoning_model or thinks(dict(self.config))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no message may show: the key, those in headers, a proxy's password."""
        key = None if self.api_key == self.provider.placeholder_key else self.api_key
        texts = [(name, value) for name, value in self.direct_options.items() if isinstance(value, str)]
        texts += credentials_in(self.extra_body)
        return secrets_of(key, (*self.headers, *texts), self.proxy)

    def options(self) -> dict[str, Any]:
        """Return the generation options of the record, as a call's configuration would give them; None is absent."""
        merged: dict[str, Any] = {}
        if self.temperature is not None:
            merged["temperature"] = self.temperature
        if self.max_tokens is not None:
            # DSPy keeps the limit of OpenAI's reasoning models under their own name for it.
            merged["max_completion_tokens" if self.is_reasoning_model else "max_tokens"] = self.max_tokens
        for option, value in self.config:
            merged[option] = thawed(value)
        if self.extra_body:
            merged[EXTRA] = dict(self.extra_body)
        return merged

    @property
    def members(self) -> dict[str, Any]:
        """The members of a request's body that its options stand for, beside those that dialects word."""
        return members_in(self.provider, self.options())

    @property
    def cache_marks(self) -> Sequence[Mapping[str, Any]]:
        """The messages that the provider is asked to cache."""
        marks: list[Mapping[str, Any]] = thawed(dict(self.config).get(MARKS, ("[]", ())))
        return marks

    def require_sendable(self, config: Mapping[str, Any]) -> None:
        """Check that a call's options get to its provider, and to those of its fallbacks.

        Raises:
            UnknownName, LMConfigurationError, LMUnsupportedFeatureError: one does not; see `sent_options`.
        """
        if not self.direct:
            require_sendable(self.provider, self.model, config)
            require_consistent(self.provider, self.model, {**self.options(), **config})
        for lm in self.fallbacks:
            lm.require_sendable(config)

    def replace(self, **changes: Unpack[LMChanges]) -> LM:
        """Return the same record with other settings."""
        # Joined without a name: reporters of errors would show the key among a frame's variables.
        return LM(**cast("dict[str, Any]", {**self.settings(), **changes}))

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make this record again, the key included."""
        names = (*HoldsSecrets.__slots__, *(field.name for field in fields(self)))
        plain = {name: getattr(self, name) for name in names if name not in _DERIVED}
        plain[EXTRA] = dict(self.extra_body)
        return {**plain, **{option: thawed(value) for option, value in self.config}, **self.direct_options}

    def to_wire(self) -> dict[str, Any]:
        """Return what a worker needs to build the same `dspy.LM`: plain data, no key, no headers.

        "options" are what DSPy words; the members of a body stay here, but for one that workers send by themselves.
        """
        worded = worded_by(self.provider)
        options = {name: thawed(value) for name, value in self.config if self.direct or name in worded}
        if self.direct and self.extra_body:
            options[EXTRA] = dict(self.extra_body)
        prefix = "hosted_vllm" if self.provider.prefix == "local" else self.provider.prefix
        return {
            "ref": self.ref,
            "model": f"{prefix}/{self.name}",
            "named": self.model,
            "provider": self.provider.id,
            "dialect": self.provider.dialect,
            "api_base": self.api_base,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "n": self.n,
            "cache": self.cache,
            "timeout": self.timeout,
            "options": options,
            "worded": [] if self.direct else sorted(worded),
            "refused": {} if self.direct else dict(refused_by(self.provider)),
            "supports": {
                "response_schema": self.supports_schema,
                "function_calling": self.supports_tools,
                "reasoning": self.supports_reasoning,
            },
            "structured_outputs": self.structured_outputs,
            "is_temperature_fixed": self.is_temperature_fixed,
            "direct": self.direct,
            "fallbacks": [lm.to_wire() for lm in self.fallbacks],
        }

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
        if not self.direct:
            require_sendable(self.provider, self.model, self.options(), "LM()")
            require_consistent(self.provider, self.model, self.options())


KNOWN = LMChanges.__optional_keys__ - ALIASES.keys()
"""The options of `LM`, without their other names."""

_DERIVED = frozenset({"config", "direct_options", "key_source", "provider", "name", "ref"})


def _sorted_out(options: Mapping[str, Any], *, is_direct: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that are known here, and those that only DSPy knows, which a direct LM may have."""
    known: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for option, value in options.items():
        name = ALIASES.get(option, option)
        if name in KNOWN:
            known[name] = value
        elif is_direct:
            others[option] = value
        else:
            raise unknown_option(option, KNOWN, "LM()")
    return known, others


def thinks(options: Mapping[str, Any]) -> bool:
    """Return whether these options make a model think: then Anthropic's takes no temperature but 1."""
    thinking = thawed(options.get("thinking"))
    is_on = isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
    return is_on or options.get("reasoning_effort") not in (None, "none")


def _lms(given: Iterable[LM]) -> tuple[LM, ...]:
    lms = (given,) if isinstance(given, LM) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(lm, LM) for lm in lms):
        raise SettingsError(f"fallbacks must be LMs, not {given!r}.", key="fallbacks")
    return lms
