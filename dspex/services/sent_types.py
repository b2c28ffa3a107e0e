"""How the types of one signature get to workers: by import path, or by value under a digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..signatures.signature import Signature
from ..signatures.wire_form import signature_to_wire
from .code import SentCode, carried, import_path_of


@dataclass(slots=True)
class SentTypes:
    """A signature's wire form, and the code that it names; complete once it is made."""

    wire: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, SentCode] = field(default_factory=dict)
    _names: dict[Any, str] = field(default_factory=dict)

    @classmethod
    def of(cls, sig: Signature, *, as_themselves: bool) -> SentTypes:
        """Return the form of a signature, made once; `as_themselves` as in `signature_to_wire`.

        Raises:
            SignatureError, EncodeError, FrameTooLarge, MissingDependency: a type that cannot be sent.
        """
        return sig.derive(f"sent_types.{as_themselves}", lambda known: cls()._filled(known, as_themselves))

    def _filled(self, sig: Signature, as_themselves: bool) -> SentTypes:
        self.wire = signature_to_wire(sig, self, as_themselves=as_themselves)
        return self

    def of_class(self, kind: type) -> dict[str, str]:
        """Return how a worker gets the class."""
        path = import_path_of(kind)
        if path is not None:
            return {"import": path}
        self._names[kind] = name = self.by_value(kind, f"the type {kind.__name__!r}")
        return {"value": name}

    def by_value(self, thing: Any, label: str) -> str:
        """Return the name under which a worker gets the thing itself."""
        code = SentCode.of(thing, label)
        self.codes[code.name] = code
        return code.name

    def carried(self, values: dict[str, Any]) -> bytes | None:
        """Return the values of a call that cross as Python objects; None if there are none.

        Raises:
            EncodeError, MissingDependency: one cannot.
        """
        return carried(values, self._names.get) if values else None
