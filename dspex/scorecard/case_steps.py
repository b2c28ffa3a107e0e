"""The steps that several cases share: inject the fault, and collect the consequences."""

from __future__ import annotations

import time
from typing import Any

from .case import Facts
from .stage import FOREVER, PATIENCE, Bystanders, Stage, TrialRun, TrialWatch

SECONDS = 0.5  # a deadline that the work cannot meet


def in_its_own_worker(stage: Stage, fault: str, **arguments: Any) -> Facts:
    """Let a call do it to its own worker, while another runs and more wait."""
    stage.start()
    return fault_at_gate(stage, fault, **arguments)


def fault_at_gate(stage: Stage, fault: str, **arguments: Any) -> Facts:
    """Start a call that waits, then the bystanders, then let the call do it."""
    gate = stage.gate()
    failing = stage.announced(fault, gate=gate, **arguments)
    bystanders = stage.bystanders()
    struck = time.monotonic()
    gate.touch()
    return wait_for_error(failing, struck) | consequences(stage, bystanders, struck)


def past_its_deadline(stage: Stage, fault: str, **arguments: Any) -> Facts:
    """Let a call go on past its deadline, while another runs and more wait."""
    stage.start()
    arguments = arguments or {"seconds": FOREVER}
    failing = stage.announced(fault, timeout=SECONDS, **arguments)
    watch, bystanders = TrialWatch(failing.pid()), stage.bystanders()
    due = failing.submitted_at + SECONDS
    failing.wait(SECONDS + PATIENCE)
    facts = {"error": failing.outcome, "late_s": failing.seconds_since(due)}
    return facts | consequences(stage, bystanders, due, watch)


def wait_for_error(failing: TrialRun, struck: float) -> Facts:
    """Wait until the caller of the failing call has its error."""
    failing.wait()
    return {"error": failing.outcome, "told_s": failing.seconds_since(struck)}


def consequences(stage: Stage, bystanders: Bystanders, struck: float, watch: TrialWatch | None = None) -> Facts:
    """Return what became of the bystanders, and of the pool."""
    bystanders.release()
    after = stage.aftermath(struck, watch)
    return bystanders.facts() | after


def mentions(error: BaseException | None, text: str) -> bool:
    """Return whether the error, what caused it, or what it holds mentions that."""
    seen = 0
    while error is not None and seen < 10:
        if text in str(error) or any(text in str(value) for value in vars(error).values()):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def require(value: Any) -> Any:
    """Return what the case cannot do without."""
    if value is None:
        raise RuntimeError("the pool did not get as far as the fault")
    return value
