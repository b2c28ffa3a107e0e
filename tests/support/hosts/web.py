"""The web applications of these tests: `app` for WSGI servers, `served` for ASGI servers. Run by servers only.

    /call?command=ping    runs a command on the faults bridge; other parameters are its arguments, as JSON
    /facts                which processes these are, and what changed in this one since its first request
    /explicit             a call on the supervisor that was made at import, not on the default one
    /predict?question=    asks the language model that the environment names, by `implementation=`

HOST_SUPERVISOR says who owns the default supervisor's pool: "lazy" (made at first need), "imported" (made and used at
import: in the master, under --preload), or "lifespan" (an explicit one, started and stopped by the ASGI lifespan).
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

import dspex
from dspex import Config, PoolConfig, Supervisor

KIND = os.environ.get("HOST_SUPERVISOR", "lazy")
MARKED = {"DSPEX_TEST_HOST": os.environ["DSPEX_TEST_HOST"]}
BRIDGE = os.environ.get("HOST_BRIDGE", "faults")
POOL = PoolConfig("dspy", bridge=BRIDGE, size=2, concurrency=2, stop_grace=5.0, startup_timeout=60.0, env=MARKED)
ENDPOINT = json.loads(os.environ.get("HOST_ENDPOINT", "null"))

dspex.configure(config=Config((POOL,)))
if ENDPOINT is not None:
    dspex.configure(lm=dspex.LM("openai/fake", cache=False, **ENDPOINT))
explicit: Supervisor | None = None
if KIND == "imported":
    explicit = Supervisor(pools=[POOL]).start() if BRIDGE == "faults" else None
    dspex.default_supervisor().wait_ready().call("dspy", "ping")


def tell(**facts: Any) -> None:
    with open(os.environ["DSPEX_TEST_SAYS"], "a") as file:  # noqa: PTH123
        file.write(json.dumps({"pid": os.getpid(), **facts}) + "\n")


def handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


tell(
    imported=[row["pid"] for row in dspex.default_supervisor().stats()["dspy"]["workers"]] if KIND == "imported" else []
)
before: dict[int, Any] = {}


def supervisor() -> Supervisor:
    return explicit if KIND == "lifespan" and explicit is not None else dspex.default_supervisor()


def facts() -> dict[str, Any]:
    stats = supervisor().stats()["dspy"]
    pids = [row["pid"] for row in stats["workers"]]
    forkserver = int(stats["reaper"].split()[-1]) if stats["reaper"].startswith("fork server") else 0
    changed = [number for number, handler in handlers().items() if before.get(number) != handler]
    return {
        "pid": os.getpid(),
        "workers": pids,
        "forkserver": forkserver,
        "in_flight": stats["in_flight"],
        "changed_handlers": changed,
        "counts": stats["counts"],
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }


def query_of(text: str) -> tuple[str, dict[str, Any]]:
    query = {key: json.loads(value) if value[:1] in '0123456789"{[' else value for key, value in parse_qsl(text)}
    return str(query.pop("command", "ping")), query


def respond(path: str, query: str) -> dict[str, Any]:
    command, arguments = query_of(query)
    match path:
        case "/facts":
            return facts()
        case "/explicit":
            assert explicit is not None
            return {"value": explicit.call("dspy", command, arguments)}
        case "/predict":
            out = dspex.predict("question -> answer", {"question": arguments.pop("question")}, **arguments)
            return {"answer": out.answer, "route": out.route, "pid": os.getpid()}
    return {"value": supervisor().call("dspy", command, arguments), "pid": os.getpid()}


# -- WSGI ----------------------------------------------------------------------------------------------------------


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    before or before.update(handlers())
    try:
        answer = respond(environ["PATH_INFO"], environ["QUERY_STRING"])
    except dspex.DspexError as error:
        answer = {"error": type(error).__name__, "pid": os.getpid()}
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


# -- ASGI ----------------------------------------------------------------------------------------------------------


async def served(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    import asyncio

    work = asyncio.ensure_future(arespond(scope["path"], scope["query_string"].decode()))
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:  # also when the server gives this request up
        gone.cancel()
        if not work.done():
            work.cancel()
    if gone.done():
        tell(disconnected=scope["path"])
        return
    body = json.dumps(work.result()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    global explicit
    await receive()
    before.update(handlers())
    async with Supervisor(pools=[POOL]) as explicit:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    tell(stopped=True)
    await send({"type": "lifespan.shutdown.complete"})


async def disconnected(receive: Callable[..., Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def arespond(path: str, query: str) -> dict[str, Any]:
    if path == "/facts":
        import asyncio

        return {**facts(), "loop": type(asyncio.get_running_loop()).__module__}
    command, arguments = query_of(query)
    if path == "/stream":
        chunks = [chunk async for chunk in supervisor().astream("dspy", command, arguments)]
        return {"value": chunks, "pid": os.getpid()}
    try:
        return {"value": await supervisor().acall("dspy", command, arguments), "pid": os.getpid()}
    except dspex.DspexError as error:
        return {"error": type(error).__name__, "pid": os.getpid()}
