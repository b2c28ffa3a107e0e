"""`OwnAdapters`: the adapters of a user's classes that a worker made, by what their calls say of them. Any thread.

One serves all calls that name it, as in DSPy, where an adapter is configured once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import dspy

from ..adapter_choice import checked_own, identity_of
from ..code.call_references import HostReferences
from ..code.host_code import MakeLM, is_by_value, loaded
from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input
from .user_modules import constructed, noting

KEPT = 64  # adapters kept per worker


class OwnAdapters:
    """The adapters of one worker; those of the host's calls apart from those of clients'."""

    def __init__(self, make_lm: MakeLM) -> None:
        self._make_lm = make_lm
        self._lock = threading.Lock()
        self._made: OrderedDict[str, dspy.Adapter] = OrderedDict()

    def get(self, given: Mapping[str, Any], imports: UserImports) -> dspy.Adapter:
        """Return the adapter that a call names by its path, or that the host sends.

        Raises:
            Failure: UnknownName, InvalidInput.
        """
        key = identity_of(given) + ("/host" if imports.is_open else "")
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                self._made.move_to_end(key)
                return made
        made = self._make(given, imports)  # its code may take its time, and asks the host
        with self._lock:
            made = self._made.setdefault(key, made)
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made

    def _make(self, given: Mapping[str, Any], imports: UserImports) -> dspy.Adapter:
        name, label = str(given["name"]), str(given.get("label") or given["name"])
        arguments = dict(given.get("arguments") or {})
        if imports.is_open and given.get("given"):
            arguments |= self._loaded(given, str(given["given"]), label, imports)
        with noting(f"while the adapter {label} was imported"):
            if imports.is_open and is_by_value(name):
                found = self._loaded(given, name, label, imports)
            else:
                found = imports.at(str(given.get("version") or "")).resolve_own(name, "adapter")
        if isinstance(found, dspy.Adapter):
            if arguments:
                raise invalid_input(f"The adapter {label} is made already: it takes no {', '.join(arguments)}.")
            return found
        if not callable(found):
            return checked_own(found, label)
        with noting(f"while the adapter {label} was made"):
            return checked_own(constructed(found, label, {}, arguments), label)

    def _loaded(self, given: Mapping[str, Any], name: str, label: str, imports: UserImports) -> Any:
        records = (given.get("held") or {}).get(name, ())
        return loaded(name, f"The adapter {label}", HostReferences(imports), records, self._make_lm)
