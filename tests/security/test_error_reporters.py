"""Security: no key in what reporters of errors, loggers and encoders make of frames, records and their fields."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
import dspex_worker
from dspex.errors import DspexError
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.peer import Peer
from tests.support.lm.requests import ASK, forwarded

OURS = tuple(f"{Path(str(package.__file__)).parent}/" for package in (dspex, dspex_worker))
KEY = "canary-4242424242xyz"
TENANT = "tenant-password-4242"
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{"
BAD = {
    "garbage": b"nonsense\r\n\r\n",
    "cut": CUT,
    "nothing": b"",
    "refusal": b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n",
}


@pytest.fixture
def endpoint() -> Iterator[Callable[[bytes | None], LM]]:
    made: list[Peer] = []

    def make(reply: bytes | None) -> LM:
        made.append(Peer([reply]))
        base, headers = made[-1].url.removesuffix("/x"), {"x-tenant-token": TENANT}
        return LM("openai/fake", api_base=base, api_key=KEY, headers=headers, retries=0, timeout=0.5)

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("bedrock-chat/m", {"aws_access_key_id": "AKID", "aws_secret_access_key": KEY}),  # no region
        ("bedrock-chat/m", {"aws_region_name": "a b", "aws_access_key_id": "AKID", "aws_secret_access_key": KEY}),
        ("bedrock-chat/m", {"aws_region_name": "r", "aws_session_token": KEY, "aws_access_key_id": "AKID"}),
        ("azure/m", {"azure_ad_token": KEY}),
        ("azure/m", {"azure_resource": "x", "azure_ad_token": KEY, "temperature": 9}),
        ("openai/m", {"aws_secret_access_key": KEY}),
        ("vertex/m", {"vertex_project": "p", "vertex_credentials": {"private_key": KEY}}),
        ("vertex/m", {"vertex_project": "p", "vertex_credentials": f'{{"a": "{KEY}"'}),
        ("vertex/m", {"vertex_location": "a b", "vertex_project": "p", "api_key": KEY}),
    ],
)
def test_an_account_that_is_refused_shows_no_secret(
    model: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: in no frame of the error's."""
    for name in (
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_REGION_NAME",
        "AZURE_OPENAI_RESOURCE",
        "AZURE_OPENAI_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DspexError) as caught:
        LM(model, **options)
    assert shown(caught.value) == [] and KEY not in str(caught.value)


def shown(error: BaseException) -> list[str]:
    """Where the key stands in what a reporter shows: the variables of our frames, of all errors behind this one."""
    found, waiting = [], [error]
    while waiting:
        one = waiting.pop()
        waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
        for frame in traceback.StackSummary.extract(traceback.walk_tb(one.__traceback__), capture_locals=True):
            values = (frame.locals or {}) if frame.filename.startswith(OURS) else {}
            found += [f"{frame.name}: {name}" for name, value in values.items() if KEY in value or TENANT in value]
        found += [f"{type(one).__name__}: {name}" for name, value in vars(one).items() if KEY in repr(value)]
    return found


def _complete(client: LMClient, lm: LM) -> None:
    client.complete(lm, ASK)


def _stream(client: LMClient, lm: LM) -> None:
    list(client.stream(lm, ASK))


def _acomplete(client: LMClient, lm: LM) -> None:
    asyncio.run(client.acomplete(lm, ASK))  # type: ignore[arg-type]


def _forward(client: LMClient, lm: LM) -> None:
    client.register(lm)
    next(client.forward(forwarded(lm)))


def _astream(client: LMClient, lm: LM) -> None:
    async def read() -> None:
        async for _ in client.astream(lm, ASK):
            pass

    asyncio.run(read())


@pytest.mark.parametrize("way", [_complete, _acomplete, _stream, _astream, _forward])
@pytest.mark.parametrize("reply", [*BAD.values(), None], ids=[*BAD, "silence"])
def test_frames_show_no_key(
    way: Callable[[LMClient, LM], None],
    reply: bytes | None,
    endpoint: Callable[[bytes | None], LM],
    client: LMClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """collaboration: whatever fails, on every route; nothing is logged either, at any level."""
    lm = endpoint(reply)
    with caplog.at_level(logging.DEBUG), pytest.raises(DspexError) as caught:
        way(client, lm)
    assert shown(caught.value) == []
    assert KEY not in caplog.text


@pytest.mark.parametrize("changes", [{"temperature": 99}, {"no_such": 1}, {"retries": -1}, {"headers": {"a b\n": "x"}}])
@pytest.mark.parametrize("is_made", [True, False])
def test_record_that_is_refused_shows_no_key(changes: dict[str, Any], is_made: bool) -> None:
    """unit: nor does a record that is half made break the reporter."""
    given: Any = {"api_key": KEY}
    lm = LM("openai/fake", **given)
    with pytest.raises(DspexError) as caught:
        if is_made:
            lm.replace(**changes)
        else:
            LM("openai/fake", **given, **changes)
    assert shown(caught.value) == []


def test_key_that_cannot_be_sent_is_in_no_error_behind(client: LMClient) -> None:
    """unit: the error of the encoder holds all that it could not encode."""
    with pytest.raises(DspexError) as caught:
        client.complete(LM("openai/fake", api_base="http://127.0.0.1:9", api_key=KEY + "\u20ac"), ASK)
    assert shown(caught.value) == []
    assert caught.value.__context__ is None


def test_fields_of_a_record_hold_no_secret() -> None:
    """unit: encoders such as orjson's and FastAPI's write down the fields of any dataclass."""
    proxy = f"http://user:{KEY}@127.0.0.1:9"
    lm = LM("openai/fake", api_key=KEY, headers={"x": KEY}, proxy=proxy, fallbacks=LM("openai/more", api_key=KEY))
    plain = dataclasses.asdict(lm)
    assert KEY not in repr(plain) and KEY not in json.dumps(lm.to_wire()) and KEY not in repr(lm.__getstate__())  # type: ignore[attr-defined]
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError) as caught:
            take(lm)
        assert KEY not in str(caught.value)
    assert lm.replace(temperature=0.5).api_key == lm.api_key == KEY and lm.replace().ref == lm.ref


CONNECTIONS: dict[str, dict[str, Any]] = {
    "no certificate": {"ssl_certificate": ("/nowhere.pem", None, KEY)},
    "password of another kind": {"ssl_certificate": ("/nowhere.pem", 5, KEY)},
    "four parts": {"ssl_certificate": ("a", "b", KEY, KEY)},
    "proxy's scheme": {"proxy": f"gopher://user:{KEY}@127.0.0.1:9"},
    "proxy's port": {"proxy": f"http://user:{KEY}@127.0.0.1:99999"},
    "proxy and a limit": {"proxy": f"http://user:{KEY}@127.0.0.1:9", "max_connections": 0},
    "proxy and a range": {"proxy": f"http://user:{KEY}@127.0.0.1:9", "temperature": 9},
    "header": {"headers": {"x-key": KEY, "a\n": "c"}},
    "member": {"extra_body": {"token": KEY, "x": object()}},
    "query": {"api_base": f"http://127.0.0.1:9/v1?sig={KEY}#x"},
    "unknown": {"no_such_token": KEY},
    "worker's own": {"direct": True, "proxy": f"http://user:{KEY}@127.0.0.1:9"},
}


@pytest.mark.parametrize("options", CONNECTIONS.values(), ids=CONNECTIONS)
@pytest.mark.parametrize("is_made", [True, False])
def test_options_of_a_record_that_is_refused_are_shown_nowhere(options: dict[str, Any], is_made: bool) -> None:
    """unit: passwords of keys and proxies, headers, members: not in our frames, nor in the errors behind."""
    made = LM("openai/fake", api_key="k")
    with pytest.raises(DspexError) as caught:
        if is_made:
            made.replace(**options)
        else:
            LM("openai/fake", **options)
    assert shown(caught.value) == [] and KEY not in str(caught.value)
