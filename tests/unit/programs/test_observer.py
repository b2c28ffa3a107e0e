"""Unit: what an observer takes of a worker, which may tell anything."""

from __future__ import annotations

from typing import Any

import pytest

from dspex import LM
from dspex.lm.call_history import BYTES_MOST, ENTRIES_MOST, CallHistory, size_of
from dspex.lm.observing import Observing
from dspex.programs.native.observer import Observer, Watch

KEY = "sk-secret-0123456789"


class Client:
    """Knows one language model."""

    def known(self, ref: str) -> LM | None:
        return LM("openai/gpt-4o-mini", api_key=KEY) if ref == "known" else None


class Seen:
    """A callback that records the ends of LM calls."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, BaseException | None]] = []

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.ends.append((call_id, exception))


def observer(history: CallHistory, *callbacks: Any) -> Observer:
    return Observer(Watch(False, (history,), callbacks, Observing(), 1))


def see(observer: Observer, **told: Any) -> None:
    observer.see(told, "dspy/0", Client())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"what": 1},
        {"what": "asked"},
        {"what": "asked", "messages": "text", "call_id": []},
        {"what": "asked", "messages": [1, None, {"role": 2}], "lm": {}, "model": 3},
        {"what": "answer", "outputs": {"a": 1}, "usage": [], "seconds": "long", "cached": "yes", "error": 5},
        {"what": "hook"},
        {"what": "hook", "hook": ["on_lm_end"]},
        {"what": "hook", "hook": "on_lm_end", "call_id": 7, "exception": "text"},
        {"what": "hook", "hook": "__init__"},
    ],
)
def test_anything_may_be_told(told: dict[str, Any]) -> None:
    """unit: hostile"""
    history, callback = CallHistory(), Seen()
    seer = observer(history, callback)
    see(seer, **told)
    seer.close(None)
    assert all(isinstance(entry.text, str) and isinstance(entry.model, str) for entry in history.entries())


def test_an_answer_is_joined_with_what_was_asked() -> None:
    """unit: once, in the order of the answers"""
    history = CallHistory()
    seer = observer(history)
    for call_id in ("one", "two"):
        see(seer, what="asked", call_id=call_id, messages=[{"role": "user", "content": call_id}])
    see(seer, what="answer", call_id="two", outputs=[{"text": "2"}], messages=[])
    seer.close(TimeoutError("late\nsecond line"))
    seer.close(TimeoutError("again"))
    assert [(entry.messages[0]["content"], entry.text, entry.error) for entry in history.entries()] == [
        ("two", "2", ""),
        ("one", "", "TimeoutError: late"),
    ]


def test_what_waits_is_bounded() -> None:
    """unit: in number and in bytes"""
    history = CallHistory()
    seer = observer(history)
    large = [{"role": "user", "content": "x" * (BYTES_MOST // 4)}]
    for at in range(10):
        see(seer, what="asked", call_id=str(at), messages=large)
    assert len(seer._asked) <= 4
    seer = observer(history)
    for at in range(ENTRIES_MOST * 2):
        see(seer, what="asked", call_id=str(at), messages=[])
        see(seer, what="hook", hook="on_lm_start", call_id=str(at))
    assert len(seer._asked) == ENTRIES_MOST and len(seer._begun) <= ENTRIES_MOST


def test_no_key_of_a_known_model_is_kept() -> None:
    """unit: in messages, answers and errors"""
    history = CallHistory()
    seer = observer(history)
    see(
        seer,
        what="answer",
        lm="known",
        messages=[{"role": "user", "content": f"my {KEY}"}],
        outputs=[{"text": f"your {KEY}"}],
        error=f"Incorrect {KEY}",
    )
    (entry,) = history.entries()
    assert KEY not in repr(entry) and entry.error == "Incorrect ***"


def test_what_began_ends_with_the_call() -> None:
    """unit: the innermost first, once, only for who is called back at ends"""
    callback = Seen()
    callback.on_lm_start = lambda call_id, instance, inputs: None  # type: ignore[attr-defined]
    seer = observer(CallHistory(), callback)
    for call_id in ("outer", "inner", "done"):
        see(seer, what="hook", hook="on_lm_start", call_id=call_id)
    see(seer, what="hook", hook="on_lm_end", call_id="done")
    error = TimeoutError()
    seer.close(error)
    assert callback.ends == [("done", None), ("inner", error), ("outer", error)]


@pytest.mark.parametrize("part", ["options", "usage", "error", "predictor", "model", "finish_reason", "outputs"])
@pytest.mark.parametrize("what", ["asked", "answer"])
def test_no_part_of_an_entry_is_unbounded(part: str, what: str) -> None:
    """unit: a worker may put its megabytes anywhere, as texts or as a mass of empty lists."""
    text = "x" * (BYTES_MOST // 4)
    large: Any = {"a": text, "b": [[]] * 1000} if part in ("options", "usage") else text
    large = [{"text": text}] if part == "outputs" else large
    history = CallHistory()
    seer = observer(history)
    for at in range(10):
        see(seer, what=what, call_id=str(at), **{part: large})
    assert max(len(seer._asked), len(history.entries())) <= 4
    assert size_of([[]] * 1000) > 60_000


def test_an_id_of_any_length_is_kept_short() -> None:
    """unit: what has begun is kept until the call ends."""
    seer = observer(CallHistory(), Seen())
    for at in range(3):
        see(seer, what="hook", hook="on_lm_start", call_id=f"{at}" + "x" * 1_000_000)
        see(seer, what="asked", messages=[], call_id=f"{at}" + "x" * 1_000_000)
    assert all(len(id) <= 200 for id in (*seer._asked, *seer._begun)) and len(seer._asked) == 3
