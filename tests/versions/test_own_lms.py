"""Process: language models that user code makes, on whichever Python and DSPy the workers have (`make check-all`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMConfigurationError, LMServerError, UnknownName
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.embedding_endpoint import embedding_endpoint
from tests.support.programs.lm_ways import WAYS

Fake = Callable[..., FakeLM]
OWN = "tests.support.programs.own_lms"


@pytest.fixture
def strong(fake: Fake) -> Iterator[FakeLM]:
    """What `dspy.LM("openai/strong-model")` means in workers."""
    lm = fake(lambda messages: {"answer": "strong"}, model="openai/strong-model")
    with dspex.context(
        lm=fake(lambda messages: {"answer": "main", "query": "q", "reasoning": "r"}), lms={"strong": lm}
    ):
        yield lm


@pytest.mark.parametrize("way", WAYS)
def test_an_lm_that_user_code_makes_works_unchanged(way: str, strong: FakeLM, supervisor: dspex.Supervisor) -> None:
    """process: its requests reach its own endpoint, with the host's key and its options."""
    program = dspex.module(f"{OWN}:Asking", way=way, temperature=0.3, cache=False, supervisor=supervisor)
    found = program(question="q")
    assert "strong" in (found["answer"] if isinstance(found, dict) else found.answer)
    assert strong.requests[-1].headers["authorization"] == f"Bearer {strong.api_key}"
    if way not in ("thread", "copy"):  # which set others
        assert strong.requests[-1].body["temperature"] == 0.3


def test_streams_and_caches(fake: Fake, supervisor: dspex.Supervisor) -> None:
    """process: the parent's cache answers the second call, and nothing was used."""
    kept = fake(lambda messages: {"answer": "one two"}, model="openai/kept", cache=True)
    with dspex.context(lms={"kept": kept}, lm=kept):
        program = dspex.module(f"{OWN}:Asking", model="kept", supervisor=supervisor)
        items = list(program.stream(question="q"))
        assert "".join(item.text for item in items[:-1] if isinstance(item, dspex.Chunk)) == "one two"
        assert program(question="r").usage and not program(question="r").usage
        assert program(question="r").cached


def test_errors_and_retries(fake: Fake, supervisor: dspex.Supervisor) -> None:
    """process: as often as the code says, and not once more."""
    lm = fake(lambda messages: FakeReply(status=503), model="openai/failing")
    with dspex.context(lms={"failing": lm}), pytest.raises(LMServerError):
        dspex.module(f"{OWN}:Asking", model="failing", num_retries=1, supervisor=supervisor)(question="q")
    assert len(lm.requests) == 2


def test_predictors_are_given_lms_by_name(strong: FakeLM, supervisor: dspex.Supervisor) -> None:
    """process: the others ask the program's own."""
    program = dspex.module(f"{OWN}:TwoSteps", supervisor=supervisor)
    assert program.using(lms={"answer": "strong"})(question="q").answer == "strong" and len(strong.requests) == 1
    assert program(question="q").answer == "main"
    with pytest.raises(UnknownName, match="answer"):
        program.using(lms={"anwser": "strong"})(question="q")


def test_several_answers_of_a_reasoning_model(fake: Fake, supervisor: dspex.Supervisor) -> None:
    """process: without a temperature that it refuses."""
    lm = fake(lambda messages: {"answer": "a"}, model="openai/gpt-5")
    with dspex.context(lms={"gpt5": lm}):
        dspex.module(f"{OWN}:Heating", model="openai/gpt-5", supervisor=supervisor)(question="q")
    assert len(lm.requests) == 2 and all("temperature" not in request.body for request in lm.requests)


def test_a_refusal_is_dspys_error(supervisor: dspex.Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """process"""
    monkeypatch.delenv("DSPEX_LM", raising=False)
    headers: dict[str, Any] = {"headers": {"Authorization": "Bearer x"}}
    with pytest.raises(LMConfigurationError, match="api_key="):
        dspex.module(f"{OWN}:Asking", model="openai/strong-model", api_key="k", supervisor=supervisor, **headers)(
            question="q"
        )


def test_an_embedder_asks_through_the_host(supervisor: dspex.Supervisor) -> None:
    """process: with the host's key."""
    with embedding_endpoint() as endpoint:
        lm = dspex.LM("openai/small-embedder", api_base=endpoint.url, api_key="sk-of-the-embedder")
        with dspex.context(lms={"embedder": lm}):
            found = dspex.module(f"{OWN}:Embedding", supervisor=supervisor)(texts=["a", "bbb"])
        assert found["vectors"] == [[1.0, 1.0], [3.0, 1.0]]
        assert endpoint.requests[0][1]["authorization"] == "Bearer sk-of-the-embedder"
