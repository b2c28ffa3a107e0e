"""How a program's adapter gets to workers: its name and options, an import path, or code that is sent by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...adapters.adapter_record import AdapterRecord
from ...adapters.own_adapter import OwnAdapter
from ...adapters.plain_data import is_json
from ...errors import InvalidInput, SettingsError
from ...services.code import SentCode, import_path_of
from ...services.code_versions import version_of

if TYPE_CHECKING:
    from ...adapters.given_adapter import Adapter
    from ...lm.record import LM
    from ...services.services import Services


@dataclass(frozen=True, slots=True)
class SentAdapter:
    """An adapter of the user's own: what workers are told of it, and the code that they may ask for."""

    wire: Mapping[str, Any]
    codes: tuple[SentCode, ...] = ()

    @classmethod
    def of(cls, own: OwnAdapter) -> SentAdapter:
        """Return it as it is now; made once for each.

        Raises:
            EncodeError, FrameTooLarge, MissingDependency: it cannot be sent.
        """
        known: SentAdapter | None = own.__dict__.get("_sent")
        if known is None:
            known = own.__dict__["_sent"] = _sent(own)
        return known

    def with_lms(self, services: Services) -> dict[str, Any]:
        """Return what workers are told, with records of the language models in it."""
        held = {code.name: [services.lm_record(lm) for lm in code.lms] for code in self.codes if code.lms}
        return {**self.wire, **({"held": held} if held else {})}


def wire_of(record: AdapterRecord, second: LM | None, services: Services) -> str | dict[str, Any]:
    """Return what workers are told of one of DSPy's adapters; `second` is the LM of its second step."""
    told = record.options
    if second is not None:
        told["extraction"] = services.lm_record(second)
    return {"name": record.name, **told} if told else record.name


def told_adapter(adapter: Adapter | None) -> str | dict[str, Any]:
    """Return what a service's workers are told of an adapter; its own `imports` decide what they import.

    Raises:
        InvalidInput: it has code, or a language model, that only workers of this process can be given.
    """
    if adapter is None or isinstance(adapter, str):
        return adapter or "chat"
    is_own = isinstance(adapter, OwnAdapter)
    if not isinstance(adapter, OwnAdapter):
        if adapter.extraction_model is None:
            return {"name": adapter.name, **adapter.options}
    elif not (sent := SentAdapter.of(adapter)).codes:
        return dict(sent.wire)
    what = "is sent by value" if is_own else "has an LM of its own"
    raise InvalidInput(f"The adapter {adapter.name} {what}, which no service takes.", field="adapter")


def require_no_option(own: OwnAdapter, use_native_function_calling: bool | None) -> None:
    """Check that nothing is asked of an own adapter that it decides itself.

    Raises:
        SettingsError: it is.
    """
    if use_native_function_calling is not None:
        raise SettingsError(
            f"use_native_function_calling={use_native_function_calling!r} is not for {own.name}, an adapter of your "
            f"own: give it to the adapter, as in dspex.adapter({own.name!r}, use_native_function_calling=...).",
            key="use_native_function_calling",
        )


def _sent(own: OwnAdapter) -> SentAdapter:
    codes: list[SentCode] = []
    path = own.path or (import_path_of(own.thing) if isinstance(own.thing, type) or callable(own.thing) else None)
    if path is None or path.startswith("__main__:"):
        codes.append(SentCode.of(own.thing, f"the adapter {own.name}"))
        path = codes[0].name
    told: dict[str, Any] = {"name": path, "label": own.name}
    plain = {name: value for name, value in own.arguments.items() if is_json(value)}
    others = {name: value for name, value in own.arguments.items() if name not in plain}
    if plain:
        told["arguments"] = plain
    if others:
        codes.append(SentCode.of(others, f"the arguments of the adapter {own.name}"))
        told["given"] = codes[-1].name
    if path.partition(":")[0] != "value" and (version := version_of(path.partition(":")[0])):
        told["version"] = version
    return SentAdapter(told, tuple(codes))
