"""Unit: what notebooks show holds no markup of a model's, in a real parser, and is bounded."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

import dspex
from dspex import html_views
from dspex.pipelines.core.results import Result, Status, StepRecord, Steps
from dspex.pools.stats_views import shown_pool, shown_pools
from dspex.types.prediction import Prediction, with_facts
from dspex.types.trace_step import TraceStep

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "\"><svg/onload=alert(1)>' onmouseover='x",
    "<!-- --!><style>*{display:none}</style>",
    "&lt;script&gt; &amp; &#x3c;b&#x3e;",
    "\ud800 half a pair \x00 <b>",
]
ALLOWED = {"div", "table", "caption", "tr", "th", "td", "small"}


class Parsed(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.odd: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def pages(text: str) -> list[str]:
    step = StepRecord(text, 0, "native", Status.DONE, route=text, reason=text)
    program = dspex.predictor("predict", dspex.signature("question -> answer", text)).using(config={"stop": text})
    pool: Any = {
        "pool": text,
        "state": text,
        "size": 1,
        "queued": 0,
        "queue_limit": 1,
        "in_flight": 0,
        "counts": {},
        "usage": {"requests": 0, "cost_usd": 0.0},
        "workers": [{"worker": text, "phase": "ready", "answered": 1, "rss_bytes": 2**20, "age_s": 1.0}],
    }
    shown: list[Any] = [
        Prediction({"answer": text, text: [text], "more": {text: text}}, route=text),
        Result({text: text}, Steps([step]), seconds=1.0, session="s"),
        program,
        shown_pool(pool),
        shown_pools({text: pool}),
    ]
    return [each._repr_html_() for each in shown]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    """unit: every tag is ours and closed, no attribute but the style, and the text is there as it was."""
    for page in pages(text):
        parsed = Parsed(page)
        assert set(parsed.tags) <= ALLOWED and parsed.attributes <= {"style"} and not parsed.open and not parsed.odd
        page.encode("utf-8")
    assert text.replace("\ud800", "?") in Parsed(pages(text)[0]).text.replace("\ufffd", "\x00")


def test_the_length_is_bounded() -> None:
    """unit"""
    page = Prediction({f"field{at}": "<" * 1_000_000 for at in range(3)})._repr_html_()
    assert len(page) < 3 * 5 * html_views.CELL_MOST and "more characters" in page
    many = Prediction({f"field{at}": at for at in range(1000)})._repr_html_()
    assert many.count("<tr>") == html_views.ROWS_MOST and "900 more rows" in many


def test_rich_gets_names_and_values() -> None:
    """unit"""
    out = Prediction({"answer": "Paris", "score": 1})
    assert list(out.__rich_repr__()) == [("answer", "Paris"), ("score", 1)]
    assert dict(dspex.predictor("predict", "question -> answer").__rich_repr__())["inputs"] == "question"
    assert dict(Result({"a": 1}, Steps([]), seconds=0.0, session="s").__rich_repr__())["a"] == 1


def test_facts_of_a_prediction_survive_pickling_and_replacing() -> None:
    """unit"""
    import pickle

    step = TraceStep("self", {"question": "q"}, {"answer": "a"}, seconds=0.5)
    out = with_facts(Prediction({"answer": "a"}, finish_reason="length"), trace=[step])
    again = pickle.loads(pickle.dumps(out))
    assert (again.finish_reason, again.trace, again) == ("length", (step,), out)
    assert tuple(step) == ("self", {"question": "q"}, {"answer": "a"})
