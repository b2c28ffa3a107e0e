"""Modules that hold cases of DSPy's own tests: callbacks, contexts, batches, agents, streams within a program."""

# pyright: basic
from __future__ import annotations

import asyncio
import threading

import dspy
import pydantic
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from tests.support.own_modules.agents import weather
from tests.support.own_modules.compositions import AsyncOnly, TwoHops
from tests.support.own_modules.insides import Recorder, double


class Lineage(BaseCallback):
    """Who called whom."""

    def __init__(self):
        self.calls: list[tuple[str, str | None, str]] = []
        self.lock = threading.Lock()

    def on_module_start(self, call_id, instance, inputs):
        with self.lock:
            self.calls.append((call_id, ACTIVE_CALL_ID.get(), type(instance).__name__))


class Child(dspy.Module):
    def forward(self, value):
        return value


class Family(dspy.Module):
    """Children one after the other, and in threads: each knows its parent's call."""

    def __init__(self):
        super().__init__()
        self.children = [Child(), Child()]
        self.parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)

    def forward(self):
        found = {}
        for way in ("called", "parallel"):
            lineage = Lineage()
            with dspy.context(callbacks=[lineage]):
                if way == "called":
                    values = [child(value=at) for at, child in enumerate(self.children)]
                else:
                    values = self.parallel([(child, {"value": at}) for at, child in enumerate(self.children)])
            ids = [call_id for call_id, _, _ in lineage.calls]
            found[way] = {
                "values": values,
                "distinct": len(set(ids)) == len(ids),
                "of_this": {parent for _, parent, _ in lineage.calls} >= {ACTIVE_CALL_ID.get()},
                "parents": len({parent for _, parent, _ in lineage.calls}),
                "kinds": sorted(kind for _, _, kind in lineage.calls),
            }
        return found


class Watched(dspy.Module):
    """Callbacks: several at once, of one module alone, with errors, of tools, of what is awaited."""

    def __init__(self):
        super().__init__()
        self.own = Recorder()
        self.mine = Child(callbacks=[self.own])
        self.other = Child()
        self.hops = AsyncOnly()

    def forward(self, question):
        first, second, failing, awaited = Recorder(), Recorder(), Recorder(), Recorder()
        self.own.notes.clear()
        with dspy.context(callbacks=[first, second]):
            dspy.Tool(double)(number=2)
            self.other(value=1)
        self.mine(value=1)
        self.mine(2)
        self.other(value=1)
        ended, cancelled = Recorder(), Recorder()
        for error in (KeyboardInterrupt(), SystemExit(3)):
            try:
                Failing(callbacks=[ended])(question=error)
            except BaseException as caught:
                ended.notes.append(f"{caught is error} {ACTIVE_CALL_ID.get() is not None}")
        asyncio.run(cancel(Waiting(callbacks=[cancelled]), cancelled))
        with dspy.context(callbacks=[failing]):
            try:
                Failing()(question=question)
            except ValueError as error:
                failing.notes.append(str(error))
        with dspy.context(callbacks=[awaited]):
            asyncio.run(self.hops.acall(question=question))
        return {
            "both": [first.notes, second.notes],
            "own": self.own.notes,
            "failing": failing.notes,
            "ended": ended.notes,
            "cancelled": cancelled.notes,
            "awaited": sorted(awaited.notes),
        }


class Waiting(dspy.Module):
    async def aforward(self, begun):
        begun.set()
        await asyncio.Event().wait()


async def cancel(waiting, recorder):
    """Cancel it once it waits."""
    begun = asyncio.Event()
    task = asyncio.ensure_future(waiting.acall(begun=begun))
    await begun.wait()
    recorder.notes[:] = ["begun"]
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        recorder.notes.append("cancelled")


class Failing(dspy.Module):
    def forward(self, question):
        if isinstance(question, BaseException):
            raise question
        raise ValueError(f"no answer to {question}")


class Rows(dspy.Module):
    """Batches inside a program: nested, with rows that fail, and without progress."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, questions):
        rows = [dspy.Example(question=each).with_inputs("question") for each in questions]
        nested = Batches(self.ask).batch(rows, num_threads=2, disable_progress_bar=True)
        with dspy.context(lm=dspy.settings.lm.copy(temperature=0.25)):
            warm = dspy.ChainOfThought("question -> answer").batch(rows, num_threads=2, disable_progress_bar=True)
        picky = Picky()
        results, failed, errors = picky.batch(
            [dspy.Example(value=at).with_inputs("value") for at in (1, 42, 3)],
            return_failed_examples=True,
            disable_progress_bar=True,
        )
        return {
            "nested": [[out.answer for out in outs] for outs in nested],
            "warm": [[out.reasoning, out.answer] for out in warm],
            "picky": results,
            "failed": [row.value for row in failed],
            "errors": [str(error) for error in errors],
        }


class Batches(dspy.Module):
    """A batch in each row of a batch."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def forward(self, question):
        rows = [dspy.Example(question=f"{question} {at}").with_inputs("question") for at in range(2)]
        return self.ask.batch(rows, num_threads=2, disable_progress_bar=True)


class Picky(dspy.Module):
    def forward(self, value):
        if value == 42:
            raise ValueError("not that one")
        return f"took {value}"


class Contexts(dspy.Module):
    """Contexts that differ by row, in threads and in tasks; outside of them nothing has changed."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, questions):
        outside = dspy.settings.lm
        found = dspy.Parallel(num_threads=2, disable_progress_bar=True)(
            [(self.in_own, {"question": question}) for question in questions]
        )
        awaited = asyncio.run(self.gathered(questions))
        return {"threads": found, "tasks": awaited, "same": dspy.settings.lm is outside, "outside": self.found()}

    def in_own(self, question):
        with dspy.context(**self.settings(question)):
            out = self.ask(question=question)
            return [self.found(), out.answer, len(dspy.settings.trace)]

    def settings(self, question):
        """A model, an adapter and callbacks of the row's own."""
        adapter = dspy.JSONAdapter() if "json" in question else dspy.ChatAdapter()
        lm = dspy.settings.lm.copy(temperature=0.75) if "json" in question else dspy.settings.lm
        return {"lm": lm, "adapter": adapter, "callbacks": [Recorder()], "trace": []}

    def found(self):
        settings = dspy.settings
        return [type(settings.adapter).__name__, settings.lm.kwargs.get("temperature"), len(settings.callbacks)]

    async def gathered(self, questions):
        async def one(question):
            with dspy.context(**self.settings(question)):
                out = await self.ask.acall(question=question)
                await asyncio.sleep(0)
                return [self.found(), out.answer, len(dspy.settings.trace)]

        return await asyncio.gather(*(one(question) for question in questions))


class Models(dspy.Module):
    """`set_lm` and `get_lm`: one for all, and none when they differ."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()

    def forward(self, question):
        other = dspy.settings.lm.copy(temperature=0.5)
        self.hops.set_lm(other)
        one = self.hops.get_lm() is other
        answer = self.hops(question=question).answer
        self.hops.second.lm = dspy.settings.lm
        try:
            self.hops.get_lm()
        except ValueError as error:
            return {"one": one, "answer": answer, "several": str(error)}
        finally:
            self.hops.set_lm(None)


class Place(pydantic.BaseModel):
    city: str
    day: int = 1


def weather_at(place: Place) -> str:
    """The weather at a place."""
    return f"mild in {place.city} on day {place.day}"


def untyped(city, day=2):
    """Without type hints."""
    return f"dull in {city} on day {day}"


class Tools(dspy.Module):
    """Tools by hand: with a model as an argument, without hints, with names of their own, with wrong arguments."""

    def forward(self, city):
        tools = [
            dspy.Tool(weather_at),
            dspy.Tool(untyped),
            dspy.Tool(weather, name="sky", desc="Looks up.", arg_desc={"city": "where"}),
        ]
        found = [tools[0](place={"city": city, "day": 3}), tools[1](city=city), tools[2](city=city)]
        try:
            tools[2](town=city)
        except Exception as error:
            found.append(type(error).__name__)
        return {"found": found, "names": [tool.name for tool in tools], "args": [sorted(tool.args) for tool in tools]}


class Calls(dspy.Module):
    """Tool calls that the model fills in, and that the module carries out."""

    def __init__(self):
        super().__init__()
        self.plan = dspy.Predict("question, tools: list[dspy.Tool] -> calls: dspy.ToolCalls")

    def forward(self, question):
        tools = [dspy.Tool(weather)]
        calls = self.plan(question=question, tools=tools).calls
        return [call.execute(functions={"weather": weather}) for call in calls.tool_calls]


class Streams(dspy.Module):
    """`dspy.streamify` inside a program: the text of a field, status messages, the prediction."""

    def __init__(self):
        super().__init__()
        self.inner = WithTool()

    def forward(self, question):
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        streamed = dspy.streamify(self.inner, stream_listeners=[listener], async_streaming=False)
        texts, messages, last = [], [], None
        for part in streamed(question=question):
            if isinstance(part, dspy.streaming.StreamResponse):
                texts.append(part.chunk)
            elif isinstance(part, dspy.streaming.StatusMessage):
                messages.append(part.message)
            else:
                last = part
        return {"text": "".join(texts), "messages": messages, "answer": last.answer if last else None}


class WithTool(dspy.Module):
    def __init__(self):
        super().__init__()
        self.double = dspy.Tool(double)
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.ask(question=f"{question} {self.double(number=2)}")


class Attempted(dspy.Module):
    """BestOfN and Refine over modules that fail, always or twice: up to their fail_count."""

    def forward(self, question):
        found = {}
        for kind in (dspy.BestOfN, dspy.Refine):
            for count, failures in ((None, 9), (1, 9), (1, 2), (2, 2)):
                calls = []
                flaky = Flaky(lambda calls=calls, failures=failures: calls.append(1) or len(calls) <= failures)
                asking = kind(flaky, N=3, reward_fn=lambda args, pred: 0.0, threshold=1.0, fail_count=count)
                try:
                    out = asking(question=question)
                    said = out.answer if out is not None else None
                except Exception as error:
                    said = [type(error).__name__, str(error)]
                found[f"{kind.__name__} {count} {failures}"] = [said, len(calls)]
        return found


class Flaky(dspy.Module):
    def __init__(self, fails):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.fails = fails

    def forward(self, question):
        if self.fails():
            raise ValueError("not now")
        return self.ask(question=question)


class Coded(dspy.Module):
    """CodeAct, in an interpreter that is given to it."""

    def __init__(self):
        super().__init__()
        self.act = dspy.CodeAct(
            "question -> answer", tools=[weather], max_iters=1, interpreter_factory=dspy.LocalInterpreter
        )

    def forward(self, question):
        return dspy.Prediction(answer=self.act(question=question).answer)


class Optimizes(dspy.Module):
    """A program that optimizes a program."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()

    def forward(self, questions):
        rows = [dspy.Example(question=each, answer="x").with_inputs("question") for each in questions]
        optimizer = dspy.BootstrapFewShot(metric=lambda *_: True, max_bootstrapped_demos=2, max_labeled_demos=0)
        both = [optimizer.compile(dspy.syncify(AsyncOnly(), in_place=each), trainset=rows) for each in (True, False)]
        scored = dspy.Evaluate(devset=rows, metric=lambda *_: 1.0, num_threads=2, display_progress=False)(self.hops)
        demos = [[len(one.demos) for one in best.predictors()] for best in both]
        return {"demos": demos, "score": scored.score}
