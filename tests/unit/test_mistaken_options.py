"""Options that cannot be are refused when a thing is made, by an error of ours that says what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, SettingsError, UnknownName

SIG = "q -> a"
ROWS = [{"q": "x", "a": "y"}]


def reward(inputs: Any, prediction: Any) -> float:
    return 1.0


def check(inputs: Any, prediction: Any) -> bool:
    return True


def search(query: str, k: int) -> list[str]:
    return []


def predictor(**options: Any) -> Any:
    return dspex.predictor("predict", SIG, **options)


NEAR: list[tuple[Callable[[], Any], str]] = [
    (lambda: predictor(tmeout=3), "timeout"),
    (lambda: predictor(adapter="jsn"), "json"),
    (lambda: predictor(temperatur=1), "temperature"),
    (lambda: dspex.predictor("predikt", SIG), "predict"),
    (lambda: dspex.predictor("best_of_n", SIG, reward_fn=reward, n=3), "N"),
    (lambda: dspex.best_of_n(SIG, reward_fn=reward, tmeout=3), "timeout"),  # type: ignore[call-arg]
    (lambda: dspex.majority(SIG, N=3), "n"),  # type: ignore[call-arg]
    (lambda: dspex.react(SIG, [], max_iterz=3), "max_iters"),  # type: ignore[call-arg]
    (lambda: dspex.refine(SIG, reward_fn=reward, module="chain_of_thougt"), "chain_of_thought"),
    (lambda: dspex.refine(SIG, reward_fn=reward, module={"options": {"temperatur": 1}}), "temperature"),
    (lambda: dspex.rag(search, SIG, contxt="c"), "context"),  # type: ignore[call-arg]
    (lambda: dspex.explain("predict", SIG, tmeout=3), "timeout"),
    (lambda: dspex.predict(SIG, {"q": "x"}, tmeout=3), "timeout"),  # type: ignore[call-arg]
    (lambda: dspex.predict_stream(SIG, {"q": "x"}, tmeout=3), "timeout"),  # type: ignore[call-arg]
    (lambda: predictor().using(timeot=3), "timeout"),
    (lambda: dspex.optimize(SIG, ROWS, optimizer="mipro2"), "miprov2"),  # type: ignore[arg-type]
    (lambda: dspex.optimize(SIG, ROWS, num_candidate=2), "num_candidates"),  # type: ignore[call-arg]
    (lambda: dspex.LM("openai/x", temprature=1), "temperature"),  # type: ignore[call-arg]
    (lambda: dspex.PoolConfig("dspy", sise=3), "size"),  # type: ignore[call-arg]
    (lambda: dspex.native(SIG, tmeout=3), "timeout"),
    (lambda: dspex.python("dspy.Predict", signature=SIG, tmeout=3), "timeout"),
    (lambda: dspex.python("dspy.ColBERTv2", urll="http://x"), "url"),
    (lambda: dspex.python("dspy.MIPROv2", signature=SIG, trainset=ROWS, metric="f1", num_trial=1), "num_trials"),
    (lambda: dspex.pipeline([predictor()]).map([{"q": "x"}], tmeout=3), "timeout"),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("make", "near"), NEAR)
def test_an_unknown_name_is_refused_at_once_with_the_near_one(make: Callable[[], Any], near: str) -> None:
    """unit"""
    with pytest.raises(UnknownName) as caught:
        make()
    assert near in caught.value.near


MISTYPED: dict[str, list[Any]] = {
    "timeout": ["3s", True, -1, float("nan")],
    "implementation": ["pyton", 5],
    "demos": [5, "x", {"q": "x"}, ["x"]],
    "config": [5, "x"],
    "rollout_id": ["x", -1, 1.5],
    "lm": [5, []],
    "supervisor": ["dspex.toml", 5],
    "use_native_function_calling": ["no", 1],
    "idempotent": ["yes", 1],
    "allow_markers": ["no"],
    "tools": [5, [5], "x"],
    "temperature": ["hot"],
    "n": ["x", 0],
    "stop": [5],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in MISTYPED.items() for value in values])
def test_a_mistyped_value_is_refused_when_the_program_is_made(key: str, value: Any) -> None:
    """unit: and the message names the option"""
    with pytest.raises((SettingsError, InvalidInput), match=rf"^(An LM|A tool|{key})\b"):
        dspex.predictor("predict", SIG, **{key: value})


def test_a_timeout_says_what_to_write() -> None:
    """unit"""
    with pytest.raises(SettingsError, match="a number of seconds, such as 3"):
        predictor(timeout="3s")
    with pytest.raises(SettingsError, match="Did you mean 'python'"):
        predictor(implementation="pyton")


OTHERS: list[Callable[[], Any]] = [
    lambda: dspex.predict(SIG, 5),  # type: ignore[arg-type]
    lambda: dspex.best_of_n(SIG, reward_fn=reward, N="3"),  # type: ignore[arg-type]
    lambda: dspex.best_of_n(SIG, reward_fn=reward, threshold="x"),  # type: ignore[arg-type]
    lambda: dspex.majority(predictor(), tools=[search]),
    lambda: dspex.majority(SIG, normalize=5),  # type: ignore[arg-type]
    lambda: dspex.assertions(SIG, 5),  # type: ignore[arg-type]
    lambda: dspex.assertions(SIG, [check], on_failure="retrun"),  # type: ignore[arg-type]
    lambda: dspex.rag(search, SIG, k="x"),  # type: ignore[arg-type]
    lambda: dspex.rag(search, SIG, context=5),  # type: ignore[arg-type]
    lambda: dspex.optimize(SIG, ROWS, metric="f1", timeout="3s"),  # type: ignore[arg-type]
    lambda: dspex.evaluate(5, ROWS, "f1"),
    lambda: dspex.evaluate(SIG, 5, "f1"),  # type: ignore[arg-type]
    lambda: dspex.evaluate(SIG, [], "f1"),
    lambda: dspex.evaluate(SIG, [5], "f1"),
    lambda: dspex.evaluate(SIG, ROWS, "f1", timeout="3s"),  # type: ignore[arg-type]
    lambda: dspex.evaluate(SIG, ROWS, "f1", num_threads=0),
    lambda: dspex.evaluate(SIG, ROWS, "f1", max_errors=-1),
    lambda: dspex.evaluate(SIG, ROWS, "f1", inputs="question"),
    lambda: dspex.evaluate(SIG, ROWS, None),  # type: ignore[arg-type]
    lambda: dspex.evaluate(SIG, ROWS, ""),
    lambda: dspex.evaluate(SIG, ROWS, "f1", supervisor="x"),  # type: ignore[arg-type]
    lambda: dspex.evaluate(lambda **inputs: "x", ROWS, "f1"),
    lambda: dspex.load(5),  # type: ignore[arg-type]
    lambda: dspex.map(5, []),  # type: ignore[arg-type]
    lambda: dspex.map(predictor(), 5),  # type: ignore[arg-type]
    lambda: dspex.map(predictor(), [], max_in_flight=0),
    lambda: dspex.amap(predictor(), 5),  # type: ignore[call-overload]
    lambda: dspex.configure(config=5),  # type: ignore[arg-type]
    lambda: dspex.configure(supervisor="x"),  # type: ignore[arg-type]
    lambda: dspex.LM("openai/x", seed="x"),  # type: ignore[arg-type]
    lambda: dspex.LM("openai/x", headers=5),  # type: ignore[arg-type]
    lambda: dspex.LM("openai/x", fallbacks="openai/y"),  # type: ignore[arg-type]
    lambda: dspex.LM("openai/x", api_base=5),  # type: ignore[arg-type]
    lambda: dspex.Supervisor(5),  # type: ignore[arg-type]
    lambda: dspex.Supervisor(pools=5),  # type: ignore[arg-type]
    lambda: dspex.Supervisor(pools=["dspy"]),  # type: ignore[list-item]
    lambda: dspex.native(lambda q: q, keep=5),  # type: ignore[arg-type]
    lambda: dspex.parallel(5),  # type: ignore[arg-type]
    lambda: dspex.map_each(5, predictor(), into="x"),  # type: ignore[arg-type]
    lambda: dspex.command(5, "ping"),  # type: ignore[arg-type]
    lambda: dspex.python("dspy.MIPROv2", signature=SIG, trainset=5, metric="f1"),
    lambda: dspex.python("dspy.MIPROv2", signature=SIG, trainset=ROWS, metric=5),
    lambda: dspex.python("dspy.Predict", signature=SIG, demos=5),  # type: ignore[arg-type]
    lambda: dspex.pipeline([predictor()]).map([], timeout="3s"),  # type: ignore[arg-type]
    lambda: dspex.majority_of(5),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("make", OTHERS)
def test_what_cannot_be_is_no_bare_type_error(make: Callable[[], Any]) -> None:
    """unit"""
    with pytest.raises((SettingsError, InvalidInput)):
        make()


def test_a_user_module_takes_what_it_likes() -> None:
    """unit: only its worker knows the constructor"""
    assert dspex.predictor("mine:Careful", SIG, rounds=2, N="many").options == {"rounds": 2, "N": "many"}


def test_a_program_keeps_its_options_where_a_strategy_over_it_names_none() -> None:
    """unit"""
    inner = predictor(timeout=3, implementation="native")
    over = dspex.majority(inner, adapter="json")
    assert (over.timeout, over.implementation, over.adapter) == (3, "native", "json")


@pytest.mark.parametrize("config", [{"temprature": 0.3}, {"max_token": 5}, {"top_pp": 0.1}, {"Temperature": 1}])
def test_a_misspelt_option_of_config_is_found_when_the_program_is_made(config: Any) -> None:
    """unit: with the nearest name; what is like none may be a provider's own."""
    (name,) = config
    for make in (lambda: predictor(config=config), lambda: predictor().using(config=config)):
        with pytest.raises(UnknownName) as refused:
            make()
        assert refused.value.name == name and refused.value.near
    assert predictor(config={"min_p": 0.1, "max_new_tokens": 3}).config["min_p"] == 0.1


@pytest.mark.parametrize("config", [{"temperature": "x"}, {"max_tokens": 1.5}, {"stop": 5}, {"top_p": True}])
def test_an_impossible_value_in_config_is_found_when_the_program_is_made(config: Any) -> None:
    """unit: it was a TypeError of a comparison, at the first call."""
    with pytest.raises(SettingsError) as refused:
        predictor(config=config)
    assert refused.value.key in config


def test_a_misspelt_keyword_of_optimize_is_told_the_right_one() -> None:
    """unit: also where it is none of the optimizer's."""
    with pytest.raises(UnknownName, match="Did you mean 'optimizer'"):
        dspex.optimize(SIG, ROWS, optimiser="bootstrap", metric="f1")  # type: ignore[call-arg]
