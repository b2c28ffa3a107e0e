"""Unit: LMs with names, of settings, supervisors, the process and blocks; and which one a call asks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import defaults
from dspex.config import Config, load
from dspex.defaults import Defaults
from dspex.errors import InvalidInput, LMConfigurationError, NotConfigured, SettingsError, UnknownName
from dspex.lm.named_lms import NamedLMs
from dspex.testing import FakeLM

SIG = "question -> answer"


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("DSPEX_LM", "DSPEX_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    own = Defaults()
    monkeypatch.setattr(defaults, "_defaults", own)
    yield
    own.client().close()


def _fake(answer: str, **options: Any) -> FakeLM:
    return FakeLM(lambda messages: {"answer": answer, "reasoning": "r"}, **options)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "dspex.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


# -- settings --


def test_tables_give_lms_names(tmp_path: Path) -> None:
    """unit: [lms.<name>] beside [lm]."""
    text = """
[lm]
model = 'openai/main'
[lms.cheap]
model = 'openai/small'
temperature = 0.3
[lms.strong]
model = 'anthropic/big'
"""
    lms = dspex.Supervisor(_file(tmp_path, text)).lms
    assert lms.default is not None and lms.default.model == "openai/main"
    assert {name: lm.model for name, lm in lms.by_name.items()} == {"cheap": "openai/small", "strong": "anthropic/big"}
    assert lms.by_name["cheap"].temperature == 0.3


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ("[lms.cheap]\ntemperature = 1.0\n", "lms.cheap.model", "needs a model"),
        ("[lms.cheap]\nmodel = 'openai/m'\ntemprature = 1.0\n", "lms.cheap.temprature", "temperature"),
        ("[lms.cheap]\nmodel = 'opnai/m'\n", "lms.cheap.model", "openai"),
        ("[lms.cheap]\nmodel = 'openai/m'\ntemperature = 7.0\n", "lms.cheap.temperature", "0 to 2"),
        ("[lms.cheap]\nmodel = 'openai/gpt-5'\ntemperature = 0.2\n", "lms.cheap", "reasoning"),
        ("[lms]\ncheap = 3\n", "lms.cheap", "int"),
        ("[lms]\ncheap = 'small'\n", "lms.cheap", "openai/gpt-4o-mini"),
        ("lms = 'openai/m'\n", "lms", "mapping"),
        ("[lms.'a/b']\nmodel = 'openai/m'\n", "lms", "slash"),
        ("[lm]\nmodel = 'openai/m'\nmax_tokens = 'many'\n", "lm.max_tokens", "whole number"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_key(text: str, key: str, word: str, tmp_path: Path) -> None:
    """unit: when the supervisor is made, before anything runs."""
    with pytest.raises(SettingsError, match=word) as refused:
        dspex.Supervisor(_file(tmp_path, text))
    assert refused.value.key == key


def test_a_misspelt_table_lists_the_near_names(tmp_path: Path) -> None:
    """unit"""
    with pytest.raises(SettingsError, match="lms"):
        load(_file(tmp_path, "[lmss.cheap]\nmodel = 'openai/m'\n"))


def test_a_model_in_text_is_an_lm_too(tmp_path: Path) -> None:
    """unit: `cheap = 'openai/small'` under [lms]."""
    assert NamedLMs.of_tables({"lms": {"cheap": "openai/small"}}).by_name["cheap"].model == "openai/small"


# -- which one is asked --


def test_the_order_of_lms() -> None:
    """unit: the program's own, the open block's, its supervisor's, the process's."""
    with _fake("own") as own, _fake("block") as block, _fake("sup") as of_sup, _fake("process") as process:
        sup = dspex.Supervisor(Config((dspex.PoolConfig("dspy"),)), lm=of_sup)
        ask = dspex.predictor("predict", SIG)
        at_sup = ask.using(supervisor=sup)
        with pytest.raises(NotConfigured):
            ask(question="q")
        assert at_sup(question="q").answer == "sup"
        dspex.configure(lm=process)
        assert (ask(question="q").answer, at_sup(question="q").answer) == ("process", "sup")
        with dspex.context(lm=block):
            assert ask(question="q").answer == at_sup(question="q").answer == "block"
            assert at_sup.using(lm=own)(question="q").answer == "own"
        assert at_sup(question="q").answer == "sup"


def test_a_supervisor_of_a_settings_file_brings_its_lm(tmp_path: Path) -> None:
    """unit: to programs that name it, with nothing configured for the process (the recipe for FastAPI)."""
    with _fake("file") as lm:
        text = f"[lm]\nmodel = 'openai/fake'\napi_base = '{lm.api_base}'\napi_key = '{lm.api_key}'\ncache = false\n"
        sup = dspex.Supervisor(_file(tmp_path, text))
        assert dspex.chain_of_thought(SIG, supervisor=sup)(question="q").answer == "file"


def test_a_name_is_looked_up_when_a_call_is_made() -> None:
    """unit: so a program may be made before its LM is configured."""
    ask = dspex.predictor("predict", SIG, lm="cheap")
    with pytest.raises(UnknownName, match="configure"):
        ask(question="q")
    with _fake("first") as first, _fake("second") as second:
        dspex.configure(lms={"cheap": first})
        assert ask(question="q").answer == "first"
        with dspex.context(lms={"cheap": second}):
            assert ask(question="q").answer == "second"
        sup = dspex.Supervisor(Config((dspex.PoolConfig("dspy"),)), lms={"cheap": second})
        assert ask.using(supervisor=sup)(question="q").answer == "second"
        assert ask(question="q").answer == "first"


@pytest.mark.parametrize(
    "way", ["using", "predict", "context", "configure", "supervisor", "DSPEX_LM", "run", "explain"]
)
def test_a_name_is_taken_wherever_an_lm_is(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    with _fake("cheap") as cheap:
        dspex.configure(lms={"cheap": cheap})
        ask = dspex.predictor("predict", SIG)
        if way == "using":
            assert ask.using(lm="cheap")(question="q").answer == "cheap"
        elif way == "predict":
            assert dspex.predict(SIG, {"question": "q"}, lm="cheap").answer == "cheap"
        elif way == "context":
            with dspex.context(lm="cheap"):
                assert ask(question="q").answer == "cheap"
        elif way == "configure":
            dspex.configure(lm="cheap")
            assert ask(question="q").answer == "cheap"
        elif way == "supervisor":
            sup = dspex.Supervisor(Config((dspex.PoolConfig("dspy"),)), lms={"mine": cheap}, lm="mine")
            assert ask.using(supervisor=sup)(question="q").answer == "cheap"
        elif way == "DSPEX_LM":
            monkeypatch.setenv("DSPEX_LM", "cheap")
            assert ask(question="q").answer == "cheap"
        elif way == "run":
            assert dspex.pipeline([ask]).run({"question": "q"}, lm="cheap")["answer"] == "cheap"
        else:
            assert dspex.explain("predict", SIG, lm="cheap").implementation == "native"


@pytest.mark.parametrize("name", ["chaep", "gpt-4o-mini"])
def test_an_unknown_name_lists_the_near_ones(name: str) -> None:
    """unit: and says how a model is named."""
    dspex.configure(lms={"cheap": "openai/small"})
    for ask in (
        lambda: dspex.predict(SIG, {"question": "q"}, lm=name),
        lambda: dspex.configure(lm=name),
        lambda: dspex.Supervisor(Config((dspex.PoolConfig("dspy"),)), lms={"cheap": "openai/x"}, lm=name),
        lambda: dspex.pipeline([dspex.predictor("predict", SIG)]).run({"question": "q"}, lm=name),
    ):
        with pytest.raises(UnknownName, match=rf"'cheap'.*'openai/{name}'"):
            ask()


@pytest.mark.parametrize(
    "given", [{"a/b": "openai/x"}, {"": "openai/x"}, {3: "openai/x"}, ["openai/x"], {"a": None}, {"a": "b"}]
)
def test_lms_that_cannot_be_are_refused(given: Any) -> None:
    """unit: by whoever takes them."""
    for take in (
        lambda: dspex.configure(lms=given),
        lambda: dspex.Supervisor(Config((dspex.PoolConfig("dspy"),)), lms=given),
        lambda: dspex.context(lms=given).__enter__(),
    ):
        with pytest.raises(SettingsError) as refused:
            take()
        assert str(refused.value.key).startswith("lms")


def test_configured_lms_show_no_keys() -> None:
    """unit"""
    sup = dspex.Supervisor(
        Config((dspex.PoolConfig("dspy"),)), lms={"a": dspex.LM("openai/x", api_key="sk-secret-key")}
    )
    assert "sk-secret-key" not in f"{sup.lms!r} {sup!r} {sup.config!r}"


# -- blocks --


def test_blocks_nest_and_keep_what_they_do_not_name() -> None:
    """unit: lm, adapter, lms and config each by themselves; the program's own config goes before the block's."""
    with _fake("a") as a, _fake("b") as b:
        dspex.configure(lm=a, lms={"b": b})
        ask = dspex.predictor("predict", SIG, config={"top_p": 0.5})
        with dspex.context(config={"temperature": 0.3, "top_p": 0.9}, adapter="json"):
            ask(question="q")
            with dspex.context(lm="b", config={"temperature": 0.4}):
                assert ask(question="q").answer == "b"
            ask(question="r")
        ask(question="s")
    bodies = [request.body for request in (*a.requests[:1], *b.requests, *a.requests[1:])]
    assert [body.get("temperature") for body in bodies] == [0.3, 0.4, 0.3, None]
    assert {body["top_p"] for body in bodies} == {0.5}
    assert ["JSON" in request.text for request in (*a.requests, *b.requests)] == [True, True, False, True]


def test_blocks_are_of_their_task_and_thread() -> None:
    """unit: tasks and `to_thread` inherit the block that is open where they begin; a bare thread does not."""
    with _fake("a") as a, _fake("b") as b:
        dspex.configure(lm=a)
        ask = dspex.predictor("predict", SIG)

        async def asked(lm: FakeLM | None) -> list[str]:
            if lm is None:
                return [(await ask.acall(question="q")).answer]
            with dspex.context(lm=lm):
                found = [(await ask.acall(question="q")).answer, (await asyncio.to_thread(ask, question="q")).answer]
                found += await asyncio.create_task(asked(None))
                return found

        async def main() -> list[list[str]]:
            return await asyncio.gather(asked(b), asked(None), asked(a), asked(b))

        assert asyncio.run(main()) == [["b"] * 3, ["a"], ["a"] * 3, ["b"] * 3]
        found: list[str] = []
        with dspex.context(lm=b):
            within = contextvars.copy_context()
            for target in (
                lambda: found.append(ask(question="q").answer),
                lambda: within.run(lambda: found.append(ask(question="q").answer)),
            ):
                thread = threading.Thread(target=target)
                thread.start()
                thread.join()
        assert found == ["a", "b"]


def test_blocks_hold_in_streams_maps_and_pipelines() -> None:
    """unit: where the work is done on other threads or tasks."""
    with _fake("a") as a, _fake("b") as b:
        dspex.configure(lm=a)
        ask = dspex.predictor("predict", SIG)
        steps = dspex.pipeline(
            [dspex.parallel([dspex.native("question -> answer", into="one"), dspex.native(SIG, into="two")])]
        )

        async def several() -> list[str]:
            with dspex.context(lm=b):
                found = [row.result().answer async for row in dspex.amap(ask, [{"question": "1"}, {"question": "2"}])]
                run = await steps.arun({"question": "q"})
                return [*found, run["one"]["answer"], run["two"]["answer"]]

        with dspex.context(lm=b):
            assert [row.result().answer for row in dspex.map(ask, [{"question": "1"}, {"question": "2"}])] == ["b", "b"]
            assert list(ask.stream(question="q"))[-1].answer == "b"
            assert steps.run({"question": "q"})["one"]["answer"] == "b"
            best = dspex.best_of_n(SIG, reward_fn=lambda inputs, prediction: 1.0, N=2)
            assert best(question="q").answer == "b"
        assert asyncio.run(several()) == ["b"] * 4
        assert not a.requests


def test_a_cached_step_is_another_under_another_block() -> None:
    """unit: what a block says decides about the answers, so a cache of steps must not mix them."""
    with _fake("a") as a, _fake("b") as b:
        dspex.configure(lm=a, lms={"b": b})
        steps = dspex.pipeline([dspex.native(SIG), dspex.cache_step()])
        found = []
        for block in ({}, {"lm": "b"}, {}, {"config": {"temperature": 0.1}}, {"adapter": "json"}, {"lms": {"x": a}}):
            with dspex.context(**block):
                found.append(steps.run({"question": "q"})["answer"])
    assert found == ["a", "b", "a", "a", "a", "a"]
    assert (len(a.requests), len(b.requests)) == (4, 1)


def test_the_route_follows_the_blocks_lm() -> None:
    """unit: an LM that only workers can ask, or an adapter of theirs, sends the program there, and back afterwards."""
    dspex.configure(lm="openai/x")
    ask = dspex.predictor("predict", SIG)
    assert ask.decision.implementation == "native"
    with dspex.context(lm=dspex.LM("openai/x", direct=True)):
        assert ask.decision.implementation == "python"
    with dspex.context(adapter="tests.support.programs.own_adapters:Polite"):
        assert ask.decision.implementation == "python"
    with dspex.context(adapter="xml"):
        assert ask.decision.implementation == "native"
    assert ask.decision.implementation == "native"


@pytest.mark.parametrize("block", [{"adapter": "jsn"}, {"config": 3}, {"lm": 3}, {"lm": "opnai/x"}])
def test_a_block_that_cannot_be_opens_nothing(block: dict[str, Any]) -> None:
    """unit"""
    with pytest.raises((SettingsError, UnknownName)), dspex.context(**block):
        raise AssertionError
    assert dspex.scoped_defaults.scoped() == dspex.scoped_defaults.NO_SCOPE  # type: ignore[attr-defined]


# -- by predictor --


def test_lms_of_predictors_on_the_native_route() -> None:
    """unit: a module of one predictor asks what its name says; an unknown predictor is refused when it is named."""
    with _fake("a") as a, _fake("b") as b:
        dspex.configure(lm=a, lms={"b": b})
        assert dspex.predictor("predict", SIG, lms={"self": "b"})(question="q").answer == "b"
        thinking = dspex.chain_of_thought(SIG).using(lms={"predict": "b"})
        assert thinking.decision.implementation == "native" and thinking(question="q").answer == "b"
        best = dspex.best_of_n(thinking.using(lms=None), reward_fn=lambda inputs, prediction: 1.0, N=1)
        assert best.using(lms={"module.predict": "b"})(question="q").answer == "b"
        assert best(question="q").answer == "a"
    for name in ("predct", "self"):
        with pytest.raises(UnknownName, match="'predict'"):
            thinking.using(lms={name: "b"})
    for given in (["b"], {"predict": None}, {3: "b"}):
        with pytest.raises(SettingsError):
            thinking.using(lms=given)


# -- what DSPex adds by itself --


@pytest.mark.parametrize(
    ("model", "options", "heat"),
    [
        ("openai/gpt-4o-mini", {}, 0.7),
        ("openai/gpt-5", {}, None),
        ("openrouter/openai/o3", {}, None),
        ("openai/gpt-4o-mini", {"reasoning_effort": "low"}, None),
        ("openai/gpt-4o-mini", {"reasoning_effort": "none"}, 0.7),
        ("openai/gpt-5", {"temperature": 1.0}, 1.0),
    ],
)
def test_several_answers_are_asked_of_a_model_as_it_takes_them(
    model: str, options: dict[str, Any], heat: float | None
) -> None:
    """unit: of one that refuses another temperature than its own, without."""
    options = {**options, **({"reasoning": True} if "reasoning_effort" in options else {})}
    with _fake("a", model=model, **options) as lm:
        assert dspex.majority(SIG, n=2, lm=lm)(question="q").answer == "a"
        assert [request.body.get("temperature") for request in lm.requests] == [heat, heat]


def test_the_embedded_model_has_a_limit() -> None:
    """unit: else one request may write until its context is full; what is given stays."""
    assert dspex.LM("local/smollm2").options()["max_tokens"] == 1000
    assert dspex.LM("local/smollm2", max_tokens=5).max_tokens == 5
    assert dspex.LM("local/smollm2").replace(max_tokens=None).max_tokens == 1000
    assert dspex.LM("openai/gpt-4o-mini").max_tokens is None


# -- models that only DSPy reaches --


def test_a_direct_lm_may_be_of_any_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: with options that only DSPy knows; its secrets are shown nowhere."""
    monkeypatch.setenv("BEDROCK_API_KEY", "of-the-environment")
    secrets = {"aws_secret_access_key": "very-secret-indeed", "aws_region_name": "eu-west-1"}
    lm = dspex.LM("bedrock/anthropic.claude", direct=True, temperature=0.1, **secrets)  # type: ignore[call-arg]
    assert (lm.native, lm.api_key, dict(lm.direct_options)) == (False, "of-the-environment", secrets)
    assert "very-secret-indeed" in lm.secrets and "eu-west-1" not in lm.secrets
    assert "secret" not in repr(lm) and "very" not in str(lm.to_wire())
    assert lm.replace(temperature=0.2).direct_options == lm.direct_options
    assert lm != lm.replace(aws_secret_access_key="another")  # type: ignore[call-arg]
    assert dspex.explain("predict", SIG, lm=lm).implementation == "python"


def test_without_direct_the_error_says_so() -> None:
    """unit"""
    with pytest.raises(UnknownName, match="direct=True"):
        dspex.LM("bedrock/x")
    with pytest.raises(UnknownName, match="temperature"):
        dspex.LM("openai/x", temprature=1)  # type: ignore[call-arg]
    with pytest.raises(LMConfigurationError):
        dspex.LM("bedrock/x", direct=True, api_base="http://user:pass@host/")
    with pytest.raises((SettingsError, InvalidInput)):
        dspex.LM("bedrock/", direct=True)
