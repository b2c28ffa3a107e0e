"""Security: words of models, workers and files do nothing to the terminal, the log or the page that shows them."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest

import dspex
from dspex.cli import printing
from dspex.events import Event, Name, write_log
from dspex.lm.call_history import HistoryEntry
from dspex.lm.history_text import text_of
from dspex.pools.worker_output import WorkerOutput
from dspex.programs.evaluation.evaluation import Evaluation
from dspex.terminal_text import inert, inert_line
from dspex.types.prediction import Prediction
from dspex_worker.output_limit import OutputLimit

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07", "\x9b31m", "a\rb", "\u202etxt.exe", "\x08\x08\x08ok", "x\u2028y",
    "\x1bP+q544e\x1b\\", "\x00", "\x7f",
)  # fmt: skip
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MARKUP = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><svg/onload=alert(1)>", "&lt;b&gt;")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_active_is_left_and_all_of_it_is_shown(text: str) -> None:
    """unit: as escapes; tabs and line feeds stay, but on one line."""
    shown = inert(f"before\t{text}\nafter")
    assert not ACTIVE.search(shown) and shown.startswith("before\t") and shown.endswith("\nafter")
    assert "\n" not in inert_line(f"a\n{text}")
    assert inert("plain text: äöü 漢字 🙂\n") == "plain text: äöü 漢字 🙂\n"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["name", "value", "nested"])
def test_no_fact_of_an_event_acts_in_the_log(text: str, place: str, caplog: pytest.LogCaptureFixture) -> None:
    """unit: names and values of a worker's events, and keys of a stranger's file."""
    given = {f"k{text}": 1} if place == "name" else {"k": text if place == "value" else [{"a": text}]}
    with caplog.at_level("DEBUG", "dspex"):
        write_log(Event(Name.WORKER_REPORTED, {"worker": "f/0", **given}))
        write_log(Event(Name.PROGRAM_STRIPPED, {"file": text, "keys": f"lm ({text})"}))
    assert len(caplog.messages) == 2
    for line in caplog.messages:
        assert not ACTIVE.search(line) and "\n" not in line


@pytest.mark.parametrize("text", [*HOSTILE, "x\nevent=dspex.worker.died pool=other", "x" * 100_000])
def test_a_loggers_name_is_a_workers_word_too(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """unit: it began lines of its own, and set the terminal's title."""
    told: list[dict[str, Any]] = []
    output = WorkerOutput.__new__(WorkerOutput)
    output._report = lambda worker, size, facts: told.append(facts)
    worker: Any = SimpleNamespace(
        stderr=SimpleNamespace(add=lambda data: None), log_limit=OutputLimit(), pid=1, calls={}
    )
    output.logged(worker, 0, 50, text, f"said {text}", 10)
    with caplog.at_level("DEBUG", "dspex"):
        write_log(Event(Name.WORKER_LOGGED, {"pool": "f", "worker": "f/0", **told[0]}))
    (line,) = caplog.messages
    head = line.partition("] ")[0]
    assert not ACTIVE.search(line) and "\n" not in head and len(head) < 1000


class _Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, is_one: bool) -> None:
        super().__init__()
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_models_words_are_no_commands_of_the_terminal(
    text: str, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: what `dspex run`, `call` and `evaluate` print; a pipe gets the bytes as they are."""
    out, err = _Terminal(is_terminal), _Terminal(True)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    printing.print_line(f"answer: {text}")
    printing.print_error(f"cannot read {text}")
    assert bool(ACTIVE.search(out.getvalue())) is not is_terminal
    assert not ACTIVE.search(err.getvalue())


def test_histories_are_shown_in_colors_of_our_own_alone() -> None:
    """unit: inspect_history on a terminal; as text it stays as DSPy's."""
    said = HOSTILE[0]
    entry = HistoryEntry(messages=[{"role": "user", "content": said}], text=said, model="m", outputs=[said])
    for other in (entry, HistoryEntry(messages=[], text="", model="m", error=said)):
        shown = re.sub(r"\x1b\[3\dm|\x1b\[0m", "", text_of([other], colors=True))
        assert "\x1b" not in shown and "\\x1b" in shown
        assert said in text_of([other])


@pytest.mark.parametrize("text", MARKUP)
def test_pages_show_markup_as_text(text: str) -> None:
    """unit: predictions, evaluations, programs, in a notebook."""
    prediction = Prediction({"answer": text, text: "x"})
    program = dspex.predictor("predict", dspex.signature("q -> a").with_instructions(text))
    for page in (prediction._repr_html_(), program._repr_html_()):
        assert "<script" not in page and "<img" not in page and "<svg" not in page


def test_a_page_of_an_evaluation_shows_markup_as_text() -> None:
    """collaboration: answers, inputs and errors in its rows."""
    from dspex.testing import FakeLM

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        if "img" in example.q:
            raise ValueError(MARKUP[1])
        return 1.0

    with FakeLM(lambda messages: {"a": MARKUP[0]}) as lm:
        program = dspex.predictor("predict", "q -> a", lm=lm)
        devset = [{"q": text, "a": text} for text in MARKUP]
        made: Evaluation = dspex.evaluate(program, devset, metric=metric, inputs=["q"])
    page = made._repr_html_()
    assert "alert" in page
    assert "<script" not in page and "<img" not in page and "<svg" not in page
