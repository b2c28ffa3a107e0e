"""Process: the language models that user code makes in workers ask through the host, which holds the keys."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import (
    InvalidInput,
    LMAuthError,
    LMConfigurationError,
    LMUnsupportedFeatureError,
    NotConfigured,
    UnknownName,
)
from dspex.services.described_lms import KEPT
from dspex.services.services import services_of
from dspex.testing import FakeLM, FakeReply
from tests.support.programs import odd_lms
from tests.support.programs.lm_ways import WAYS
from tests.support.programs.odd_lms import ODD_WAYS

OWN = "tests.support.programs.own_lms"
CONFIGURED = "tests.support.programs.configured"


def _fake(model: str, answer: str, **options: Any) -> FakeLM:
    return FakeLM(lambda messages: {"reasoning": "r", "query": answer, "answer": answer}, model=model, **options)


@contextmanager
def _open_endpoint(keys: set[str]) -> Iterator[str]:
    """An endpoint that takes any key, and notes them."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            keys.add(self.headers["authorization"])
            message = {"role": "assistant", "content": "[[ ## answer ## ]]\nok\n\n[[ ## completed ## ]]"}
            reply = {"id": "1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def strong() -> Iterator[FakeLM]:
    with _fake("openai/strong-model", "strong") as lm:
        yield lm


@pytest.fixture(scope="module")
def cheap() -> Iterator[FakeLM]:
    with _fake("openai/cheap-model", "cheap", temperature=0.2, max_tokens=77) as lm:
        yield lm


@pytest.fixture(scope="module")
def main() -> Iterator[FakeLM]:
    with _fake("openai/main-model", "main") as lm:
        yield lm


@pytest.fixture(scope="module")
def sup(main: FakeLM, strong: FakeLM, cheap: FakeLM) -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools, lm=main, lms={"cheap": cheap, "strong": strong}) as running:
        yield running


@pytest.fixture(scope="module")
def strict(cheap: FakeLM) -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1, lms="named")]
    with dspex.Supervisor(pools=pools, lms={"cheap": cheap}) as running:
        yield running


@pytest.fixture
def asked(main: FakeLM, strong: FakeLM, cheap: FakeLM) -> dict[str, FakeLM]:
    fakes = {"main": main, "strong": strong, "cheap": cheap}
    for fake in fakes.values():
        fake.requests.clear()
    return fakes


@pytest.mark.parametrize("way", WAYS)
def test_an_lm_that_user_code_makes_works_unchanged(way: str, sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: however it is put to use, its requests reach its own endpoint, with the host's key and its options."""
    program = dspex.module(f"{OWN}:Asking", way=way, temperature=0.3, cache=False, supervisor=sup)
    found = program(question="q")
    assert "strong" in (found["answer"] if isinstance(found, dict) else found.answer)
    assert not asked["main"].requests
    request = asked["strong"].requests[-1]
    assert request.headers["authorization"] == f"Bearer {asked['strong'].api_key}"
    if way not in ("thread", "copy"):  # which set others
        assert request.body["temperature"] == 0.3
    if way == "config":
        assert (request.body["max_completion_tokens"], request.body["top_p"]) == (33, 0.5)


def test_an_lm_that_is_made_when_the_module_is_imported(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: in the fork server or in a call, it asks in the calls."""
    assert dspex.module(f"{OWN}:Asking", way="at_import", supervisor=sup)(question="q").answer == "strong"
    assert asked["strong"].requests[-1].body["temperature"] == 0.9


def test_the_calls_own_lm_is_the_default_of_user_code(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: also in threads that the code starts, and after other calls used other LMs there."""
    for way in ("executor", "none", "executor_default"):
        answer = dspex.module(f"{OWN}:Asking", way=way, supervisor=sup)(question=f"a {way}").answer
        assert answer == ("strong" if way == "executor" else "main")


def test_awaiting_modules_and_callers(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process"""
    program = dspex.module(f"{OWN}:OnlyAwaiting", model="openai/strong-model", supervisor=sup)

    async def both() -> list[str]:
        found = await asyncio.gather(program.acall(question="1"), program.acall(question="2"))
        return [each.answer for each in found]

    assert asyncio.run(both()) == ["strong", "strong"] and not asked["main"].requests


def test_a_name_brings_the_options_that_were_configured(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: and what the code says goes before them; by its model an LM brings its connection alone."""
    dspex.module(f"{OWN}:Asking", model="cheap", supervisor=sup)(question="by name")
    body = asked["cheap"].requests[-1].body
    assert (body["temperature"], body["max_completion_tokens"]) == (0.2, 77)
    dspex.module(f"{OWN}:Asking", model="cheap", temperature=0.9, max_tokens=9, supervisor=sup)(question="by name")
    body = asked["cheap"].requests[-1].body
    assert (body["temperature"], body["max_completion_tokens"]) == (0.9, 9)
    dspex.module(f"{OWN}:Asking", model="openai/cheap-model", supervisor=sup)(question="by model")
    body = asked["cheap"].requests[-1].body
    assert "temperature" not in body and "max_completion_tokens" not in body


def test_streams_show_what_a_module_with_its_own_lm_says(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: as it arrives."""
    items = list(dspex.module(f"{OWN}:Asking", supervisor=sup).stream(question="q"))
    assert "".join(item.text for item in items[:-1] if isinstance(item, dspex.Chunk)) == "strong"
    assert items[-1].answer == "strong"


def test_usage_cache_and_cost_are_the_hosts(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: a request of user code's LM is counted, answered from the cache, and paid from budgets as any."""
    program = dspex.module(f"{OWN}:Asking", supervisor=sup)
    with _fake("openai/cached-model", "kept", cache=True) as kept, dspex.context(lms={"kept": kept}):
        asking = dspex.module(f"{OWN}:Asking", model="kept", supervisor=sup)
        with dspex.Account("test") as account:
            first, again = asking(question="same"), asking(question="same")
        assert (len(kept.requests), account.requests, account.cached_requests) == (1, 1, 1)
        assert not first.cached and again.cached and not again.usage
    spent = dspex.Account("spent", budget_tokens=1)
    with spent, pytest.raises(dspex.BudgetExceeded):
        for number in range(3):
            program(question=f"budget {number}")


def test_retries_are_the_codes_and_happen_once(sup: dspex.Supervisor) -> None:
    """process: the host asks again as often as the code says, and the worker not at all."""
    with (
        FakeLM(lambda messages: FakeReply(status=503), model="openai/failing") as lm,
        dspex.context(lms={"failing": lm}),
    ):
        for retries in (0, 1):
            lm.requests.clear()
            with pytest.raises(dspex.LMServerError):
                dspex.module(f"{OWN}:Asking", model="failing", num_retries=retries, supervisor=sup)(question="q")
            assert len(lm.requests) == retries + 1


def test_fallbacks_of_a_configured_lm_stand_in_for_it(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: user code that asks by name gets all of it."""
    fallbacks = [asked["cheap"].lm]
    refused = FakeLM(lambda messages: FakeReply(status=401), model="openai/refused", fallbacks=fallbacks)
    with refused as lm, dspex.context(lms={"guarded": lm}):
        assert dspex.module(f"{OWN}:Asking", model="guarded", supervisor=sup)(question="q").answer == "cheap"


def test_errors_are_those_of_dspy_inside_and_dspexs_outside(sup: dspex.Supervisor) -> None:
    """process: with the model's own name, and no key."""
    with FakeLM(lambda messages: FakeReply(status=401), model="openai/refusing") as lm, dspex.context(lms={"no": lm}):
        with pytest.raises(LMAuthError) as refused:
            dspex.module(f"{OWN}:Asking", model="no", supervisor=sup)(question="q")
        assert refused.value.model == "openai/refusing" and str(lm.api_key) not in str(refused.value)


def test_a_subclass_of_dspys_lm_does_what_it_does(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process"""
    assert dspex.module(f"{OWN}:AskingSubclassed", supervisor=sup)(question="q").answer == "strong"
    assert asked["strong"].requests[-1].last == "Be brief."


def test_hosts_variables_make_an_lm_where_any_may_be_asked(
    sup: dspex.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: the provider's usual ones, of this process; the worker sees none of them."""
    with _fake("openai/fake", "by variables") as lm:
        monkeypatch.setenv("OPENAI_API_KEY", str(lm.api_key))
        monkeypatch.setenv("OPENAI_BASE_URL", lm.api_base)
        out = dspex.module(f"{OWN}:Asking", model="openai/never-configured", supervisor=sup)(question="q")
        assert out.answer == "by variables" and lm.requests[-1].body["model"] == "never-configured"
        named = dspex.module(f"{OWN}:Asking", model="gpt-4o-mini", supervisor=sup)  # as DSPy understands it
        assert named(question="q").answer == "by variables" and lm.requests[-1].body["model"] == "gpt-4o-mini"


def test_a_key_and_an_address_of_the_codes_own(sup: dspex.Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: they are used as they are; an address alone is not sent the host's key, unless the host knows it."""
    with _fake("openai/fake", "own") as lm:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-host-alone")
        both = {"api_base": lm.api_base, "api_key": lm.api_key, "headers": {"X-Tenant": "t1"}}
        assert dspex.module(f"{OWN}:Asking", model="openai/x", supervisor=sup, **both)(question="q").answer == "own"
        assert lm.requests[-1].headers["x-tenant"] == "t1"
        with pytest.raises(LMAuthError):
            dspex.module(f"{OWN}:Asking", model="openai/x", supervisor=sup, api_base=lm.api_base)(question="q")
        assert "sk-of-the-host-alone" not in str([request.headers for request in lm.requests])
        with dspex.context(lms={"known": lm}):
            program = dspex.module(f"{OWN}:Asking", model="openai/y", supervisor=sup, api_base=lm.api_base + "/")
            assert program(question="q").answer == "own"


def test_lms_without_end_are_forgotten_and_found_again(sup: dspex.Supervisor) -> None:
    """process: more than a worker keeps; each tenant's key is its own."""
    keys: set[str] = set()
    with _open_endpoint(keys) as base:
        found = dspex.module(f"{OWN}:KeepsAsking", supervisor=sup)(base=base, count=300)
        assert found["answers"] == ["ok"] * 300 and len(keys) == 300
        own = services_of(sup).described_lms.of(next(iter(services_of(sup).described_lms._own)))
        assert 0 < len(own) <= KEPT


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "openai/unknown"}, 'lms = "any"'),
        ({"model": "chaep"}, "cheap"),
        ({"model": "openai/cheap-model", "api_key": "sk-mine-and-mine-alone"}, "a key or an address of its own"),
        ({"model": "openai/cheap-model", "api_base": "http://169.254.169.254/v1"}, "a key or an address of its own"),
    ],
)
def test_a_pool_that_takes_named_lms_refuses_others(
    options: dict[str, Any], words: str, strict: dspex.Supervisor, main: FakeLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: with an error that names the setting, and no key; what is configured works."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-host-alone")
    how: dict[str, Any] = {"supervisor": strict, **options}
    with pytest.raises(LMConfigurationError, match='lms is "named"') as refused:
        dspex.module(f"{OWN}:Asking", **how)(question="q")
    assert words in str(refused.value) and "sk-" not in str(refused.value)
    assert dspex.module(f"{OWN}:Asking", model="cheap", supervisor=strict)(question="q").answer == "cheap"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "bedrock/some.model"}, "direct=True"),
        ({"model": "openai/x", "api_version": "2024"}, "api_version: it is for models of Azure. Leave it out"),
        ({"model": "openai/x", "model_type": "text"}, "direct=True"),
        ({"model": "groq/x", "model_type": "responses", "api_key": "k"}, "direct=True"),
        (
            {"model": "openai/x", "api_base": "http://127.0.0.1:9/v1", "headers": {"Authorization": "Bearer x"}},
            "api_key=",
        ),
    ],
)
def test_what_the_host_cannot_carry_says_so(options: dict[str, Any], words: str, sup: dspex.Supervisor) -> None:
    """process: before anything is sent."""
    kind = LMConfigurationError if words == "api_key=" else LMUnsupportedFeatureError
    with pytest.raises(kind, match=words):
        dspex.module(f"{OWN}:Asking", supervisor=sup, **options)(question="q")


@pytest.mark.parametrize("model", ["openai/strong-model", "cheap"])
def test_user_code_asks_the_responses_api(model: str, sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: of a configured model, or a configured name, with the host's key; chat models stay what they are."""
    fake = asked["strong" if "/" in model else "cheap"]
    how: dict[str, Any] = {"cache": False, "supervisor": sup}
    assert dspex.module(f"{OWN}:Asking", model=model, model_type="responses", **how)(question="q").answer
    assert dspex.module(f"{OWN}:Asking", model=model, **how)(question="q").answer
    assert [request.path for request in fake.requests] == ["/v1/responses", "/v1/chat/completions"]
    assert fake.requests[0].headers["authorization"] == f"Bearer {fake.api_key}"


def test_user_code_needs_no_lm_of_the_hosts(monkeypatch: pytest.MonkeyPatch, strong: FakeLM) -> None:
    """process: a module that makes its own runs where none is configured; one of DSPy's does not."""
    monkeypatch.delenv("DSPEX_LM", raising=False)
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)], lms={"strong": strong}) as bare:
        assert dspex.module(f"{OWN}:Asking", supervisor=bare)(question="q").answer == "strong"
        with pytest.raises(NotConfigured):
            dspex.chain_of_thought("question -> answer", supervisor=bare, implementation="python")(question="q")


@pytest.mark.parametrize("imports", [[], [CONFIGURED]])
def test_configuring_at_import_sets_what_calls_begin_with(
    imports: list[str], monkeypatch: pytest.MonkeyPatch, main: FakeLM
) -> None:
    """process: in the fork server (a module of `imports`) or in a call; the call's own LM goes before it."""
    monkeypatch.delenv("DSPEX_LM", raising=False)
    root = str(Path(__file__).parents[3])
    with _fake("openai/import-model", "of the import") as lm:
        pools = [dspex.PoolConfig("dspy", size=1, imports=imports, path=[root, f"{root}/workers"])]
        with dspex.Supervisor(pools=pools, lms={"x": lm}) as sup:
            program = dspex.module(f"{CONFIGURED}:Plain", supervisor=sup)
            assert program(question="q").answer == "of the import"
            assert "JSON object" in lm.requests[-1].text  # of its JSONAdapter
            assert program.using(lm=main)(question="q").answer == "main"
            assert program(question="q").answer == "of the import"


def test_predictors_are_given_lms_by_name(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: the others ask the program's own; the module itself stays as it is."""
    program = dspex.module(f"{OWN}:TwoSteps", supervisor=sup)
    mixed = program.using(lms={"generate_query.predict": "cheap"})
    assert mixed(question="q").answer == "main" and len(asked["cheap"].requests) == 1
    assert (
        dspex.module(f"{OWN}:TwoSteps", lms={"answer": asked["strong"]}, supervisor=sup)(question="q").answer
        == "strong"
    )
    asked["cheap"].requests.clear()
    assert program(question="q").answer == "main" and not asked["cheap"].requests
    asked["main"].requests.clear()
    with pytest.raises(UnknownName, match=r"generate_query\.predict"):
        program.using(lms={"generate_query": "cheap"})(question="q")
    with pytest.raises(UnknownName, match="cheap"):
        program.using(lms={"answer": "chaep"})(question="q")
    assert not asked["main"].requests


def test_dspys_own_agents_take_lms_by_predictor(sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: ReAct, and a module that another one asks."""

    def look(city: str) -> str:
        "Look it up."
        return city

    step = {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}}
    with FakeLM(lambda messages: step, model="openai/stepping") as stepping:
        agent = dspex.react(
            "question -> answer", [look], supervisor=sup, lms={"react": stepping, "extract.predict": "cheap"}
        )
        assert agent(question="q").answer == "cheap" and len(stepping.requests) == 1
    best = dspex.best_of_n(
        "question -> answer", reward_fn=lambda i, p: 1.0, N=1, supervisor=sup, implementation="python"
    )
    assert best.using(lms={"module": "cheap"})(question="q").answer == "cheap"
    two = dspex.module(f"{OWN}:TwoSteps", lms={"answer": "cheap"}, supervisor=sup)
    with pytest.raises(InvalidInput, match="one language model"):
        dspex.best_of_n(two, reward_fn=lambda inputs, prediction: 1.0, N=2)(question="q")
    with pytest.raises(UnknownName, match="'react'"):
        dspex.react("question -> answer", [look], lms={"raect": "cheap"})


def test_optimizing_asks_the_predictors_lms_and_saves_none(
    sup: dspex.Supervisor, asked: dict[str, FakeLM], tmp_path: Path
) -> None:
    """process: though DSPy's optimizers reset what they compile."""
    program = dspex.module(f"{OWN}:TwoSteps", signature="question -> answer", supervisor=sup)
    mixed = program.using(lms={"generate_query.predict": "cheap"})
    rows = [{"question": str(number), "answer": "main"} for number in range(3)]
    best = dspex.optimize(mixed, rows, optimizer="bootstrap", metric="exact_match")
    assert best.score == 100.0 and len(asked["cheap"].requests) == len(asked["main"].requests)
    best.save(tmp_path / "best.json")
    text = (tmp_path / "best.json").read_text()
    assert "cheap-model" not in text and "main-model" not in text and str(asked["cheap"].api_key) not in text


@pytest.mark.parametrize("model", ["openai/gpt-5", "gpt5"])
def test_several_answers_are_asked_of_a_reasoning_model_as_it_takes_them(model: str, sup: dspex.Supervisor) -> None:
    """process: without the temperature that DSPy sets, which OpenAI refuses."""
    with _fake("openai/gpt-5", "a") as lm, dspex.context(lms={"gpt5": lm}):
        dspex.module(f"{OWN}:Heating", model=model, supervisor=sup)(question="q")
        assert len(lm.requests) == 2 and all("temperature" not in request.body for request in lm.requests)
        dspex.module(f"{OWN}:Heating", model=model, reasoning_effort=None, temperature=1.0, supervisor=sup)(
            question="r"
        )
        assert lm.requests[-1].body["temperature"] == 1.0


def test_several_answers_of_other_models_are_asked_for_as_in_dspy(
    sup: dspex.Supervisor, asked: dict[str, FakeLM]
) -> None:
    """process"""
    dspex.module(f"{OWN}:Heating", model="strong", supervisor=sup)(question="q")
    assert [request.body["temperature"] for request in asked["strong"].requests] == [0.7, 0.7]


def test_a_direct_lm_of_any_provider_is_asked_by_dspy_itself(sup: dspex.Supervisor) -> None:
    """process: by programs and by user code that names it; with DSPy's own options, and counted."""
    with _fake("openai/behind", "direct") as lm:
        own: dict[str, Any] = {"extra_body": {"x": 1}, "seed": 3}
        reached = dspex.LM("together_ai/llama", direct=True, api_base=lm.api_base, api_key=lm.api_key, **own)
        with dspex.context(lms={"reached": reached}), dspex.Account("direct") as account:
            assert (
                dspex.predict("question -> answer", {"question": "q"}, lm="reached", supervisor=sup).answer == "direct"
            )
            assert (lm.requests[-1].body["x"], lm.requests[-1].body["seed"]) == (1, 3)
            for model in ("reached", "together_ai/llama"):
                program = dspex.module(f"{OWN}:Asking", model=model, temperature=0.4, supervisor=sup)
                assert program(question=model).answer == "direct"
                assert lm.requests[-1].body["temperature"] == 0.4
        assert account.requests == 3 and account.tokens > 0


def test_code_that_reads_its_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """process: gets a placeholder, which means the host's key, in "named" pools too, but at no address of the code."""
    with _fake("openai/gpt-4o-mini", "by variables") as lm:
        monkeypatch.setenv("OPENAI_API_KEY", str(lm.api_key))
        monkeypatch.setenv("OPENAI_BASE_URL", lm.api_base)
        for policy in ("named", "any"):
            sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, lms=policy)], lm="openai/gpt-4o-mini")
            with sup:
                assert dspex.module(f"{OWN}:ReadsItsKey", supervisor=sup)(question=policy).answer == "by variables"
        with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as sup, _fake("openai/x", "x") as other:
            assert dspex.module(f"{OWN}:ReadsItsKey", supervisor=sup)(question="q").answer == "by variables"
            with pytest.raises(LMAuthError):
                dspex.module(f"{OWN}:ReadsItsKey", api_base=other.api_base, supervisor=sup)(question="q")
            assert str(lm.api_key) not in str([request.headers for request in other.requests])


@pytest.mark.parametrize("way", ODD_WAYS, ids=lambda way: str(way.__name__))
def test_odder_ways_do_what_they_do_in_dspy(way: Any, sup: dspex.Supervisor, asked: dict[str, FakeLM]) -> None:
    """process: callbacks, adapters with an LM of their own, copies, executors, asyncify, streamify, DummyLM."""
    found = dspex.function(way, supervisor=sup)(question=f"odd {way.__name__}")
    texts = found if isinstance(found, list) else [found]
    assert texts and all("cheap" in text for text in texts)
    assert len(asked["main"].requests) == (1 if way.__name__ == "two_step" else 0)


def test_a_cancelled_call_closes_its_lms_connection(sup: dspex.Supervisor) -> None:
    """process: and the worker goes on."""
    with FakeLM("late", latency=30.0, model="openai/slow") as slow, dspex.context(lms={"slow": slow}):
        with pytest.raises(dspex.CallTimeout):
            dspex.function(odd_lms.slowly, supervisor=sup, timeout=1.0)(question="q")
        slow.wait_for(lambda: slow.hung_up == 1)
    assert dspex.function(odd_lms.dummy, supervisor=sup)(question="q") == "cheap"
