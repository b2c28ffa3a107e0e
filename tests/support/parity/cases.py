"""Random cases for the parity checks: signatures with inputs, demos, answers and calls; one seed, one row of cases."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.support.parity.answers import Answers
from tests.support.parity.calls import Calls
from tests.support.parity.grammar import Grammar
from tests.support.parity.random_values import TEXT, WORDS, Kind, Kinds

Case = dict[str, Any]
NAMES: Final = (
    "question", "context", "answer", "n", "items", "x1", "snake_case", "camelCase", "über", "HTML", "reason", "a", "b",
    "reasoning", "completed", "json", "signature_", "名前",
)  # fmt: skip
INSTRUCTIONS: Final = (
    None, None, None, "Answer.", "  First\n    second\n  third", "a\n\n  b\n", "\n\n  x\n y", " ", "Ünï\tcode\n\n",
    "line\x0bbreak\u2028here", "# Title\n\n- one\n  - two", "{braces} and [[ ## header ## ]]",
)  # fmt: skip


class Cases:
    """An endless supply of cases for one seed."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)
        self.kinds = Kinds(self.random)
        self.answers = Answers(self.random, self.kinds)
        self.calls = Calls(self.random, self.kinds, self.answers)
        self.grammar = Grammar(self.random, self.kinds)

    def __iter__(self) -> Iterator[Case]:
        while True:
            yield self.grammar.case() if self.random.random() < 0.2 else self.case()

    def case(self) -> Case:
        """One signature with everything that is asked of it."""
        names = self.random.sample(NAMES, self.random.randint(2, 6))
        inputs = self.random.randint(0 if self.random.random() < 0.05 else 1, len(names) - 1)
        sides = ["input"] * inputs + ["output"] * (len(names) - inputs)
        made = [self._field(name, side) for name, side in zip(names, sides, strict=True)]
        fields, kinds = [field for field, _ in made], {field["name"]: kind for field, kind in made}
        adapter = self.adapter()
        asked, wanted = _of(kinds, fields, "input"), _of(kinds, fields, "output")
        form = self._form(fields)
        return {
            "kind": "predict",
            "fields": fields,
            "form": form,
            "text": self._text(fields) if form == "text" else None,
            "instructions": self._docs(form),
            "parents": self.random.randint(0, len(fields)) if form == "class" else 0,
            "adapter": adapter,
            "inputs": self._values(asked, 0.95) | self._history(kinds),
            "demos": [self._values(kinds, self.random.choice((1, 1, 0.6))) for _ in range(self._few())],
            "answers": [self.answers.answer(wanted, adapter) for _ in range(4)],
            "calls": [self.calls.call(wanted, adapter) for _ in range(2)],
            "whole_demos": [self._values(kinds, 1) for _ in range(2)],
        }

    def adapter(self) -> str:
        """The adapter of the next case."""
        return self.random.choice(("chat", "json"))

    def _few(self) -> int:
        return self.random.choice((0, 0, 0, 1, 2, 3))

    # --- signatures ---

    def _field(self, name: str, side: str) -> tuple[dict[str, Any], Kind]:
        options: dict[str, Any] = {}
        kind = None if self.random.random() < 0.25 else self.kinds.kind(side)
        text = None if kind is None else kind.text
        if self.random.random() < 0.3:
            options["desc"] = self.random.choice((*WORDS, f"${{{name}}}", "the thing\n  in two lines"))
        if text in ("int", "float") and self.random.random() < 0.4:
            options |= self.random.choice(({"gt": 3}, {"ge": 0, "le": 1.5}, {"lt": 9, "multiple_of": 3}))
        if text in (None, "str") and self.random.random() < 0.1:
            options |= {"max_length": 10, "min_length": 1}
        if side == "output" and self.random.random() < 0.1:
            options["default"] = self.random.choice((None, "none given", 0))
        if side == "input" and self.random.random() < 0.05:
            options["default"] = self.random.choice((None, "by default", 3))
        return {"name": name, "kind": side, "annotation": text, "options": options}, kind or TEXT

    def _form(self, fields: list[dict[str, Any]]) -> str:
        fits = not any(field["options"] or _marked(field["annotation"] or "") for field in fields)
        return self.random.choice(("text", "text", "class", "fields") if fits else ("class", "fields", "fields"))

    def _docs(self, form: str) -> Any:
        made = self.random.choice(INSTRUCTIONS)
        return (made, self.random.choice((*INSTRUCTIONS, ""))) if form == "class" else made

    def _text(self, fields: list[dict[str, Any]]) -> str:
        def side(kind: str) -> str:
            return self.random.choice((", ", ",", " , ")).join(
                field["name"] + (f": {field['annotation']}" if field["annotation"] else "")
                for field in fields
                if field["kind"] == kind
            )

        return f"{side('input')}{self.random.choice((' -> ', '->'))}{side('output')}"

    # --- values ---

    def _values(self, kinds: Mapping[str, Kind], share: float) -> dict[str, Any]:
        found = {name: self.kinds.value(kind) for name, kind in kinds.items() if self.random.random() < share}
        if self.random.random() < 0.03:
            found["augmented"] = True
        return found

    def _history(self, kinds: Mapping[str, Kind]) -> dict[str, Any]:
        """A conversation for the first history field; DSPy takes nothing but a History there."""
        name = next((name for name, kind in kinds.items() if kind.text == "dspy.History"), None)
        if name is None:
            return {}
        others = {other: kind for other, kind in kinds.items() if kind.text != "dspy.History"}
        turns = [self._values(others, self.random.choice((1, 0.5))) for _ in range(self.random.choice((0, 1, 2)))]
        return {name: ("dspy", "History", {"messages": turns})}


def _of(kinds: Mapping[str, Kind], fields: list[dict[str, Any]], side: str) -> dict[str, Kind]:
    return {field["name"]: kinds[field["name"]] for field in fields if field["kind"] == side}


def _marked(annotation: str) -> bool:
    """What a string cannot say in DSPy, or says differently (grammar.py has these): other forms can."""
    return any(mark in annotation for mark in ("->", "Code[", "-3", "NoneType", "Gallery"))
