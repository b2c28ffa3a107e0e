"""Process: sound and files that user code shows in workers arrive as blocks, however it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM

OWN = "tests.support.programs.own_media"
MODEL = "openai/gpt-4o"
ANSWER = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
BLOCKS = {
    "chat": [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
    ],
    "responses": [
        {"type": "input_audio", "audio": "AAAA", "format": "wav"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
    ],
}


@pytest.fixture(scope="module", params=["chat", "responses"])
def lm(request: pytest.FixtureRequest) -> Iterator[FakeLM]:
    with FakeLM(lambda _: ANSWER, model=MODEL, model_type=request.param) as fake:
        yield fake


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def _blocks(lm: FakeLM) -> list[Any]:
    [*_, last] = lm.requests[-1].messages
    return [block for block in last["content"] if "text" not in block]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("cls", ["Shows", "Awaits", "AtOnce"])
def test_blocks_arrive_from_the_users_own_code(sup: dspex.Supervisor, lm: FakeLM, cls: str, streamed: bool) -> None:
    """process: called, awaited, at once in threads, plain and streamed."""
    program = dspex.module(f"{OWN}:{cls}", lm=lm, supervisor=sup)
    out = list(program.stream(question="q"))[-1] if streamed else program(question="q")
    assert isinstance(out, dspex.Prediction)
    assert out.answer == "x"
    assert _blocks(lm) == BLOCKS[lm.model_type]
    assert json.loads(lm.requests[-1].raw) == lm.requests[-1].body


@pytest.mark.parametrize("model_type", ["chat", "responses"])
@pytest.mark.parametrize("cls", ["Shows", "Awaits"])
def test_blocks_arrive_from_lms_that_user_code_makes(
    sup: dspex.Supervisor, lm: FakeLM, cls: str, model_type: str
) -> None:
    """process: of the model that is configured, by either of its APIs."""
    program = dspex.module(f"{OWN}:{cls}", model=MODEL, model_type=model_type, lm=lm, supervisor=sup)
    assert program(question="q").answer == "x"
    assert _blocks(lm) == BLOCKS[model_type]


def test_dspys_history_holds_the_blocks(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: and not the texts that stood for them on the way."""
    kinds = dspex.module(f"{OWN}:Remembers", lm=lm, supervisor=sup)(question="q").answer
    assert kinds == "text input_audio text file text"
