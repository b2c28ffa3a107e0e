"""Get code from the host that sent it by value: classes, functions, live modules, arguments of constructors.

Only calls that the host itself makes come here, and only bytes whose digest the call's spec names are read. Nothing is
ever sent the other way. Language models do not travel: a pickle holds their places among the spec's records.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...failure import Failure
from ...types.host_references import resolved_by
from ..calls.call_context import running
from ..dspy_errors import invalid_input
from ..values.host_modules import follow_import_path
from .call_references import HostReferences

VALUE = "value:"
_DIGITS = 64  # of a SHA-256 in hexadecimal

MakeLM = Callable[[Mapping[str, Any]], Any]


def no_lm(record: Mapping[str, Any]) -> Any:
    """Refuse a language model where none can be made."""
    raise invalid_input("This program holds a language model, and none can be made for it here.")


def is_by_value(name: str) -> bool:
    """Whether a spec's name stands for code that the host sends."""
    digits = name.removeprefix(VALUE)
    return name.startswith(VALUE) and len(digits) == _DIGITS and digits.isalnum()


def loaded(
    name: str,
    label: str,
    references: HostReferences,
    records: Sequence[Mapping[str, Any]] = (),
    make_lm: MakeLM = no_lm,
) -> Any:
    """Return what the host sent under this name; `records` are those of the language models in it.

    Raises:
        Failure: InvalidInput, when it cannot be loaded here.
    """
    data = _fetched(name.removeprefix(VALUE))
    follow_import_path()
    try:
        with resolved_by(references):
            found = _CodeReader(data, records, make_lm).load()
        references.complete()
        return found
    except (ImportError, AttributeError) as error:
        raise invalid_input(
            f"{label} cannot be loaded in the worker: {error}. What it refers to by name must be importable there: "
            f"install it beside the workers, or put it on this process's sys.path."
        ) from error


def _fetched(digest: str) -> bytes:
    data = running().call_parent("code.get", {"digest": digest})
    if type(data) is not bytes or hashlib.sha256(data).hexdigest() != digest:
        raise Failure("ProtocolError", "The code that came is not the code that was asked for.")
    return data


class _CodeReader(pickle.Unpickler):
    """Reads one pickle of the host's, with the language models that it holds by their places."""

    def __init__(self, data: bytes, records: Sequence[Mapping[str, Any]], make_lm: MakeLM) -> None:
        super().__init__(io.BytesIO(data))
        self._records = records
        self._make_lm = make_lm

    def persistent_load(self, place: Any) -> Any:
        """Return the language model at a place among the records."""
        return self._make_lm(self._records[int(place)])
