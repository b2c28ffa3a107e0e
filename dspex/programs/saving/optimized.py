"""An optimized program: called like any other, and saved as a JSON file that DSPy reads too (I7)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Self, Unpack, overload

from ...errors import SettingsError
from ...lm.given_lms import takes_lms
from ...types.prediction import Prediction, S_co
from ..calling.program import Program
from ..files.saved_file import write
from ..options.program_options import ProgramOptions
from ..reports.job_facts import JobFacts
from ..reports.report_page import report_page
from ..reports.report_source import ReportSource
from ..reports.score_plot import plot_scores
from ..reports.trial_history import as_history_frame, history_rows
from ..scores.program_comparison import ProgramComparison
from ..scores.score_verdict import score_verdict
from ..worker.program_document import program_document
from ..worker.saved_demos import state_with_demos

_WITHHELD = ("demos", "fields")  # of a trial, in a file: there may be many


@dataclass(frozen=True)
class Optimized(Generic[S_co]):
    """An optimized program, its scores in percent, and the trials that led to it. Call it like the program.

    `score` and `baseline_score` are on the validation examples: of this program, and of the one that was given, which
    is `baseline`. `found_score` is of what the optimizer came to. Where that is worse than the baseline (`is_worse`),
    this program is the baseline (`kept_baseline`), unless `keep_baseline=False` was asked for. `trials` tells every
    candidate: its instructions and demos by predictor, its score and those of its examples, seconds, requests and cost;
    `trial` is the number of this program's. `test` compares it with the baseline on the `testset`, if one was given.
    """

    program: Program[S_co]
    score: float | None
    baseline_score: float | None
    trials: list[dict[str, Any]] = field(default_factory=list)
    optimizer: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    worker: str = ""  # that made it, such as "mipro/0"; a loaded one does not say
    found_score: float | None = None
    kept_baseline: bool = False
    trial: int | None = None
    baseline: Program[S_co] | None = field(default=None, repr=False)
    found: Program[S_co] | None = field(default=None, repr=False)  # where that is not this one
    test: ProgramComparison | None = None
    job: JobFacts = field(default_factory=JobFacts)
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what `track_stats` keeps; no file does

    def __call__(self, **inputs: Any) -> Prediction[S_co]:
        """Run the program; blocks."""
        return self.program(**inputs)

    async def acall(self, **inputs: Any) -> Prediction[S_co]:
        """`__call__`, awaited."""
        return await self.program.acall(**inputs)

    @takes_lms
    def using(self, **options: Unpack[ProgramOptions]) -> Self:
        """Return the same with other call options; see `Program.using`."""
        return replace(self, program=self.program.using(**options))

    @property
    def is_worse(self) -> bool:
        """Whether what the optimizer came to scores less than the baseline on the validation examples."""
        found = self.score if self.found_score is None else self.found_score
        return found is not None and self.baseline_score is not None and found < self.baseline_score

    @property
    def verdict(self) -> str:
        """How it did against the baseline, in a sentence."""
        found = self.score if self.found_score is None else self.found_score
        return score_verdict(found, self.baseline_score, kept_baseline=self.kept_baseline)

    @overload
    def history(self) -> list[dict[str, Any]]: ...

    @overload
    def history(self, to: Literal["rows"]) -> list[dict[str, Any]]: ...

    @overload
    def history(self, to: Literal["pandas"]) -> Any: ...

    def history(self, to: Literal["rows", "pandas"] = "rows") -> Any:
        """Return the trials as a list of flat dicts, or as pandas' DataFrame.

        A row has trial, kind, set, score, best (so far, on every example), examples, seconds, requests and cost, and
        the instructions and the number of demos: of several predictors as "name.instructions" and "name.demos".

        Raises:
            MissingDependency: pandas is not installed.
            SettingsError: it is asked for as something else.
        """
        if to not in ("rows", "pandas"):
            raise SettingsError(f"history is given as 'rows' or 'pandas', not as {to!r}.", key="to")
        return as_history_frame(self._scored) if to == "pandas" else history_rows(self._scored)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a plot of the scores by trial and of the best so far: .png, .svg or .pdf, as the path ends.

        Raises:
            MissingDependency: matplotlib is not installed (`pip install 'dspex[plot]'`).
            InvalidInput: there is no trial, or no such form.
        """
        plot_scores(self._scored, path, title=self._title)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write all that is known as one HTML page, which needs no network, no script and no other file.

        The curve of scores, every candidate, the prompts before and after with their difference, the examples one by
        one, what it cost, and the held-out examples if there are any. Nothing is asked for it. It quotes prompts,
        examples and answers: keep it where those may be.
        """
        page = report_page(self._report_source())
        Path(path).write_text(page, encoding="utf-8", errors="replace", newline="\n")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON that DSPy's own `load` reads too; ours is under `metadata.dspex`.

        No LM, no key, no option of a module that names an endpoint: a file without one of the module's options is
        loaded with `program=`, and so is one of a class that was sent by value. Tools are named; `load` takes their
        functions. Of the call options, `config` as far as it says how the model generates (temperature, max_tokens, n,
        ...), the adapter, and whether tools are called natively: the program was optimized with these. An adapter of
        your own is named by its import path; one that is alive, has arguments or another LM is `load`'s to be given.
        Trials are written without their demos and fields, of which there may be many.
        """
        write(path, self.document())

    def document(self) -> dict[str, Any]:
        """Return what `save` writes.

        Raises:
            SettingsError: no file can hold the program.
        """
        self.program.require_savable()
        facts = {
            "score": self.score,
            "baseline_score": self.baseline_score,
            "found_score": self.found_score,
            "kept_baseline": self.kept_baseline,
            "trial": self.trial,
            "trials": [
                {name: value for name, value in trial.items() if name not in _WITHHELD} for trial in self.trials
            ],
            "optimizer": self.optimizer,
        }
        return program_document(self.program, state_with_demos(self.program), self.versions, facts)

    def __repr__(self) -> str:
        return f"<optimized {self.program!r}, score {self.score} (baseline {self.baseline_score}){self._warning}>"

    @property
    def _warning(self) -> str:
        if not self.is_worse:
            return ""
        if self.kept_baseline:
            return (
                f": the baseline, kept because what {self.optimizer or 'the optimizer'} found scored {self.found_score}"
            )
        return ": worse than the baseline"

    @property
    def _title(self) -> str:
        return f"{self.optimizer or 'optimization'} of {self.program.name_shown}"

    @property
    def _scored(self) -> list[dict[str, Any]]:
        """The trials that say what a candidate scored: those of a file may say less."""
        return [trial for trial in self.trials if {"trial", "kind", "score"} <= trial.keys()]

    def _report_source(self) -> ReportSource:
        program, trials = self.program, self._scored
        found = next((trial for trial in trials if trial["trial"] == self.trial), None)
        if self.kept_baseline:  # what the page is to show is why
            found = trials[-1] if trials and trials[-1]["kind"] == "result" else found
        needs = [f"tools=[{', '.join(tool.name for tool in program.tools)}]"] if program.tools else []
        return ReportSource(
            repr(program)[1:-1],
            self.optimizer,
            self.verdict,
            self.is_worse,
            self.baseline_score,
            self.score if self.found_score is None else self.found_score,
            trials,
            found,
            self.job,
            self.test,
            needs,
            self.versions,
        )
