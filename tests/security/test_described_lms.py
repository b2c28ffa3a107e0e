"""Security: what a worker may say of a language model that it asks for, and what it gets to know and to use."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import dspex
from dspex import defaults
from dspex.config import Config
from dspex.defaults import Defaults
from dspex.errors import InvalidInput, LMConfigurationError, LMError, LMUnsupportedFeatureError, UnknownName
from dspex.lm.forwarding import Origin
from dspex.lm.lm_client import LMClient
from dspex.lm.rate_limits import BREAKERS_MOST, RateLimits
from dspex.lm.usage import MODELS_MOST, Account
from dspex.services.described_lms import KEPT, RETRIES_MOST, DescribedLMs
from tests.support.lm.requests import forwarded

KEY = "sk-of-the-host-alone"
INTERNAL = ("http://169.254.169.254/latest", "http://127.0.0.1:22", "http://[::1]/v1", "http://10.0.0.1/v1")


class _Worker:
    """Stands for a worker: something that lives for a time."""


@pytest.fixture(autouse=True)
def _own_defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("DSPEX_LM", "DSPEX_CONFIG", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(defaults, "_defaults", Defaults())
    return


def _host(**settings: Any) -> DescribedLMs:
    lms = {"cheap": dspex.LM("openai/small", api_base="http://gateway/v1", api_key="sk-of-the-gateway")}
    sup = dspex.Supervisor(Config((dspex.PoolConfig("dspy", **settings),)), lms=lms)
    return DescribedLMs(sup, lambda lm: lm.to_wire())


def _asked(host: DescribedLMs, worker: Any = None, **arguments: Any) -> dict[str, Any]:
    request: Any = SimpleNamespace(
        arguments=arguments, pool=SimpleNamespace(name="dspy"), worker=_Worker() if worker is None else worker
    )
    return host.describe(request)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model": ""},
        {"model": 3},
        {"model": None},
        {"model": ["openai/x"]},
        {"model": "openai/x\r\nHost: evil"},
        {"model": "openai/x\0"},
        {"model": "openai/" + "x" * 500},
        {"model": "openai/x", "headers": {"Host": "evil"}},
        {"model": "openai/x", "proxy": "http://evil"},
        {"model": "openai/x", "ref": "0" * 32},
        {"model": "openai/x", "direct": True},
        {"model": "openai/x", "price": (0, 0)},
        {"model": "openai/x", "private": False},
        {"model": "openai/x", "fallbacks": []},
        {"model": "openai/x", "x" * 10_000: 1},
        {"model": "openai/x", "api_key": "k" * 20_000},
        {"model": "openai/x", "api_key": "k\r\nX-Evil: 1"},
        {"model": "openai/x", "api_key": b"k"},
        {"model": "openai/x", "api_key": ""},
        {"model": "openai/x", "api_base": "http://h/" + "x" * 10_000},
        {"model": "openai/x", "api_base": 3},
        {"model": "openai/x", "retries": -1},
        {"model": "openai/x", "retries": True},
        {"model": "openai/x", "retries": 1.5},
        {"model": "openai/x", "timeout": 0},
        {"model": "openai/x", "timeout": float("nan")},
        {"model": "openai/x", "timeout": float("inf")},
        {"model": "openai/x", "timeout": "30"},
        {"model": "openai/x", "timeout": True},
        {"model": "x", "provider": {"id": "openai-chat"}},
    ],
)
@pytest.mark.parametrize("policy", ["any", "named"])
def test_a_malformed_description_is_refused(arguments: dict[str, Any], policy: str) -> None:
    """security: by its kind, and before anything is made of it."""
    with pytest.raises(InvalidInput) as refused:
        _asked(_host(lms=policy), **arguments)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "base",
    ["file:///etc/passwd", "ftp://h/", "http://user:pw@h/", "http://h/#f", "//h", "http://", "x"],
)
def test_an_address_that_is_none_is_refused(base: str) -> None:
    """security: as an LM's is anywhere."""
    with pytest.raises(LMConfigurationError):
        _asked(_host(), model="openai/x", api_base=base, api_key="k")


@pytest.mark.parametrize("base", INTERNAL)
@pytest.mark.parametrize("key", [None, "sk-mine"])
def test_a_pool_of_named_lms_takes_no_address(base: str, key: str | None) -> None:
    """security: nor a key; the error repeats neither."""
    arguments = {"model": "openai/small", "api_base": base, **({} if key is None else {"api_key": key})}
    with pytest.raises(LMConfigurationError) as refused:
        _asked(_host(lms="named"), **arguments)
    assert base not in str(refused.value) and "sk-" not in str(refused.value)


def test_a_pool_of_named_lms_knows_these_alone() -> None:
    """security: by name or model; nothing is made of the host's variables."""
    host = _host(lms="named")
    assert _asked(host, model="cheap")["record"]["api_base"] == "http://gateway/v1"
    assert _asked(host, model="openai/small")["record"]["api_base"] == "http://gateway/v1"
    for model in ("openai/gpt-4o-mini", "gpt-4o-mini", "anthropic/x", "local/smollm2", "bedrock/x", "CHEAP", "cheap/"):
        with pytest.raises(LMError):
            _asked(host, model=model, provider="openai-chat")


def test_a_service_takes_named_lms_unless_its_operator_says_otherwise() -> None:
    """security: what `dspex start` sets is the default of pools that set none."""
    for settings, is_any in (({}, False), ({"lms": "any"}, True), ({"lms": "named"}, False)):
        host = _host(**settings)
        host.policy = "named"
        if is_any:
            assert _asked(host, model="openai/gpt-4o-mini")["record"]["model"] == "openai/gpt-4o-mini"
        else:
            with pytest.raises(LMConfigurationError, match="any"):
                _asked(host, model="openai/gpt-4o-mini")


@pytest.mark.parametrize("base", [*INTERNAL, "http://gateway/v1x", "http://gateway:81/v1", "https://gateway/v1"])
@pytest.mark.parametrize("model", ["openai/small", "openai/gpt-4o-mini", "anthropic/claude"])
def test_the_hosts_keys_go_to_endpoints_that_the_host_knows(base: str, model: str) -> None:
    """security: an address that only the code names is sent no key of the host's."""
    host, worker = _host(), _Worker()
    record = _asked(host, worker, model=model, api_base=base)["record"]
    lm = host.of(worker)[record["ref"]]  # type: ignore[arg-type]
    assert lm.api_base == base and lm.api_key not in (KEY, "sk-of-the-gateway")


def test_a_known_endpoint_is_sent_its_own_key_alone() -> None:
    """security: that of the configured LM there, and the provider's own at the provider's."""
    host, worker = _host(), _Worker()
    for base, key in (("http://gateway/v1/", "sk-of-the-gateway"), ("https://api.openai.com/v1", KEY)):
        record = _asked(host, worker, model="openai/other", api_base=base)["record"]
        assert host.of(worker)[record["ref"]].api_key == key  # type: ignore[arg-type]


def test_no_key_is_told() -> None:
    """security: neither the host's nor the code's own comes back with a record or an error."""
    host = _host()
    for arguments in ({"model": "cheap"}, {"model": "openai/x"}, {"model": "openai/x", "api_key": "sk-of-the-code"}):
        told = repr(_asked(host, **arguments))
        assert "sk-" not in told
    with pytest.raises(LMUnsupportedFeatureError) as refused:
        _asked(host, model="bedrock/x", api_key="sk-of-the-code")
    with pytest.raises(LMConfigurationError) as malformed:
        _asked(host, model="openai/x", api_key="sk-of-the-code", api_base="sk-of-the-code")
    assert "sk-" not in f"{refused.value} {malformed.value}"


def test_what_one_worker_describes_is_no_other_workers() -> None:
    """security: a key in one worker's LM is not to be used by another, whose ref it may guess."""
    host, mine, other = _host(), _Worker(), _Worker()
    record = _asked(host, mine, model="openai/x", api_key="sk-of-the-code", api_base="http://127.0.0.1:9/v1")["record"]
    client = LMClient()
    lm = host.of(mine)[record["ref"]]  # type: ignore[arg-type]
    with pytest.raises(UnknownName):
        list(client.forward(forwarded(lm), origin=Origin(lms=host.of(other))))  # type: ignore[arg-type]
    with pytest.raises(LMError, match=r"127\.0\.0\.1"):
        list(client.forward(forwarded(lm), origin=Origin(lms=host.of(mine))))  # type: ignore[arg-type]
    client.close()


def test_lms_without_end_are_bounded() -> None:
    """security: per worker, and gone with it; so are what is counted of them and their circuits."""
    host, worker = _host(), _Worker()
    for number in range(KEPT * 2):
        _asked(host, worker, model="openai/x", api_key=f"key-{number}")
    assert len(host.of(worker)) == KEPT  # type: ignore[arg-type]
    del worker
    assert len(host._own) == 0
    limits, account = RateLimits(), Account("all")
    for number in range(BREAKERS_MOST + 10):
        limits.record(f"http://h{number}/v1", False, 0.0)
        account.add(f"openai/{number}", {"prompt_tokens": 1}, None)
    assert len(limits._breakers) == BREAKERS_MOST
    assert len(account.stats()["models"]) == MODELS_MOST + 1 and account.tokens == BREAKERS_MOST + 10


def test_retries_and_timeouts_are_bounded() -> None:
    """security: code cannot have the host try for ever."""
    host, worker = _host(), _Worker()
    record = _asked(host, worker, model="openai/x", retries=10**9, timeout=1e9)["record"]
    lm = host.of(worker)[record["ref"]]  # type: ignore[arg-type]
    assert (lm.retries, lm.timeout) == (RETRIES_MOST, 86400.0)


def test_embeddings_are_of_the_lms_own_model_and_endpoint() -> None:
    """security: the key goes to no other path, host or model, and to no endpoint of another format."""
    client = LMClient()
    lm = dspex.LM("openai/embedder", api_base="http://gateway/v1", api_key=KEY)
    other = dspex.LM("anthropic/claude", api_base="http://gateway/v1", api_key=KEY)
    mine = Origin(lms={lm.ref: lm, other.ref: other})
    body = b'{"model":"embedder","input":["a"]}'
    for url in ("http://gateway/v1/embeddings/../x", "http://evil/v1/embeddings", "http://gateway/v1/embeddings?x=1"):
        with pytest.raises(LMConfigurationError):
            list(client.forward(forwarded(lm, url=url, body=body), origin=mine))
    for asked in (b'{"model":"dear","input":["a"]}', b'{"input":["a"]}', b'{"model":"embedder","model":"dear"}', b"[]"):
        with pytest.raises(LMConfigurationError):
            list(client.forward(forwarded(lm, url="http://gateway/v1/embeddings", body=asked), origin=mine))
    with pytest.raises(LMConfigurationError):
        list(client.forward(forwarded(other, url="http://gateway/v1/embeddings", body=body), origin=mine))
    client.close()
