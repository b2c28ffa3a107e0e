"""Parity: what is done with a module of a user's own beside calling it once: streams, batches, usage, saved states.

Told anew after DSPy's tests/streaming, tests/predict/test_parallel.py, tests/primitives and tests/utils/test_saving.py.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.own_modules.beside import HERE, Dspy, here, sent

pytestmark = pytest.mark.parity

COMPOSED = f"{HERE}.compositions"


@pytest.fixture
def nested(supervisor: dspex.Supervisor, lm: FakeLM) -> Any:
    return dspex.module(f"{COMPOSED}:Nested", supervisor=supervisor, lm=lm)


@pytest.mark.parametrize(
    ("what", "inputs"),
    [("Nested", {"question": "q"}), ("Collections", {"text": "q"}), ("Loud", {"question": "q"})],
)
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_streams_give_every_predictors_text(
    supervisor: dspex.Supervisor, lm: FakeLM, beside: Dspy, what: str, inputs: dict[str, Any], adapter: str
) -> None:
    """parity: the text of each predictor's fields, as DSPy's own listeners give it, then the prediction.

    Of JSON these leave quotes and what follows in the text, where pieces do not end as they expect.
    """
    program = dspex.module(f"{COMPOSED}:{what}", supervisor=supervisor, lm=lm, adapter=adapter)
    *chunks, last = program.stream(**inputs)
    texts: dict[str, str] = {}
    for chunk in chunks:
        key = f"{chunk.predictor}.{chunk.field}"
        texts[key] = texts.get(key, "") + chunk.text
    wanted = beside.ask(lm, f"{COMPOSED}:{what}", how="stream", inputs=inputs, adapter=adapter)
    assert wanted.error is None, wanted.message
    theirs = wanted.outcome["dict"]["texts"]["dict"]
    if adapter == "json":
        assert all(text in theirs[key] for key, text in texts.items())
        theirs = {key: theirs[key].partition('", "')[0].strip('"') for key in theirs}
    assert texts == theirs
    assert {"prediction": dict(last.items())} == wanted.outcome["dict"]["final"]


def test_a_module_with_a_loop_of_its_own_streams(supervisor: dspex.Supervisor, lm: FakeLM) -> None:
    """process: DSPy's `streamify` waits for ever for a program that calls `asyncio.run`; here its text comes."""
    *chunks, last = dspex.module(f"{COMPOSED}:OwnLoop", supervisor=supervisor, lm=lm).stream(question="q")
    assert last.answer == "answer of q"
    assert "".join(chunk.text for chunk in chunks if chunk.field == "answer") == "answer of q"


def test_awaited_calls_of_a_program_share_a_loop(supervisor: dspex.Supervisor, lm: FakeLM, beside: Dspy) -> None:
    """parity: a module may keep what belongs to a loop, such as a semaphore, and be awaited often at the same time."""
    program = dspex.module(f"{COMPOSED}:OneAtATime", supervisor=supervisor, lm=lm)
    rows = [{"question": f"q{at}"} for at in range(6)]
    wanted = beside.ask(lm, f"{COMPOSED}:OneAtATime", how="gather", inputs={"rows": rows})
    before = len(lm.requests)

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*(program.acall(**row) for row in rows)))

    found = [{"prediction": dict(out.items())} for out in asyncio.run(gathered())]
    assert (found, sent(lm, before)) == (wanted.outcome, wanted.sent)
    with pytest.raises(dspex.RemoteError, match="SystemExit"):
        program("exit")
    assert program("q").most == 1, "the loop goes on"


POSITIONED: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("TwoHops", ["q"], {}),
    ("OwnCall", ["q"], {}),
    ("Defaults", ["q", "warm"], {"k": 4}),
    ("AnyArguments", ["q", "r"], {"more": "s"}),
    ("OwnLoop", ["q"], {}),
]


@pytest.mark.parametrize(("what", "args", "inputs"), POSITIONED, ids=[case[0] for case in POSITIONED])
def test_inputs_may_be_given_by_position(
    supervisor: dspex.Supervisor, lm: FakeLM, beside: Dspy, what: str, args: list[Any], inputs: dict[str, Any]
) -> None:
    """parity: as `forward` takes them; also by a module whose own `__call__` is the program."""
    wanted = beside.ask(lm, f"{COMPOSED}:{what}", args=args, inputs=inputs)
    found = here(dspex.module(f"{COMPOSED}:{what}", supervisor=supervisor, lm=lm), lm, args=tuple(args), inputs=inputs)
    assert wanted.error is None, wanted.message
    assert (found.outcome, found.sent) == (wanted.outcome, wanted.sent), found.message


def test_positions_that_cannot_be_are_refused_before_anything_is_sent(
    supervisor: dspex.Supervisor, lm: FakeLM, nested: Any
) -> None:
    """process: too many, one given twice, and any where a signature names the inputs."""
    signed = dspex.module(f"{COMPOSED}:Nested", signature="question -> answer", supervisor=supervisor, lm=lm)
    before = len(lm.requests)
    for program, args, inputs, words in (
        (nested, ("q", "r"), {}, "takes 1 .question. of its inputs by position, not 2"),
        (nested, ("q",), {"question": "r"}, "twice"),
        (signed, ("q",), {}, "by name: question="),
    ):
        with pytest.raises(dspex.InvalidInput, match=words):
            program(*args, **inputs)
    assert len(lm.requests) == before


def test_a_batch_is_a_map(nested: Any, lm: FakeLM, beside: Dspy) -> None:
    """parity: `batch` in DSPy, `map` here: the same answers in the rows' order."""
    rows = [{"question": f"q{at}"} for at in range(6)]
    wanted = beside.ask(lm, f"{COMPOSED}:Nested", how="batch", inputs={"rows": rows})
    before = len(lm.requests)
    found = [{"prediction": dict(row.result().items())} for row in dspex.map(nested, rows)]
    assert (found, sent(lm, before)) == (wanted.outcome, wanted.sent)


def test_failed_rows_of_a_map_are_where_they_failed(supervisor: dspex.Supervisor, lm: FakeLM, beside: Dspy) -> None:
    """parity: a row that fails is None in DSPy's batch; here its `result()` raises, and the others are whole."""
    kinds = ["text", "none", "no such kind", "number"]
    program = dspex.module(f"{HERE}.returns:Returns", supervisor=supervisor, lm=lm)
    rows = [{"kind": kind} for kind in kinds]
    wanted = beside.ask(lm, f"{HERE}.returns:Returns", how="batch", inputs={"rows": rows})
    found = [row.error if row.error is not None else row.result() for row in dspex.map(program, rows)]
    assert [found[0], found[1], found[3]] == [wanted.outcome[0], None, wanted.outcome[3]]
    assert wanted.outcome[2] is None and "no such kind" in str(found[2])


def test_awaited_calls_know_their_own_usage(nested: Any) -> None:
    """parity: calls that run at the same time count each its own."""

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*(nested.acall(question=f"q{at}") for at in range(4))))

    alone = nested(question="qq").usage
    assert alone and [out.usage for out in asyncio.run(gathered())] == [alone] * 4


def test_usage_is_dspys(nested: Any, lm: FakeLM, beside: Dspy) -> None:
    """parity: the tokens of all predictors, by model, as `track_usage` counts them."""
    wanted = beside.ask(lm, f"{COMPOSED}:Nested", how="usage", inputs={"question": "q"})
    (model, tokens), *more = wanted.outcome["dict"].items()
    used = nested(question="q").usage
    assert list(used) == [model] and not more
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert used[model][name] == tokens["dict"][name] > 0
    kept = nested.using(lm=lm.replace(cache=True, api_key=lm.api_key))
    assert kept(question="of the cache").usage and not kept(question="of the cache").usage


@pytest.mark.parametrize("version", [None, "3.0.1"])
def test_a_state_of_dspy_is_loaded_here(
    nested: Any, lm: FakeLM, beside: Dspy, tmp_path: Path, version: str | None
) -> None:
    """parity: what `module.save` wrote, with demonstrations and instructions of its own, sends the same here."""
    path = tmp_path / "state.json"
    beside.ask(lm, f"{COMPOSED}:Nested", how="save", inputs={"path": str(path)})
    state = json.loads(path.read_text())
    state["hops.first"]["demos"] = [{"question": "a", "query": "b"}]
    state["check.predict"]["signature"]["instructions"] = "Be strict."
    if version is not None:
        state["metadata"]["dependency_versions"]["dspy"] = version
    path.write_text(json.dumps(state))
    wanted = beside.ask(lm, f"{COMPOSED}:Nested", how="call", inputs={"question": "q"}, load=str(path))
    found = here(dspex.load(path, program=nested), lm, inputs={"question": "q"})
    assert "Be strict." in "".join(wanted.sent) and wanted.sent != here(nested, lm, inputs={"question": "q"}).sent
    assert (found.outcome, found.sent) == (wanted.outcome, wanted.sent)


def test_an_optimized_state_is_loaded_by_dspy(nested: Any, lm: FakeLM, beside: Dspy, tmp_path: Path) -> None:
    """parity: what `optimize` saved is read by DSPy's own `load`, and sends the same there."""
    rows = [{"question": f"q{at}", "answer": f"answer of query of q{at}"} for at in range(4)]
    best = dspex.optimize(nested, rows, metric="exact_match", optimizer="bootstrap")
    assert best.score == 100.0
    best.save(tmp_path / "best.json")
    wanted = beside.ask(lm, f"{COMPOSED}:Nested", inputs={"question": "q"}, load=str(tmp_path / "best.json"))
    assert wanted.error is None and any("query of q0" in request for request in wanted.sent), wanted.message
    for program in (best, dspex.load(tmp_path / "best.json", program=nested)):
        found = here(program, lm, inputs={"question": "q"})
        assert (found.outcome, found.sent) == (wanted.outcome, wanted.sent)


def test_a_state_of_another_module_is_refused(nested: Any, lm: FakeLM, beside: Dspy, tmp_path: Path) -> None:
    """parity: DSPy raises KeyError and changes nothing; here the call is refused, with what is missing."""
    path, before = tmp_path / "state.json", here(nested, lm, inputs={"question": "q"})
    beside.ask(lm, f"{COMPOSED}:Nested", how="save", inputs={"path": str(path)})
    whole = json.loads(path.read_text())
    whole["hops.first"]["demos"] = [{"question": "a", "query": "b"}]
    for state in ({name: part for name, part in whole.items() if "check" not in name}, {"elsewhere": {"demos": []}}):
        path.write_text(json.dumps(state | {"metadata": {}}))
        assert beside.ask(lm, f"{COMPOSED}:Nested", inputs={"question": "q"}, load=str(path)).error == "KeyError"
        with pytest.raises(dspex.InvalidInput, match=r"hops\.first|elsewhere|check"):
            dspex.load(path, program=nested)(question="q")
        assert here(nested, lm, inputs={"question": "q"}) == before, "a part of the state was taken over"
