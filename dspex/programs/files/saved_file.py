"""Read files of saved programs within bounds; refuse those that hold more than the program.

A file may come from anywhere. Nothing in it says how, where or with whom the program is called: that is for whoever
loads it. The LM that DSPy itself saves beside a predictor is left out, and an event says so.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspex_worker import saved_state

from ... import defaults
from ...errors import InvalidInput, UnsafeInput, UnsafeProgram
from ...events import Name
from ...types.markers import START, texts_in
from ..options.program_kinds import KINDS
from .saved_adapter import strays_of_adapter
from .saved_trials import damage_of_trials

FORMAT = 1  # of what `Optimized.save` writes under metadata.dspex
FILE_LIMIT = 32 * 1024 * 1024  # bytes; a state travels with each call to a worker, so it is small
DEPTH_LIMIT = 100  # levels of lists and objects
CONTAINERS_LIMIT = 500_000  # lists and objects: a second to read, and 100 MB
KEYS_SHOWN = 500  # characters of a stranger's names in an event
_OF_METADATA = frozenset({"dependency_versions", "dspex"})
_KINDS: Mapping[str, tuple[type, ...]] = {
    "format": (int,),
    "module": (str,),
    "signature": (dict, type(None)),  # None of a user's own module without one
    "tool_names": (list,),  # the functions are the loader's
    "options": (dict,),
    "withheld": (list,),
    "config": (dict,),
    "adapter": (str, type(None)),
    "adapter_options": (dict,),
    "adapter_withheld": (str,),
    "use_native_function_calling": (bool, type(None)),
    "prefix_sha256": (str, type(None)),
    "score": (int, float, type(None)),
    "baseline_score": (int, float, type(None)),
    "found_score": (int, float, type(None)),
    "kept_baseline": (bool,),
    "trial": (int, type(None)),
    "trials": (list,),
    "optimizer": (str,),
    "versions": (dict,),
}


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file's content: the state, the additions of `Optimized.save` (empty in a file of DSPy's own), and versions."""

    path: str
    state: dict[str, Any]
    own: dict[str, Any]
    versions: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SavedFile:
        """Return the file's checked content.

        Raises:
            UnsafeProgram: it says how, where or with whom the program is called.
            InvalidInput: it is no saved program, too large, or of a newer form.
        """
        if not isinstance(path, str | os.PathLike):
            raise InvalidInput(f"A saved program is named by its file's path, not by {path!r}.", field="path")
        name = os.fspath(path)
        return cls.of(name, _content(name))

    @classmethod
    def of(cls, name: str, content: bytes) -> SavedFile:
        """Return what a file of this content holds, checked; `name` is for messages.

        Raises:
            UnsafeProgram, InvalidInput: as `read`.
        """
        document = _parsed(name, content)
        metadata = document.pop("metadata", None) or {}
        own = _own(name, metadata)
        _require_safe(name, document, metadata, own)
        if wrong := saved_state.damage(document):
            raise InvalidInput(f"The program {name!r} is damaged: {wrong}.")
        state, dropped = saved_state.without_lms(document)
        if dropped:
            defaults.client().emit(Name.PROGRAM_STRIPPED, file=name, keys="; ".join(dropped)[:KEYS_SHOWN])
        versions = own.get("versions") or metadata.get("dependency_versions")
        return cls(name, state, own, dict(versions) if isinstance(versions, Mapping) else {})


def write(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Write the document, whole or not at all."""
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_bytes(_encoded(document))
    draft.replace(target)


def _encoded(document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which an LM may have written into a demonstration
        return json.dumps(document, indent=2).encode("ascii")


def dspys_versions(versions: Mapping[str, Any]) -> dict[str, str]:
    """Return the three versions that DSPy writes into its files, and looks up in them, as DSPy spells them."""
    known = {name: str(versions[name]) for name in ("python", "dspy", "cloudpickle") if versions.get(name)}
    return {name: text if name == "dspy" else ".".join(text.split(".")[:2]) for name, text in known.items()}


def checked_state(state: Any) -> dict[str, Any]:
    """Return a state that a worker gave, checked by the rules of files: it will be saved, and sent with every call.

    Raises:
        InvalidInput: it holds more than a program, or less.
    """
    if not isinstance(state, dict):
        raise InvalidInput(f"The worker gave a {type(state).__name__} for the program's state.")
    if stray := saved_state.stray_keys(state):
        raise InvalidInput(f"The state that the worker gave holds {stray[0]}, which is no part of a program.")
    if wrong := saved_state.damage(state):
        raise InvalidInput(f"The state that the worker gave is damaged: {wrong}.")
    return saved_state.without_lms(state)[0]


# --- reading ----------------------------------------------------------------------------------------------------------


def _content(name: str) -> bytes:
    """Return the file's bytes.

    Raises:
        InvalidInput: it cannot be read, is too large, or is no regular file (a pipe would block, a device never end).
    """
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"The program {name!r} cannot be read: it is no regular file.")
            content = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidInput(f"The program {name!r} cannot be read: {error.strerror}.") from error
    if len(content) > FILE_LIMIT:
        raise InvalidInput(
            f"The program {name!r} is larger than the limit of {FILE_LIMIT:,} bytes: keep fewer or smaller demos in it."
        )
    if (count := content.count(b"{") + content.count(b"[")) > CONTAINERS_LIMIT:
        raise InvalidInput(
            f"The program {name!r} holds {count:,} lists and objects; the limit is {CONTAINERS_LIMIT:,}."
        )
    return content


def _parsed(name: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise InvalidInput(f"The program {name!r} is not JSON: {error}.") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidInput(
            f"The program {name!r} is nested deeper than the limit of {DEPTH_LIMIT} levels, or needs more memory than "
            f"there is."
        ) from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{name!r} holds no program.")
    if (depth := _depth(document)) > DEPTH_LIMIT:
        raise InvalidInput(f"The program {name!r} has {depth} levels; the limit is {DEPTH_LIMIT}.")
    return document


def _depth(document: Any) -> int:
    deepest, waiting = 0, [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = value.values() if isinstance(value, dict) else value
        waiting += [(each, depth + 1) for each in inner if isinstance(each, dict | list)]
    return deepest


# --- checking ---------------------------------------------------------------------------------------------------------


def _own(name: str, metadata: Any) -> dict[str, Any]:
    """Return what `Optimized.save` put into the file; nothing for a file of DSPy's own."""
    own = metadata.get("dspex") if isinstance(metadata, dict) else metadata
    if not own and isinstance(metadata, dict):
        return {}
    if not isinstance(own, dict) or not isinstance(own.get("module"), str) or "signature" not in own:
        raise InvalidInput(f"The program {name!r} is damaged: its metadata do not say what it is.")
    if own.get("format", FORMAT) != FORMAT:
        raise InvalidInput(
            f"The program {name!r} has the form {own['format']!r}; this version of DSPex reads {FORMAT}."
        )
    for key, kinds in _KINDS.items():
        if key in own and not isinstance(own[key], kinds):
            raise InvalidInput(f"The program {name!r} is damaged: metadata.dspex.{key} is a {type(own[key]).__name__}.")
    if wrong := damage_of_trials(own.get("trials", [])):
        raise InvalidInput(f"The program {name!r} is damaged: metadata.dspex.{wrong}.")
    signature = own["signature"]
    if signature is not None and not (isinstance(fields := signature.get("fields"), list) and fields):
        raise InvalidInput(f"The program {name!r} is damaged: its signature has no fields.")
    return own


def _maker(own: Mapping[str, Any]) -> str:
    """Return whose module a file holds; a class of a script or a notebook has its name alone there."""
    module: str = own.get("module", "")
    return f"__main__:{module}" if module.isidentifier() and module not in KINDS else module


def _require_safe(name: str, state: Mapping[str, Any], metadata: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    where = "metadata.dspex"
    stray = saved_state.stray_keys(state)
    others = {key: value for key, value in metadata.items() if key not in _OF_METADATA}
    stray += saved_state.addresses_in(others, "metadata.")
    stray += [f"{where}.{key}" for key in own if key not in _KINDS]
    stray += [f"{where}.options.{key}" for key in saved_state.stray_options(_maker(own), own.get("options", {}))]
    if saved_state.kept_config(config := own.get("config", {})) != config:
        stray.append(f"{where}.config")
    stray += [f"{where}.{each}" for each in strays_of_adapter(own)]
    if stray:
        raise UnsafeProgram(name, stray)
    parts = [state, *(part for part in state.values() if isinstance(part, Mapping))]
    for signature in (own.get("signature"), *(part.get("signature") for part in parts)):
        if any(START in text for text in texts_in(signature)):
            raise UnsafeInput(
                f"The signature in the program {name!r} holds DSPy's custom-type marker, which would become a content "
                f"block (a URL for the provider to fetch, for instance). Remove it.",
                field="signature",
            )
