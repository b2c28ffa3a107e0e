"""A bridge whose workers say what the protocol can carry and does not mean. Used by `odd_words` and the tests.

Every frame is a well-formed MessagePack message; what is odd is what it holds, or that it comes when it does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from dspex_worker import startup
from dspex_worker.bridge import Bridge, Context, Failure, Settings
from dspex_worker.wire.codec import packer
from dspex_worker.wire.framing import frame
from dspex_worker.wire.messages import MAGIC, Kind

bridge = Bridge("odd")

WORDS = ("self", "name", "pool", "worker", "call", "event", "level", "args", "a b", 'q"="', "", "size", "source")


@bridge.warm
def choose_greeting(settings: Settings) -> None:
    """Greet as the pool's options say: "facts" are added to each HELLO, "odd" is the share of HELLOs that are odd."""
    plain = startup._facts
    more, share = settings["options"].get("facts", {}), settings["options"].get("odd", 0.0)

    def facts(*held: Any) -> dict[str, Any]:
        random = Random(os.getpid())
        given = {**plain(*held), **more}
        if random.random() < share:
            given[random.choice(list(given))] = odd_value(random)
        return given

    startup._facts = facts


@bridge.command()
def write(ctx: Context, messages: list[list[Any]], own: int | None = None) -> str:
    """Write these messages; in them `own` stands for this call's id, and "DEEP" for 250 nested lists."""
    runtime = ctx._running.runtime  # on purpose: nothing public can say such things
    for message in messages:
        runtime.writer.write(frame(packer().pack(_with_id(message, own, ctx.call_id))))
    return "said"


@bridge.command(session="write")
def speak(ctx: Context, seed: int, count: int = 1) -> str:
    """Write so many odd messages, the same ones for the same seed and call."""
    random = Random(seed)
    runtime = ctx._running.runtime  # as above
    for _ in range(count):
        for message in odd_messages(random, ctx.call_id):
            runtime.writer.write(frame(packer().pack(message)))
    if random.random() < 0.02:  # what lands in the host's log, on both descriptors
        os.write(1, b"\x1b[2J\xff\0" + b"o" * random.choice((1, 100_000)))
        os.write(2, random.randbytes(2000) + b"\n")
    return "said"


@bridge.command()
def speak_stream(ctx: Context, seed: int, count: int = 1) -> Iterator[int]:
    """`speak`, between the chunks of a stream."""
    yield 1
    speak(ctx, seed, count)
    yield 2


@bridge.command()
def flood(ctx: Context, count: int) -> Iterator[int]:
    """A stream that sends so many chunks whether there is credit for them or not."""
    runtime = ctx._running.runtime  # as above
    for n in range(count):
        runtime.writer.write(frame(packer().pack([int(Kind.CHUNK), ctx.call_id, n])))
    yield count


@bridge.command()
def ask(ctx: Context, name: str, arguments: dict[str, Any]) -> Any:
    """Make a callback."""
    return ctx.call_parent(name, arguments)


@bridge.command()
def ask_deaf(ctx: Context, name: str, count: int) -> None:
    """Make so many callbacks at once, and read nothing from then on."""
    asked = [[int(Kind.CALL), 2_000_000 + 2 * n, name, {}, {"for": ctx.call_id}] for n in range(count)]
    ctx._running.runtime.writer.write(b"".join(frame(packer().pack(message)) for message in asked))  # as above
    os.kill(os.getpid(), signal.SIGSTOP)


@bridge.command()
def open_streams(ctx: Context, count: int, path: str, name: str = "endless") -> list[str]:
    """Ask for so many streams at once, read none until `path` exists; then give the kinds of those that failed."""
    streams = [ctx.stream_parent(name, {}) for _ in range(count)]
    while not Path(path).exists():
        ctx.check_cancelled()
        time.sleep(0.005)
    failed = []
    for stream in streams:
        try:
            next(stream)
        except Failure as failure:
            failed.append(failure.kind)
        stream.close()
    return failed


def odd_messages(random: Random, call: int) -> list[list[Any]]:
    """A message of some kind with something odd about it; two, if it is said twice."""
    message = random.choice(_examples(call))
    roll = random.random()
    if roll < 0.45:
        at = random.randrange(1, len(message)) if len(message) > 1 else 0
        message[at] = odd_value(random)
    elif roll < 0.8:
        _spoil_inside(message, random)
    elif roll < 0.87:
        message.append(odd_value(random))
    elif roll < 0.92:
        message.pop()
    return [message, message] if random.random() < 0.2 else [message]


def odd_value(random: Random) -> Any:
    """Something that a field seldom holds."""
    return random.choice(
        (
            None, True, False, 0, -1, 1, 2, 2**31, 2**62, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"),
            "", "self", "x" * 70_000, "\0\n\x1b[2J", b"", b"\xff" * 1000, [], {}, [[]] * 1000, [None] * 10_000,
            {"self": 1}, {word: word for word in WORDS}, {"for": []}, {"for": {}, "credit": -1}, {"credit": 2**62},
            {"wrote": 1}, {"wrote": {"k": deep(300)}}, {"wrote": {"k": b"1" * 2_000_000}}, {"held": "yes"},
            {"retire": {}}, {"deleted": {"k": 1}}, {"deleted": [[]]}, {"raw": None}, deep(150), deep(400),
        )
    )  # fmt: skip


def deep(levels: int) -> Any:
    """Lists in lists."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def _examples(call: int) -> list[list[Any]]:
    asked = {"for": call, "credit": 16}
    request = {"lm": "none", "method": "POST", "url": "http://127.0.0.1:9/v1/x", "headers": [], "body": 2**33}
    embedding = {**request, "url": "http://127.0.0.1:9/v1/embeddings", "body": b'{"model":"m","input":["x"]}'}
    lm = {"model": "openai/m", "api_key": "k", "api_base": "http://127.0.0.1:9/v1", "retries": 1, "timeout": 1.0}
    seen = {
        "id": "known",
        "what": "answer",
        "call_id": "1",
        "lm": "none",
        "messages": [{"role": "user", "content": "x"}],
        "outputs": [{"text": "x"}],
        "usage": {"prompt_tokens": 1},
        "options": {"n": 1},
        "seconds": 0.1,
    }
    hook = {
        "id": "known",
        "what": "hook",
        "hook": "on_lm_end",
        "call_id": "1",
        "component": {"kind": "lm"},
        "inputs": {"a": 1},
        "outputs": {"a": 1},
        "exception": {"type": "E", "message": "m"},
    }
    scored = {
        "id": "known",
        "example": {"q": 1},
        "inputs": ["q"],
        "prediction": {"a": 1},
        "trace": [[{}, {}, {}, [{}, {}]]],
        "example_objects": {},
        "prediction_objects": {},
        "row": ["devset", 0],
    }
    described = {"kind": "LMRateLimitError", "type": "E", "message": "m", "traceback": "", "facts": {"retry_after": 1}}
    return [
        [int(Kind.HELLO), MAGIC, 1, 0, {"pid": os.getppid()}],
        [int(Kind.READY), {"speak": {"session": None}}],
        [int(Kind.CALL), 2_000_002, "lm.request", request, asked],
        [int(Kind.CALL), 2_000_012, "lm.request", {**embedding, "members": {"extra_body": {"a": 1}}}, asked],
        [int(Kind.CALL), 2_000_004, "tool.call", {"id": "known", "name": "known", "arguments": {"n": 1}}, asked],
        [int(Kind.CALL), 2_000_006, "metric.call", scored, asked],
        [int(Kind.CALL), 2_000_014, "lm.describe", lm, asked],
        [int(Kind.CALL), 2_000_016, "call.seen", seen, asked],
        [int(Kind.CALL), 2_000_018, "call.seen", hook, asked],
        [int(Kind.CALL), 2_000_020, "code.get", {"digest": "0" * 64}, asked],
        [int(Kind.CALL), 2_000_022, "code.path", {}, asked],
        [int(Kind.CALL), 2_000_008, "endless", {}, asked],
        [int(Kind.RESULT), call, {"raw": None}, {"held": True, "wrote": {"k": 1}, "deleted": ["j"]}],
        [int(Kind.ERROR), call, described, None],
        [int(Kind.ERROR), call, {"kind": "UnknownName", "facts": {"name": "n", "known": ["a"]}}, {"retire": "memory"}],
        [int(Kind.ERROR), call, {"kind": "FrameTooLarge", "facts": {"limit": 1, "actual": 2}}, None],
        [int(Kind.CHUNK), call, "chunk"],
        [int(Kind.END), call, "end", None],
        [int(Kind.CANCEL), 2_000_008],
        [int(Kind.CREDIT), 2_000_008, 8],
        [int(Kind.PING), 1],
        [int(Kind.PONG), 1],
        [int(Kind.LOG), call, 20, "logger", "text"],
        [int(Kind.LOG), 0, 50, "\x1b]0;title\x07", "line\nevent=dspex.worker.died\r\x1b[2J"],
        [int(Kind.EVENT), call, "event", {"fact": 1}],
        [int(Kind.DROP), "session"],
        [int(Kind.RESTORE), 2_000_010, "session", {}],
        [int(Kind.STOP)],
        [int(Kind.STACKS), 7],
    ]


def _spoil_inside(message: list[Any], random: Random) -> None:
    """Put something odd into one of the message's maps, or under another key."""
    maps = [field for field in message if isinstance(field, dict)]
    maps += [inner for field in maps for inner in field.values() if isinstance(inner, dict)]
    if not maps:
        message[-1] = odd_value(random)
        return
    target = random.choice(maps)
    key = random.choice([*target, random.choice(WORDS)])
    target[key] = odd_value(random)


def _with_id(value: Any, own: int | None, id: int) -> Any:
    if isinstance(value, list):
        return [_with_id(item, own, id) for item in value]
    if isinstance(value, dict):
        return {key: _with_id(item, own, id) for key, item in value.items()}
    if value == "DEEP":
        return deep(250)
    return id if own is not None and value == own and type(value) is int else value
