"""Unit: a history is bounded by entries and by bytes, tells its sources apart, and holds no key."""

from __future__ import annotations

import pytest

from dspex.errors import SettingsError
from dspex.lm import call_history
from dspex.lm.call_history import CallHistory, HistoryEntry, without
from dspex.lm.observing import Observing


def entry(text: str) -> HistoryEntry:
    return HistoryEntry(messages=[{"role": "user", "content": text}], text="a", model="m", outputs=["a"])


def texts(history: CallHistory, source: int | None = None) -> list[str]:
    return [str(each.messages[0]["content"]) for each in history.entries(source)]


def test_the_oldest_entries_go_first() -> None:
    """unit"""
    history = CallHistory(2)
    for at in range(4):
        history.add(entry(f"q{at}"), source=at % 2)
    assert texts(history) == ["q2", "q3"] and texts(history, 1) == ["q3"]
    history.keep(1)
    assert texts(history) == ["q3"]
    history.clear()
    assert texts(history) == []


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: also after the large ones have gone; what is larger than all is left out."""
    monkeypatch.setattr(call_history, "BYTES_MOST", 6000)
    history = CallHistory(100)
    for at in range(5):
        history.add(entry(f"{at}" * 2000))
    assert [text[0] for text in texts(history)] == ["3", "4"]
    history.add(entry("x" * 7000))
    assert len(texts(history)) == 2
    for _ in range(3):
        history.add(entry("small"))
    assert [text[:5] for text in texts(history)] == ["44444", "small", "small", "small"]


def test_secrets_are_taken_out_at_any_depth() -> None:
    """unit: but words that are no keys stay."""
    value = [{"role": "user", "content": [{"type": "text", "text": "key sk-canary-42!"}]}, ("sk-canary-42",)]
    assert "canary" not in repr(without(value, ("sk-canary-42", "none")))
    assert without(value, ("none",)) is value


@pytest.mark.parametrize("history", ["yes", 1.5, -1])
def test_a_history_is_a_switch_or_a_number(history: object) -> None:
    """unit"""
    with pytest.raises(SettingsError, match="history"):
        Observing().configure(history=history, callbacks=None)  # type: ignore[arg-type]


def test_a_process_that_watches_nothing_is_idle() -> None:
    """unit: what every call looks at."""
    observing = Observing()
    assert observing.is_idle
    observing.configure(history=True, callbacks=None)
    assert not observing.is_idle
    observing.configure(history=False, callbacks=[])
    assert observing.is_idle
