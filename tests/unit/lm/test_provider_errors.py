"""Collaboration: errors as providers send them: class, retried, kept, failed over; and what their texts may hold."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import LMContextWindowExceededError, LMError, LMInvalidRequestError, LMProviderError
from dspex.lm.dialects import anthropic, gemini, openai
from dspex.lm.lm_client import LMClient
from dspex.lm.quoted_prompts import SEARCHED_MOST
from dspex.lm.record import LM
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.provider_errors import LENGTH, RECORDED, Recorded, table
from tests.support.lm.requests import PLAIN, STREAMED, Way

pytestmark = pytest.mark.usefixtures("short_pauses")

Fake = Callable[..., FakeLM]
PAGE = Path(__file__).parents[3] / "docs" / "internals" / "language-model-errors.md"
plainly = pytest.mark.parametrize("way", PLAIN.values(), ids=PLAIN)
recorded = pytest.mark.parametrize("case", RECORDED, ids=[each.id for each in RECORDED])
SECRET = "My password is hunter2-blue and Jane Doe lives at 12345678 Elm Street"


def served(fake: Fake, case: Recorded, *then: Any, **options: Any) -> FakeLM:
    model = "anthropic/m" if case.is_anthropic else "openai/m"
    return fake([FakeReply(status=case.status, body=case.body), *then], model=model, cache=True, **options)


@recorded
@plainly
def test_recorded_error_is_its_class_and_is_not_kept(case: Recorded, way: Way, fake: Fake, client: LMClient) -> None:
    """collaboration: on every way, whatever its envelope, the words of the provider beside it."""
    lm = served(fake, case, "fine", retries=0)
    with pytest.raises(LMError) as caught:
        way(client, lm.lm)
    assert type(caught.value) is case.kind
    assert "fine" in way(client, lm.lm), "the error was kept"


@recorded
def test_recorded_error_is_retried_where_that_may_help(case: Recorded, fake: Fake, client: LMClient) -> None:
    """collaboration"""
    lm = served(fake, case, "fine", retries=1)
    if case.is_retried:
        assert "fine" in PLAIN["complete"](client, lm.lm)
    else:
        with pytest.raises(case.kind):
            PLAIN["complete"](client, lm.lm)
    assert len(lm.requests) == 1 + case.is_retried


@recorded
@pytest.mark.parametrize("way", ["complete", "stream"])
def test_recorded_error_fails_over_where_another_may_do_better(
    case: Recorded, way: str, fake: Fake, client: LMClient
) -> None:
    """collaboration: an exhausted account, an unknown model and an unreadable reply do; a wrong request does not."""
    backup = fake(["fine"], model="openai/b")
    lm = served(fake, case, retries=0, fallbacks=[backup.lm])
    ask = {**PLAIN, **STREAMED}[way]
    if case.is_failed_over:
        assert "fine" in ask(client, lm.lm)
    else:
        with pytest.raises(case.kind):
            ask(client, lm.lm)
    assert len(backup.requests) == case.is_failed_over


@pytest.mark.parametrize("case", [each for each in RECORDED if each.status == 200], ids=lambda each: each.id)
def test_recorded_error_in_an_event_is_the_same(case: Recorded, fake: Fake, client: LMClient) -> None:
    """collaboration: as a stream's first event."""
    if case.kind is LMProviderError:
        pytest.skip("no event, but a page")
    model = "anthropic/m" if case.is_anthropic else "openai/m"
    lm = fake([FakeReply(body=b"data: " + case.body + b"\n\n")], model=model, retries=0)
    with pytest.raises(LMError) as caught:
        STREAMED["stream"](client, lm.lm)
    assert type(caught.value) is case.kind


@pytest.mark.parametrize("dialect", [openai, anthropic, gemini])
@pytest.mark.parametrize("case", [each for each in RECORDED if each.kind is LENGTH], ids=lambda each: each.id)
def test_context_overflow_is_known_in_every_dialect(case: Recorded, dialect: Any) -> None:
    """unit: gateways send one provider's words through another's API."""
    lm = LM("openai/m", api_key="k", api_base="http://127.0.0.1:1/v1")
    status = case.status if case.status >= 400 else 400
    assert type(dialect.failure(lm, status, case.body)) is LMContextWindowExceededError


def test_the_documented_table_is_the_tested_one() -> None:
    """docs"""
    assert table() in PAGE.read_text()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"object": "error", "message": "it burns"}', "it burns"),
        (b'{"detail": "it burns"}', "it burns"),
        (b'{"detail": [{"loc": ["body", "n"], "msg": "it burns", "input": "secret"}]}', "body.n: it burns"),
        (b'{"error": "it burns"}', "it burns"),
        (b'{"error": {"error": {"message": "it burns"}}}', "it burns"),
        (b"it burns", "it burns"),
        (b"<html><title>it burns</title><p>secret</p></html>", "it burns"),
        (b"<p>it &amp; burns</p>", "it & burns"),
        (b'{"whatever": "it burns"}', "it burns"),
    ],
)
@plainly
def test_message_of_every_envelope_is_shown(body: bytes, said: str, way: Way, fake: Fake, client: LMClient) -> None:
    """collaboration: in the text and in `provider_message`; not the input that validators repeat."""
    lm = fake([FakeReply(status=422, body=body)], retries=0)
    with pytest.raises(LMInvalidRequestError) as caught:
        way(client, lm.lm)
    assert said in str(caught.value) and said in (caught.value.provider_message or "")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 422, 500, 200])
def test_long_messages_are_cut(status: int, fake: Fake, client: LMClient) -> None:
    """collaboration: 3 MB of words, of a page and of a list."""
    words = "no " * 1_000_000
    for body in (
        words,
        f"<html>{words}</html>",
        json.dumps({"detail": [{"msg": words}] * 3}),
        json.dumps({"error": words}),
    ):
        lm = fake([FakeReply(status=status, body=body.encode())], retries=0)
        with pytest.raises(LMError) as caught:
            PLAIN["complete"](client, lm.lm)
        assert len(str(caught.value)) < 1_000 and len(caught.value.provider_message or "") <= 4_000


def _quotes() -> Iterator[str]:
    yield SECRET
    yield SECRET.upper()
    yield SECRET[:40]
    yield SECRET.replace(" ", "\n")
    yield json.dumps(json.dumps({"content": SECRET}))
    yield urllib.parse.quote(SECRET)
    yield SECRET.replace(" ", "&#32;")
    yield base64.b64encode(SECRET.encode()).decode()
    yield SECRET.encode().hex()
    yield "'hunter2-blue'"
    yield "about Jane Doe"
    yield "12345678"


@plainly
@pytest.mark.parametrize("status", [400, 200])
@pytest.mark.parametrize("quote", list(_quotes()))
def test_text_of_an_error_holds_no_prompt(quote: str, status: int, way: Way, fake: Fake, client: LMClient) -> None:
    """X3: however the provider quotes it; what was said is an attribute."""
    body = json.dumps(
        {"error": {"message": f"Invalid value for messages: {quote}", "type": "invalid_request_error"}}
    ).encode()
    lm = fake([FakeReply(status=status, body=body)], retries=0)
    ask = [{"role": "user", "content": SECRET}]
    with pytest.raises(LMError) as caught:
        if way is PLAIN["complete"]:
            client.complete(lm.lm, ask)
        else:
            _forwarded(client, lm.lm, ask)
    assert quote not in str(caught.value) and quote not in repr(caught.value)
    shown = str(caught.value).lower()
    assert not any(word in shown for word in ("hunter2", "jane", "12345678", "elm"))
    assert "Invalid value" in (caught.value.provider_message or "") and caught.value.status in (400, None)


def _forwarded(client: LMClient, lm: LM, messages: list[dict[str, Any]]) -> None:
    client.register(lm)
    body = json.dumps({"model": lm.name, "messages": messages}).encode()
    request = {"lm": lm.ref, "url": f"{lm.api_base}/chat/completions", "headers": [], "body": body}
    list(client.forward(request))


@pytest.mark.parametrize("content", [SECRET, "x " * SEARCHED_MOST])
def test_words_that_quote_nothing_are_shown(content: str, fake: Fake, client: LMClient) -> None:
    """collaboration: of a prompt that is too long to be searched, common words."""
    said = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
    for message, is_shown in ((said, True), (f"{said} of Walrus", len(content) < SEARCHED_MOST)):
        lm = fake([FakeReply(status=400, error=message)], retries=0)
        with pytest.raises(LMContextWindowExceededError) as caught:
            client.complete(lm.lm, [{"role": "user", "content": content}])
        assert (said in str(caught.value)) is is_shown and caught.value.provider_message == message
