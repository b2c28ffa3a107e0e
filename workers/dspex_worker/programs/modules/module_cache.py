"""Keep the DSPy programs of a worker: built once per digest of their spec, shared by the calls that name them.

A spec is {"module", "signature", "options", "state", "demos", "tools"}; of the host's calls also {"given", "held",
"label", "isolate", "function"}, see the host's `ModuleProgram`. A user's module is shared, as threads share it in DSPy,
unless its spec says `isolate`; modules of DSPy's that keep things on themselves while they run are copied. Any thread;
one spec is built once.
"""

from __future__ import annotations

import hashlib
import json
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from ..code.host_code import MakeLM
from ..code.user_imports import UserImports
from .built_program import BuiltProgram, taken_by
from .module_builder import Settings, build, fields_of, give_lms, label_of, lms_in

KEPT = 256  # programs kept per worker


class Modules:
    """The programs of one worker, by their spec's digest; those of the host's calls apart from those of clients'."""

    def __init__(self, make_lm: MakeLM) -> None:
        self._make_lm = make_lm
        self._lock = threading.Lock()
        self._built: OrderedDict[str, BuiltProgram] = OrderedDict()
        self._building: dict[str, threading.Lock] = {}

    def get(
        self, spec: Mapping[str, Any], imports: UserImports, within: Callable[[], Settings] = nullcontext
    ) -> BuiltProgram:
        """Return the program for `spec`, safe to call beside others; its constructor runs in `within()`.

        Raises:
            Failure: UnknownName, InvalidInput.
        """
        digest = digest_of(spec) + ("/host" if imports.is_open else "")
        built = self._kept(digest)
        if built is None:
            with self._lock:
                building = self._building.setdefault(digest, threading.Lock())
            with building:  # its code may take its time, and asks the host: others are not held up
                built = self._kept(digest) or self._keep(digest, self.make(spec, imports, within))
        return built.separate()

    def make(
        self, spec: Mapping[str, Any], imports: UserImports, within: Callable[[], Settings] = nullcontext
    ) -> BuiltProgram:
        """Return a new program for `spec`, shared with nobody; its constructor runs in `within()`.

        Raises:
            Failure: UnknownName, InvalidInput.
        """
        made = build(spec, imports, self._make_lm, within)
        give_lms(made, label_of(spec), lms_in(spec), self._make_lm)
        is_open, is_isolated = spec.get("signature") is None, bool(spec.get("isolate"))
        return BuiltProgram(made, *fields_of(spec, imports), label_of(spec), is_open, is_isolated, taken_by(made))

    def close(self) -> None:
        """Call `close()` of the user's programs that have one, the last built first; what it raises is printed."""
        for built in reversed(tuple(self._built.values())):
            close = getattr(built.program, "close", None) if built.is_own else None
            if callable(close):
                try:
                    close()
                except Exception:  # the others are closed all the same
                    traceback.print_exc()

    def _kept(self, digest: str) -> BuiltProgram | None:
        with self._lock:
            built = self._built.get(digest)
            if built is not None:
                self._built.move_to_end(digest)
            return built

    def _keep(self, digest: str, built: BuiltProgram) -> BuiltProgram:
        with self._lock:
            self._built[digest] = built
            self._building.pop(digest, None)
            if len(self._built) > KEPT:
                self._built.popitem(last=False)
        return built


def digest_of(spec: Mapping[str, Any]) -> str:
    """Return the name of a spec's program."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
