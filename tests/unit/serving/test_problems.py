"""Unit: the status of every error, and what of it the caller learns."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path

import pytest

from dspex import errors
from dspex.serving.call_limits import OF_REQUEST
from dspex.serving.problems import STATUSES, problem_of
from tests.support.paths import ROOT

SECRET = "sk-secret and a prompt"
DIED = errors.WorkerDied("dspy", "run", worker="dspy/0", pid=4711, cause="crash", stderr_tail=SECRET)
CASES = [
    (errors.InvalidInput("The input 'a' is odd.", field="a"), 422, "no"),
    (errors.PoolSaturated("dspy", queued=3, limit=3, retry_after=2.4), 503, "now"),
    (errors.PoolUnhealthy("dspy", last_error=SECRET, retry_in=7.0), 503, "now"),
    (errors.PoolClosed("stopping"), 503, "no"),
    (errors.CallTimeout("dspy", "run", timeout=3.0, phase="running"), 504, "if_idempotent"),
    (errors.BudgetExceeded(OF_REQUEST, spent=5, limit=4, unit="tokens"), 402, "no"),
    (errors.BudgetExceeded("the process", spent=5, limit=4, unit="USD"), 402, "no"),
    (DIED, 502, "if_idempotent"),
    (errors.LMRateLimitError(SECRET, retry_after=9.2), 503, "now"),
    (errors.LMAuthError(SECRET), 500, "no"),
    (errors.LMServerError(SECRET), 502, "now"),
    (errors.RemoteError("ValueError", SECRET, traceback=SECRET), 500, "no"),
    (errors.FrameTooLarge("parent", 10, 20), 413, "no"),
    (errors.AdapterParseError(SECRET, adapter="chat", lm_response=SECRET), 502, "no"),
    (ValueError(SECRET), 500, "no"),
    (TimeoutError(), 504, "if_idempotent"),
]


@pytest.mark.parametrize(("error", "status", "retryable"), CASES, ids=lambda each: type(each).__name__)
def test_an_error_has_its_status_and_says_nothing_of_the_inside(
    error: Exception, status: int, retryable: str, caplog: pytest.LogCaptureFixture
) -> None:
    """unit"""
    with caplog.at_level(logging.DEBUG, "dspex"):
        problem = problem_of(error, program="qa")
    assert (problem.status, problem.retryable) == (status, retryable)
    for hidden in (SECRET, "4711", "dspy/0", "the process"):
        assert hidden not in problem.body().decode()
    if status not in (413, 422):
        assert problem.request_id in caplog.text
    if isinstance(error, errors.RemoteError | ValueError) and not isinstance(error, errors.DspexError | TimeoutError):
        assert SECRET not in caplog.text


def test_what_is_over_now_says_when_to_come_again() -> None:
    """unit"""
    found = {type(error).__name__: problem_of(error).response_headers().get("retry-after") for error, _, _ in CASES}
    assert (found["PoolSaturated"], found["PoolUnhealthy"], found["LMRateLimitError"]) == ("3", "7", "10")
    assert found["CallTimeout"] is None and found["InvalidInput"] is None


def test_the_guide_lists_every_status() -> None:
    """contract"""
    text = (Path(ROOT) / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (\d{3}) \| (.+?) \|", text, re.MULTILINE))
    for kind, status in STATUSES:
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in table.get(str(status), ""), f"{kind.__name__} is not in the row of {status}"


def test_a_class_stands_before_those_that_it_is_derived_from() -> None:
    """contract: else it could never be reached."""
    seen: list[type[BaseException]] = []
    for kind, _ in STATUSES:
        assert not any(issubclass(kind, earlier) for earlier in seen), kind
        seen.append(kind)
    assert all(inspect.isclass(kind) for kind in seen)
