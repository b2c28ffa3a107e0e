"""Unit: replies are read within their call's deadline, and beside the event loop when that takes long."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

import dspex
from dspex.adapters import reply_reader
from dspex.errors import AdapterParseError, CallTimeout, LMProviderError
from dspex.lm.dialects import json_body, openai
from dspex.lm.lm_client import LMClient
from dspex.lm.usage import UsageMeter
from dspex.programs.native import native_route
from dspex.signatures.signature import Signature
from dspex.testing import FakeLM
from tests.support.adapters.hostile_replies import signature_of
from tests.support.lm.scripted_client import Client, Model, apredict, apredict_stream, predict, predict_stream

PATIENCE_S = 30.0
DAMAGED = '{"a": [' + "'x', " * 5_000 + "]"  # short enough for a loop, but for its repair of 50,000 steps
LONG = json.dumps({"a": ["x" * 100] * 1000})
SHORT = '{"a": ["x",]'
pytestmark = pytest.mark.usefixtures("no_leaks")
on_read: list[Callable[[], object]] = []


class Watched(BaseModel):
    """Tells that it is read, and where."""

    words: list[str]

    @field_validator("words")
    @classmethod
    def _told(cls, words: list[str]) -> list[str]:
        for act in on_read:
            act()
        return words


WATCHED = signature_of(Watched)


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    yield
    on_read.clear()


def _wrapped(text: str) -> str:
    return text.replace('"a": ', '"a": {"words": ', 1) + "}"


async def _asked(text: str, sig: Signature = WATCHED, **options: Any) -> Any:
    return await apredict(Client(text), sig, {"q": "?"}, lm=Model(), adapter="json", **options)


def _verbs(text: str, deadline: float) -> dict[str, Callable[[], Any]]:
    """Every way to ask."""
    options: dict[str, Any] = {"lm": Model(), "adapter": "json", "deadline": deadline}

    async def streamed() -> Any:
        stream = apredict_stream(Client(text, piece=1000), WATCHED, {"q": "?"}, **options)
        return [item async for item in stream]

    return {
        "predict": lambda: predict(Client(text), WATCHED, {"q": "?"}, **options),
        "apredict": lambda: asyncio.run(_asked(text, deadline=deadline)),
        "stream": lambda: list(predict_stream(Client(text, piece=1000), WATCHED, {"q": "?"}, **options)),
        "astream": lambda: asyncio.run(streamed()),
    }


@pytest.mark.parametrize("verb", ["predict", "apredict", "stream", "astream"])
@pytest.mark.parametrize("text", [SHORT, LONG, DAMAGED], ids=["short", "long", "damaged"])
def test_reply_that_is_read_past_the_deadline_is_a_timeout(
    verb: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: on every verb, also where the reading succeeds; on a clock of the test's."""
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(reply_reader, "time", fake)
    monkeypatch.setattr(native_route, "time", fake)
    act = _verbs(_wrapped(text), 130.0)[verb]
    act()  # in time
    on_read.append(lambda: setattr(clock, "now", 131.0))
    with pytest.raises(CallTimeout, match="deadline of 30 s"):
        act()
    act()  # the deadline passed before the reply was there: its consumer took the time, as of a slow stream


def test_unreadable_reply_past_the_deadline_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: the time is over, whatever the reply held."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(reply_reader, "time", SimpleNamespace(monotonic=lambda: clock.now))
    on_read.append(lambda: setattr(clock, "now", 131.0))
    client = Client('[[ ## a ## ]]\n{"words": ["x"]}\n[[ ## b ## ]]\nno number', "{}")
    sig = WATCHED.append("b", dspex.OutputField(), int)
    with pytest.raises(CallTimeout):
        predict(client, sig, {"q": "?"}, lm=Model(), deadline=130.0)
    assert len(client.asked) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"a": [' + "'x', " * 40_000 + "]", list[str]),
        ('{"a": ' + '["a" ' * 8000, list[str]),
        ("{" * 40_000, list[str]),
    ],
    ids=["damaged", "no commas", "braces"],
)
def test_event_loop_goes_on_while_a_reply_is_repaired(text: str, kind: Any) -> None:
    """unit: another task makes progress; it made none when the loop itself repaired."""

    async def beaten() -> int:
        beats, done = 0, asyncio.Event()

        async def heart() -> None:
            nonlocal beats
            while not done.is_set():
                beats += 1
                await asyncio.sleep(0)

        beating = asyncio.create_task(heart())
        try:
            await _asked(text, signature_of(kind))
        except AdapterParseError:
            pass
        done.set()
        found, _ = beats, await beating
        return found

    assert asyncio.run(beaten()) >= 5


def test_short_replies_are_read_on_the_loop_and_long_ones_beside_it() -> None:
    """unit: by length, and by the work that their repair takes; the threads are gone afterwards (no_leaks)."""
    names: list[str] = []
    on_read.append(lambda: names.append(threading.current_thread().name))
    for text in (SHORT, LONG, DAMAGED):
        asyncio.run(_asked(_wrapped(text)))
    assert names[0] == threading.main_thread().name
    assert len(names) == 3 and all(name.startswith("dspex-replies") for name in names[1:])


def test_call_ends_at_its_deadline_although_the_reading_goes_on() -> None:
    """unit: a validator of the user's may hang; the thread ends when it does."""
    release, begun = threading.Event(), threading.Event()
    on_read.append(lambda: (begun.set(), release.wait(PATIENCE_S)))

    async def asked() -> None:
        loop = asyncio.get_running_loop()
        # The loop's clock is time.monotonic().
        await _asked(_wrapped(LONG), deadline=loop.time() + 1.0)

    with pytest.raises(CallTimeout):
        asyncio.run(asked())
    assert begun.is_set()
    release.set()


def test_cancelled_task_leaves_its_reply() -> None:
    """unit: at once; the reading ends by itself and is told to nobody."""
    release, begun = threading.Event(), threading.Event()
    on_read.append(lambda: (begun.set(), release.wait(PATIENCE_S)))

    async def cancelled() -> None:
        task = asyncio.create_task(_asked(_wrapped(LONG)))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    asyncio.run(cancelled())


def test_many_long_replies_at_once_are_read_by_two_threads() -> None:
    """unit: more would leave the loop less of the interpreter."""
    names: set[str] = set()
    on_read.append(lambda: names.add(threading.current_thread().name))

    async def all_of() -> list[Any]:
        return await asyncio.gather(*(_asked(_wrapped(LONG)) for _ in range(12)))

    assert len(asyncio.run(all_of())) == 12 and 1 <= len(names) <= reply_reader.THREADS


def test_reply_without_commas_is_refused_through_the_whole_client() -> None:
    """collaboration: chat, then json, each with its limit; 300 KB of it took hours, despite any timeout."""
    reply = '[[ ## a ## ]]\n["a" ' + '["a" ' * 60_000
    with FakeLM(lambda messages: reply) as lm, LMClient() as client:
        with pytest.raises(AdapterParseError, match="1,000,000 steps"):
            predict(client, signature_of(list[str]), {"q": "?"}, lm=lm)
        assert len(lm.requests) == 2


# --- the response around the reply --------------------------------------------------------------------------------

LM = dspex.LM("openai/gpt-4o-mini", api_key="k", api_base="http://127.0.0.1:9/v1")


@pytest.mark.parametrize("counter", ["9" * 400, "1e308", "1e999", "-1", '"3"', "null", "true", "[1]", "NaN"])
def test_absurd_usage_counters_are_none(counter: str) -> None:
    """unit: a 400-digit one raised OverflowError when its price was worked out."""
    usage = f'{{"prompt_tokens": {counter}, "completion_tokens": 2, "prompt_tokens_details": {{"cached_tokens": 1}}}}'
    body = f'{{"choices": [{{"message": {{"content": "x"}}}}], "usage": {usage}}}'
    found = openai.answer(LM, body.encode())
    assert found.text == "x" and "prompt_tokens" not in found.usage and found.usage["completion_tokens"] == 2
    assert UsageMeter().add(LM, found.usage) is None


def test_response_of_very_many_values_is_not_read() -> None:
    """unit: 4 MB of `{},` are 100 MB of objects; a long answer in words is no such thing."""
    with pytest.raises(LMProviderError, match="1,000,000"):
        json_body.decode(LM, b'{"x": [' + b"{}," * 700_000 + b"1]}")
    prose = json.dumps({"choices": [{"message": {"content": "word, and more words. " * 500_000}}]}).encode()
    assert len(openai.answer(LM, prose).text or "") == 11_000_000
