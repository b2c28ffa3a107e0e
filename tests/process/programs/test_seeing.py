"""Process: what one sees of a call, on both routes: history, trace, callbacks, prompts, endings, streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import dspex
from dspex.errors import AdapterParseError, LMRefusedError
from dspex.services.services import services_of
from dspex.testing import FakeLM
from dspex.testing.script import FakeReply
from tests.support.waiting import eventually, late

OWN = "tests.support.programs.seen_programs"
ANSWERS = {"reasoning": "because", "answer": "Paris"}
BOTH = pytest.mark.parametrize("route", ["native", "python"])


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: ANSWERS) as fake:
        yield fake


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    dspex.configure(history=False, callbacks=[])


def asked(kind: str, lm: Any, sup: dspex.Supervisor, route: Any, **options: Any) -> Any:
    return dspex.predictor(kind, "question -> answer", lm=lm, supervisor=sup, implementation=route, **options)


class Recording(dspex.BaseCallback):
    """Records its calls, as DSPy's callbacks see them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.open: dict[str, str] = {}

    def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        self.open[call_id] = instance.type
        self.seen.append(("module", (instance.type, instance.name, inputs["question"])))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.seen.append(("module ends", (self.open.pop(call_id), outputs["answer"] if outputs else type(exception))))

    def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        assert instance.parent is not None
        self.seen.append(("lm", (instance.model, [message["role"] for message in inputs["messages"]])))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.seen.append(("lm ends", "Paris" in str(outputs)))

    def on_adapter_format_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.seen.append(("formatted", len(outputs)))

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.seen.append(("parsed", outputs))


# --- history --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_program_keeps_what_it_asked_and_was_answered(lm: FakeLM, sup: dspex.Supervisor, route: str) -> None:
    """process: the messages that were sent, by call, stream and await; nothing without being asked to."""
    qa = asked("chain_of_thought", lm.lm, sup, route)
    qa(question="unseen")
    assert qa.history == ()
    seen = qa.using(history=True)
    seen(question="first")
    list(seen.stream(question="second"))
    asyncio.run(seen.acall(question="third"))
    entries = seen.history
    assert [list(entry.messages) for entry in entries] == [request.messages for request in lm.requests[1:]]
    entry = entries[0]
    assert "Paris" in entry.text and entry.outputs == [entry.text]
    assert (entry.model, entry.predictor, entry.finish_reason, entry.cached) == (
        "openai/fake",
        "predict",
        "stop",
        False,
    )
    assert entry.usage["total_tokens"] > 0 and entry.cost_usd is None and 0 < (entry.seconds or 0) < 60
    assert (entry.route, entry.worker) == (("native", "") if route == "native" else ("python:dspy/0", "dspy/0"))
    assert qa.history == ()


@BOTH
def test_the_process_keeps_it_for_all_programs_or_for_none(lm: FakeLM, sup: dspex.Supervisor, route: str) -> None:
    """process: `configure(history=N)` keeps N; a program may stay out; each sees its own."""
    dspex.configure(history=2)
    one, other = asked("predict", lm.lm, sup, route), asked("predict", lm.lm, sup, route)
    for at in range(3):
        one(question=f"q{at}")
    other(question="other")
    other.using(history=False)(question="never")
    assert ["q2" in str(entry.messages) for entry in dspex.history()] == [True, False]
    assert ["q2" in str(entry.messages) for entry in one.history] == [True]
    assert ["other" in str(entry.messages) for entry in other.history] == [True]
    dspex.configure(history=False)
    one(question="after")
    assert "after" not in str(dspex.history())


@BOTH
def test_a_block_sees_its_calls(lm: FakeLM, sup: dspex.Supervisor, route: str) -> None:
    """process: `dspex.context(history=, trace=, callbacks=)`, of the calls inside it alone."""
    qa, seen = asked("predict", lm.lm, sup, route), Recording()
    with dspex.context(history=True, trace=True, callbacks=[seen]):
        assert len(qa(question="inside").trace) == 1
    assert qa(question="outside").trace == ()
    assert ["inside" in str(entry.messages) for entry in qa.history] == [True]
    assert [facts[2] for kind, facts in seen.seen if kind == "module"] == ["inside"]
    with pytest.raises(dspex.SettingsError), dspex.context(history=3):  # type: ignore[arg-type]
        pass


@BOTH
def test_requests_that_failed_or_could_not_be_read_are_kept_too(sup: dspex.Supervisor, route: str) -> None:
    """process: one sees the prompt of an answer that no adapter can read, and of a request that was refused."""
    with FakeLM(["no field", "{}", FakeReply(status=400, error="too odd")]) as fake:
        qa = asked("predict", fake.lm, sup, route, history=True)
        with pytest.raises(AdapterParseError):
            qa(question="q")
        with pytest.raises(dspex.LMError):
            qa(question="refused")
        assert [entry.text for entry in qa.history] == ["no field", "{}", ""]
        assert "too odd" in qa.history[2].error and "refused" in str(qa.history[2].messages)


@BOTH
def test_what_was_never_answered_is_kept_too(sup: dspex.Supervisor, route: str) -> None:
    """process: a call past its time, one that is cancelled, a stream that is left; once each, with what ended it"""
    text = f"[[ ## answer ## ]]\n{'Paris ' * 20}\n\n[[ ## completed ## ]]"

    def answered(messages: Any) -> FakeReply:
        is_slow = "late" in str(messages) or "cancelled" in str(messages)
        return FakeReply(text, chunk_delay=0.05, latency=15.0 if is_slow else 0.1)

    with FakeLM(answered) as fake:
        slow = asked("predict", fake.lm, sup, route, history=True)
        slow.using(history=False)(question="starts the worker")
        late(lambda seconds: slow.using(timeout=seconds)(question="late"), lambda: slow.history)

        async def cancelled() -> None:
            before = len(fake.requests)
            task = asyncio.create_task(slow.acall(question="cancelled"))
            await asyncio.to_thread(fake.wait_for, lambda: len(fake.requests) > before)
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(cancelled())
        fake.wait_for(lambda: fake.hung_up == len(fake.requests) - 1)  # nothing can be told late
        with contextlib.closing(slow.stream(question="left")) as chunks:
            next(chunks)
        slow(question="answered")
    ends = {"late": "Timeout", "cancelled": "Cancel", "left": "GeneratorExit", "answered": ""}
    for entry, (question, error) in zip(slow.history, ends.items(), strict=True):
        assert question in str(entry.messages[-1]["content"]) and error in entry.error, entry
        assert entry.predictor and entry.model == "openai/fake" and (entry.seconds or 0) > 0.05
        assert bool(entry.text) == (not error)


@BOTH
def test_what_has_begun_ends_with_its_call(sup: dspex.Supervisor, route: str) -> None:
    """process: who opens something at the beginning sees the end of a call that is cut, the innermost first."""

    class Open(dspex.BaseCallback):
        opened: ClassVar[dict[str, str]] = {}
        ended: ClassVar[list[str]] = []

        def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            self.opened[call_id] = "module"

        def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            self.opened[call_id] = "lm"

        def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
            assert exception is not None
            self.ended.append(self.opened.pop(call_id))

        on_lm_end = on_module_end

    def answered(messages: Any) -> FakeReply:
        return FakeReply(ANSWERS, latency=15.0 if "late" in str(messages) else 0.0)

    with FakeLM(answered) as fake:
        slow = asked("predict", fake.lm, sup, route, callbacks=[callback := Open()])
        slow.using(callbacks=[])(question="starts the worker")

        def cut(seconds: float) -> None:
            callback.ended.clear()
            slow.using(timeout=seconds)(question="late")

        late(cut, lambda: eventually(lambda: not callback.opened) and "lm" in callback.ended)
        assert callback.ended == ["lm", "module"]
        fake.wait_for(lambda: fake.hung_up == len(fake.requests) - 1)
        assert not callback.opened and callback.ended == ["lm", "module"]


def test_what_a_worker_asked_before_it_died_is_kept(sup: dspex.Supervisor) -> None:
    """process: without the last lines of its stderr"""
    with FakeLM(lambda messages: ANSWERS, latency=2.0) as fake:
        dying = dspex.module(f"{OWN}:Dying", supervisor=sup, lm=fake.lm).using(history=True)
        with pytest.raises(dspex.WorkerDied):
            dying(question="the last one")
    (entry,) = dying.history
    assert "the last one" in str(entry.messages[-1]["content"]) and entry.worker == "dspy/0"
    assert entry.error.startswith("Worker") and "last words" not in entry.error


def test_an_lm_that_tells_dspy_nothing_is_kept(sup: dspex.Supervisor) -> None:
    """process: an LM class of the user's that answers by itself"""
    seen = dspex.module(f"{OWN}:OwnAnswers", supervisor=sup).using(history=True)
    assert seen(question="q").answer == "mine"
    (entry,) = seen.history
    assert "mine" in entry.text and "q" in str(entry.messages) and entry.error == ""


@BOTH
def test_no_key_is_kept(sup: dspex.Supervisor, route: str) -> None:
    """process: not where an endpoint or an input quotes it."""
    with FakeLM(lambda messages: {"answer": "you said " + str(messages[-1]["content"])[:60]}) as fake:
        key = fake.lm.api_key
        assert key
        qa = asked("predict", fake.lm, sup, route, history=True)
        qa(question=f"my key is {key}")
        assert key not in repr(qa.history)


def test_answers_from_the_cache_say_so(sup: dspex.Supervisor) -> None:
    """process"""
    with FakeLM(lambda messages: ANSWERS, cache=True) as fake:
        for route in ("native", "python"):
            qa = asked("predict", fake.lm, sup, route, history=True)
            qa(question="same")
            qa(question="same")
            last = qa.history[-1]
            assert (last.cached, dict(last.usage), last.cost_usd) == (True, {}, 0.0)


def test_an_lm_that_user_code_makes_is_kept_with_the_predictor(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process"""
    key = str(lm.lm.api_key)
    made = dspex.module(f"{OWN}:OwnLM", model=lm.model, base=lm.lm.api_base, key=key, supervisor=sup)
    seen = made.using(history=True, trace=True)
    out = seen(question="q")
    (entry,) = seen.history
    assert (entry.predictor, entry.finish_reason) == ("ask", "stop") and key not in repr(entry)
    assert [step.predictor for step in out.trace] == ["ask"]


def test_inspect_history_prints_and_returns_it(lm: FakeLM, sup: dspex.Supervisor, capsys: Any) -> None:
    """process"""
    asked("predict", lm.lm, sup, "native", history=True)(question="shown")
    text = dspex.inspect_history()
    assert capsys.readouterr().out == text
    assert "shown" in text and "Response:" in text and "Paris" in text
    with pytest.raises(dspex.InvalidInput):
        dspex.inspect_history(0)


# --- the trace ------------------------------------------------------------------------------------------------------


@BOTH
def test_a_native_module_has_a_trace_of_one_step(lm: FakeLM, sup: dspex.Supervisor, route: str) -> None:
    """process: by call, await, stream and async stream, the same on both routes; none unless it is asked for."""
    qa = asked("chain_of_thought", lm.lm, sup, route)
    assert qa(question="q").trace == ()
    traced = qa.using(trace=True)

    async def last() -> Any:
        return [item async for item in traced.astream(question="q")][-1]

    outs = [traced(question="q"), asyncio.run(traced.acall(question="q")), [*traced.stream(question="q")][-1]]
    for out in (*outs, asyncio.run(last())):
        (step,) = out.trace
        assert tuple(step) == ("predict", {"question": "q"}, ANSWERS)
        assert step.usage == out.usage and step.finish_reason == "stop" and 0 < step.seconds < 60


def test_a_module_has_a_step_for_each_call_of_a_predictor(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process: named as DSPy names them, in order, with what each used."""
    program = dspex.module(
        f"{OWN}:TwoSteps",
        supervisor=sup,
        lm=lm.lm,
    ).using(trace=True)
    out = program(question="q")
    assert [step.predictor for step in out.trace] == ["draft.predict", "final"]
    assert out.trace[1].inputs == {"question": "q", "draft": "Paris"}
    total = sum(step.usage["openai/fake"]["total_tokens"] for step in out.trace)
    assert total == out.usage["openai/fake"]["total_tokens"] > 0


def test_threads_and_tasks_of_a_module_are_in_its_trace_and_usage(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process: `dspy.Parallel` and `asyncio.gather`."""
    program = dspex.module(f"{OWN}:Parallel", supervisor=sup, lm=lm.lm).using(trace=True, history=True)
    out = program(questions=["a", "b", "c"])
    assert sorted(step.inputs["question"] for step in out.trace) == ["a", "b", "c"]
    assert {step.predictor for step in out.trace} == {"ask"}
    total = sum(step.usage["openai/fake"]["total_tokens"] for step in out.trace)
    assert out.usage["openai/fake"]["total_tokens"] == total > 0
    assert {entry.predictor for entry in program.history} == {"ask"} and len(program.history) == 3
    awaiting = dspex.module(f"{OWN}:Awaiting", supervisor=sup, lm=lm.lm).using(trace=True)
    out = asyncio.run(awaiting.acall(question="q"))
    assert {(step.predictor, step.inputs["question"]) for step in out.trace} == {
        ("left", "left q"),
        ("right", "right q"),
    }


def test_a_step_that_failed_says_why(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process"""
    out = dspex.module(f"{OWN}:Failing", supervisor=sup, lm=lm.lm).using(trace=True)(question="q")
    bad, good = out.trace
    assert (bad.predictor, bad.outputs, good.predictor, good.error) == ("bad", {}, "good", "")
    assert "AdapterParseError" in bad.error


def test_copies_that_a_module_makes_of_itself_keep_their_names(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process: BestOfN runs deep copies of what it asks."""
    best = dspex.best_of_n("question -> answer", reward_fn=lambda inputs, made: 1.0, N=2, module="chain_of_thought")
    traced = best.using(lm=lm.lm, supervisor=sup, implementation="python", trace=True)
    assert {step.predictor for step in traced(question="q").trace} == {"module.predict"}


def test_a_trace_that_is_too_large_is_cut_and_costs_no_answer(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process"""
    program = dspex.module(f"{OWN}:Parallel", supervisor=sup, lm=lm.lm).using(trace=True)
    out = program(questions=["x" * 1_500_000 + str(at) for at in range(4)])
    assert len(out.trace) == 4 and [step.is_cut for step in out.trace] == [False, False, True, True]


# --- callbacks ------------------------------------------------------------------------------------------------------


def expected(*, inner: bool) -> list[tuple[str, Any]]:
    outside = [("module", ("ChainOfThought", "", "q"))] if inner else []
    return [
        *outside,
        ("module", ("Predict", "predict" if inner else "self", "q")),
        ("formatted", 2),
        ("lm", ("openai/fake", ["system", "user"])),
        ("lm ends", True),
        ("parsed", ANSWERS if inner else {"answer": "Paris"}),
        ("module ends", ("Predict", "Paris")),
        *([("module ends", ("ChainOfThought", "Paris"))] if inner else []),
    ]


@BOTH
@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
def test_callbacks_see_the_same_on_both_routes(lm: FakeLM, sup: dspex.Supervisor, route: str, kind: str) -> None:
    """process: a program's and the process's, by call and by await."""
    own, of_process = Recording(), Recording()
    dspex.configure(callbacks=[of_process])
    qa = asked(kind, lm.lm, sup, route, callbacks=[own])
    qa(question="q")
    assert own.seen == of_process.seen == expected(inner=kind == "chain_of_thought")
    asyncio.run(qa.acall(question="q"))
    assert own.seen[len(own.seen) // 2 :] == expected(inner=kind == "chain_of_thought")


def test_tools_of_a_module_are_seen(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process"""
    seen: list[Any] = []

    class Tools(dspex.BaseCallback):
        def on_tool_start(self, call_id: str, instance: dspex.Component, inputs: dict[str, Any]) -> None:
            seen.append((instance.kind, instance.name, inputs))

        def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
            seen.append(outputs)

    program = dspex.module(f"{OWN}:Tooled", supervisor=sup, lm=lm.lm).using(callbacks=[Tools()])
    assert program(word="a").found == "A"
    assert seen == [("tool", "look", {"word": "a"}), "A"]


@BOTH
def test_callbacks_hear_of_failures_and_break_nothing(sup: dspex.Supervisor, route: str, caplog: Any) -> None:
    """process: one that raises is logged once; DSPy's own base class does."""
    import dspy

    ends: list[Any] = []

    class Raising(dspy.BaseCallback if hasattr(dspy, "BaseCallback") else dspy.utils.callback.BaseCallback):  # type: ignore[misc,name-defined]
        def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            raise RuntimeError("secret prompt")

        def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
            ends.append(exception)

    with FakeLM([{"answer": "Paris"}, FakeReply(status=400, error="no")]) as fake:
        qa = asked("predict", fake.lm, sup, route, callbacks=[Raising()])
        assert qa(question="q").answer == "Paris"
        with pytest.raises(dspex.LMError):
            qa(question="q")
    assert ends[0] is None and ends[1] is not None
    logged = [record.getMessage() for record in caplog.records if "Raising.on_lm_start" in record.getMessage()]
    assert len(logged) <= 1 and "secret prompt" not in caplog.text


@pytest.mark.parametrize("given", ["on_lm_end", [Recording], [object()], 3])
def test_what_is_no_callback_is_refused(given: Any) -> None:
    """contract"""
    with pytest.raises(dspex.SettingsError, match="callbacks"):
        dspex.predictor("predict", "question -> answer", callbacks=given)
    with pytest.raises(dspex.SettingsError, match="history"):
        dspex.configure(history=-1)


# --- rendering ------------------------------------------------------------------------------------------------------


@BOTH
def test_render_gives_the_messages_that_would_be_sent(lm: FakeLM, sup: dspex.Supervisor, route: str) -> None:
    """process: nothing is sent."""
    demos = [{"question": "1+1", "answer": "2"}]
    qa = asked("chain_of_thought", lm.lm, sup, route, demos=demos, adapter="json")
    rendered = qa.render(question="q")
    assert lm.requests == [] and asyncio.run(qa.arender(question="q")) == rendered
    qa(question="q")
    assert lm.requests[0].messages == rendered


def look_up(word: str) -> str:
    """Look a word up."""
    raise AssertionError(word)


def test_render_of_modules_asks_nobody(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process: not an LM of the module's own either; what awaits, agents and threads too."""
    for name, given, made in [
        ("TwoSteps", {"question": "q"}, {}),
        ("Awaiting", {"question": "q"}, {}),
        ("Parallel", {"questions": ["a", "b"]}, {}),
        ("OwnLM", {"question": "q"}, {"model": lm.model, "base": lm.lm.api_base, "key": "none-is-needed"}),
    ]:
        program = dspex.module(f"{OWN}:{name}", supervisor=sup, lm=lm.lm, **made)
        assert [message["role"] for message in program.render(**given)] == ["system", "user"], name
    agent = dspex.react("question -> answer", tools=[look_up], lm=lm.lm, supervisor=sup)
    assert "question" in str(agent.render(question="q"))
    assert lm.requests == []


def test_a_native_program_is_rendered_without_workers(lm: FakeLM) -> None:
    """contract: no supervisor is there, and none is started."""
    assert len(dspex.predictor("predict", "question -> answer", lm=lm.lm).render(question="q")) == 2
    with pytest.raises(dspex.InvalidInput):
        dspex.predictor("predict", "question -> answer", lm=lm.lm).render(answer="q")


# --- how answers end ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("said", ["stop", "length", "content_filter", "eos"])
def test_predictions_say_why_the_model_stopped(sup: dspex.Supervisor, route: str, said: str) -> None:
    """process: in DSPy's words; in the provider's, where DSPy has none. A cut answer is an event."""
    services_of(sup)  # by which the supervisor hears of native requests
    events: list[Any] = []
    forget = sup.on_event(events.append)
    with FakeLM(lambda messages: FakeReply(ANSWERS, finish_reason=said)) as fake:
        qa = asked("predict", fake.lm, sup, route)
        assert qa(question="q").finish_reason == said
        streamed = [*qa.stream(question="q")][-1]
        assert streamed.finish_reason == said or (said == "eos" and route == "python")
    sup.flush_events()
    forget()
    cut = [event.facts for event in events if event.name == "dspex.lm.truncated"]
    assert len(cut) == (2 if said == "length" else 0)
    assert all(facts["model"] == "openai/fake" for facts in cut)


def refusal(stream: bool, text: str | None) -> bytes:
    """Return OpenAI's reply that refuses."""
    finish = "stop" if text else "content_filter"
    if not stream:
        message = {"role": "assistant", "content": None, **({"refusal": text} if text else {})}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return json.dumps({"id": "1", "object": "chat.completion", "model": "fake", "choices": [choice]}).encode()
    deltas: list[dict[str, Any]] = [
        {"role": "assistant"},
        *([{"refusal": text[:5]}, {"refusal": text[5:]}] if text else []),
    ]
    events = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    events.append({"index": 0, "delta": {}, "finish_reason": finish})
    lines = [
        json.dumps({"id": "1", "object": "chat.completion.chunk", "model": "fake", "choices": [e]}) for e in events
    ]
    return "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")).encode()


@BOTH
@pytest.mark.parametrize("text", ["I cannot help with that.", None])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_an_error_of_its_own(sup: dspex.Supervisor, route: str, stream: bool, text: str | None) -> None:
    """process: with what the model said, after one request; str(error) holds none of it."""
    with FakeLM(lambda messages: FakeReply(body=refusal(stream, text))) as fake:
        qa = asked("predict", fake.lm, sup, route)
        with pytest.raises(LMRefusedError) as caught:
            list(qa.stream(question="q")) if stream else qa(question="q")
        assert caught.value.refusal == (text or "") and caught.value.retryable == "no"
        assert "help" not in str(caught.value) and len(fake.requests) == 1


# --- streams --------------------------------------------------------------------------------------------------------


def joined(items: Any) -> dict[tuple[str, str], str]:
    """Return the text of each field of each predictor."""
    made: dict[tuple[str, str], str] = {}
    for item in items:
        if isinstance(item, dspex.Chunk):
            made[item.predictor, item.field] = made.get((item.predictor, item.field), "") + item.text
    return made


@BOTH
@pytest.mark.parametrize(("kind", "name"), [("predict", "self"), ("chain_of_thought", "predict")])
def test_chunks_name_their_predictor_as_dspy_does(
    lm: FakeLM, sup: dspex.Supervisor, route: str, kind: str, name: str
) -> None:
    """process"""
    streamed = joined(asked(kind, lm.lm, sup, route).stream(question="q"))
    assert streamed[name, "answer"] == "Paris" and {predictor for predictor, _ in streamed} == {name}


def test_streams_of_several_predictors_keep_them_apart(sup: dspex.Supervisor) -> None:
    """process: fields of one name; answers that arrive at the same time, in tasks of one thread."""

    def slowly(messages: Any) -> FakeReply:
        side = "left" if "left q" in str(messages[-1]) else "right"
        words = [f"[[ ## answer ## ]]\n{side}", " of", " it", "\n\n[[ ## completed ## ]]"]
        return FakeReply("".join(words), chunks=words, chunk_delay=0.02)

    with FakeLM(slowly) as fake:
        program = dspex.module(f"{OWN}:Awaiting", supervisor=sup, lm=fake.lm)

        async def items() -> list[Any]:
            return [item async for item in program.astream(question="q")]

        streamed = joined(asyncio.run(items()))
    assert streamed == {("left", "answer"): "left of it", ("right", "answer"): "right of it"}


def test_streams_of_steps_that_follow_each_other(lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process"""
    streamed = joined(dspex.module(f"{OWN}:TwoSteps", supervisor=sup, lm=lm.lm).stream(question="q"))
    assert streamed == {
        ("draft.predict", "reasoning"): "because",
        ("draft.predict", "answer"): "Paris",
        ("final", "answer"): "Paris",
    }


# --- map ------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("wrapped", [False, True])
def test_leaving_a_map_cancels_what_is_in_flight(sup: dspex.Supervisor, route: str, wrapped: bool) -> None:
    """process: programs, and programs inside a function of the user's; their connections are closed."""

    def reply(messages: Any) -> FakeReply:
        return FakeReply(ANSWERS) if "q0" in str(messages[-1]) else FakeReply(hang=True)

    with FakeLM(reply) as fake:
        qa = asked("predict", fake.lm, sup, route)
        what = (lambda question: qa(question=question)) if wrapped else qa
        rows = dspex.map(what, [{"question": f"q{at}"} for at in range(4)], max_in_flight=4)
        assert next(rows).result().answer == "Paris"
        fake.wait_for(lambda: len(fake.requests) == 4)
        rows.close()  # type: ignore[attr-defined]
        fake.wait_for(lambda: fake.hung_up == 3)
    assert eventually(lambda: sup.stats()["dspy"]["in_flight"] == 0)
