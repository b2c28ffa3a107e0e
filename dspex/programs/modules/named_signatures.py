"""Find the signature that "package.module:Class" names: a class derived from `dspy.Signature`, or one of DSPex's.

Where DSPy is not loaded here, a worker imports the class and says what it is: this process imports neither.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from ... import defaults
from ...errors import InvalidInput, RemoteError, SignatureError, UnknownName
from ...signatures.signature import Signature, signature
from ...signatures.wire_form import signature_from_wire
from ...types.dspy_objects import is_signature_class, loaded_dspy
from ..options.routing import GENERAL_POOL

if TYPE_CHECKING:
    from ...pools.supervising import Supervising

_PATH: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def signature_for(described: Any, supervisor: Supervising | None = None) -> Signature:
    """Return the signature that this is, describes or names; `supervisor` is whose workers may be asked.

    Raises:
        SignatureError: it is none.
        UnknownName: workers find no such module or class.
    """
    if isinstance(described, Signature):
        return described
    if isinstance(described, str) and _PATH.fullmatch(described.strip()):
        return _named(described.strip(), supervisor)
    return signature(described)


def signature_if_named(text: str, supervisor: Supervising | None = None) -> Signature | None:
    """Return the signature that "package.module:Class" names; None if it names something else, or nothing.

    What is not imported here is looked for in a worker: a module of the user's may be meant, which only workers import.
    """
    path = text.strip()
    if not _PATH.fullmatch(path):
        return None
    try:
        return _found_here(path, *_halves(path)) if _halves(path)[0] in sys.modules else _asked(path, supervisor)
    except (SignatureError, UnknownName, InvalidInput, RemoteError):
        return None


def _halves(path: str) -> tuple[str, str]:
    module, _, qualified = path.partition(":")
    return module, qualified


def _named(path: str, supervisor: Supervising | None) -> Signature:
    module, qualified = _halves(path)
    if module in sys.modules or loaded_dspy() is not None:
        return _found_here(path, module, qualified)
    return _asked(path, supervisor)


def _asked(path: str, supervisor: Supervising | None) -> Signature:
    from ...services.services import services_of  # and with it the pools, which a native call does not need

    asked = services_of(supervisor or defaults.default_supervisor()).supervisor  # with what workers ask back for
    return signature_from_wire(asked.call(GENERAL_POOL, "signature_of", {"import": path}))


def _found_here(path: str, module: str, qualified: str) -> Signature:
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SignatureError(f"There is no signature {path!r}: {error}.") from error
    if not isinstance(found, Signature) and not is_signature_class(found):
        raise SignatureError(f"{path!r} is no signature but a {type(found).__name__}.")
    return signature(found)
