"""`ServedLM`: a language model of a service, as its clients have it: without its key, and asked through the service.

The service tells what a prompt and a request depend on (model, options, abilities); who asks it, when, at whose cost
and by which key stays there. Its ref says which one it is, what was told of it (a digest: two services, or one whose
settings changed, have no ref in common), and which options were changed: `service:cheap/9f2c11d0/{"n":2}`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Unpack

from ..errors import LMConfigurationError
from .lm_options import ProviderOptions
from .lm_port import LMPort
from .named_lms import is_name
from .record import LM, LMChanges
from .record_checks import thawed

SCHEME: Final = "service:"
DEFAULT: Final = "default"  # the name of the service's own
REF_MOST: Final = 480  # characters
STAND_IN: Final = "the-service-has-it"  # for the key
_TOLD = (
    "model", "model_type", "api_base", "temperature", "max_tokens", "cache", "n", "timeout", "retries",
    "structured_outputs", "function_calling", "reasoning", "private", "cache_ttl", "price",
)  # fmt: skip
# What a client may change of a model: how it answers, and how long and how often it is asked. Not where.
CHANGEABLE: Final = frozenset(ProviderOptions.__annotations__) - {"extra_body", "headers", "provider"} | {
    "temperature", "max_tokens", "cache", "n", "timeout", "retries", "cache_ttl"
}  # fmt: skip


class ServedLM(LM):
    """A language model of a service."""

    _port: LMPort
    served_as: str
    told: Mapping[str, Any]
    changes: Mapping[str, Any]

    __slots__ = ("_port", "changes", "served_as", "told")

    def __init__(
        self, port: LMPort, name: str, told: Mapping[str, Any], changes: Mapping[str, Any] | None = None
    ) -> None:
        """Make it of what the service told of its model `name`.

        Raises:
            SettingsError, LMConfigurationError, UnknownName: what is told, or changed, makes no LM.
        """
        own = dict(changes or {})
        given: dict[str, Any] = {**told, **own}
        super().__init__(given.pop("model"), api_key=STAND_IN, **given)
        self._put("_port", port)
        self._put("served_as", name)
        self._put("told", dict(told))
        self._put("changes", own)
        self._put("ref", ref_of(name, told, own))

    @property
    def port(self) -> LMPort:
        return self._port

    def replace(self, **changes: Unpack[LMChanges]) -> LM:
        """Return the same model with other options.

        Raises:
            LMConfigurationError: an option says where or by which key the service asks.
        """
        now = self.settings()
        new = {name: value for name, value in changes.items() if _plain(now.get(name)) != _plain(value)}
        for name in new:
            if name not in CHANGEABLE:
                raise LMConfigurationError(
                    f"{name} of {self.model!r} is the service's to say: it has this language model and its key. Give "
                    f"an LM of your own (dspex.LM(...)) to ask by another.",
                    model=self.model,
                )
        return ServedLM(self._port, self.served_as, self.told, {**self.changes, **new}) if new else self


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def ref_of(name: str, told: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Return the ref of a service's LM with some options changed.

    Raises:
        LMConfigurationError: the changes are no plain data, or too long.
    """
    try:
        facts = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
        ref = f"{SCHEME}{name}/{facts}/{json.dumps(changes, sort_keys=True) if changes else ''}"
    except (TypeError, ValueError) as error:
        raise LMConfigurationError(f"An option of the service's language model is no plain data: {error}.") from None
    if len(ref) > REF_MOST:
        raise LMConfigurationError(
            f"The options of the service's language model {name!r} take {len(ref)} characters, over the limit of "
            f"{REF_MOST}: give them with the call (config=)."
        )
    return ref


def read_ref(ref: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the changes that a client's ref says.

    Raises:
        LMConfigurationError: it says none, or changes what is not a client's to change.
    """
    name, _, rest = ref.removeprefix(SCHEME).partition("/")
    text = rest.partition("/")[2]
    try:
        changes = json.loads(text) if text else {}
    except ValueError:
        changes = None
    if (
        not ref.startswith(SCHEME)
        or len(ref) > REF_MOST
        or not name
        or not is_name(name)
        or not isinstance(changes, dict)
    ):
        raise LMConfigurationError(f"{ref[:100]!r} names no language model of a service.")
    for option in changes:
        if option not in CHANGEABLE:
            raise LMConfigurationError(f"A client may not change {option[:100]!r} of a service's language model.")
    return name, changes


def told_of(lm: LM) -> dict[str, Any]:
    """Return what a service tells its clients of an LM: no key, no headers, and of a cloud's account nothing."""
    if lm.direct or lm.account is not None:
        return {"model": lm.model, "direct": True}  # workers ask it, whose record the service makes itself
    settings = lm.settings()
    told = {name: _plain(settings[name]) for name in _TOLD if settings.get(name) is not None}
    told["api_base"] = lm.api_base  # without its query, which may name a subscription
    return told | {name: thawed(value) for name, value in lm.config if name in CHANGEABLE}
