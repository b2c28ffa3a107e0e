"""Contract: FakeLM, as users' tests use it, on both routes, in threads and in event loops."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import threading
from collections.abc import Callable

import psutil
import pytest

import dspex
from dspex.errors import LMAuthError, LMInvalidRequestError
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.testing import FakeLM, FakeReply, FakeRequest
from tests.support.lm.requests import ASK, Probe
from tests.support.waiting import eventually

Fake = Callable[..., FakeLM]
CHAT_SYSTEM = {"role": "system", "content": "[[ ## question ## ]]\n{question}\n\n[[ ## completed ## ]]"}
CHAT_ASK = {
    "role": "user",
    "content": "[[ ## question ## ]]\nq\n\nRespond with the corresponding output fields, starting with the field "
    "`[[ ## reasoning ## ]]`, then `[[ ## answer ## ]]`, and then ending with the marker for `[[ ## completed ## ]]`.",
}


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_list_is_played_in_order_and_its_end_is_said(fake: Fake, client: LMClient) -> None:
    """contract: no silent repetition unless cycle=True."""
    lm = fake(["one", "two"])
    assert [client.complete(lm, ASK).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(LMInvalidRequestError, match=r"given 2 answer\(s\) and received request number 3"):
        client.complete(lm, ASK)
    cycled = fake(["one", "two"], cycle=True)
    assert [client.complete(cycled, ASK).text for _ in range(3)] == ["one", "two", "one"]


def test_dict_answers_by_substring_or_regex(fake: Fake, client: LMClient) -> None:
    """contract: the last message counts first; nothing that matches is said."""
    lm = fake({"capital": "Paris", re.compile(r"\d\+\d"): "4"})
    assert client.complete(lm, say("the capital?")).text == "Paris"
    assert client.complete(lm, [*say("capital"), *say("2+2")]).text == "4"
    with pytest.raises(LMInvalidRequestError, match=r"None of FakeLM's 2 pattern"):
        client.complete(lm, say("else"))


def test_function_answers_and_its_failure_reaches_the_test(fake: Fake, client: LMClient) -> None:
    """contract: called with the messages."""
    lm = fake(lambda messages: messages[-1]["content"].upper())
    assert client.complete(lm, say("abc")).text == "ABC"
    broken = fake(lambda messages: {}["missing"])
    with pytest.raises(LMInvalidRequestError, match="KeyError"):
        client.complete(broken, ASK)


def test_fields_are_worded_as_the_request_wants_them(fake: Fake, client: LMClient) -> None:
    """contract: chat headers, a JSON object, XML tags; a wanted reasoning is supplied."""
    fields = {"answer": "4", "tags": ["a", "é"]}
    lm = fake([fields], cycle=True)
    chat = client.complete(lm, [CHAT_SYSTEM, CHAT_ASK]).text
    assert chat.startswith("[[ ## reasoning ## ]]\n")
    assert chat.endswith('[[ ## answer ## ]]\n4\n\n[[ ## tags ## ]]\n["a", "é"]\n\n[[ ## completed ## ]]\n')
    assert json.loads(client.complete(lm, ASK, response_format={"type": "json_object"}).text) == fields
    xml = client.complete(lm, [{"role": "system", "content": "<answer>\n{answer}\n</answer>"}, *ASK]).text
    assert xml.startswith("<answer>\n4\n</answer>")


def test_it_is_an_lm_and_needs_its_own_key(fake: Fake, client: LMClient) -> None:
    """contract: usable wherever an LM is; another key is refused."""
    lm = fake("x", temperature=0.5)
    assert isinstance(lm, LM)
    assert (lm.lm, type(lm.lm)) == (lm, LM)
    with pytest.raises(LMAuthError):
        client.complete(lm.replace(api_key="wrong"), ASK)
    assert lm.requests[0].body["temperature"] == 0.5


@pytest.mark.parity
def test_dspy_in_a_worker_reads_the_same_answers(fake: Fake, dspy_probe: Probe) -> None:
    """parity: a real dspy.LM in another process gets what the script says."""
    lm = fake([{"answer": "4"}, FakeReply(status=401)])
    settings = {"model": lm.model, "api_base": lm.api_base, "api_key": lm.api_key}
    first, second = dspy_probe([{"lm": settings, "messages": ASK}] * 2)
    assert json.loads(first["outputs"][0]) == {"answer": "4"}
    assert second["error"] == "LMAuthError"
    assert [request.last for request in lm.requests] == [ASK[0]["content"]] * 2


def test_it_ends_with_its_block_and_with_its_last_reference() -> None:
    """contract: no thread is left."""
    before = set(threading.enumerate())
    with FakeLM("x") as lm:
        (serving,) = set(threading.enumerate()) - before
        assert serving.name == "dspex-fake-lm"
    assert not serving.is_alive()
    lm.close()
    forgotten = FakeLM("x")
    (serving,) = set(threading.enumerate()) - before
    del forgotten
    gc.collect()
    eventually(lambda: not serving.is_alive(), what="the server's thread ended")


async def answer_of(lm: FakeLM) -> str:
    out = await dspex.apredict("question -> answer", {"question": "q"}, lm=lm)
    return str(out.answer)


def test_it_is_made_used_and_closed_in_a_running_loop(fake: Fake) -> None:
    """contract: by either kind of block, with calls that await and calls that block."""

    async def body() -> list[str]:
        said = [await answer_of(fake([{"answer": "made by the fixture"}]))]
        with FakeLM(by_field={"answer": "with"}) as lm:
            said += [await answer_of(lm), dspex.predict("question -> answer", {"question": "q"}, lm=lm).answer]
        async with FakeLM(by_field={"answer": "async with"}) as lm:
            said += await asyncio.gather(answer_of(lm), answer_of(lm))
        return said

    assert asyncio.run(body()) == ["made by the fixture", "with", "with", "async with", "async with"]


def test_closing_does_not_wait_for_a_function_that_needs_the_loop() -> None:
    """contract: `async with` and `await_for` let the loop go on, so that an answer may come from it."""

    async def body() -> tuple[str, int]:
        loop = asyncio.get_running_loop()

        async def later() -> str:
            await asyncio.sleep(0.01)
            return "from the loop"

        def ask(request: FakeRequest) -> str:
            return asyncio.run_coroutine_threadsafe(later(), loop).result(timeout=20)

        async with FakeLM(by_field={"answer": ask}) as lm:
            task = asyncio.create_task(answer_of(lm))
            await lm.await_for(lambda: len(lm.requests) == 1)
            with pytest.raises(TimeoutError, match=r"saw 1 request\(s\) and 0 hang-up\(s\)"):
                await lm.await_for(lambda: False, timeout=0.01)
            return await task, len(lm.requests)

    assert asyncio.run(body()) == ("from the loop", 1)


def sockets_to(port: int) -> list[str]:
    """This process's connections to a port, of either side."""
    found = psutil.Process().net_connections("tcp")
    return [str(one) for one in found if port in (one.laddr.port, one.raddr.port if one.raddr else 0)]


def test_kept_connections_are_closed_with_their_endpoint(client: LMClient) -> None:
    """contract: of threads and of loops, of the process's client and others; those to other endpoints stay."""

    async def body() -> None:
        with FakeLM("[[ ## answer ## ]]\nstays") as other, FakeLM("[[ ## answer ## ]]\ngoes") as lm:
            for one in (other, lm):
                await answer_of(one)
                dspex.predict("question -> answer", {"question": "q"}, lm=one)
                client.complete(one, ASK)
            ports = [int(one.api_base.split(":")[2].split("/")[0]) for one in (other, lm)]
            await lm.aclose()
            assert sockets_to(ports[1]) == []
            assert len(sockets_to(ports[0])) == 1 + 2 * 3

    asyncio.run(body())
