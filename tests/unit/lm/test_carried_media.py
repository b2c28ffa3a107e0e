"""Unit: what a worker sends beside a request is put into it, or refused before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import InvalidInput, LMUnsupportedFeatureError
from dspex.lm.forwarding import MEDIA_MOST
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import asked_by_worker

SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FILE = {"type": "file", "file": {"file_data": "data:text/plain;base64,AAAA"}}
Fake = Callable[..., FakeLM]


def _sent(client: LMClient, lm: FakeLM, rows: list[Any], media: Any) -> list[Any]:
    body = json.dumps({"model": lm.name, "messages": rows}).encode()
    client.register(lm)
    list(client.forward(asked_by_worker(lm, body=body, media=media)))
    messages: list[Any] = lm.requests[-1].body["messages"]
    return messages


def test_blocks_take_the_places_of_their_texts(fake: Fake, client: LMClient) -> None:
    """unit: in lists, alone, several times; other texts and odd rows stay."""
    rows: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "token"}, 3]},
        {"role": "user", "content": "token"},
        {"role": "user", "content": "the token"},
        {"role": "assistant", "content": None},
        {"role": "user"},
    ]
    found = _sent(client, fake("ok"), rows, {"token": SOUND, "unused": FILE})
    assert found[0]["content"] == [{"type": "text", "text": "a"}, SOUND, 3]
    assert found[1]["content"] == [SOUND] and found[2:] == rows[2:]


def test_a_file_without_a_name_gets_one(fake: Fake, client: LMClient) -> None:
    """unit: OpenAI's API asks for it; Anthropic's has none."""
    row = {"role": "user", "content": "token"}
    [said] = _sent(client, fake("ok"), [row], {"token": FILE})
    assert said["content"][0]["file"]["filename"] == "my_file.pdf"
    [said] = _sent(client, fake("ok", model="anthropic/m"), [row], {"token": FILE})
    assert said["content"][0]["source"] == {"type": "base64", "media_type": "text/plain", "data": "AAAA"}


@pytest.mark.parametrize(
    "media",
    ["x", [SOUND], {3: SOUND}, {"token": "x"}, {"token": None}, {str(at): SOUND for at in range(MEDIA_MOST + 1)}],
)
def test_what_is_no_mapping_of_blocks_is_refused(fake: Fake, client: LMClient, media: Any) -> None:
    """unit: by the check of each field of a worker's request."""
    with pytest.raises(InvalidInput, match="media"):
        _sent(client, fake("ok"), [], media)


@pytest.mark.parametrize("model", ["openai/m", "anthropic/m"])
@pytest.mark.parametrize(
    "block",
    [
        {},
        {"type": ["file"]},
        {"type": "file"},
        {"type": "file", "file": 3},
        {"type": "file", "file": {"file_data": 3}},
        {"type": "file", "file": {"file_id": {"a": 1}}},
        {"type": "file", "file": {"file_data": "data:,"}},
        {"type": "input_audio", "input_audio": {"data": 1, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}},
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": "http://h/a.png"}},
    ],
)
def test_odd_blocks_are_refused(fake: Fake, client: LMClient, model: str, block: dict[str, Any]) -> None:
    """unit: nothing that an attacker's worker sends as a block is sent on as it is."""
    lm = fake("ok", model=model)
    with pytest.raises(LMUnsupportedFeatureError):
        _sent(client, lm, [{"role": "user", "content": "token"}], {"token": block})
    assert not lm.requests
