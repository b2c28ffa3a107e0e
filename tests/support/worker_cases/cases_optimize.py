"""Optimizers, end to end, on an LM whose answers are a function of the prompt."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import dspy

from dspex_worker.bridge import Cancelled
from dspex_worker.failure import Failure
from dspex_worker.programs.calls.call_context import CallUsage
from dspex_worker.programs.code.user_imports import UserImports
from dspex_worker.programs.modules import module_builder
from dspex_worker.programs.optimizers import known_optimizers
from dspex_worker.programs.optimizing.optimization import optimize
from dspex_worker.programs.optimizing.progress import Progress, ProgressQueue
from tests.support.worker_cases.parent import RECORD, Parent, chat, fails_with, parent, programs, signature, spec

GOOD = "Answer with the doubled number only."
ROWS = [{"question": f"double {number}", "answer": str(2 * number)} for number in range(20)]


def doubling(body: dict[str, Any]) -> Any:
    """Doubles rightly once the instructions say so or an example shows it; proposes the good instruction by itself."""
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    if "Your output fields are:" not in system:  # GEPA asks for instructions in a prompt of its own
        return f"```\n{GOOD}\n```"
    outputs = system.split("Your output fields are:")[1].split("All interactions")[0]
    fields = re.findall(r"^\d+\. `(\w+)`", outputs, re.MULTILINE)
    number = re.search(r"double (\d+)", last)
    knows = GOOD in system or len(body["messages"]) > 4
    answers = {"answer": str(2 * int(number[1])) if number and knows else "no idea", "proposed_instruction": GOOD}
    answers |= {
        "module_names": "[]",
        "advice": "{}",
        "natural_language_rules": GOOD,
        "proposed_prefix_for_output_field": "A:",
    }
    given = {name: answers.get(name, GOOD) for name in fields}
    return json.dumps(given) if "Outputs will be a JSON object" in system else chat(**given)


def optimized(
    optimizer: str,
    options: dict[str, Any],
    answer: Callable[[dict[str, Any]], Any] = doubling,
    metric: dict[str, Any] | None = None,
    call: Parent | None = None,
    **extra: Any,
) -> tuple[Parent, list[dict[str, Any]], dict[str, Any]]:
    call = call or parent(answer)
    arguments: dict[str, Any] = {"trainset": ROWS, "inputs": ["question"], "options": options, "lm": RECORD} | extra
    chunks, value = call.call(
        optimize, programs(), call, spec(), optimizer=optimizer, metric=metric or {"name": "exact_match"}, **arguments
    )
    return call, chunks, value


def _answers_with(state: dict[str, Any]) -> str:
    call = parent(doubling)
    found = call.call(programs().run, call, spec() | {"state": state}, {"question": "double 21"}, RECORD)
    return str(found["outputs"]["answer"])


MIPRO = {"num_candidates": 3, "num_trials": 4, "minibatch": False, "max_bootstrapped_demos": 1, "num_threads": 2}


def test_miprov2_raises_the_score_and_gives_a_state_that_serves() -> None:
    """unit: baseline and best on the same examples, progress, trials, and the program runs from its state."""
    call, chunks, value = optimized("miprov2", MIPRO)
    assert (value["baseline_score"], value["score"]) == (0.0, 100.0)
    assert value["errors"] == {"metric": 0, "lm": 0} and value["versions"]["optuna"]
    stages = [chunk["stage"] for chunk in chunks]
    assert stages.index("baseline") < stages.index("bootstrap") < stages.index("search") < stages.index("score")
    assert value["trials"] and max(trial["score"] for trial in value["trials"]) == 100.0
    assert chunks[-1]["best"] == 100.0 and any(chunk["trials"] for chunk in chunks)
    json.dumps(value)
    assert _answers_with(value["state"]) == "42"
    assert all(request["lm"] == "r1" for request in call.requests)


def test_stages_and_trials_are_told_however_slowly_they_are_fetched() -> None:
    """unit: of plain ticks only the newest is kept; a stage without ticks is told nevertheless."""
    latest = ProgressQueue()
    progress = Progress(parent(doubling), CallUsage(), latest.put)  # type: ignore[arg-type]
    for stage in ("baseline", "bootstrap", "propose", "search"):
        progress.enter(stage)
    progress.evaluated({"kind": "full", "score": 50.0, "examples": 4})
    metric = progress.counted(lambda *_: 1.0)
    for _ in range(3):
        metric({}, {})
    told = []
    while (event := latest.take(0.0)) is not None:
        told.append((event["stage"], event["trial"], event["examples"]))
    assert told == [
        ("baseline", 0, 0),
        ("bootstrap", 0, 0),
        ("propose", 0, 0),
        ("search", 0, 0),
        ("search", 1, 0),
        ("search", 1, 3),
    ]


def test_miprov2_is_deterministic_for_a_seed() -> None:
    """unit: two runs give the same state and the same trials."""
    first, second = optimized("miprov2", MIPRO | {"seed": 3})[2], optimized("miprov2", MIPRO | {"seed": 3})[2]
    assert first == second


def test_minibatches_are_trials_of_their_own_kind() -> None:
    """unit: a minibatch's score is never the best; its size is cut to the examples there are."""
    options = MIPRO | {"minibatch": True, "minibatch_size": 8, "minibatch_full_eval_steps": 2}
    _, _, value = optimized("miprov2", options)
    kinds = {trial["kind"] for trial in value["trials"]}
    assert kinds == {"full", "minibatch"} and value["score"] == 100.0
    assert {trial["examples"] for trial in value["trials"] if trial["kind"] == "minibatch"} == {8}
    optimized("miprov2", MIPRO | {"minibatch": True, "minibatch_size": 500})


def test_auto_and_candidates_do_not_exclude_each_other_by_accident() -> None:
    """unit: num_candidates alone means auto=None with trials to match."""
    _, _, value = optimized("miprov2", {"num_candidates": 3, "max_bootstrapped_demos": 1, "num_threads": 2})
    assert value["score"] == 100.0


def test_prompt_lm_makes_the_proposals() -> None:
    """unit: two records, two kinds of requests."""
    call, _, _ = optimized("miprov2", MIPRO, prompt_lm=RECORD | {"ref": "writer", "model": "openai/writer"})
    by_lm = {ref: [one for one in call.requests if one["lm"] == ref] for ref in ("r1", "writer")}
    assert all(
        b"proposed_instruction" in one["body"]
        or b"observations" in one["body"]
        or b"summary" in one["body"]
        or b"description" in one["body"]
        for one in by_lm["writer"]
    )
    assert by_lm["writer"] and not any(b"`proposed_instruction`" in one["body"] for one in by_lm["r1"])


def test_other_optimizers_run_and_their_states_load() -> None:
    """unit: every name that is offered, on the same task."""
    jobs: dict[str, dict[str, Any]] = {
        "bootstrap": {"max_bootstrapped_demos": 2, "max_labeled_demos": 2},
        "random_search": {"num_candidate_programs": 2, "max_labeled_demos": 2, "num_threads": 2},
        "labeled": {"k": 3},
        "copro": {"breadth": 2, "depth": 1, "num_threads": 2},
        "simba": {"bsize": 4, "num_candidates": 2, "max_steps": 1, "num_threads": 2},
        "infer_rules": {"num_candidates": 1, "num_rules": 1, "num_threads": 2},
        "gepa": {"max_metric_calls": 40, "num_threads": 2},
        "optuna": {"num_candidate_programs": 2, "num_threads": 2},
        "better_together": {"optimizers": {"p": {"optimizer": "copro", "breadth": 2, "depth": 1}}},
    }
    assert jobs.keys() | {"miprov2"} == set(known_optimizers.NAMES)
    for name, options in jobs.items():
        _, _, value = optimized(name, options, valset=ROWS[10:])
        assert value["score"] >= value["baseline_score"], name
        assert module_builder.build(spec() | {"state": value["state"]}, UserImports()), name
        if name not in ("simba", "optuna"):  # of few demonstrations each
            assert value["score"] == 100.0 and _answers_with(value["state"]) == "42", (name, value["score"])


def test_a_metric_that_only_fails_fails_the_job_early() -> None:
    """unit: MIPROv2 itself would end with score 0.0 after paying for everything; here the baseline tells."""
    call = parent(doubling)
    with fails_with("OptimizationFailed") as caught:
        optimized("miprov2", MIPRO, metric={"import": "tests.support.user_code:raising"}, call=call)
    assert caught[0].facts["metric_errors"] == 16 and "ValueError" in caught[0].message
    assert len(call.requests) == 16  # the validation part, once


def test_an_lm_that_only_fails_fails_the_job_early() -> None:
    """unit: its class is named, and nothing is proposed."""
    call = parent(lambda body: (401, {"error": {"message": "no"}}, []))
    with fails_with("OptimizationFailed") as caught:
        optimized("miprov2", MIPRO, call=call)
    assert "LMAuthError" in caught[0].message and caught[0].facts["lm_errors"] == 16


def test_an_error_of_the_job_holds_no_key() -> None:
    """unit (X3): neither the task's LM's nor the one's that proposes, as the worker has them with `direct`."""
    refused = Failure("LMAuthError", "first-key and second-key are wrong", status=401, model=RECORD["model"])
    call = parent(lambda body: refused)
    with fails_with("OptimizationFailed") as caught:
        lms = {"lm": RECORD | {"api_key": "first-key"}, "prompt_lm": RECORD | {"api_key": "second-key"}}
        optimized("bootstrap", {}, call=call, **lms)
    assert "are wrong" in caught[0].message and "-key" not in caught[0].message


def test_an_lm_that_dies_on_the_way_fails_the_job() -> None:
    """unit: the baseline was scored, then every request failed; DSPy would report success with score 0.0."""
    for max_errors in (3, 1000):  # the evaluation gives up, or goes on to the end
        options = {"num_candidate_programs": 1, "num_threads": 2, "max_errors": max_errors}
        with fails_with("OptimizationFailed") as caught:
            optimized("random_search", options, call=_dying(after=20))
        assert "LMServerError" in caught[0].message and caught[0].facts["lm_errors"] >= 3
    with fails_with("LMServerError"):  # what DSPy itself lets through keeps its class
        optimized("miprov2", MIPRO, call=_dying(after=16))


def _dying(after: int) -> Parent:
    """An LM that is down after so many requests."""
    call = parent(doubling)
    real = call.handlers["lm_request"]

    def dying(request: dict[str, Any]) -> Any:
        if len(call.requests) <= after:
            yield from real(request)
            return
        yield {"status": 500, "headers": []}
        yield b'{"error": {"message": "down"}}'

    call.handlers["lm_request"] = dying
    return call


def test_some_errors_are_counted_and_survived() -> None:
    """unit: a metric that fails now and then."""
    calls = iter(range(10**6))

    def metric_call(sent: dict[str, Any]) -> Any:
        if next(calls) % 10 == 3:
            raise ValueError("now and then")
        title, at = sent["row"]
        return title == "train" and ROWS[at]["answer"] == sent["prediction"]["answer"]

    call = parent(doubling, metric_call=metric_call)
    _, _, value = optimized(
        "random_search",
        {"num_candidate_programs": 1, "num_threads": 1, "max_errors": 1000},
        metric={"parent": 1},
        call=call,
    )
    assert value["errors"]["metric"] > 0 and value["errors"]["lm"] == 0


def test_memory_error_ends_the_job_as_itself() -> None:
    """unit: from the metric, and from deep inside a module; never a score of zero."""
    for where in ("metric", "lm"):
        call = parent(doubling)
        if where == "lm":
            real, count = call.handlers["lm_request"], iter(range(10**6))

            def hungry(request: dict[str, Any], real: Any = real, count: Any = count) -> Any:
                if next(count) == 20:
                    raise MemoryError
                return real(request)

            call.handlers["lm_request"] = hungry
        metric = {"import": "tests.support.user_code:out_of_memory"} if where == "metric" else None
        try:
            optimized("miprov2", MIPRO, metric=metric, call=call)
        except MemoryError:
            continue
        raise AssertionError(f"MemoryError in the {where} was swallowed")


def test_cancelling_stops_every_thread_and_every_request() -> None:
    """unit: at whatever moment; afterwards nothing of the job runs."""
    for after in (1, 17, 30, 45):
        call = parent(doubling)
        real = call.handlers["lm_request"]

        def watched(request: dict[str, Any], call: Parent = call, after: int = after, real: Any = real) -> Any:
            if len(call.requests) == after:
                call.cancelled.set()
            return real(request)

        call.handlers["lm_request"] = watched
        try:
            optimized("miprov2", MIPRO, call=call)
        except Cancelled:
            pass
        else:
            raise AssertionError("not cancelled")
        left = [one.name for one in threading.enumerate() if one.name != "MainThread"]
        assert not left, left
        assert len(call.requests) <= after + 2  # what was already on its way in the other thread


def test_wrong_settings_cost_nothing() -> None:
    """unit: names, options, datasets and packages are checked before the first request."""
    cases: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
        ("mipro", {}, {}, "UnknownName"),
        ("miprov2", {"trials": 3}, {}, "UnknownName"),
        ("miprov2", {"teacher_settings": {"temperature": 1}}, {}, "InvalidInput"),
        ("miprov2", {"log_dir": "/tmp/there"}, {}, "InvalidInput"),
        ("gepa", {"instruction_proposer": {"dspex.import": "os:system"}}, {}, "UnknownName"),
        ("bootstrap", {"max_rounds": [1]}, {}, "InvalidInput"),
        ("miprov2", {}, {"trainset": ROWS[:1]}, "InvalidInput"),
        ("bootstrap", {}, {"trainset": []}, "InvalidInput"),
        ("bootstrap", {}, {"inputs": ["query"]}, "InvalidInput"),
    ]
    for name, options, extra, kind in cases:
        call = parent(doubling)
        with fails_with(kind):
            optimized(name, options, call=call, **extra)
        assert not call.requests, name


def test_missing_optuna_is_found_before_anything_is_paid() -> None:
    """unit: MIPROv2 imports it after bootstrapping and proposing."""
    import importlib.util

    real = importlib.util.find_spec
    call = parent(doubling)
    importlib.util.find_spec = lambda name, *rest: None if name == "optuna" else real(name, *rest)  # type: ignore[assignment]
    try:
        with fails_with("MissingDependency") as caught:
            optimized("miprov2", MIPRO, call=call)
    finally:
        importlib.util.find_spec = real
    assert caught[0].facts == {"package": "optuna", "extra": "optimizers"} and not call.requests
    assert "dspex[optimizers]" in caught[0].message


def test_typed_programs_can_be_optimized() -> None:
    """unit: examples are given the signature's types; the state holds plain JSON."""
    described = programs().signature_of(parent(""), "tests.support.user_code:Describe")
    rows = [{"person": {"name": f"n{number}", "age": number}, "mood": "good", "score": 0.5} for number in range(6)]
    call = parent(chat(mood="good", score="0.5"))
    arguments: dict[str, Any] = {"trainset": rows, "inputs": ["person"], "options": {"max_labeled_demos": 2}}
    _, value = call.call(
        optimize,
        programs(),
        call,
        spec(sig=described),
        optimizer="bootstrap",
        metric={"name": "exact_match"},
        lm=RECORD,
        **arguments,
    )
    assert value["score"] == 100.0
    demos = json.loads(json.dumps(value["state"]))["demos"]
    assert demos and demos[0]["person"]["name"].startswith("n")
    loaded = programs().modules.make(spec(sig=described) | {"state": value["state"]}, programs().imports).program
    assert '"name": "n' in dspy.ChatAdapter().format(loaded.signature, loaded.demos, {"person": "p"})[1]["content"]
    assert signature()
