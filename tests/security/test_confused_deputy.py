"""Security: a worker asks by the LMs that its calls named; it learns of no other, and reaches no other place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dspex import LM
from dspex.errors import LMConfigurationError, UnknownName
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import forwarded

Fake = Callable[..., FakeLM]


@pytest.mark.parametrize("near", ["", "0", "x" * 200, "near"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_unknown_ref_tells_of_no_other(near: str, is_async: bool, fake: Fake, client: LMClient) -> None:
    """security: also one that differs in a single digit: the error would have named the closest."""
    others = [fake("x"), LM("openai/theirs", api_key="k", headers={"x-tenant": "alice"})]
    for lm in others:
        client.register(lm)
    ref = others[1].ref[:-1] + "?" if near == "near" else near
    request = {**forwarded(others[0]), "lm": ref}

    async def asked() -> Any:
        return [part async for part in client.aforward(request)]

    with pytest.raises(UnknownName) as refused:
        asyncio.run(asked()) if is_async else list(client.forward(request))
    told = f"{refused.value} {refused.value!r} {vars(refused.value)}".replace(ref or "no ref", "")
    assert not [lm for lm in others if lm.ref in told] and len(told) < 2000
    assert refused.value.known == ()


@pytest.mark.parametrize(
    "change",
    [
        "http://127.0.0.1:9", "{base}/chat/completions/", "{base}//chat/completions", "{base}/chat/completions?x=1",
        "{base}/chat/completions#x", "{base}/chat/./completions", "{base}/chat%2fcompletions",
        "{base}/chat/%63ompletions",
        "{base}/x/../chat/completions", "{base}/x/%2e%2e/chat/completions", "{base}/x/..;/chat/completions",
        "{base}/%252e%252e/chat/completions", "{base}/chat/completions%00", "{base}/chat/completions\r\nx: y",
        "{base}\\chat\\completions", "{upper}/chat/completions", "{base}/chat/completions ", "{user}/chat/completions",
        "{base}/embeddings/../files", "{base}/models", "{base}/chat/completions\u2044",
    ],
)  # fmt: skip
def test_no_other_spelling_of_an_address_is_asked(change: str, fake: Fake, client: LMClient) -> None:
    """security: the LM's own URLs, letter by letter: what a server makes of another spelling is not known here."""
    lm = fake("x")
    client.register(lm)
    base = str(lm.api_base)
    url = change.format(base=base, upper=base.upper(), user=base.replace("://", "://u:p@"))
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, url=url)))
    assert not lm.requests


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization ", "x"), ("Authorization:", "x"), ("x-a:b", "c"), (" x", "y"), ("x\ty", "z"), ("", "z"),
        ("x\u00e9", "y"), ("x\r\nhost", "y"), ("x", "a\r\nhost: b"), ("x", "a\nb"), ("x", "a\0b"), ("x(y)", "z"),
        ("\uff41uthorization", "x"),
    ],
)  # fmt: skip
def test_headers_that_another_reader_would_read_otherwise_are_refused(
    header: tuple[str, str], fake: Fake, client: LMClient
) -> None:
    """security: names are tokens of RFC 9110, and no value ends its line."""
    lm = fake("x")
    client.register(lm)
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(lm, headers=[["Content-Type", "application/json"], list(header)])))
    assert not lm.requests


@pytest.mark.parametrize("name", ["AUTHORIZATION", "Api-Key", "X-Goog-Api-Key", "cookie", "Host", "Transfer-Encoding"])
def test_what_decides_whose_key_goes_out_is_the_hosts(name: str, fake: Fake, client: LMClient) -> None:
    """security: in any case of letters; the request goes out without it."""
    lm = fake("x")
    client.register(lm)
    list(client.forward(forwarded(lm, headers=[[name, "worker's"]])))
    (request,) = lm.requests
    assert "worker's" not in request.headers.values()
    assert request.headers["authorization"] == f"Bearer {lm.api_key}"
