"""DSPex's worker route in a parity check: the same calls in a real worker, against a real endpoint on the loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspex
from dspex.testing import FakeLM, FakeReply
from dspex.types import content as native_types
from tests.support.parity.native_side import Side
from tests.support.parity.oracle import Case, is_error, outcome, plain, values

MODEL = "openai/nobody-knows-it"


class WorkerSide:
    """Calls in the workers of one supervisor; one endpoint for all of them."""

    def __init__(self, supervisor: dspex.Supervisor) -> None:
        self._supervisor = supervisor
        self._replies: list[str] = []
        self._lm = FakeLM(lambda _: FakeReply(self._next()), model=MODEL)

    def close(self) -> None:
        """Close the endpoint."""
        self._lm.close()

    def call(self, case: Case, call: Mapping[str, Any]) -> dict[str, Any]:
        """The bodies that were sent, and the completions or the error."""
        before = len(self._lm.requests)
        self._replies = [reply["text"] for reply in call["replies"]]
        found = outcome(lambda: self._called(case, call))
        if is_error(found) and found[1] == "EncodeError" and "lone surrogates" in found[2]:
            found = (*found[:1], "InvalidInput", found[2])  # what no provider can receive, found earlier than natively
        return {"bodies": [bytes(request.raw) for request in self._lm.requests[before:]], "outcome": found}

    def _called(self, case: Case, call: Mapping[str, Any]) -> Any:
        demos = values(case["demos"], native_types) if call["demos"] else ()
        second = {"extraction_model": self._lm} if case["adapter"] == "two_step" else {}
        adapter = {"name": case["adapter"], **case.get("options", {}), **second}
        program = dspex.predictor(
            "predict", Side().make(case), lm=self._lm, adapter=adapter, demos=demos, allow_markers=True,
            implementation="python", supervisor=self._supervisor, timeout=60,
        )  # fmt: skip
        found = program(**values(case["inputs"], native_types))
        return [plain(dict(each)) for each in found.completions]

    def _next(self) -> str:
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


def worker_case(case: dict[str, Any]) -> dict[str, Any] | None:
    """The case with the calls that can be made so; None where there is none: its options and failures are others'."""
    texts = [call for call in case["calls"] if all(_is_text(reply) for reply in call["replies"])]
    calls = [{**call, "model": MODEL, "lm": {}, "config": {}, "streamed": False} for call in texts]
    return {**case, "answers": [], "calls": calls} if calls else None


def _is_text(reply: Mapping[str, Any]) -> bool:
    text = reply.get("text")
    return set(reply) == {"text"} and isinstance(text, str) and bool(text.strip()) and _is_unicode(text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_refused(result: Mapping[str, Any]) -> bool:
    """Whether the side refused the signature."""
    return is_error(result["signature"])
