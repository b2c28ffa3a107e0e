"""Read an optimizer's log while it runs: stages, how many trials it plans, and its messages, for the job's caller.

DSPy's lines may quote prompts and answers: the whole line goes to the job's caller alone, whose they are, never to a
log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager

from ..observing.dspys_log import WHOLE
from .progress import Progress
from .simba_candidates import SimbaCandidates

MESSAGE_MOST = 2000  # characters of a message that are told
_STAGE = re.compile(r"==> STEP \d: (.+?) <==")
_STAGES = {"BOOTSTRAP FEWSHOT EXAMPLES": "bootstrap", "PROPOSE INSTRUCTION CANDIDATES": "propose"}
_PLAIN_TRIAL = re.compile(r"^===== Trial \d+ / (\d+) =====")  # whose count leaves out the default program
_MINIBATCH_TRIAL = re.compile(r"^== Trial \d+ / (\d+) - (?:Minibatch|Full Evaluation ==)")
_GEPA_BUDGET = re.compile(r"^Running GEPA for approx (\d+) metric calls")
_COPRO = re.compile(r"^At Depth (\d+)/(\d+), Evaluating Prompt Candidate #(\d+)/(\d+) for Predictor (\d+) of (\d+)")
_SIMBA_BATCH = re.compile(r"^Starting batch (\d+) of (\d+)")
_SIMBA_ROUND = re.compile(r"^(?:Batch \d+: |VALIDATION: )Evaluating \d+ programs on ")
_TROUBLE = re.compile(
    r"^(?:Iteration \d+: )?(?:Exception |Reflective mutation did not|No trajectories|.{0,20}reflection failed)"
)
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class LogReader(logging.Handler):
    """Tells what the optimizer logs."""

    def __init__(self, progress: Progress, simba: SimbaCandidates) -> None:
        super().__init__(logging.INFO)
        self._progress = progress
        self._simba = simba

    def emit(self, record: logging.LogRecord) -> None:
        line = _COLORS.sub("", str(getattr(record, WHOLE, record.msg))).strip()
        if not line:
            return
        if stage := _STAGE.search(line):
            self._progress.enter(_STAGES.get(stage[1], "search"))
        elif found := _PLAIN_TRIAL.search(line):
            self._progress.planned(int(found[1]) + 1)
        elif found := _MINIBATCH_TRIAL.search(line):
            self._progress.planned(int(found[1]))
        elif found := _GEPA_BUDGET.search(line):
            self._progress.enter("search")
            self._progress.planned_metric_calls(int(found[1]))
        elif found := _COPRO.search(line):
            depth, depths, _, candidates, _, predictors = map(int, found.groups())
            self._progress.planned(_copro_plan(depth, depths, candidates, predictors))
            self._progress.enter_once("search", f"depth {depth} of {depths}")
        elif found := _SIMBA_BATCH.search(line):
            self._simba.enter(evaluates=False)
            self._progress.step(int(found[1]), int(found[2]))
        elif _SIMBA_ROUND.search(line):
            self._simba.enter(evaluates=True)
        is_trouble = record.levelno >= logging.WARNING or _TROUBLE.search(line) is not None
        if not line.startswith("Traceback "):  # GEPA says in the line before what went wrong
            self._progress.say(line[:MESSAGE_MOST], is_warning=is_trouble)


def _copro_plan(depth: int, depths: int, candidates: int, predictors: int) -> int:
    """Return how many candidates COPRO evaluates: with several predictors, each depth evaluates those before again."""
    if predictors == 1:
        return depths * candidates
    return predictors * (candidates // depth) * depths * (depths + 1) // 2


@contextmanager
def reading_log(reader: LogReader) -> Generator[None]:
    """Read the optimizer's log while the block runs, without letting it flood stderr."""
    logger, predictors = logging.getLogger("dspy"), logging.getLogger("dspy.predict.predict")
    level, quiet = logger.level, [(one, one.level) for one in logger.handlers]
    for one, _ in quiet:
        one.setLevel(logging.WARNING)
    logger.addHandler(reader)
    logger.setLevel(logging.INFO)
    predictors.addFilter(_is_no_stray_input)
    try:
        yield
    finally:
        predictors.removeFilter(_is_no_stray_input)
        logger.removeHandler(reader)
        logger.setLevel(level)
        for one, own in quiet:
            one.setLevel(own)


def _is_no_stray_input(record: logging.LogRecord) -> bool:
    """Whether a line is another than that on inputs without a field: DSPy's own proposers give such on every trial."""
    return not str(record.msg).startswith("Input contains fields not in signature")
