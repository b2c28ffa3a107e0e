"""Random cases for the rarer adapters: XML, BAML and two steps, with their options and answers in their formats.

`Adapters` says how each side makes an adapter of a case; `AdapterCases` draws the cases.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from tests.support.parity.answers import Answers
from tests.support.parity.calls import Calls
from tests.support.parity.cases import Case, Cases
from tests.support.parity.random_values import START, Kind, Kinds, jsonable

RARE: Final = ("xml", "baml", "two_step")


class AdapterCases(Cases):
    """An endless supply of cases for one seed, of the named adapters."""

    def __init__(self, seed: int | str, adapters: Sequence[str] = RARE) -> None:
        super().__init__(seed)
        self.adapters = adapters
        self.answers = AdapterAnswers(self.random, self.kinds)
        self.calls = Calls(self.random, self.kinds, self.answers)

    def adapter(self) -> str:
        return self.random.choice(self.adapters)

    def case(self) -> Case:
        made = super().case()
        while made["adapter"] == "baml" and "Tuple[" in f"{made['text']}{made['fields']}":
            made = super().case()  # a Tuple of typing's is a tuple here and in workers, and BAML shows the name
        for call in made["calls"]:  # what counts as shown is each splitter's: see test_xml_answers.py
            call.pop("streamed", None)
        made["options"] = self._adapter_options(made["adapter"])
        if made["adapter"] == "two_step":  # which parses nothing by itself
            made["answers"] = []
            for call in made["calls"]:
                for reply in call["replies"]:  # the marker in a first answer is refused here, and makes a block there
                    if reply.get("text"):
                        reply["text"] = reply["text"].replace(START, "")
        return made

    def __iter__(self) -> Any:
        while True:
            yield self.case()

    def _adapter_options(self, adapter: str) -> dict[str, Any]:
        every: dict[str, Any] = {
            "use_native_function_calling": self.random.choice((True, False)),
            "parallel_tool_calls": self.random.choice((True, False)),
        }
        if adapter == "xml":
            every["use_json_adapter_fallback"] = False
        return {name: value for name, value in every.items() if self.random.random() < 0.15}


class AdapterAnswers(Answers):
    """Answers in the format of the case's adapter; of two steps, plain words and then the chat format."""

    def __init__(self, source: random.Random, kinds: Kinds) -> None:
        super().__init__(source, kinds)
        self._is_second = False

    def answer(self, outputs: Mapping[str, Kind], adapter: str) -> str:
        if adapter == "two_step":
            self._is_second = not self._is_second
            if self._is_second and self.random.random() < 0.5:
                return self.random.choice(("It is Paris, surely.", self.kinds.word() or "x", "a & b < c"))
            return super().answer(outputs, "chat")
        if adapter != "xml":
            return super().answer(outputs, "json")
        values = {name: self._value(kind) for name, kind in outputs.items()}
        text = self._as_xml(values)
        return self._broken(text, list(outputs)) if self.random.random() < 0.4 else text

    def _as_xml(self, values: Mapping[str, Any]) -> str:
        parts = [self._element(name, jsonable(value)) for name, value in values.items() if self.random.random() < 0.95]
        if self.random.random() < 0.1:
            parts.insert(0, "Sure! Here it is.")
        if self.random.random() < 0.06 and parts:
            parts.append(self.random.choice(parts))
        if self.random.random() < 0.05:
            self.random.shuffle(parts)
        return self.random.choice(("\n\n", "\n", "", " and ")).join(parts)

    def _element(self, name: str, value: Any) -> str:
        how = self.random.random()
        if how < 0.6:
            return self._nested(name, value)
        text = value if isinstance(value, str) else self._shown(value)
        if how < 0.85:
            return f"<{name}>\n{escape(text)}\n</{name}>"
        return self.random.choice((
            f"<{name}>{text}</{name}>", f'<{name} a="1">{escape(text)}</{name}>', f"<{name}/>",
            f"<{name}><![CDATA[{text}]]></{name}>",
            f"<{name}><b>{escape(text)}</b> tail</{name}>", f"<{name}>a <{name}>b</{name}> c</{name}>",
            f"<!-- c --><{name}>{escape(text)}<!-- in --></{name}>", f"```xml\n<{name}>{escape(text)}</{name}>\n```",
            f'<entry key="{name}">{escape(text)}</entry>', f"<{name}><item>{escape(text)}</item></{name}>",
            f"<{name}>&#65;&quot;&unknown;</{name}>", f"<{name.title()}>x</{name.title()}>",
            f"<{name}><item>1</item><item>2</item></{name}>", f"<{name}>1</{name}><{name}>2</{name}>",
        ))  # fmt: skip

    def _nested(self, tag: str, value: Any) -> str:
        if isinstance(value, list):
            return f"<{tag}>{''.join(self._nested('item', item) for item in value)}</{tag}>"
        if isinstance(value, dict):
            inside = "".join(
                self._nested(key, item)
                if str(key).isidentifier()
                else f'<entry key="{escape(str(key))}">{escape(str(item))}</entry>'
                for key, item in value.items()
            )
            return f"<{tag}>{inside}</{tag}>"
        return f"<{tag} />" if value is None and self.random.random() < 0.7 else f"<{tag}>{escape(str(value))}</{tag}>"

    def _broken(self, text: str, names: Sequence[str]) -> str:
        at = self.random.randint(0, len(text))
        name = self.random.choice(names) if names else "x"
        return self.random.choice((
            lambda: text[:at], lambda: text[at:], lambda: text[:at] + self.kinds.word() + text[at:], lambda: "",
            lambda: text + text, lambda: text.replace(f"</{name}>", "", 1), lambda: text.replace(f"<{name}>", "", 1),
            lambda: text.replace("&lt;", "<"), lambda: text + " trailing & text", lambda: f"<root>{text}</root>",
            lambda: text.replace(f"<{name}>", f"<x:{name}>"), lambda: f"<?xml version='1.0'?>{text}",
            lambda: f"<!DOCTYPE a [<!ENTITY e 'x'>]>{text}", lambda: text.replace("<", "< ", 1),
            lambda: text.upper(), lambda: f"{text}<{name}>second</{name}>", lambda: text[:at] + text[at + 1 :],
            lambda: f"<think>hm</think>{text}", lambda: f"\x00{text}", lambda: f"\ud83d{text}",
            lambda: text.replace("<item>", "<li>").replace("</item>", "</li>"), lambda: text.replace("\n", "\r\n"),
            lambda: self._as_json({"a": 1}), lambda: f"{text}</dspy_root>", lambda: text.replace(">", "&gt;", 1),
            lambda: f"</dspy_root>{text}<dspy_root>", lambda: f"<{name} xmlns='u'>{name}</{name}>{text}",
        ))()  # fmt: skip


def native_adapter(case: Mapping[str, Any]) -> Any:
    """DSPex's adapter of a case, as its predictors take one."""
    from dspex.adapters.given_adapter import adapter_from

    return adapter_from({"name": case["adapter"], **case.get("options", {})})


def dspy_adapter(case: Mapping[str, Any], second: Any = None) -> Any:
    """DSPy's adapter of a case; `second` is the model of a second step."""
    import dspy
    from dspy.adapters.baml_adapter import BAMLAdapter

    options = {**case.get("options", {}), **(case.get("adapter_options") or {})}
    if case.get("native_calls") is not None:
        options["use_native_function_calling"] = case["native_calls"]
    if case["adapter"] == "two_step":
        return dspy.TwoStepAdapter(second or dspy.LM("openai/nobody", api_key="k"), **options)
    kinds = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter, "baml": BAMLAdapter}
    return kinds[case["adapter"]](**options)
