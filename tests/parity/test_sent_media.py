"""Parity: images, sound and files arrive as DSPy's default client sends them, from both routes, wherever they stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError, LMError
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import Probe
from tests.support.parity import media_cases

pytestmark = pytest.mark.parity

DATA = "data:application/pdf;base64,AAAA"
BLOCKS: dict[str, dict[str, Any]] = {
    "wav": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "mpeg": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mpeg"}},
    "file": {"type": "file", "file": {"file_data": DATA}},
    "text": {"type": "file", "file": {"file_data": "data:text/plain;base64,AAAA"}},
    "named": {"type": "file", "file": {"file_data": DATA, "filename": "a.pdf"}},
    "id": {"type": "file", "file": {"file_id": "f1"}},
    "named id": {"type": "file", "file": {"file_id": "f1", "filename": "a.pdf"}},
    "both": {"type": "file", "file": {"file_data": DATA, "file_id": "f1"}},
    "no URI": {"type": "file", "file": {"file_data": "AAAA", "filename": "a.bin"}},
    "image": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
}
BY_OPENAI = ["openai/gpt-4o", "hosted_vllm/qwen", "openrouter/openai/gpt-4o", "xai/grok-4", "moonshot/kimi-k2"]
_OF_LITELLM = ("stream", "usage")


@pytest.mark.parametrize("model", BY_OPENAI)
def test_openai_compatible_servers_get_what_dspys_default_client_sends(
    model: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: 3: content blocks, as members and in order; LiteLLM writes blanks between them for some servers."""
    pytest.importorskip("litellm")
    server = fake("ok")
    where = {"model": model, "api_base": server.api_base, "api_key": server.api_key}
    asked = [[{"role": "user", "content": [{"type": "text", "text": "see"}, block]}] for block in BLOCKS.values()]
    probed = dspy_probe([{"lm": where, "messages": messages, "engine": "auto"} for messages in asked])
    theirs = [json.loads(request.raw) for request in server.requests]
    assert len(theirs) == len(asked), probed
    ours = []
    for messages in asked:
        client.complete(dspex.LM(**where, cache=False), messages)
        ours.append(json.loads(server.requests[-1].raw))
    for mine, its in zip(ours, theirs, strict=True):
        assert json.dumps(mine) == json.dumps({name: its[name] for name in its if name not in _OF_LITELLM})


REFUSED = [
    ("anthropic/claude-sonnet-4-5", "wav"),
    ("deepseek/deepseek-chat", "wav"),
    ("deepseek/deepseek-chat", "file"),
    ("ollama_chat/llama3", "file"),
]
EMPTY: list[dict[str, Any]] = [
    {"type": "file", "file": {}},
    {"type": "file", "file": {"filename": "a.pdf"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,"}},
    {"type": "file", "file": {"file_data": "data:application/pdf,AAAA"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,***"}},
    {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": "***", "format": "wav"}},
]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.mark.parametrize(
    ("model", "block"),
    [(model, BLOCKS[name]) for model, name in REFUSED]
    + [(model, block) for model in ("openai/gpt-4o", "anthropic/claude-sonnet-4-5") for block in EMPTY],
)
def test_what_would_be_lost_or_cannot_be_read_is_refused_unsent(
    sup: dspex.Supervisor, model: str, block: dict[str, Any]
) -> None:
    """parity: 17: DSPy leaves sound out for Anthropic, and sound and files for DeepSeek and Ollama; we refuse."""
    file = block.get("file")
    if file is not None and not file:
        pytest.skip("dspex.File refuses it itself")
    value: Any = (
        dspex.File(**file)
        if file is not None
        else dspex.Audio(data=block["input_audio"]["data"], audio_format=block["input_audio"]["format"])
    )
    for route in ("native", "python"):
        with FakeLM("fine", model=model) as lm:
            program = dspex.predictor(
                "predict", media_cases.signature(type(value).__name__), lm=lm, supervisor=sup, implementation=route
            )
            with pytest.raises(LMError) as caught:
                program(shown=value)
            assert type(caught.value).__name__ == "LMUnsupportedFeatureError", (route, caught.value)
            assert not lm.requests


@pytest.mark.parametrize("place", media_cases.PLACES)
@pytest.mark.parametrize(
    ("model", "model_type"),
    [
        ("openai/gpt-4o", "chat"),
        ("openai/gpt-4o", "responses"),
        ("groq/llama", "chat"),
        ("anthropic/claude-sonnet-4-5", "chat"),
    ],
)
def test_both_routes_send_media_alike_wherever_they_stand(
    sup: dspex.Supervisor, model: str, model_type: str, place: str
) -> None:
    """parity: 1, 2, 3: in fields, in lists, models, untyped values, demos and turns of a history."""
    kinds = ["Image", "File"] if model.startswith("anthropic") else ["Image", "File", "Audio"]
    for kind in kinds:
        sent = {}
        for route in ("native", "python"):
            with FakeLM(lambda _: {"answer": "x"}, model=model, model_type=model_type) as lm:
                signature, inputs, demos = media_cases.case(kind, place)
                program = dspex.predictor("predict", signature, lm=lm, supervisor=sup, implementation=route)
                if demos:
                    program = program.using(demos=demos)
                try:
                    program(**inputs)
                except DspexError as error:
                    sent[route] = f"{type(error).__name__}: {error}".encode()
                else:
                    sent[route] = lm.requests[-1].raw
        assert sent["native"] == sent["python"], (kind, place)
        assert b"AAAA" in sent["native"] and b"CUSTOM-TYPE" not in sent["native"], (kind, sent["native"])
