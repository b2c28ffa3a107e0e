"""No byte of a secret in what goes to a worker, into an error, an event, the cache or an answer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import html
import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.errors import LMError
from dspex.lm import retries
from dspex.lm.cache import Cache
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.lm.redaction import Redactor, redact
from tests.lm.conftest import ASK
from tests.lm.test_bad_answers import http
from tests.lm.test_client import forwarded
from tests.lm.test_hostile_answers import PLAIN, STREAM, STREAMED, Way, begun
from tests.lm.test_http import Peer

KEY = 'kA/n+ry="42-Zaphod_Beeblebrox'
WAYS = {
    **{f"plain {name}": way for name, way in PLAIN.items()},
    **{f"streamed {n}": way for n, way in STREAMED.items()},
}
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON twice": lambda key: json.dumps(json.dumps(key)[1:-1])[1:-1],
    "JSON, slashes": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "JSON, all escaped": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "JSON, some escaped": lambda key: "".join(f"\\u{ord(c):04X}" if i % 3 else c for i, c in enumerate(key)),
    "URL": lambda key: quote(key, safe=""),
    "URL, all escaped": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": lambda key: html.escape(key),
    "HTML numbers": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of a pair": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "base64 of a longer pair": lambda key: base64.b64encode(f"user1:{key}!".encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(f"a:{key}".encode()).decode(),
}
quoted = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def traces(form: str) -> list[str]:
    """Pieces of a quoted key that are long enough to be no accident."""
    return [form[at : at + 12] for at in range(2, len(form) - 16, 6)]


def everything(error: BaseException | None) -> str:
    """All that an error and those behind it say and hold."""
    text = ""
    while error is not None:
        text += f"{error} {error!r} {error.args} {getattr(error, '__dict__', '')} {getattr(error, 'object', '')!r}"
        error = error.__cause__ or error.__context__
    return text


@quoted
def test_quoted_secret_is_found_however_the_bytes_are_cut(form: Callable[[str], str]) -> None:
    """unit: at every byte and byte by byte; and nothing else of the text is lost."""
    redactor, quoted_key = Redactor((KEY,)), form(KEY)
    data = f'data: {{"error": "bad key {quoted_key}, sorry"}}\n\n'.encode()
    whole = redactor.whole(data)
    assert not any(trace.encode() in whole for trace in traces(quoted_key)), whole
    assert whole.startswith(b'data: {"error": "bad key ') and whole.endswith(b', sorry"}\n\n')
    for cuts in [[data[:at], data[at:]] for at in range(len(data))] + [[bytes([byte]) for byte in data]]:
        redaction = redactor.stream()
        assert b"".join([*map(redaction.feed, cuts), redaction.end()]) == whole


@given(st.lists(st.binary(max_size=40), max_size=6), st.text("ab\\%&;u0x1", min_size=8, max_size=12))
def test_stream_without_the_secret_passes_unchanged(parts: list[bytes], secret: str) -> None:
    """unit: and what is held back is less than the secret's length where nothing is escaped."""
    redactor = Redactor((secret,))
    redaction, given_back = redactor.stream(), b""
    sent = b""
    for part in parts:
        sent += part
        given_back += redaction.feed(part)
        if not set(b"\\%&") & set(sent[len(given_back) :]):
            assert len(sent) - len(given_back) < 2 * len(secret)  # base64 is a third longer
    given_back += redaction.end()
    assert given_back == redactor.whole(sent)


def test_whole_events_never_wait() -> None:
    """unit: an event that ends in a beginning of the key is given at once; half a line waits for its rest alone."""
    redaction = Redactor((KEY,)).stream()
    event = b'data: {"content": "kA/n+r"}\n\ndata: "kA/n\n\n'
    assert redaction.feed(event) == event
    assert redaction.feed(b"data: kA/n") == b"data: "
    assert redaction.feed(b"o") == b"kA/no"


def test_short_and_placeholder_keys_are_words_of_answers() -> None:
    """unit: "none" and the like stay in answers."""
    assert Redactor(("none",)).whole(b"none of it") == b"none of it"
    for model in ("hosted_vllm/m", "ollama_chat/m"):
        assert LM(model).secrets == ()


def test_all_that_headers_and_proxies_carry_is_secret() -> None:
    """unit: the token behind its scheme, a cookie's value, Basic's password, a proxy's password."""
    lm = LM(
        "openai/m",
        api_key=KEY,
        proxy="http://user:pass%2Fword-1@127.0.0.1:1",
        headers={
            "authorization": "Bearer token-0123456789",
            "x-basic-auth": "Basic " + base64.b64encode(b"user:basic-password").decode(),
            "cookie": "a=b; sid=cookie-0123456789",
            "x-org": "org-A1b2C3d4E5f6G7h8I9",
            "http-referer": "https://example.org/a-page-1-of-mine",
        },
    )
    wanted = {KEY, "token-0123456789", "basic-password", "cookie-0123456789", "pass/word-1", "pass%2Fword-1"}
    assert wanted | {"org-A1b2C3d4E5f6G7h8I9"} <= set(lm.secrets)
    assert not any("example.org" in secret for secret in lm.secrets)


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*replies: bytes) -> Peer:
        made.append(Peer(*([reply] for reply in replies)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_S", 0.001)


def _outcome(client: LMClient, lm: LM, way: Way) -> str:
    """Whatever comes of a call, with all events, as text."""
    told: list[object] = []
    client.emit = lambda name, **facts: told.append((str(name), facts))  # type: ignore[method-assign]
    try:
        found = repr(way(client, lm))
    except LMError as error:
        found = everything(error)
    return f"{found} {told!r} {client.cache._entries!r}"


@each_way
@quoted
def test_quoted_key_reaches_nobody(
    form: Callable[[str], str], way: Way, peers: Callable[..., Peer], client: LMClient
) -> None:
    """collaboration: in a body, an event, a text, behind any status, and inside a good answer."""
    key = form(KEY)
    error = f'{{"error": {{"message": "refused {key}", "code": "{key}", "type": "{key}"}}, "request_id": "{key}"}}'
    answer = (
        f'{{"choices": [{{"message": {{"content": "you said {key}"}}, "finish_reason": "stop"}}], "model": "{key}"}}'
    )
    piece = f'{{"choices": [{{"delta": {{"content": "you said {key}"}}, "finish_reason": "stop"}}], "model": "{key}"}}'
    bodies = [error, f"data: {error}\n\n", f"event: error\ndata: {key}\n\n", f"no {key}", answer, f"data: {piece}\n\n"]
    replies = [http(body.encode(), "200 OK", STREAM) for body in bodies]
    replies += [http(error.encode(), f"{status} No") for status in (201, 302, 401, 429, 500)]
    for reply in replies:
        lm = LM("openai/m", api_base=peers(reply).url.removesuffix("/x"), api_key=KEY, retries=0)
        found = _outcome(client, lm, way)
        assert not [trace for trace in traces(key) if trace in found or repr(trace)[1:-1] in found], found


@each_way
def test_key_in_the_head_reaches_nobody(way: Way, peers: Callable[..., Peer], client: LMClient) -> None:
    """collaboration: redirects, request ids, lengths, pauses, reasons and headers of a proxy's own."""
    headers = [
        f"location: https://evil.example/?key={KEY}",
        f"x-request-id: {KEY}",
        f"x-debug: {KEY}",
        f"retry-after: {KEY}",
        f"content-type: {KEY}",
        f"x-ratelimit-limit-{KEY[-10:]}: {quote(KEY, safe='')}",
        f"set-cookie: k={KEY}",
    ]
    replies = [http(b"{}", f"{status} {KEY}", *headers) for status in (200, 302, 307, 401, 503)]
    replies += [
        f"HTTP/1.1 200 OK\r\ncontent-length: {KEY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
        f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;{KEY}\r\n{{}}\r\n0\r\nx-t: {KEY}\r\n\r\n".encode(),
        f"{KEY}\r\n\r\n".encode(),
    ]
    for reply in replies:
        lm = LM("openai/m", api_base=peers(reply).url.removesuffix("/x"), api_key=KEY, retries=0)
        found = _outcome(client, lm, way)
        assert not [trace for trace in traces(KEY) if trace in found], found


@each_way
@pytest.mark.parametrize("status", ["200 OK", "401 No", "500 No"])
def test_compressed_body_reaches_nobody(status: str, way: Way, peers: Callable[..., Peer], client: LMClient) -> None:
    """collaboration: nobody asked for it, and a key in it could not be found."""
    packed = gzip.compress(json.dumps({"error": {"message": f"refused {KEY}"}}).encode())
    reply = http(packed, status, "content-encoding: gzip")
    lm = LM("openai/m", api_base=peers(reply).url.removesuffix("/x"), api_key=KEY, retries=0)
    assert repr(packed)[10:40] not in _outcome(client, lm, way)


def test_key_in_wide_letters_reaches_nobody(peers: Callable[..., Peer], client: LMClient) -> None:
    """collaboration: JSON may come in UTF-16."""
    body = json.dumps({"error": {"message": f"refused {KEY}"}}, ensure_ascii=False).encode("utf-16-le")
    lm = LM("openai/m", api_base=peers(http(body)).url.removesuffix("/x"), api_key=KEY, retries=0)
    assert KEY[3:15] not in _outcome(client, lm, PLAIN["complete"])


def test_key_that_is_cut_between_chunks_does_not_reach_a_worker(peers: Callable[..., Peer], client: LMClient) -> None:
    """collaboration: at every byte of the event that quotes it."""
    event = b'data: {"note": "%b", "choices": [{"delta": {"content": "x"}}]}\n\n' % json.dumps(KEY)[1:-1].encode()
    begin = b"data: " + json.dumps(begun("openai/m")).encode() + b"\n\n"
    for at in range(1, len(event), 3):
        chunks = [begin, event[:at], event[at:], b"data: [DONE]\n\n"]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body
        lm = LM("openai/m", api_base=peers(reply).url.removesuffix("/x"), api_key=KEY, cache=False)
        client.register(lm)
        parts = [part for part in client.forward(forwarded(lm, stream=True)) if isinstance(part, bytes)]
        seen = b"".join(parts)
        assert b"***" in seen and KEY[3:15].encode() not in seen


def test_proxys_password_that_the_proxy_quotes_reaches_nobody(peers: Callable[..., Peer], client: LMClient) -> None:
    """collaboration: as it is, and as the Basic credentials that it was sent."""
    password = "proxy-password-4242"
    pair = base64.b64encode(f"user:{password}".encode()).decode()
    refusal = json.dumps({"error": {"message": f"who is {password} {pair}"}}).encode()
    for status in ("200 OK", "407 Who"):
        proxy = peers(http(refusal, status)).url.replace("//", f"//user:{password}@").split("/v1")[0]
        lm = LM("openai/m", api_base="http://lm.invalid/v1", api_key=KEY, proxy=proxy, retries=0)
        for way in (PLAIN["complete"], PLAIN["forward"]):
            found = _outcome(client, lm, way)
            assert password not in found and pair not in found
            proxy = peers(http(refusal, status)).url.replace("//", f"//user:{password}@").split("/v1")[0]
            lm = lm.replace(proxy=proxy)


def test_disk_cache_holds_no_quoted_key(tmp_path: object, peers: Callable[..., Peer]) -> None:
    """collaboration: an answer that quotes the key is kept without it."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    answer = {"choices": [{"message": {"content": f"it is {KEY}"}, "finish_reason": "stop"}]}
    lm = LM("openai/m", api_base=peers(http(json.dumps(answer).encode())).url.removesuffix("/x"), api_key=KEY)
    with LMClient(cache=Cache(path=folder / "replies")) as client:
        assert client.complete(lm, ASK).text == "it is ***"
        asyncio.run(client.aclose())
    data = b"".join(file.read_bytes() for file in folder.iterdir())
    assert b"it is ***" in data and KEY[:10].encode() not in data


def test_redacting_takes_time_in_proportion_to_the_length() -> None:
    """unit: no search begins again inside an address: eight times the text took sixty-four times as long."""

    def cpu(count: int) -> float:
        text = "http://" * count
        began = time.process_time()
        redact(text)
        return time.process_time() - began

    short = min(cpu(4_000) for _ in range(5))
    assert min(cpu(32_000) for _ in range(3)) < 30 * max(short, 0.0005)
