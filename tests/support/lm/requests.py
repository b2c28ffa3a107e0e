"""What the tests ask of language models: messages, the ways to send them, and requests such as workers make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM

ASK = [{"role": "user", "content": "What is 2+2?"}]


Probe = Callable[..., list[dict[str, Any]]]


def forwarded(lm: LM, **changes: Any) -> dict[str, Any]:
    """A worker's request, such as lm15 makes it."""
    asked = {"model": lm.name, "messages": [], **({"stream": True} if changes.get("stream") else {})}
    request = {
        "lm": lm.ref,
        "method": "POST",
        "url": f"{lm.api_base}/chat/completions",
        "headers": [["Content-Type", "application/json"], ["Authorization", "Bearer worker"], ["X-Own", "kept"]],
        "body": json.dumps(asked).encode(),
        "stream": False,
        "rollout_id": None,
        "timeout": None,
        "cache": True,
    }
    return {**request, **changes}


Way = Callable[[LMClient, LM], Any]


def _complete(client: LMClient, lm: LM) -> Any:
    return client.complete(lm, ASK).text


async def _acomplete(client: LMClient, lm: LM) -> Any:
    return (await client.acomplete(lm, ASK)).text


def _stream(client: LMClient, lm: LM) -> Any:
    return "".join(item for item in client.stream(lm, ASK) if isinstance(item, str))


async def _astream(client: LMClient, lm: LM) -> Any:
    return "".join([item async for item in client.astream(lm, ASK) if isinstance(item, str)])


def asked_by_worker(lm: LM, **options: Any) -> dict[str, Any]:
    """A worker's request in the LM's own dialect."""
    path = "messages" if lm.provider.dialect == "anthropic" else "chat/completions"
    return forwarded(lm, url=f"{lm.api_base}/{path}", **options)


def _forward(client: LMClient, lm: LM, *, stream: bool = False) -> Any:
    client.register(lm)
    return b"".join(p for p in client.forward(asked_by_worker(lm, stream=stream)) if isinstance(p, bytes)).decode()


async def _aforward(client: LMClient, lm: LM, *, stream: bool = False) -> Any:
    client.register(lm)
    parts = [p async for p in client.aforward(asked_by_worker(lm, stream=stream)) if isinstance(p, bytes)]
    return b"".join(parts).decode()


def _looped(way: Callable[..., Any], **options: Any) -> Way:
    def run(client: LMClient, lm: LM) -> Any:
        async def once() -> Any:
            try:
                return await way(client, lm, **options)
            finally:
                await client.aclose()

        return asyncio.run(once())

    return run


def _forward_stream(client: LMClient, lm: LM) -> Any:
    return _forward(client, lm, stream=True)


PLAIN: dict[str, Way] = {
    "complete": _complete,
    "acomplete": _looped(_acomplete),
    "forward": _forward,
    "aforward": _looped(_aforward),
}


STREAMED: dict[str, Way] = {
    "stream": _stream,
    "astream": _looped(_astream),
    "forward": _forward_stream,
    "aforward": _looped(_aforward, stream=True),
}


def begun(model: str) -> Any:
    """An event with a piece of text."""
    if model.startswith("openai"):
        return {"choices": [{"delta": {"content": "half "}}]}
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half "}}


STREAM = "content-type: text/event-stream"
