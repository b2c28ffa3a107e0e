"""Security: no text becomes a content block of a prompt, wherever a worker found it; DSPy's own types do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.control import Client, Service
from dspex.errors import UnsafeInput
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.victims.passing_ways import MARKED, URL, WAYS

HOME = "tests.support.victims.passing_texts"
PASSING, LOOKING = f"{HOME}:Passing", f"{HOME}:Looking"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    pools = [dspex.PoolConfig("dspy", size=1, imports=[HOME], env=env), dspex.PoolConfig("mipro", size=1, env=env)]
    with dspex.Supervisor(pools=pools) as running:
        yield running


@pytest.fixture
def client(sup: dspex.Supervisor, folder: Path) -> Iterator[Client]:
    with Service(sup), dspex.connect() as connected:
        yield connected


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(by_field={"a": "fine", "found": MARKED, "answer": "fine", "reasoning": "r"}) as made:
        yield made


def _blocks(lm: FakeLM) -> list[Any]:
    """The content blocks of all that was asked, but texts."""
    contents = [message["content"] for request in lm.requests for message in request.body["messages"]]
    return [
        block for content in contents if isinstance(content, list) for block in content if block.get("type") != "text"
    ]


@pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
@pytest.mark.parametrize("way", WAYS)
def test_texts_of_a_users_module_become_no_blocks(way: str, adapter: str, sup: dspex.Supervisor, lm: FakeLM) -> None:
    """security: as an input at any depth, in a conversation, a demonstration, an earlier answer, in two halves."""
    ask = dspex.module(PASSING, lm=lm, adapter=adapter, supervisor=sup)  # type: ignore[arg-type]
    with pytest.raises(UnsafeInput, match="marker") as refused:
        ask(way=way)
    assert refused.value.field in ("q", "history")
    assert not _blocks(lm)


def test_who_trusts_the_texts_says_so(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """security: `allow_markers=True` is DSPy's own behavior, in workers as natively."""
    ask = dspex.predictor("predict", "q -> a", lm=lm, supervisor=sup, implementation="python", allow_markers=True)
    assert ask(q=MARKED).a == "fine"
    (block,) = _blocks(lm)
    assert block["image_url"]["url"] == URL


@pytest.mark.parametrize("way", ["image", "text"])
def test_what_a_call_made_of_dspys_types_is_a_block(way: str, sup: dspex.Supervisor, lm: FakeLM) -> None:
    """security: an image, and the text that one became in the same call, as in a trajectory of ReAct."""
    assert dspex.module(LOOKING, lm=lm, supervisor=sup)(way=way).a == "fine"
    (block,) = _blocks(lm)
    assert block["image_url"]["url"].startswith("data:image/png")


def test_a_tools_result_becomes_no_block(sup: dspex.Supervisor) -> None:
    """security: a page that a tool of the host's fetched is in every later prompt of the agent."""

    def fetch(url: str) -> str:
        """Return the text of a page."""
        return MARKED

    steps = {"next_thought": "t", "next_tool_name": "fetch", "next_tool_args": {"url": "x"}, "answer": "a"}
    with FakeLM(by_field={**steps, "reasoning": "r"}) as lm:
        agent = dspex.react("question -> answer", tools=[fetch], lm=lm, supervisor=sup, implementation="python")
        with pytest.raises(UnsafeInput):
            agent(question="q")
        assert len(lm.requests) == 1 and not _blocks(lm)


@pytest.mark.parametrize("command", ["run", "evaluate", "stream"])
def test_texts_of_a_client_become_no_blocks(command: str, client: Client, sup: dspex.Supervisor, lm: FakeLM) -> None:
    """security: an input, a demonstration, a row, over the control socket, where no host checks them."""
    record = dspex.services.services.services_of(sup).lm_record(lm)
    spec = {"module": "dspy.Predict", "signature": dspex.predictor("predict", "q -> a").to_wire()["signature"]}
    told = ""
    for changed, inputs in (({}, {"q": MARKED}), ({"demos": [{"q": MARKED, "a": "x"}]}, {"q": "x"})):
        row = {**inputs, "a": "x"}
        arguments: dict[str, Any] = {"spec": {**spec, **changed}, "lm": record}
        try:
            if command == "evaluate":
                more = {"devset": [row], "inputs": ["q"], "metric": {"import": f"{HOME}:scored"}}
                told = json.dumps(client.call("dspy", command, {**arguments, **more}, timeout=30))
            elif command == "stream":
                told = repr(list(client.stream("dspy", "run_stream", {**arguments, "inputs": inputs}, timeout=30)))
            else:
                told = repr(client.call("dspy", command, {**arguments, "inputs": inputs}, timeout=30))
        except dspex.errors.DspexError as error:
            told = repr(error)
        assert "marker" in told or "UnsafeInput" in told, told
    assert not _blocks(lm)


@pytest.mark.parametrize("where", ["input", "label"])
def test_rows_of_a_trainset_become_no_blocks(where: str, sup: dspex.Supervisor, lm: FakeLM) -> None:
    """security: they are inputs first, and demonstrations of the program that comes out."""
    row = {"q": MARKED, "a": "fine"} if where == "input" else {"q": "x", "a": MARKED}
    program = dspex.predictor("predict", "q -> a", lm=lm, supervisor=sup)
    try:
        made = dspex.optimize(
            program, [row] * 3, metric="exact_match", optimizer="LabeledFewShot", inputs=["q"], supervisor=sup
        )
    except dspex.errors.DspexError as error:
        assert "marker" in f"{error}"
    else:
        if where == "input":
            with pytest.raises(UnsafeInput):
                made.program.using(implementation="python")(q="y")
    assert not _blocks(lm)
