"""An optimized program: called like any other, and saved as a JSON file that DSPy reads too (I7)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, Unpack

from dspex_worker.saved_state import kept_config, stray_options

from ...errors import SettingsError
from ...signatures.wire_form import signature_to_wire
from ...types.prediction import Prediction, S_co
from ..calling.program import Program
from ..files.saved_adapter import adapter_to_file
from ..files.saved_file import FORMAT, dspys_versions, write
from ..options.program_options import ProgramOptions
from ..strategies import STRATEGIES
from .saved_demos import state_with_demos


@dataclass(frozen=True)
class Optimized(Generic[S_co]):
    """An optimized program, its scores in percent, and the trials that led to it. Call it like the program."""

    program: Program[S_co]
    score: float | None
    baseline_score: float | None
    trials: list[dict[str, Any]] = field(default_factory=list)
    optimizer: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    worker: str = ""  # that made it, such as "mipro/0"; a loaded one does not say
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what `track_stats` keeps; no file does

    def __call__(self, **inputs: Any) -> Prediction[S_co]:
        """Run the program; blocks."""
        return self.program(**inputs)

    async def acall(self, **inputs: Any) -> Prediction[S_co]:
        """`__call__`, awaited."""
        return await self.program.acall(**inputs)

    def using(self, **options: Unpack[ProgramOptions]) -> Self:
        """Return the same with other call options; see `Program.using`."""
        return replace(self, program=self.program.using(**options))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON that DSPy's own `load` reads too; ours is under `metadata.dspex`.

        No LM, no key, no option of a module that names an endpoint: a file without one of the module's options is
        loaded with `program=`, and so is one of a class that was sent by value. Tools are named; `load` takes their
        functions. Of the call options, `config` as far as it says how the model generates (temperature, max_tokens, n,
        ...), the adapter, and whether tools are called natively: the program was optimized with these. An adapter of
        your own is named by its import path; one that is alive, has arguments or another LM is `load`'s to be given.
        Trials are written without their demos, of which there may be many.
        """
        write(path, self.document())

    def document(self) -> dict[str, Any]:
        """Return what `save` writes.

        Raises:
            SettingsError: no file can hold the program.
        """
        program = self.program
        if program.module in STRATEGIES:
            raise SettingsError(
                f"{program.module} asks in a way that a file cannot hold (its functions are this process's): save the "
                f"program that it asks, and put it into the strategy again when it is loaded.",
                key="program",
            )
        versions = {key: str(value) for key, value in self.versions.items() if value is not None}
        withheld = [*stray_options(program.module, program.options), *program.withheld]
        own = {
            "format": FORMAT,
            "module": program.name_shown,
            "signature": None if program.is_open else signature_to_wire(program.signature),
            "tool_names": [tool.name for tool in program.tools],
            "options": {name: value for name, value in program.options.items() if name not in withheld},
            "withheld": withheld,
            "config": kept_config(program.config),
            **adapter_to_file(program.adapter),
            "use_native_function_calling": program.use_native_function_calling,
            "prefix_sha256": program.prefix_sha256,
            "score": self.score,
            "baseline_score": self.baseline_score,
            "trials": [{name: value for name, value in trial.items() if name != "demos"} for trial in self.trials],
            "optimizer": self.optimizer,
            "versions": versions,
        }
        metadata = {"dependency_versions": dspys_versions(versions), "dspex": own}
        return {**state_with_demos(program), "metadata": metadata}

    def __repr__(self) -> str:
        return f"<optimized {self.program!r}, score {self.score} (baseline {self.baseline_score})>"
