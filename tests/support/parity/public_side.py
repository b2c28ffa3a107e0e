"""DSPex as its users call it, in a parity check: `dspex.predictor` on either route, against a real endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dspex
from dspex.testing import FakeLM, FakeReply
from dspex.types import content as native_types
from tests.support.parity.native_side import Side
from tests.support.parity.oracle import Case, outcome, plain, plain_logprobs, values
from tests.support.parity.wire_replies import family_of, reply_of


def public_call(
    case: Case, call: Mapping[str, Any], supervisor: dspex.Supervisor | None = None, *, awaited: bool = False
) -> dict[str, Any]:
    """The route that was taken by itself, the bodies that were sent, and the completions or the error."""
    bodies = [reply_of(reply, family_of(call["model"])) for reply in call["replies"]]
    script = [FakeReply(status=status, body=body) for status, body in [*bodies, *bodies[-1:] * 3]]
    routes: list[str] = []
    with FakeLM(script, model=call["model"]) as server:
        found = outcome(lambda: _called(case, call, server, supervisor, routes, awaited))
        return {"bodies": [request.raw for request in server.requests], "outcome": found, "route": routes[0]}


def public_messages(case: Case, call: Mapping[str, Any], supervisor: dspex.Supervisor | None = None) -> Any:
    """The messages of the first request, which is not sent."""
    program = _program(case, call, dspex.LM(call["model"], api_key="k"), supervisor)
    return outcome(lambda: program.render(**values(case["inputs"], native_types)))


def _program(case: Case, call: Mapping[str, Any], lm: dspex.LM, supervisor: Any) -> Any:
    return dspex.predictor(
        "predict", case["text"] if case["form"] == "path" else Side().make(case), lm=lm, adapter=case["adapter"],
        demos=values(case["demos"], native_types), config=call["config"], supervisor=supervisor, timeout=60,
        use_native_function_calling=case.get("native_calls"),
    )  # fmt: skip


def _called(
    case: Case, call: Mapping[str, Any], server: FakeLM, supervisor: Any, routes: list[str], awaited: bool
) -> Any:
    lm = dspex.LM(call["model"], api_base=server.api_base, api_key=server.api_key, cache=False, retries=0, **call["lm"])
    program = _program(case, call, lm, supervisor)
    routes.append(program.decision.implementation)
    inputs = values(case["inputs"], native_types)
    found = asyncio.run(program.acall(**inputs)) if awaited else program(**inputs)
    assert found.route.startswith(routes[0]), found.route
    return [*(plain(dict(each)) for each in found.completions), *map(plain_logprobs, found.all_logprobs)]
