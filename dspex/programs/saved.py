"""Optimised programs, and saving and loading them: JSON files that DSPy reads too, ours under `metadata.dspex` (I7)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, SettingsError, SignatureError
from ..inprocess.annotations import annotation_text
from ..inprocess.prediction import Prediction
from ..inprocess.signatures import Signature
from ..router import GENERAL_POOL, NATIVE_MODULES
from ..services import services_of
from .predictors import predictor
from .program import Program
from .strategies import STRATEGIES

FORMAT = 1  # of what `save` writes under metadata.dspex
_KEPT = ("prefix_sha256", "adapter", "use_native_function_calling")  # of a program, in its file


def load(
    path: str | os.PathLike[str], *, program: Program | None = None, verify: bool = False, **options: Any
) -> Optimized:
    """Read what `Optimized.save` or DSPy's `save` wrote; options are call options such as `lm`.

    A file of DSPy's own holds no field names: give the `program` that it was saved from. With `verify` a worker renders
    the prompt's prefix once, now; where it differs from the native one, calls run in workers, and `explain` says so.
    (Files of `Optimized.save` bring that prefix's hash along.)

    Raises:
        InvalidInput: it is no saved program, or not one of this program.
    """
    document = _read(path)
    metadata = document.pop("metadata", None) or {}
    own = _own(metadata, path)
    if not own and program is None:
        raise InvalidInput(
            f"{os.fspath(path)!r} was saved by DSPy itself, which stores no field names: give the program it belongs "
            f"to, as in dspex.load(path, program=dspex.predictor('predict', 'question -> answer'))."
        )
    if program is not None:
        _require_same(program, own)
    base = program or predictor(own["module"], own["signature"], **own.get("options", {}))
    loaded = replace(base, state=document or None, **{name: own[name] for name in _KEPT if name in own})
    if options:
        loaded = loaded.using(**options)
    if loaded.module in NATIVE_MODULES:
        _ = loaded.served  # a state that does not fit is refused now, not at the first call
    if verify:
        loaded = replace(loaded, prefix_sha256=rendered_prefix_hash(loaded))
    return Optimized(
        loaded,
        own.get("score"),
        own.get("baseline_score"),
        own.get("trials", []),
        own.get("optimizer", ""),
        metadata.get("dependency_versions", {}),
    )


def rendered_prefix_hash(program: Program) -> str | None:
    """The hash of what DSPy renders before the inputs, so that the native side serves only what is the same (I1).

    A worker renders it; None for programs that the native side does not serve.
    """
    if program.module not in NATIVE_MODULES:
        return None
    supervisor, lm = program.home(), program.lm_used
    arguments = {
        "spec": program.spec(),
        "inputs": _blanks(program.signature),
        "lm": services_of(supervisor).lm_record(lm),
        "adapter": program.wire_adapter(lm),
    }
    rendered = supervisor.call(GENERAL_POOL, "render", arguments)
    text = json.dumps(rendered["messages"][:-1], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _blanks(sig: Signature) -> dict[str, Any]:
    """Inputs for rendering a prefix: none but those that DSPy looks into before it renders."""
    named = {name: annotation_text(field.annotation) for name, field in sig.input_fields.items()}
    histories: dict[str, Any] = {name: {"messages": []} for name, text in named.items() if text == "dspy.History"}
    return histories | {name: [] for name, text in named.items() if "dspy.Tool" in text}


def _require_same(program: Program, own: Mapping[str, Any]) -> None:
    """A file of ours says whose it is; DSPy's own files are checked by their state."""
    if not own:
        return
    theirs = [(field.name, field.kind) for field in own["signature"].fields.values()]
    ours = [(field.name, field.kind) for field in program.signature.fields.values()]
    if own["module"] != program.module or theirs != ours:
        names = ", ".join(name for name, _ in theirs)
        raise InvalidInput(f"The file holds a {own['module']} with the fields {names}; it is not one of {program!r}.")


@dataclass(frozen=True)
class Optimized:
    """An optimized program, its scores in percent, and the trials that led to it. Call it like the program."""

    program: Program
    score: float | None
    baseline_score: float | None
    trials: list[dict[str, Any]] = field(default_factory=list)
    optimizer: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, **inputs: Any) -> Prediction:
        return self.program(**inputs)

    async def acall(self, **inputs: Any) -> Prediction:
        return await self.program.acall(**inputs)

    def using(self, **options: Any) -> Optimized:
        """Give the same with other call options; see `Program.using`."""
        return replace(self, program=self.program.using(**options))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON that DSPy's own `load` reads too; ours is under `metadata.dspex`. No LM, no key."""
        text = json.dumps(self._document(), ensure_ascii=False, indent=2)
        target = Path(path)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)

    def _document(self) -> dict[str, Any]:
        program = self.program
        if program.module in STRATEGIES:
            raise SettingsError(
                f"{program.module} asks in a way that a file cannot hold (its functions are this process's): save the "
                f"program that it asks, and put it into the strategy again when it is loaded.",
                key="program",
            )
        versions = {key: str(value) for key, value in self.versions.items() if value is not None}
        own = {
            "format": FORMAT,
            "module": program.module,
            "signature": program.signature.to_wire(),
            "options": dict(program.options),
            "adapter": program.adapter,
            "use_native_function_calling": program.use_native_function_calling,
            "prefix_sha256": program.prefix_sha256,
            "score": self.score,
            "baseline_score": self.baseline_score,
            "trials": self.trials,
            "optimizer": self.optimizer,
        }
        return {**(program.state or {}), "metadata": {"dependency_versions": versions, "dspex": own}}

    def __repr__(self) -> str:
        return f"<optimized {self.program!r}, score {self.score} (baseline {self.baseline_score})>"


def _own(metadata: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` put into the file, with its signature read; empty in a file of DSPy's own.

    Raises:
        InvalidInput: it is damaged, or of a newer form.
    """
    own = metadata.get("dspex") if isinstance(metadata, dict) else metadata
    if not own and isinstance(metadata, dict):
        return {}
    if not isinstance(own, dict) or not isinstance(own.get("module"), str) or "signature" not in own:
        raise InvalidInput(f"The program {os.fspath(path)!r} is damaged: its metadata do not say what it is.")
    if own.get("format", FORMAT) != FORMAT:
        raise InvalidInput(
            f"The program {os.fspath(path)!r} has the form {own['format']!r}; this version of DSPex reads {FORMAT}."
        )
    try:
        return {**own, "signature": Signature.from_wire(own["signature"])}
    except SignatureError as error:
        raise InvalidInput(f"The program {os.fspath(path)!r} is damaged: {error}") from error


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"The program {os.fspath(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"The program {os.fspath(path)!r} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{os.fspath(path)!r} holds no program.")
    return document
