"""Process: programs as tools, asked by the official client over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal

import pytest

import dspex
from dspex.testing import FakeLM, FakeReply
from tests.support.serving.served import Served
from tests.support.waiting import SOON

mcp = pytest.importorskip("mcp")


class Weather(dspex.Signature):
    """Say what the weather is like."""

    city: str = dspex.InputField(desc="which city")
    unit: Literal["C", "F"] = dspex.InputField(default="C")
    degrees: int = dspex.OutputField()


def said(messages: list[dict[str, Any]]) -> Any:
    asked = str(messages[-1]["content"])
    return FakeReply(hang=True) if "hang" in asked else {"degrees": 21, "answer": "Paris"}


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLM]:
    with FakeLM(said, retries=0) as lm:
        yield lm


@pytest.fixture(scope="module")
def served(model: FakeLM) -> Iterator[Served]:
    programs = {
        "weather": dspex.predictor("predict", Weather, lm=model),
        "qa": dspex.predictor("predict", "question -> answer", lm=model),
    }
    with Served(dspex.asgi(programs, mcp=True, body_limit=10_000)) as served:
        yield served


def asked(served: Served, ask: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """What a client of the official package gets."""

    async def run() -> Any:
        async with mcp.Client(f"{served.url}/mcp", **options) as client:
            return await ask(client)

    return asyncio.run(run())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_tools_are_listed_and_called(served: Served, mode: str) -> None:
    """process: with the schemas of the signature, by both generations of the protocol."""

    async def ask(client: Any) -> Any:
        return (await client.list_tools()).tools, await client.call_tool("weather", {"city": "Rome", "unit": "F"})

    tools, result = asked(served, ask, mode=mode)
    tool = {tool.name: tool for tool in tools}["weather"]
    assert tool.description == "Say what the weather is like."
    assert tool.input_schema["properties"]["city"]["description"] == "which city"
    assert tool.input_schema["required"] == ["city"]
    assert tool.output_schema["properties"]["degrees"]["type"] == "integer"
    assert result.structured_content == {"degrees": 21}
    assert json.loads(result.content[0].text) == {"degrees": 21}
    assert not result.is_error


def test_what_is_wrong_is_told_to_the_model(served: Served) -> None:
    """process: as a problem, without the value."""
    result = asked(served, lambda client: client.call_tool("weather", {"city": 3, "unit": "K"}))
    assert result.is_error
    problem = json.loads(result.content[0].text)
    assert [each["field"] for each in problem["errors"]] == ["city", "unit"]
    result = asked(served, lambda client: client.call_tool("whether", {}))
    assert result.is_error and "weather" in result.content[0].text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_that_is_given_up_is_cancelled(served: Served, model: FakeLM, mode: str) -> None:
    """process: its request to the model ends, in both generations of the protocol."""
    gone, count = model.hung_up, len(model.requests)

    async def ask(client: Any) -> None:
        call = asyncio.ensure_future(client.call_tool("weather", {"city": "hang"}))
        await model.await_for(lambda: len(model.requests) > count)
        call.cancel()
        await asyncio.wait({call})
        await model.await_for(lambda: model.hung_up > gone, SOON)

    asked(served, ask, mode=mode)


def test_many_calls_at_once(served: Served) -> None:
    """process: each gets its own answer."""

    async def ask(client: Any) -> list[Any]:
        return await asyncio.gather(*(client.call_tool("weather", {"city": f"city {n}"}) for n in range(50)))

    assert [result.structured_content for result in asked(served, ask)] == [{"degrees": 21}] * 50


def test_a_token_is_needed_there_too(model: FakeLM) -> None:
    """process"""
    app = dspex.asgi(dspex.predictor("predict", Weather, lm=model), mcp=True, token="t0ken")
    with Served(app) as one:
        assert one.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).status_code == 401
