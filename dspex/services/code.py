"""Send code of this process to its own workers by value: classes of a script or a notebook, live modules, functions.

What workers can import is sent by its name (`import_path_of`). The rest is pickled with cloudpickle, which DSPy depends
on, when the program is made; a worker that lacks it asks for it by its digest while a call runs that names it. Bytes go
from this process to its workers only: nothing that a worker, a client or a file gives is ever unpickled here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import sys
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import FRAME_LIMIT

from .. import defaults
from ..errors import EncodeError, FrameTooLarge, MissingDependency, UnknownName
from .code_versions import find
from .registry import Registry
from .unsendable import unsendable

if TYPE_CHECKING:
    from types import ModuleType

    from ..lm.record import LM
    from ..pools.callbacks import Callback
    from .code_pickler import NameOf

VALUE = "value:"
ENVELOPE = 1024  # bytes of a message beside the code in it
_pickling = threading.Lock()  # cloudpickle's list of modules to be sent by value is the process's


@dataclass(frozen=True, slots=True)
class SentCode:
    """A pickle, under the name by which specs name it; its language models are beside it, in their places."""

    label: str
    name: str
    data: bytes = field(repr=False)
    lms: tuple[LM, ...] = ()

    @classmethod
    def of(cls, thing: Any, label: str) -> SentCode:
        """Return a thing as it is now.

        Raises:
            EncodeError: it cannot be pickled.
            FrameTooLarge: it does not fit into one message to a worker.
            MissingDependency: cloudpickle is not installed here.
        """
        data, lms = _pickled(thing, label)
        if len(data) + ENVELOPE > FRAME_LIMIT:
            raise FrameTooLarge("parent", FRAME_LIMIT, len(data), what=f"bytes for {label}, which is sent by value")
        return cls(label, f"{VALUE}{hashlib.sha256(data).hexdigest()}", data, lms)


class CodeStore:
    """The code that running calls of this supervisor name, by digest."""

    def __init__(self) -> None:
        self._codes: Registry[SentCode] = Registry()

    @contextlib.contextmanager
    def registered(self, codes: Iterable[SentCode]) -> Generator[None]:
        """Let workers ask for these for the time of the block."""
        with contextlib.ExitStack() as stack:
            for code in codes:
                stack.enter_context(self._codes.registered(code.name, code))
            yield

    def get(self, request: Callback) -> bytes:
        """Answer a "code.get": the bytes of one pickle.

        Raises:
            UnknownName: no call that runs names it, or the call is a client's of the control socket.
        """
        request.require(digest=str)
        digest = str(request.arguments["digest"])
        found = self._codes.get(f"{VALUE}{digest}") if request.outer.is_trusted else None
        if found is None:
            raise UnknownName("code", digest, ())
        return found.data

    def path(self, request: Callback) -> list[str]:
        """Answer a "code.path": where this process looks for modules now, for workers of the same interpreter."""
        if not request.outer.is_trusted or request.pool.config.interpreter != sys.executable:
            return []
        return [str(Path(entry).absolute()) if entry else str(Path.cwd()) for entry in sys.path]


def import_path_of(thing: Any) -> str | None:
    """Return the `module:QualName` by which workers can import a class or a function; None if they cannot."""
    module, qualified = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualified, str) or not _is_importable(module):
        return None
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return f"{module}:{qualified}" if found is thing else None


def _is_importable(module: str) -> bool:
    """Whether a worker finds the module by its name: not `__main__`, nor what was made or loaded some other way."""
    known = sys.modules.get(module)
    if module == "__main__" or known is None or getattr(known, "__spec__", None) is None:
        return False
    return find(module.partition(".")[0]) is not None


def _no_name(kind: Any) -> None:
    return None


# --- pickling -----------------------------------------------------------------------------------------------------


def carried(values: dict[str, Any], name_of: NameOf) -> bytes:
    """Return a call's values as a worker reads them; classes that `name_of` knows go under their names.

    Raises:
        EncodeError: one cannot be pickled, or is a language model, whose key would leave this process.
        MissingDependency: cloudpickle is not installed here.
    """
    return pickle.dumps({name: carried_value(value, name, name_of) for name, value in values.items()})


def carried_value(value: Any, label: str, name_of: NameOf = _no_name) -> bytes:
    """Return one value as a worker reads it.

    Raises:
        EncodeError, MissingDependency: as `carried`.
    """
    data, lms = _pickled(value, label, name_of)
    if lms:
        raise EncodeError(label, "LM", "its key would leave this process; give it as lm=")
    return data


def _pickled(thing: Any, label: str, name_of: NameOf = _no_name) -> tuple[bytes, tuple[LM, ...]]:
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependency(
            f"{label} is sent to workers by value, which needs cloudpickle: install it, or put the code into a module.",
            package="cloudpickle",
        ) from error
    from .code_pickler import pickler_class  # here: it loads pydantic, which most programs never need

    lms: list[LM] = []
    base: Any = pickler_class(cloudpickle, name_of)

    class Pickler(base):  # type: ignore[misc]
        def persistent_id(self, item: Any) -> int | None:
            lm = _lm_of(item)
            if lm is None:
                return None
            lms.append(lm)
            return len(lms) - 1

    def is_sendable(part: Any) -> bool:
        try:
            Pickler(io.BytesIO(), protocol=pickle.HIGHEST_PROTOCOL).dump(part)
        except Exception:  # whatever a user's object raises when it is pickled
            return False
        return True

    buffer = io.BytesIO()
    with _pickling, _by_value(cloudpickle, getattr(thing, "__module__", None) or type(thing).__module__):
        try:
            Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(thing)
        except Exception as error:  # whatever a user's object raises when it is pickled
            raise unsendable(thing, label, error, is_sendable) from error
    return buffer.getvalue(), tuple(lms)


@contextlib.contextmanager
def _by_value(cloudpickle: Any, name: str) -> Generator[None]:
    """Send a module's own classes by value too, where workers cannot import it."""
    module: ModuleType | None = sys.modules.get(name)
    if module is None or name == "__main__" or _is_importable(name):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _lm_of(item: Any) -> LM | None:
    """Return the language model that an object is, if it is one: keys do not leave this process."""
    if isinstance(item, type) or not any(_is_lm(cls) for cls in type(item).__mro__[:-1]):
        return None
    return defaults.as_lm(item)


def _is_lm(cls: type) -> bool:
    if cls.__module__.startswith("dspy.clients"):
        return cls.__name__ == "BaseLM"
    return cls.__module__ == "dspex.lm.record" and cls.__name__ == "LM"


def _renew_lock() -> None:
    """Replace the lock in a forked child, where the thread that held it is gone."""
    global _pickling
    _pickling = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
