"""Modules that look at DSPy and at themselves while they run: what they see is what they would see in DSPy."""

# pyright: basic
from __future__ import annotations

import asyncio
import io
import threading

import dspy
from dspy.utils.callback import BaseCallback

from tests.support.own_modules.compositions import AsyncOnly, Nested, TwoHops


class Names(dspy.Module):
    """What DSPy's traversals find in it."""

    def __init__(self):
        super().__init__()
        self.inner = Nested()
        self.again = self.inner.hops  # the same module by two paths
        self.listed = [dspy.Predict("a -> b"), {"key": dspy.ChainOfThought("a -> c")}]
        shared = dspy.Predict("a -> d")
        self.paired = (dspy.Predict("a -> e"), [shared, shared])
        self.plain = "no module"

    def forward(self):
        lm_before = self.get_lm()
        return {
            "empty": [name for name, _ in dspy.Module().named_sub_modules()],
            "copied": [name for name, _ in self.deepcopy().named_predictors()],
            "are_predictors": all(isinstance(one, dspy.Predict) for one in self.predictors()),
            "predictors": [name for name, _ in self.named_predictors()],
            "parameters": [name for name, _ in self.named_parameters()],
            "sub_modules": [name for name, _ in self.named_sub_modules()],
            "count": len(self.predictors()),
            "lm": lm_before,
            "state": sorted(self.dump_state()),
            "repr": repr(self)[:60],
            "compiled": self._compiled,
        }


class Copies(dspy.Module):
    """`deepcopy` and `reset_copy`, of a module that holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.hops = TwoHops()
        self.hops.first.demos = [dspy.Example(question="a", query="b")]

    def forward(self, question):
        twin, blank = self.deepcopy(), self.reset_copy()
        twin.hops.first.demos.append(dspy.Example(question="c", query="d"))
        return {
            "same_lock": twin.lock is self.lock,
            "other_predictor": twin.hops.first is not self.hops.first,
            "demos": [len(each.hops.first.demos) for each in (self, twin, blank)],
            "answers": [each.hops(question=question).answer for each in (twin, blank)],
        }


class Counter(dspy.Module):
    """Keeps state on itself, as DSPy's instances do between calls."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.calls = 0
        self.seen: list[str] = []

    def forward(self, question):
        self.calls += 1
        self.seen.append(question)
        return dspy.Prediction(answer=self.ask(question=question).answer, calls=self.calls, seen=list(self.seen))


class Scoped(dspy.Module):
    """`dspy.context` and `dspy.settings` inside `forward`."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        outside = type(dspy.settings.adapter).__name__
        with dspy.context(adapter=dspy.JSONAdapter()):
            inside = type(dspy.settings.adapter).__name__
            by_json = self.ask(question=question).answer
        return {
            "adapters": [outside, inside, type(dspy.settings.adapter).__name__],
            "answers": [by_json, self.ask(question=question).answer],
            "has_lm": isinstance(dspy.settings.lm, dspy.BaseLM),
        }


class AsksTheModel(dspy.Module):
    """The language model called by itself, by a prompt and by messages."""

    def forward(self, question):
        lm = dspy.settings.lm
        return {
            "prompt": lm(question),
            "messages": lm(messages=[{"role": "user", "content": question}]),
        }


class Options(dspy.Module):
    """Options of a predictor, of one call, and demonstrations."""

    def __init__(self):
        super().__init__()
        self.warm = dspy.Predict("question -> answer", temperature=0.9, max_tokens=77)
        self.several = dspy.Predict("question -> answer", n=2)
        self.shown = dspy.Predict("question -> answer")
        self.shown.demos = [dspy.Example(question="1+1", answer="2"), {"question": "2+2", "answer": "4"}]
        self.shown.signature = self.shown.signature.with_instructions("Add.")

    def forward(self, question):
        return {
            "warm": self.warm(question=question).answer,
            "several": len(self.several(question=question).completions.answer),
            "shown": self.shown(question=question, config={"temperature": 0.3}).answer,
        }


class Recorder(BaseCallback):
    """Notes what it is told, in order."""

    def __init__(self):
        self.notes: list[str] = []

    def on_module_start(self, call_id, instance, inputs):
        told = sorted((name, str(value)[:80]) for name, value in inputs.items())
        self.notes.append(f"module {type(instance).__name__} {told}")

    def on_module_end(self, call_id, outputs, exception=None):
        self.notes.append(f"module end {str(outputs)[:80]} {exception!r}")

    def on_lm_start(self, call_id, instance, inputs):
        self.notes.append("lm")

    def on_lm_end(self, call_id, outputs, exception=None):
        self.notes.append("lm end")

    def on_adapter_format_start(self, call_id, instance, inputs):
        self.notes.append(f"format {type(instance).__name__}")

    def on_adapter_parse_end(self, call_id, outputs, exception=None):
        self.notes.append(f"parsed {sorted(outputs or ())}")

    def on_tool_start(self, call_id, instance, inputs):
        self.notes.append(f"tool {instance.name} {inputs}")

    def on_tool_end(self, call_id, outputs, exception=None):
        self.notes.append(f"tool end {outputs}")


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


class CalledBack(dspy.Module):
    """Callbacks in the order of DSPy: of the whole context, and of one module."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()
        self.tool = dspy.Tool(double)
        self.own = Recorder()
        self.listened = dspy.ChainOfThought("question -> answer", callbacks=[self.own])

    def forward(self, question):
        recorder = Recorder()
        self.own.notes.clear()
        with dspy.context(callbacks=[recorder]):
            self.hops(question=question)
            self.tool(number=4)
        self.listened(question=question)
        return {"context": recorder.notes, "module": self.own.notes}


class Usage(dspy.Module):
    """`track_usage`, around the whole and around a part."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()

    def forward(self, question):
        with dspy.track_usage() as tracker:
            self.hops(question=question)
        totals = tracker.get_total_tokens()
        return {"models": len(totals), "prompt": [one["prompt_tokens"] > 0 for one in totals.values()]}


class Histories(dspy.Module):
    """What was asked so far: of the model, of this module, of one inside it, in threads, by `await`, of all."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()
        self.awaited = AsyncOnly()

    def forward(self, question):
        before = len(self.history)
        self.hops(question=question)
        self.hops.first(question="alone")
        last, newest = dspy.settings.lm.history[-1], self.history[-1] is self.hops.first.history[-1]
        with dspy.context(disable_history=True):
            self.hops(question="unseen")
        shown = io.StringIO()
        dspy.inspect_history(1, file=shown)
        entries = [len(one.history) - before for one in (self, self.hops, self.hops.first)]
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.hops, {"question": str(at)}) for at in range(2)])
        asyncio.run(self.awaited.acall(question="awaited"))
        return {
            "entries": entries,
            "in_threads": [len(one.history) for one in (self.hops, self.hops.first)],
            "awaited": [len(one.history) for one in (self.awaited, self.awaited.ask, self.awaited.more)],
            "last": [last["messages"][-1]["content"], last["outputs"], last["usage"]["total_tokens"]],
            "same": newest,
            "shown": "alone" in shown.getvalue(),
        }


def kept_histories():
    """How much of other calls is here."""
    from dspy.clients import base_lm

    return [len(dspy.settings.lm.history), len(base_lm.GLOBAL_HISTORY)]


class Saves(dspy.Module):
    """Writes its state and reads it again."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()

    def forward(self, folder):
        other = TwoHops()
        other.first.demos = [dspy.Example(question="a", query="b")]
        other.save(f"{folder}/state.json")
        self.hops.load(f"{folder}/state.json")
        return {"demos": len(self.hops.first.demos), "state": sorted(self.dump_state())}


class Traced(dspy.Module):
    """The trace of the predictors that ran, as metrics and optimizers of users read it."""

    def __init__(self):
        super().__init__()
        self.hops = TwoHops()

    def forward(self, question):
        with dspy.context(trace=[]):
            self.hops(question=question)
            trace = dspy.settings.trace
        return [
            {"predictor": list(one.signature.output_fields), "inputs": inputs, "outputs": dict(out.items())}
            for one, inputs, out in trace
        ]
