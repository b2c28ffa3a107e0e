"""Process: what DSPy itself logs in workers says no prompt and no answer; what users log and print stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import dspy
import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.waiting import eventually

SECRET = "the patient's name is Rosalind"


class Kept(logging.Handler):
    """Keeps the texts of records."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def of(self, text: str) -> str:
        """Return the text that holds this one, once it is there."""
        return eventually(lambda: [each for each in self.texts if text in each], what=text)[0]


@pytest.fixture
def log() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("dspex.worker")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as running:
        yield running


@pytest.fixture
def how(sup: dspex.Supervisor) -> Iterator[dict[str, Any]]:
    with FakeLM({"": {"answer": f"yes, {SECRET}"}}) as lm:
        yield {"supervisor": sup, "lm": lm}


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: a module's supervisor starts its workers when a test first needs them."""


def _evaluates(question: str) -> float:
    def fails(*given: Any) -> float:
        raise ValueError(f"not {question}")

    rows = [dspy.Example(question=question, answer="x").with_inputs("question")]
    evaluation = dspy.Evaluate(devset=rows, metric=fails, max_errors=9, provide_traceback=True)
    return float(evaluation(dspy.Predict("question -> answer")).score)


def _chooses(question: str) -> Any:
    def fails(inputs: Any, out: Any) -> float:
        raise ValueError(f"not {inputs} {out}")

    return dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=fails, threshold=1.0)(question=question)


def _warns(question: str) -> None:
    with dspy.context(warn_on_type_mismatch=True):
        dspy.Predict("question: int -> answer")(question=question, other=question)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (_evaluates, ["Error for {item}: {e}", "(ValueError)"]),
        (_chooses, ["BestOfN: Attempt", "failed with rollout id", "(ValueError)"]),
        (_warns, ["fields not in signature", "['other']", "['question']"]),
        (_warns, ["Type mismatch for field 'question'", "{value}"]),
    ],
)
def test_dspys_own_lines_say_no_values(what: Any, said: list[str], how: dict[str, Any], log: Kept) -> None:
    """process: errors with tracebacks, prints, warnings; the class of the error and names of fields are there."""
    dspex.function(what, **how)(question=SECRET)
    assert all(each in log.of(said[0]) for each in said)
    assert not any(SECRET in text for text in log.texts)


def _speaks(question: str) -> None:
    logging.getLogger("mine").error("mine %s", question)
    logging.getLogger("dspy.mine").error("below %s", question)
    try:
        raise ValueError(question)
    except ValueError:
        logging.getLogger("mine").exception("traced")
    print("printed", question)


def test_what_users_write_stays_as_it_is(how: dict[str, Any], log: Kept) -> None:
    """process: also by a logger below DSPy's, and with a traceback."""
    dspex.function(_speaks, **how)(question=SECRET)
    for text in ("mine", "below", "printed"):
        assert f"{text} {SECRET}" in log.of(text)
    assert f"ValueError: {SECRET}" in log.of("traced")


def test_an_optimizer_whose_metric_fails_quotes_no_example(how: dict[str, Any], log: Kept) -> None:
    """process: in the pool of optimizers too."""

    def fails_while_demos_are_made(example: Any, prediction: Any, trace: Any = None) -> float:
        if trace is not None:
            raise ValueError(f"not {example} {prediction}")
        return 0.5

    rows = [{"question": f"{SECRET} {number}", "answer": "x"} for number in range(2)]
    dspex.optimize("question -> answer", rows, optimizer="bootstrap", metric=fails_while_demos_are_made, **how)
    log.of("Failed to run or to evaluate example {example}")
    assert not any(SECRET in text for text in log.texts)
