"""Tools in signatures: requests, outputs and errors are DSPy's own, with native function calling and without."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tool_cases import cases, plain, values

from dspex.errors import DspexError
from dspex.inprocess import types as native_types
from dspex.inprocess.lm.client import LMClient
from dspex.inprocess.lm.record import LM
from dspex.inprocess.predictor import asked, predict
from dspex.inprocess.signatures import signature
from dspex.testing import FakeLM, FakeReply

SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261122"))
Found = tuple[Any, list[bytes]]  # an outcome, and the bodies of the requests behind it
CASES = int(os.environ.get("DSPEX_TOOL_CASES", "300"))


@pytest.mark.parity
def test_calls_with_tools_are_dspys_own() -> None:
    """parity: the bytes of each request, the outputs with their calls, and the class of each error."""
    print(f"seed {SEED}, {CASES} cases")
    made = cases(SEED, CASES)
    theirs, ours = _by_dspy(made), _natively(made)
    differences = [
        f"{case}\n  dspy   {a}\n  native {b}" for case, a, b in zip(made, theirs, ours, strict=True) if not _alike(a, b)
    ]
    assert not differences, f"{len(differences)} of {CASES}; the first:\n" + "\n".join(differences[:3])
    assert sum(outcome[0] == "outputs" for outcome, _ in theirs) > CASES / 2
    assert sum(b'"tools":' in body for _, bodies in theirs for body in bodies) > CASES / 8


class Played:
    """The model's side of all cases: each has its replies, and its requests are told by the number in its question."""

    def __init__(self, made: list[dict[str, Any]]) -> None:
        self._replies = [iter(case["replies"]) for case in made]

    def __call__(self, messages: list[dict[str, Any]]) -> FakeReply:
        return FakeReply(**next(self._replies[_number(json.dumps(messages))]))

    @staticmethod
    def sent(lm: FakeLM, made: list[dict[str, Any]]) -> list[list[bytes]]:
        bodies: list[list[bytes]] = [[] for _ in made]
        for request in lm.requests:
            bodies[_number(request.raw.decode())].append(request.raw)
        return bodies


def _number(text: str) -> int:
    return int(re.findall(r"#(\d+)#", text)[-1])


def _by_dspy(made: list[dict[str, Any]]) -> list[Found]:
    """DSPy's outcome of each case, with the requests that it sent."""
    with FakeLM(Played(made)) as server:
        given = pickle.dumps({"cases": made, "base": server.api_base, "key": server.api_key})
        probe = Path(__file__).with_name("tool_probe.py")
        ran = subprocess.run([sys.executable, str(probe)], input=given, stdout=subprocess.PIPE, check=True, timeout=300)
        return list(zip(pickle.loads(ran.stdout), Played.sent(server, made), strict=True))


def _natively(made: list[dict[str, Any]]) -> list[Found]:
    """The same, in this process."""
    with FakeLM(Played(made)) as server, LMClient() as client:
        outcomes = [_outcome(client, server, case) for case in made]
        return list(zip(outcomes, Played.sent(server, made), strict=True))


def _outcome(client: LMClient, server: FakeLM, case: dict[str, Any]) -> Any:
    lm = LM(case["model"], api_base=server.api_base, api_key=server.api_key, cache=False, retries=0)
    sig = signature(case["signature"])
    native = case["native"] if case["native"] is not None else case["adapter"] == "json"
    try:
        compiled = asked(sig, case["adapter"], lm, native)
        assert compiled.unsupported_with(lm) is None, case
        out = predict(
            client,
            sig,
            values(case["inputs"], native_types),
            lm=lm,
            adapter=case["adapter"],
            demos=values(case["demos"], native_types),
            config=case["config"],
            use_native_function_calling=case["native"],
        )
        return ("outputs", plain(out.to_dict()))
    except DspexError as error:
        return ("error", type(error).__name__)


def _alike(theirs: Found, ours: Found) -> bool:
    """Equal; but DSPy lets out a ValueError of pydantic's, or of its own, where DSPex has InvalidInput."""
    renamed = {"ValueError": "InvalidInput", "ValidationError": "InvalidInput"}
    (kind, what), bodies = theirs
    return ((kind, renamed.get(what, what) if kind == "error" else what), bodies) == ours
