"""Hostile and odd HTTP replies of every dialect, made again by a seed and a number. Pure.

Each is a valid envelope whose contents grow, or one with places changed, or no envelope at all; whole or as a stream,
as a success or a refusal, with the caller's key quoted in it in some encoding, cut at odd places.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.support.adapters.hostile_replies import ATOMS, PREFIXES, grown

SIZES = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 4_000_000)
LARGE = (12_000_000, 20_000_000)  # within the limit and over it; once in a hundred replies
STATUSES = (400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529, 302, 204, 418)
PARTS = (  # of bodies that are JSON, and cost their reader more than their length
    "{},", "[],", '{"a":{"b":1}},', "[[[]]],", "0.12345678,", "9999,", '"a",', '{"a":1,"a":1},', "null,", "1e999,", "-",
)  # fmt: skip
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "URL": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "HTML": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "hexadecimal": lambda key: key.encode().hex(),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 later": lambda key: base64.b64encode(b"x" + key.encode()).decode(),
}


@dataclass(frozen=True, slots=True)
class HostileReply:
    """What the endpoint sends; `framing` says how its end is told, or lied about."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[bytes, ...]
    framing: str
    what: str

    @property
    def size(self) -> int:
        """The bytes of its body."""
        return sum(map(len, self.pieces))


def hostile_reply(seed: int, number: int, dialect: str, *, stream: bool, key: str) -> HostileReply:
    """Return the reply of this seed and number."""
    random = Random(f"{seed}/{number}")
    size = random.choice(LARGE if random.random() < 0.01 else SIZES)
    make = random.choice((_content, _content, _mutated, _mutated, _mutated, _grown_envelope, _garbage, _refusal))
    value, what = make(random, dialect, size)
    if random.random() < 0.25:
        form = random.choice(list(FORMS))
        value, what = _quoting(random, value, FORMS[form](key)), f"{what}, quotes the key ({form})"
    status = random.choice(STATUSES) if make is _refusal and random.random() < 0.8 else 200
    if stream and status == 200 and random.random() < 0.9:
        body, kind = _streamed(random, dialect, value), "text/event-stream"
    else:
        body, kind = _encoded(random, value), random.choice(("application/json", "text/html", "", "text/event-stream"))
    if random.random() < 0.1:
        body, what = body[: random.randrange(len(body) + 1)], f"{what}, cut"
    headers = tuple(("content-type", kind) for _ in range(1) if kind) + _headers(random)
    framing = random.choice(("length",) * 5 + ("chunked",) * 5 + ("close", "short", "long", "tiny chunks"))
    return HostileReply(status, headers, _pieces(random, body, framing), framing, f"{status} {what}, {framing}")


# --- envelopes --------------------------------------------------------------------------------------------------------


def whole_answer(dialect: str, text: Any) -> dict[str, Any]:
    """Return a valid answer of a dialect."""
    if dialect == "anthropic":
        usage = {"input_tokens": 3, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 1}}
        blocks = [{"type": "text", "text": text}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]
        return {"type": "message", "role": "assistant", "model": "m", "content": blocks[:1], "stop_reason": "end_turn",
                "stop_sequence": None, "usage": usage}  # fmt: skip
    if dialect == "gemini":
        content = {"role": "model", "parts": [{"text": text}]}
        usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
        return {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}
    if dialect == "embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        return {
            "object": "list",
            "data": data,
            "model": "m",
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
            "x": text,
        }
    if dialect == "responses":
        part = {"type": "output_text", "text": text, "annotations": []}
        output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}]
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        return {"id": "r", "object": "response", "status": "completed", "model": "m", "output": output, "usage": usage}
    message = {"role": "assistant", "content": text, "refusal": None}
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def events(dialect: str, text: Any) -> list[dict[str, Any]]:
    """Return a valid answer's events."""
    if dialect == "anthropic":
        started = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 0}}}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
        return [started, block, delta, {"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"}]
    if dialect in ("gemini", "embeddings"):
        return [whole_answer(dialect, text)]
    if dialect == "responses":
        delta = {"type": "response.output_text.delta", "delta": text, "output_index": 0}
        return [delta, {"type": "response.completed", "response": whole_answer(dialect, text)}]
    first = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [first, last, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}]


# --- what is odd about them -------------------------------------------------------------------------------------------


def _content(random: Random, dialect: str, size: int) -> tuple[Any, str]:
    name, prefix = random.choice(list(ATOMS)), random.choice(PREFIXES)
    text = grown(ATOMS[name], size, prefix)
    if random.random() < 0.3:
        text = f"[[ ## a ## ]]\n{text}\n\n[[ ## completed ## ]]"
    return whole_answer(dialect, text), f"{dialect} content of {name} after {prefix!r}"


def _mutated(random: Random, dialect: str, size: int) -> tuple[Any, str]:
    value = whole_answer(dialect, "[[ ## a ## ]]\n1")
    for _ in range(random.randint(1, 4)):
        mutate(random, value, size)
    return value, f"{dialect} mutated"


def _grown_envelope(random: Random, dialect: str, size: int) -> tuple[Any, str]:
    part = random.choice(PARTS)
    many = (part * (size // len(part) + 1)).rstrip(",")
    whole = json.dumps(whole_answer(dialect, "[[ ## a ## ]]\n1"))
    return f'{whole[:-1]},"x":[{many}]}}'.encode(), f"{dialect} envelope with {part!r}"


def _garbage(random: Random, dialect: str, size: int) -> tuple[Any, str]:
    name = random.choice(list(ATOMS))
    made: bytes = random.choice((
        grown(ATOMS[name], size).encode("utf-8", "surrogatepass"), random.randbytes(min(size, 10**6)), b"\0" * size,
        b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b"\x1f\x8b\x08" + bytes(size), b"<html>" + b"<p>" * (size // 3),
        b"data: {}\n\n" * (size // 10), b"data:\n" * (size // 6), b":\n" * (size // 2), b"[" * size,
        b'{"a":' * (size // 5), b":\n\n" * (size // 3),
        b"9" * size, b'"' + b"\\u0000" * (size // 6) + b'"', b'{"error":' * (size // 9), b"\r" * size, b"null", b"",
        b"event: error\ndata: " + b"x" * size, b'{"choices":[' + b'{"error":{}},' * (size // 13) + b"{}]}",
    ))  # fmt: skip
    return made, f"garbage {made[:12]!r}"


def _refusal(random: Random, dialect: str, size: int) -> tuple[Any, str]:
    text = grown(ATOMS[random.choice(list(ATOMS))], size)
    value = random.choice((
        {"error": {"message": text, "type": "x", "code": "y"}}, {"error": text},
        {"type": "error", "error": {"type": text}},
        {"detail": [{"msg": text}]}, {"message": text, "code": 429}, [{"error": {"code": 400, "message": text}}],
        {"error": {"message": {"error": text}}}, {"error": [text] * 3}, {"errors": [{"message": text}]},
        {"choices": [{"error": {"code": 429, "message": text}}]}, {"error": {"code": 10**400, "message": text}},
        {"error": {"metadata": {"raw": text}, "message": "m"}}, {"error": {"message": "context length", "param": text}},
    ))  # fmt: skip
    if random.random() < 0.4:
        mutate(random, value, size)
    return value, "refusal"


def mutate(random: Random, value: Any, size: int) -> None:
    """Change one place of a document: another value, another key, or none."""
    places = list(_places(value))
    if not places:
        return
    holder, key = random.choice(places)
    roll = random.random()
    if roll < 0.1:
        del holder[key]
    elif roll < 0.2 and isinstance(holder, dict):
        holder[random.choice(("error", "type", "self", "", "choices", "usage", "\ud800"))] = odd_json(random, size)
    elif roll < 0.3 and isinstance(holder, list):
        holder.extend([holder[key]] * random.randint(1, 50))
    else:
        holder[key] = odd_json(random, size)


def odd_json(random: Random, size: int) -> Any:
    """Return a value that a place seldom holds."""
    return random.choice((
        None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 10**30, 10**400, -(10**18), "", "a",
        "\0\x1b[2J", "\ud800", [], {}, [None], [[]] * 50, {"error": {"message": "m"}}, "x" * size,
        "9" * min(size, 5000),
        {"a": "x" * size},
        [0] * min(size // 4, 10**6), [{}] * min(size // 4, 10**5),
        {str(at): at for at in range(min(size // 20, 10**5))},
        "stop", "length", "content_filter", "error", [{"type": "text", "text": "x"}], {"text": []}, [1, "a", None, {}],
    ))  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo and len(found) < 500:
        holder = todo.pop()
        keys = (
            list(holder)
            if isinstance(holder, dict)
            else range(min(len(holder), 20))
            if isinstance(holder, list)
            else ()
        )
        for key in keys:
            found.append((holder, key))
            todo.append(holder[key])
    return found


def _quoting(random: Random, value: Any, key: str) -> Any:
    if isinstance(value, bytes):
        at = random.randrange(len(value) + 1)
        return value[:at] + key.encode() + value[at:]
    texts = [(holder, at) for holder, at in _places(value) if isinstance(holder[at], str) and len(holder[at]) < 10**6]
    if texts:
        holder, at = random.choice(texts)
        holder[at] = f"{holder[at]} Bearer {key}"
    return value


# --- bytes ------------------------------------------------------------------------------------------------------------


def _encoded(random: Random, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    text = json.dumps(value, ensure_ascii=random.random() < 0.7).replace("\\\\u00", "\\u00")
    return text.encode("utf-8", "surrogatepass")


def _streamed(random: Random, dialect: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return random.choice(
            (value, b"data: " + value + b"\n\n", b"\n".join(b"data: " + value[: 10**6] for _ in range(3)))
        )
    told = events(dialect, "[[ ## a ## ]]\n1")
    roll = random.random()
    if roll < 0.3:
        told = [value]
    elif roll < 0.6:
        told = events(dialect, _text_in(value))
    else:
        for _ in range(random.randint(1, 3)):
            mutate(random, told, 10_000)
        told = told * random.choice((1, 1, 1, 100))
    end = random.choice((b"\n\n",) * 4 + (b"\r\n\r\n", b"\r\r", b"\n"))
    named = random.random() < 0.5
    lines = [_event(random, each, end, named) for each in told]
    if dialect != "anthropic" and random.random() < 0.8:
        lines.append(b"data: [DONE]" + end)
    if random.random() < 0.1:
        random.shuffle(lines)
    return b"".join(lines)


def _event(random: Random, value: Any, end: bytes, named: bool) -> bytes:
    kind = value.get("type") if isinstance(value, dict) else None
    name = f"event: {kind}\n".encode("utf-8", "replace") if named and isinstance(kind, str) and kind else b""
    return name + b"data: " + _encoded(random, value) + end


def _text_in(value: Any) -> str:
    found = [holder[at] for holder, at in _places(value) if isinstance(holder[at], str)]
    return max(found, key=len, default="")


def _headers(random: Random) -> tuple[tuple[str, str], ...]:
    odd = (
        ("retry-after", random.choice(("0", "-1", "nan", "1e999", "9" * 400, "soon", "Wed, 21 Oct 2015"))),
        ("x-request-id", "r" * random.choice((1, 10_000))),
        ("content-encoding", random.choice(("identity", "gzip", "br"))),
        ("set-cookie", "a=b"), ("location", "http://127.0.0.1:9/"), ("x-ratelimit-remaining", "x\ty"),
        ("keep-alive", "timeout=" + "9" * 300), ("date", "\xff"),
    )  # fmt: skip
    return tuple(random.sample(odd, random.choice((0, 0, 1, 3))))


def _pieces(random: Random, body: bytes, framing: str) -> tuple[bytes, ...]:
    if framing == "tiny chunks":
        body = body[:200_000]
        step = random.choice((1, 2, 7))
        return tuple(body[at : at + step] for at in range(0, len(body), step))
    if len(body) < 2 or random.random() < 0.5:
        return (body,)
    cut = random.randrange(1, len(body))
    return (body[:cut], body[cut:])
