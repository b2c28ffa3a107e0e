"""Unit: an optimization's rows, curve and page: complete, bounded, and safe whatever a model wrote."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, MissingDependency, SettingsError
from dspex.programs.reports.escaped_text import escaped
from dspex.programs.reports.job_facts import JobFacts
from dspex.programs.reports.word_diff import word_diff
from dspex.programs.saving.optimized import Optimized
from dspex.programs.scores.program_comparison import ComparedRow, ProgramComparison
from tests.support.programs.saved_documents import QA

HOSTILE = (
    "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x' <!-- ]]> &lt;script&gt; "
    "\x00\x07\u202eevil\u2066 \ud800 javascript:alert(1) </textarea></details></table>"
)
VOID = {"meta"}


class Reader(HTMLParser):
    """Checks that every element is closed in order, and collects elements, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def trial(number: int, kind: str, scores: list[float], text: str = "Answer.", **more: Any) -> dict[str, Any]:
    return {
        "trial": number, "kind": kind, "set": "val", "score": 100 * sum(scores) / len(scores), "examples": len(scores),
        "scores": scores, "rows": [["val", at] for at in range(len(scores))], "instructions": {"self": text},
        "demos": {"self": [{"question": text, "answer": text}]},
        "fields": {"self": [{"prefix": "Answer:", "description": text}]}, "seconds": 0.25, "requests": 4, "cost": 0.01,
        **more,
    }  # fmt: skip


TRIALS = [
    trial(0, "baseline", [1, 0, 0, 0], "Answer the question."),
    trial(1, "minibatch", [1, 1], "Answer it."),
    trial(2, "full", [1, 0, 1, 0], "Answer the question briefly."),
    trial(3, "result", [1, 0, 1, 0], "Answer the question briefly."),
]


def optimized(trials: list[dict[str, Any]] = TRIALS, **given: Any) -> Optimized[Any]:
    program = dspex.predictor("predict", QA, lm="openai/none")
    facts = JobFacts(
        "20300101-000000-abc", "done", "exact_match", {"seed": 3, "teacher": object()}, 12, 3, 4567, 0.04, 8.5,
        ["question"],
        {"val": [{"question": f"q{at}", "answer": f"a{at}"} for at in range(4)]},
    )  # fmt: skip
    how: dict[str, Any] = {"trial": len(trials) - 1, "found_score": 50.0, "job": facts, **given}
    return Optimized(program, 50.0, 25.0, trials, "copro", **how)


def page_of(best: Optimized[Any], folder: Path) -> str:
    best.report(folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_history_has_a_flat_row_for_each_trial() -> None:
    """unit: a minibatch's score is not compared with those on every example."""
    rows = optimized().history()
    assert [row["best"] for row in rows] == [25.0, 25.0, 50.0, 50.0]
    assert rows[1] == {
        "trial": 1, "kind": "minibatch", "set": "val", "score": 100.0, "best": 25.0, "examples": 2, "seconds": 0.25,
        "requests": 4, "cost": 0.01, "instructions": "Answer it.", "demos": 1,
    }  # fmt: skip
    with pytest.raises(SettingsError, match="'rows' or 'pandas'"):
        optimized().history("polars")  # type: ignore[call-overload]


def test_history_names_the_predictors_where_there_are_several() -> None:
    """unit"""
    both = {"instructions": {"plan": "Plan.", "write": "Write."}, "demos": {"plan": [], "write": [{}]}}
    (row,) = optimized([trial(0, "baseline", [1.0], **both)]).history()
    assert (row["plan.instructions"], row["write.demos"]) == ("Plan.", 1)


def test_history_is_a_frame_if_asked() -> None:
    """unit"""
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert list(optimized().history("pandas")["score"]) == [25.0, 100.0, 50.0, 50.0]


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_a_plot_is_written_as_its_name_ends(tmp_path: Path, name: str, begins: bytes) -> None:
    """unit"""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    optimized().plot(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: other forms, and nothing to draw, are refused as well."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"dspex\[plot\]") as caught:
        optimized().plot(tmp_path / "a.png")
    assert (caught.value.package, caught.value.extra) == ("matplotlib", "plot")
    for path in ("a", "a.html", "a.png.txt"):
        with pytest.raises(InvalidInput, match=r"\.png"):
            optimized().plot(tmp_path / path)
    with pytest.raises(InvalidInput, match="no trial"):
        optimized([], trial=None).plot(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_page_says_all_that_is_known(tmp_path: Path) -> None:
    """unit: scores, candidates, the prompts' difference, examples, cost, how to load it; nothing is fetched."""
    read = Reader(page := page_of(optimized(), tmp_path))
    for text in (
        "50 % against 25 % before", "exact_match", "12", "4,567", "0.0400 USD", "8.5", "1 better, 0 worse, 3 equal",
        "q2", "a2", 'dspex.load("best.json")', "copro", "seed: 3", "teacher: a object",
    ):  # fmt: skip
        assert text in read.text, text
    assert "<ins> briefly</ins>" in page and "<del>" in page
    assert "script" not in read.tags and "link" not in read.tags and "img" not in read.tags
    assert "svg" in read.tags and page.count("<circle") == 4
    assert not re.search(r"https?:|url\(|@import|src=|href=", page)
    assert "prefers-color-scheme: dark" in page and "default-src 'none'" in page


def test_a_page_holds_no_markup_of_a_models(tmp_path: Path) -> None:
    """unit: in whatever place the text stands."""
    trials = [trial(0, "baseline", [1, 0], HOSTILE), trial(1, HOSTILE, [0, 1], HOSTILE + " more")]
    trials[1]["instructions"] = {HOSTILE: HOSTILE, "self": "x"}
    trials[1]["demos"] = {HOSTILE: [{HOSTILE: HOSTILE}, HOSTILE], "self": [{"a": {"b": [HOSTILE]}}]}
    trials[1]["set"] = HOSTILE
    rows = [
        ComparedRow(at, {HOSTILE: HOSTILE}, {"answer": HOSTILE}, HOSTILE, 1.0, 0.0, HOSTILE, HOSTILE) for at in range(2)
    ]
    facts = JobFacts(
        HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, inputs=[HOSTILE], examples={"val": [{HOSTILE: HOSTILE}] * 2}
    )
    best = optimized(trials, job=facts, test=ProgramComparison.of(rows, HOSTILE, names=(HOSTILE, HOSTILE)))
    best = Optimized(best.program, 50.0, 25.0, trials, HOSTILE, {HOSTILE: HOSTILE}, trial=1, job=facts, test=best.test)
    read = Reader(page := page_of(best, tmp_path))
    assert read.tags <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "h3",
            "p",
            "ul",
            "li",
            "b",
            "svg",
            "line",
            "text",
        ),
        *(
            "path",
            "circle",
            "div",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "details",
            "summary",
            "ins",
            "del",
            "pre",
        ),
    }
    assert {name for name, _ in read.attributes} <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "viewbox", "role", "aria-label", "d", "x", "y"),
        *("x1", "x2", "y1", "y2", "cx", "cy", "r", "text-anchor"),
    }
    assert not set(page) & set("\x00\x07\u202e\u2066") and "alert(1)" in read.text


def test_a_page_is_bounded(tmp_path: Path) -> None:
    """unit: long texts, many candidates and many examples are cut, and it is said."""
    trials = [trial(at, "full", [1.0] * 5, "word " * 40_000) for at in range(1100)]
    for one in trials[1:]:
        one["demos"] = {}
        one["instructions"] = {"self": "x"}
    page = page_of(optimized([trial(0, "baseline", [0.0] * 5), *trials]), tmp_path)
    assert "101 more rows are not shown" in page and "more characters" in page and len(page) < 2_000_000
    Reader(page)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), -5.0, 1e9])
def test_odd_scores_break_no_page(tmp_path: Path, odd: float) -> None:
    """unit"""
    one = trial(1, "full", [1.0])
    one["score"] = odd
    page = page_of(optimized([trial(0, "baseline", [1.0]), one]), tmp_path)
    Reader(page)
    assert not re.search(r'(?:cx|cy|x|y|y1|d)="[^"]*(?:nan|inf)', page)


def test_a_kept_baseline_is_said(tmp_path: Path) -> None:
    """unit: in the repr, the verdict and the page, which shows what was found."""
    worse = [TRIALS[0], trial(1, "result", [0, 0, 0, 0], "Guess.")]
    program = optimized().program
    best = Optimized(program, 25.0, 25.0, worse, "copro", found_score=0.0, kept_baseline=True, trial=0)
    assert best.is_worse and "so the baseline was kept" in best.verdict and "the baseline, kept" in repr(best)
    read = Reader(page_of(best, tmp_path))
    assert "Guess." in read.text and "so the baseline was kept" in read.text
    free = Optimized(program, 0.0, 25.0, worse, "copro", found_score=0.0)
    assert free.is_worse and "worse than the baseline" in repr(free)
    assert not optimized().is_worse and not Optimized(program, None, None).is_worse


def test_a_loaded_program_has_a_page_too(tmp_path: Path) -> None:
    """unit: of what its file holds; a result without any trial as well."""
    optimized(kept_baseline=False).save(tmp_path / "best.json")
    loaded = dspex.load(tmp_path / "best.json")
    assert (loaded.found_score, loaded.trial, loaded.kept_baseline) == (50.0, 3, False)
    assert "briefly" in Reader(page_of(loaded, tmp_path)).text
    Reader(page_of(Optimized(optimized().program, None, None), tmp_path))


def test_a_difference_is_of_words() -> None:
    """unit: texts with little in common stand one after the other; long ones too, at once."""
    assert word_diff("Answer the question.", "Answer every question.") == (
        "Answer <del>the</del><ins>every</ins> question."
    )
    assert word_diff("", "<b>") == "<ins>&lt;b&gt;</ins>" and word_diff("a", "a") == "a"
    assert word_diff("one two three", "a b c d").startswith("<del>one two three</del>")
    assert word_diff("a b " * 5000, "b a " * 5000).startswith("<del>a b ")


def test_text_is_escaped_whatever_it_is() -> None:
    """unit"""

    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    assert escaped("a\x1b[31m") == "a\\u001b[31m" and escaped(3) == "3"
    assert "Odd whose repr fails" in escaped(Odd())
    assert escaped("x" * 9000).endswith("(1,000 more characters)")
