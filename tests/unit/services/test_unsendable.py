"""Unit: what cannot be sent by value is an error that leads to the part which cannot, and says what to do."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import EncodeError
from dspex.services.code import SentCode, carried

HELD = threading.Lock()


class Holder:
    """As a dspy.Module is: it has a `forward`."""

    def __init__(self, **parts: Any) -> None:
        self.name = "plain"
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, question: str) -> str:
        return self.forward(question)

    def forward(self, question: str) -> str:
        return question


def _refusal(thing: Any, label: str = "Holder") -> EncodeError:
    with pytest.raises(EncodeError) as caught:
        SentCode.of(thing, label)
    assert "Send None" not in str(caught.value)
    return caught.value


def test_a_live_module_is_told_which_attribute_and_to_give_the_class(tmp_path: Path) -> None:
    """unit: at whatever depth; a lock, a socket, a file that is written, a generator."""
    with socket.socket() as connection, (tmp_path / "log").open("w") as file:
        cases = {
            "Holder.lock": (Holder(lock=threading.Lock()), "lock"),
            "Holder.inner.connection": (Holder(inner=Holder(connection=connection)), "socket"),
            "Holder.files['log'][1]": (Holder(files={"log": [1, file]}), "TextIOWrapper"),
            "Holder.rows": (Holder(rows=(row for row in [1])), "generator"),
        }
        for path, (thing, kind) in cases.items():
            error = _refusal(thing)
            assert (error.path, error.type) == (path, kind)
            assert "Give the class instead of the object" in str(error) and "dspex.module(Holder)" in str(error)


def test_a_live_module_is_refused_as_it_is_given() -> None:
    """unit: before any worker is asked."""
    with pytest.raises(EncodeError, match=r"Holder\.lock \(lock\).*dspex\.module\(Holder\)"):
        dspex.module(Holder(lock=threading.Lock()))


def test_a_function_is_told_which_variable() -> None:
    """unit: one of its own scope; the class of a notebook's cell reaches its methods' variables."""
    lock = threading.Lock()

    def waits(question: str) -> str:
        with lock:
            return question

    error = _refusal(waits, "waits")
    assert (error.path, error.type) == ("waits, variable lock", "lock")
    assert "inside the function" in str(error)

    class Cell:
        def forward(self) -> Any:
            return lock

    assert _refusal(Cell, "Cell").path == "Cell.forward, variable lock"


def test_a_value_is_told_where_and_not_that_only_plain_data_goes() -> None:
    """unit: inputs are pickled too, so that most types may be sent."""
    assert carried({"value": {1, 2}}, lambda kind: None)
    with pytest.raises(EncodeError) as caught:
        carried({"value": {"deep": [threading.Lock()]}}, lambda kind: None)
    assert caught.value.path == "value['deep'][0]" and "Send None" not in str(caught.value)


def test_what_holds_itself_ends() -> None:
    """unit: a circle, and very many parts."""
    circle = Holder(parts=list(range(5_000)))
    circle.me = circle  # type: ignore[attr-defined]
    circle.lock = HELD  # type: ignore[attr-defined]
    assert _refusal(circle).path.startswith("Holder")
