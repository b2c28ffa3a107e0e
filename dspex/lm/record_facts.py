"""`LMFacts`: the settings of an `LM` once they are made, and what follows from them. Any thread."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

from .credentials import credentials_in, secrets_of
from .dspy_lm15 import has_lm15
from .lm_options import ConnectionOptions
from .model_table import model_facts
from .provider import Provider
from .record_checks import thawed
from .secret_settings import HoldsSecrets
from .sent_options import EXTRA, MARKS, members_in, require_consistent, require_sendable

if TYPE_CHECKING:
    from .clouds.signer import Signer
    from .lm_port import LMPort

_OF_DEPLOYMENTS = {"max_completion_tokens": "max_tokens"}
# OpenAI's reasoning families; their "-chat" variants are ordinary models (DSPy 3.4.1, clients/lm.py).
_REASONING = re.compile(r"^(?:o[1345](?:-(?:mini|nano|pro))?(?:-\d{4}-\d\d-\d\d)?|gpt-5(?:\.\d+)*(?!-chat)(?:-.*)?)$")


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class LMFacts(HoldsSecrets):
    """The settings of a language model: `record.LM` makes them."""

    model: str
    model_type: str
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
    fallbacks: tuple[Self, ...]
    requests_per_minute: float | None
    price: tuple[float, float] | None
    direct: bool
    ssl_verify: bool | str | None
    max_connections: int | None
    key_source: str
    provider: Provider
    name: str
    ref: str

    @property
    def port(self) -> LMPort | None:
        """The way to the service that has it; None for a language model that this process asks itself."""
        return None

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
        return self.obstacle is None

    @property
    def obstacle(self) -> str | None:
        """Why only workers can call this model, or one of its fallbacks; None where the parent can too."""
        provider = self.provider
        if self.direct:
            return f"{self.model} has direct=True: the worker gets the key, and connects by itself"
        if not provider.native or (provider.by_lm15 and not has_lm15()):
            return f"requests to {provider.prefix} are written by DSPy's provider library, which is not installed here"
        return next((why for lm in self.fallbacks if (why := lm.obstacle) is not None), None)

    @property
    def is_reasoning_model(self) -> bool:
        """Whether this is one of OpenAI's reasoning families, which fix temperature and want many tokens."""
        return _REASONING.match(self.model.rsplit("/", 1)[-1].lower()) is not None

    @property
    def is_temperature_fixed(self) -> bool:
        """Whether it refuses a temperature that others choose: OpenAI's reasoning families, and any that thinks."""
        return self.is_reasoning_model or thinks(self.options())

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no message may show: the key, those in headers, a proxy's password."""
        key = None if self.api_key == self.provider.placeholder_key else self.api_key
        texts = [(name, value) for name, value in self.direct_options.items() if isinstance(value, str)]
        texts += credentials_in(self.extra_body)
        texts += credentials_in(dict(parse_qsl(self.query)))
        if self.ssl_certificate is not None and self.ssl_certificate[2]:
            texts.append(("password", self.ssl_certificate[2]))
        of_cloud = self.account.secrets if self.account is not None else ()
        return (*secrets_of(key, (*self.headers, *texts), self.proxy), *of_cloud)

    @property
    def worker_base(self) -> str:
        """The base URL for which workers write their requests; the host's own may name a deployment."""
        return self.api_base if self.account is None else self.account.worker_base

    @property
    def host_settings(self) -> Mapping[str, str]:
        """What names a cloud's endpoint: region, project, ... ; no secrets."""
        return self.account.settings if self.account is not None else {}

    @property
    def signer(self) -> Signer | None:
        """What signs each request as it is sent; None where the key does."""
        return self.account.signer if self.account is not None else None

    @property
    def identity(self) -> str | None:
        """Whoever asks, for what is kept apart by key."""
        of_cloud = self.account.secrets if self.account is not None else ()
        return self.api_key or "\n".join(of_cloud) or None

    @property
    def renames(self) -> Mapping[str, str]:
        """The members of a body that the endpoint takes under another name than DSPy's client gives them.

        A deployment of Azure's is asked as litellm asks it: versions of that API before September 2024 know no
        `max_completion_tokens`, which only reasoning models want.
        """
        is_deployment = self.account is not None and self.account.base_url != self.account.worker_base
        return _OF_DEPLOYMENTS if is_deployment and not self.is_reasoning_model else {}

    def connection(self) -> ConnectionOptions:
        """Return the options by which another LM at this endpoint is connected to alike."""
        given = ConnectionOptions(
            ssl_verify=self.ssl_verify, ssl_certificate=self.ssl_certificate, max_connections=self.max_connections
        )
        return given if self.proxy is None else {**given, "proxy": self.proxy}

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


def thinks(options: Mapping[str, Any]) -> bool:
    """Return whether these options make a model think: then Anthropic's takes no temperature but 1."""
    within = options.get(EXTRA)
    said = {**options, **within} if isinstance(within, Mapping) else options
    thinking, reasoning = said.get("thinking"), said.get("reasoning")
    is_on = isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
    efforts = (said.get("reasoning_effort"), reasoning.get("effort") if isinstance(reasoning, Mapping) else None)
    return is_on or any(effort not in (None, "none") for effort in efforts)
