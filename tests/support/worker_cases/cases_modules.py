"""Programs from specs: the registry, options, tools, rewards and state."""

from __future__ import annotations

import json
from typing import Any

import dspy

from dspex_worker.bridge import Failure
from dspex_worker.programs.code.user_imports import UserImports
from dspex_worker.programs.modules import module_builder, module_state
from tests.support.worker_cases.parent import RECORD, chat, fails_with, parent, programs, signature, spec

MINE = UserImports.of(["tests.support.user_code"])
TOOLS = [
    {
        "id": "set-1",
        "name": "search",
        "desc": "Search the web.",
        "args": {"query": {"type": "string"}, "k": {"type": "integer", "default": 3}},
    }
]


def test_names_outside_the_registry_are_refused() -> None:
    """unit: no attribute walk, no underscore, no interpreter, no DSPy class by way of the user's module (X1)."""
    names = (
        *("dspy._vendor.lm15.auth.os", "dspy.PythonInterpreter", "dspy.LocalInterpreter", "dspy.ProgramOfThought"),
        *("dspy.CodeAct", "dspy.RLM", "dspy.load", "dspy.LM", "dspy.Predict.__init__", "os.system", "subprocess.run"),
        *(
            "tests.support.user_code:os.system",
            "tests.support.user_code:ProgramOfThought",
            "tests.support.user_code:_hidden",
            "subprocess:Popen",
        ),
        *(
            "tests.support.user_code:Counting.__init__",
            "tests.support.user_code:",
            "",
            "Predict",
            "dspy.predict.predict.Predict",
        ),
    )
    for name in names:
        with fails_with("UnknownName") as caught:
            module_builder.build(spec(name), MINE)
        assert caught[0].facts["name"] == name and caught[0].facts["known"]
    with fails_with("InvalidInput"):
        module_builder.build(spec("tests.support.user_code:Mood"), MINE)


def test_options_are_plain_data_checked_against_the_constructor() -> None:
    """unit: unknown options, code in disguise, and options that would move the LM's endpoint."""
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("dspy.ReAct", {"max_iter": 3}, "UnknownName"),
        ("dspy.ReAct", {"tools": []}, "UnknownName"),
        ("dspy.Predict", {"callbacks": []}, "UnknownName"),
        ("dspy.ChainOfThought", {"rationale_field": "x"}, "UnknownName"),
        ("dspy.Predict", {"api_base": "http://evil"}, "InvalidInput"),
        ("dspy.Predict", {"model": "openai/other"}, "InvalidInput"),
        ("dspy.Predict", {"engine": "lm15"}, "InvalidInput"),
        ("dspy.Predict", {"extra_headers": {"a": "b"}}, "InvalidInput"),
        ("dspy.Predict", {"temperature": b"bytes"}, "InvalidInput"),
        ("tests.support.user_code:Counting", {"time": 3}, "UnknownName"),
    ]
    for name, options, kind in cases:
        extra = {"tools": TOOLS} if name == "dspy.ReAct" else {}
        with fails_with(kind):
            module_builder.build(spec(name, options=options, **extra), MINE)
    call = parent(chat(answer="a"))
    with fails_with("LMConfigurationError"):
        call.call(programs().run, call, spec(), {"question": "q"}, RECORD, config={"api_key": "k"})


def test_options_reach_the_request() -> None:
    """unit: Predict's options become the call's, and the call's own config wins."""
    call = parent(chat(answer="a"))
    tuned = spec(options={"temperature": 0.4, "max_tokens": 9})
    call.call(programs().run, call, tuned, {"question": "q"}, RECORD, config={"max_tokens": 11})
    assert call.bodies[0]["temperature"] == 0.4 and call.bodies[0]["max_completion_tokens"] == 11


def test_react_calls_tools_in_the_parent() -> None:
    """unit: arguments and results cross, the tool's exception becomes an observation, prompts equal local tools'."""
    steps = iter(
        [
            chat(next_thought="t", next_tool_name="search", next_tool_args='{"query": "paris"}'),
            chat(next_thought="t", next_tool_name="search", next_tool_args='{"query": "boom"}'),
            chat(next_thought="t", next_tool_name="search", next_tool_args='{"nonsense": 1}'),
            chat(next_thought="t", next_tool_name="finish", next_tool_args="{}"),
            chat(reasoning="r", answer="Paris"),
        ]
    )

    def tool(arguments: dict[str, Any]) -> Any:
        assert arguments["id"] == "set-1" and arguments["name"] == "search"
        if arguments["arguments"]["query"] == "boom":
            raise Failure("RemoteError", "no net", type="ConnectionError", message="no net")
        return {"hits": ["Paris is a city"]}

    call = parent(lambda body: next(steps), tool_call=tool)
    react = spec("dspy.ReAct", tools=TOOLS, options={"max_iters": 6})
    result = call.call(programs().run, call, react, {"question": "capital?"}, RECORD)
    trajectory = result["outputs"]["trajectory"]
    assert result["outputs"]["answer"] == "Paris" and result["outputs"]["reasoning"] == "r"
    assert trajectory["observation_0"] == {"hits": ["Paris is a city"]}
    assert "ConnectionError: no net" in trajectory["observation_1"]
    assert "nonsense is not in the tool's args" in trajectory["observation_2"]
    assert trajectory["observation_3"] == "Completed." and len(call.asked) == 2

    def search(query: str, k: int = 3) -> Any:
        """Search the web."""

    local = dspy.ReAct("question -> answer", tools=[search], max_iters=6)
    ours = module_builder.build(react, MINE)
    assert ours.react.signature.instructions == local.react.signature.instructions
    system = dspy.ChatAdapter().format_system_message
    assert system(ours.react.signature) == system(local.react.signature)
    native = [tool.format_as_litellm_function_call() for tool in (ours.tools["search"], local.tools["search"])]
    assert native[0] == native[1]


def test_best_of_n_keeps_the_best_and_tells_rollouts_apart() -> None:
    """unit: rewards by import and in the parent; rollout ids reach the parent; the shared program stays as built."""
    texts = iter([chat(answer="long one"), chat(answer="ok"), chat(answer="never")])
    call = parent(lambda body: next(texts))
    options = {
        "N": 3,
        "threshold": 1.0,
        "reward_fn": {"import": "tests.support.user_code:is_short"},
        "module": "dspy.Predict",
    }
    best = spec("dspy.BestOfN", options=options)
    assert call.call(programs().run, call, best, {"question": "q"}, RECORD)["outputs"] == {"answer": "ok"}
    assert [request["rollout_id"] for request in call.requests] == [0, 1]
    assert [body["temperature"] for body in call.bodies] == [1.0, 1.0]

    rewards = iter([0.1, 0.9, 0.5])
    call = parent(lambda body: chat(answer=str(len(call.requests))), metric_call=lambda sent: next(rewards))
    best["options"] = options | {"reward_fn": {"parent": "m1"}, "threshold": 2.0}
    assert call.call(programs().run, call, best, {"question": "q"}, RECORD)["outputs"] == {"answer": "2"}
    assert call.asked[0][1]["example"] == {"question": "q"} and call.asked[0][1]["prediction"] == {"answer": "1"}


def test_best_of_n_that_only_failed_reports_the_lms_error() -> None:
    """unit: DSPy prints the attempts' errors and gives None; the caller gets the last error instead."""
    call = parent(lambda body: (500, {"error": {"message": "down"}}, []))
    best = spec("dspy.BestOfN", options={"N": 1, "threshold": 1.0, "reward_fn": {"name": "exact_match"}})
    for _ in range(3):  # failures are counted on the module: a shared one would run out of them
        with fails_with("LMServerError"):
            call.call(programs().run, call, best, {"question": "q"}, RECORD)


def test_refine_shows_the_rewards_own_source() -> None:
    """unit: advice is asked for with the user's reward function, and the hint reaches the next attempt."""
    answers = iter(
        [
            chat(answer="much too long"),
            chat(discussion="d", advice='{"self": "be short"}'),
            chat(answer="ok"),
        ]
    )
    call = parent(lambda body: next(answers))
    reward = {"import": "tests.support.user_code:is_short"}
    refine = spec("dspy.Refine", options={"N": 2, "threshold": 1.0, "reward_fn": reward})
    assert call.call(programs().run, call, refine, {"question": "q"}, RECORD)["outputs"] == {"answer": "ok"}
    assert "def is_short" in call.bodies[1]["messages"][-1]["content"]
    assert "be short" in call.bodies[2]["messages"][-1]["content"]


def test_multi_chain_comparison_takes_completions() -> None:
    """unit: a module whose call takes more than its signature's inputs."""
    call = parent(chat(rationale="r", answer="b"))
    chains = [{"reasoning": f"r{number}", "answer": str(number)} for number in range(3)]
    inputs = {"completions": chains, "question": "q"}
    result = call.call(programs().run, call, spec("dspy.MultiChainComparison"), inputs, RECORD)
    assert result["outputs"]["answer"] == "b" and "«I'm trying to r2" in call.bodies[0]["messages"][-1]["content"]


def test_users_modules_are_shared_as_dspy_shares_them_unless_they_are_isolated() -> None:
    """unit: one instance by digest; with `isolate` each call gets one of its own."""
    call = parent(chat(answer="a"))
    counting = spec("tests.support.user_code:Counting", options={"times": 1})
    for seen in (1, 2):
        assert call.call(programs().run, call, counting, {"question": "q"}, RECORD)["outputs"]["seen"] == seen
    isolated = counting | {"isolate": True}
    for _ in range(2):
        assert call.call(programs().run, call, isolated, {"question": "q"}, RECORD)["outputs"]["seen"] == 1
    call.call(programs().run, call, counting, {"question": "q"}, RECORD, None, {"temperature": 0.3}, 5)
    assert call.bodies[-1]["temperature"] == 0.3 and call.requests[-1]["rollout_id"] == 5  # by way of its LM
    got = [programs().modules.get(spec(), MINE).program for _ in range(2)]
    assert got[0] is got[1]


def _optimized(module: str = "dspy.ChainOfThought") -> tuple[dict[str, Any], dict[str, Any]]:
    """A spec, and the state of its program with other instructions and a demonstration."""
    program = module_builder.build(spec(module), MINE)
    for predictor in program.predictors():
        predictor.signature = predictor.signature.with_instructions("Be brief.")
        predictor.demos = [dspy.Example(question="1+1", reasoning="sum", answer="2", augmented=True)]
    return spec(module), module_state.dump_state(program)


def test_state_survives_the_round_trip() -> None:
    """parity: dumped, sent as JSON, loaded: the same prompt, and DSPy itself loads the same state."""
    for module in ("dspy.Predict", "dspy.ChainOfThought", "tests.support.user_code:Counting"):
        described, state = _optimized(module)
        state = json.loads(json.dumps(state))
        loaded = module_builder.build(described | {"state": state}, MINE)
        assert module_state.dump_state(loaded) == state
        plain = module_builder.build(described, MINE)
        plain.load_state(json.loads(json.dumps(state)))
        assert module_state.dump_state(plain) == state
        call = parent(chat(reasoning="r", answer="a"))
        shown = call.call(programs().render, call, described | {"state": state}, {"question": "q"})["messages"]
        assert "Be brief." in shown[0]["content"] and shown[1]["content"].startswith("[[ ## question ## ]]\n1+1")
        assert not call.requests


def test_states_of_other_programs_are_refused() -> None:
    """unit: DSPy pairs fields by position and would load them."""
    described, state = _optimized()
    wrong: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (spec("dspy.Predict"), state),
        (spec("dspy.ChainOfThought", signature("query")), state),
        (spec("dspy.ChainOfThought", signature("question; context")), state),
        (described, {"predict": {"demos": []}}),
        (described, {}),
    ]
    for one, other in wrong:
        with fails_with("InvalidInput"):
            module_builder.build(one | {"state": other}, MINE)


def test_state_brings_no_lm_and_no_attributes() -> None:
    """unit: DSPy's own LM is left out, any other key is refused by its path (X4, I7)."""
    lm = {"model": "openai/x", "api_base": "http://evil/v1", "api_key": "k"}
    sneaky = {"config": {"temperature": 2}, "forward": "x", "callbacks": [], "stage": "s", "api_base": "http://evil"}
    for module in ("dspy.Predict", "dspy.ChainOfThought", "tests.support.user_code:Counting"):
        described, state = _optimized(module)
        part = state if module == "dspy.Predict" else next(iter(state.values()))
        part |= {"lm": lm, "traces": [[1]], "train": [{"a": 1}]}
        loaded = module_builder.build(described | {"state": state | {"metadata": {}}}, MINE)
        predictor = loaded.predictors()[0]
        assert predictor.lm is None and predictor.config == {} and predictor.traces == predictor.train == []
        for key, value in sneaky.items():
            part[key] = value
            with fails_with("InvalidInput") as caught:
                module_builder.build(described | {"state": state}, MINE)
            assert key in caught[0].message and "evil" not in caught[0].message
            del part[key]


def test_parts_that_are_no_predictors_take_only_what_they_dump() -> None:
    """unit: DSPy's Retrieve would take any key for its attribute."""
    described, state = (
        spec("tests.support.user_code:Fetching"),
        module_state.dump_state(module_builder.build(spec("tests.support.user_code:Fetching"), MINE)),
    )
    assert module_builder.build(described | {"state": state}, MINE).fetch.k == 3
    for key in ("forward", "headers"):
        with fails_with("InvalidInput") as caught:
            module_builder.build(described | {"state": {**state, "fetch": {"k": 3, key: "x"}}}, MINE)
        assert key in caught[0].message


def test_a_predictor_in_another_form_hides_nothing() -> None:
    """unit: neither a stray attribute nor an LM gets by because the rest of the part is odd."""
    described, state = _optimized()
    odd = {"demos": {}, "signature": {"fields": state["predict"]["signature"]["fields"]}}
    for more in ({"forward": "x"}, {"lm": {"model": "openai/x", "api_base": "http://evil/v1"}}):
        with fails_with("InvalidInput"):
            module_builder.build(described | {"state": {"predict": odd | more}}, MINE)


def test_damaged_states_are_refused() -> None:
    """unit: instead of an error from within DSPy."""
    described, state = _optimized("dspy.Predict")
    for damaged in (
        {**state, "demos": [3]},
        {**state, "signature": {**state["signature"], "instructions": 3}},
        {**state, "signature": {**state["signature"], "fields": [{"prefix": "Question:"}, {"prefix": "Answer:"}]}},
    ):
        with fails_with("InvalidInput"):
            module_builder.build(described | {"state": damaged}, MINE)


def test_render_equals_what_run_sends() -> None:
    """parity: the messages of render are those of the request."""
    for adapter in ("chat", "json", "xml", "two_step"):
        call = parent("x")
        shown = call.call(programs().render, call, spec("dspy.ChainOfThought"), {"question": "q"}, adapter, RECORD)
        assert not call.requests
        try:
            call.call(programs().run, call, spec("dspy.ChainOfThought"), {"question": "q"}, RECORD, adapter)
        except Failure as failure:
            assert failure.kind == "AdapterParseError"
        assert call.bodies[0]["messages"] == shown["messages"], adapter


def test_no_lm_is_said_before_dspy_says_it() -> None:
    """unit: a call without an LM record."""
    call = parent("x")
    with fails_with("SettingsError") as caught:
        call.call(programs().run, call, spec(), {"question": "q"})
    assert "LM" in caught[0].message


def test_inputs_that_dspy_would_take_for_itself_are_refused() -> None:
    """unit: `config` and its like never reach the field of that name in DSPy; nothing is sent."""
    call = parent("x")
    with fails_with("InvalidInput") as caught:
        call.call(programs().run, call, spec(), {"question": "q", "config": {"n": 2}}, RECORD)
    assert "'config'" in caught[0].message and not call.requests


def test_unknown_adapters_are_refused() -> None:
    """unit: UnknownName with the names there are."""
    call = parent("x")
    with fails_with("UnknownName") as caught:
        call.call(programs().run, call, spec(), {"question": "q"}, RECORD, "yaml")
    assert caught[0].facts["known"] == ["baml", "chat", "json", "two_step", "xml"]


def test_describe_lists_what_the_worker_answers_to() -> None:
    """unit: versions that decide about parity, and every registered name."""
    found = programs().describe(None)
    assert found["versions"]["dspy"] == dspy.__version__ and found["versions"]["python"].startswith("3.")
    assert "dspy.ReAct" in found["modules"] and "tests.support.user_code:..." in found["modules"]
    assert "miprov2" in found["optimizers"] and "exact_match" in found["metrics"]
    assert "dspy.ColBERTv2" in found["retrievers"]
    json.dumps(found)
