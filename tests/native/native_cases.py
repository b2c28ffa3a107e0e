"""Random signatures, values, demos and answers for the parity tests; the same seed gives the same cases.

Values mostly fit their types and sometimes do not; answers are mostly well formed and then damaged in the ways that
models damage them.
"""

from __future__ import annotations

import datetime
import decimal
import json
import random
import uuid
from typing import Any

from native_shapes import Color, Item, Level, Money, Mood, Order, Tree

NAMES = (
    "question",
    "context",
    "answer",
    "n",
    "items",
    "x1",
    "snake_case",
    "camelCase",
    "über",
    "HTML",
    "reason",
    "a",
    "b",
)
START, END = "<<CUSTOM-TYPE-START-IDENTIFIER>>", "<<CUSTOM-TYPE-END-IDENTIFIER>>"
WORDS = (
    "Paris", "42", "3.5", "True", "None", "null", "yes", "", " ", "  padded  ", "two\nlines", "a\n\n\nb", "tab\there",
    "«q»", "naïve ünïcödé 😀", "[[ ## answer ## ]]", "  [[ ## a ## ]] rest", "[[ ## completed ## ]]", '{"a": 1}',
    "[1, 2]", "it's", 'say "hi"', "back\\slash", "a; b", "1,000", "50%", "\u2028sep", "nul\x00", "\x0bvt", "cr\rlf\r\n",
    "`code`", "```json\n[1]\n```", f'{START}[{{"type": "text", "text": "x"}}]{END}', "${question}",
    "{question}", "Literal['a']", "'a'", "Infinity", "NaN", "-0", "1e3", "0x10", "a->b",
)  # fmt: skip
SCALARS = (
    "str", "str", "str", "int", "float", "bool", "Color", "Level", "Mood", "Item", "Order", "Money", "Any",
    "datetime.datetime", "datetime.date", "decimal.Decimal", "uuid.UUID", "bytes", "dict", "list", "tuple",
)  # fmt: skip
DSPY_INPUTS = (
    "dspy.Image", "dspy.History", "dspy.Code", "dspy.Code['java']", "dspy.Reasoning", "dspy.Audio", "dspy.File",
    "list[dspy.Image]", "dict[str, dspy.Image]", "Optional[dspy.Code]", "dspy.Image | None", "tuple[dspy.File, str]",
)  # fmt: skip
DSPY_OUTPUTS = ("dspy.Code", "dspy.Code['c']")
LITERALS = ("'a'", "'b'", "1", "2", "True", "None", "'two words'", '"it\'s"', "'say \"x\"'", "'1'", "'a->b'")


class Cases:
    """An endless supply of cases for one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def case(self) -> dict[str, Any]:
        """One signature with everything that is asked of it."""
        names = self.random.sample(NAMES, self.random.randint(2, 6))
        inputs = self.random.randint(0 if self.random.random() < 0.05 else 1, len(names) - 1)
        fields = [self._field(name, "input" if at < inputs else "output") for at, name in enumerate(names)]
        adapter = self.random.choice(("chat", "json"))
        as_text = self.random.random() < 0.4 and all(self._fits_text(field) for field in fields)
        return {
            "fields": fields,
            "text": self._text(fields) if as_text else None,
            "instructions": self._instructions(),
            "adapter": adapter,
            "inputs": self._values([field for field in fields if field["kind"] == "input"], 0.93)
            | self._history(fields),
            "demos": [
                self._values(fields, self.random.choice((1, 1, 0.6)))
                for _ in range(self.random.choice((0, 0, 0, 1, 2, 3)))
            ],
            "answers": [self._answer(fields, adapter) for _ in range(4)],
        }

    def _demos(self, fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
        count = self.random.choice((0, 0, 0, 1, 2, 3))
        return [self._values(fields, self.random.choice((1, 1, 0.6))) for _ in range(count)]

    # --- signatures ---

    def _field(self, name: str, kind: str) -> dict[str, Any]:
        options: dict[str, Any] = {}
        annotation = None if self.random.random() < 0.25 else self._annotation(2, kind)
        if self.random.random() < 0.12:
            annotation = self.random.choice(DSPY_INPUTS if kind == "input" else DSPY_OUTPUTS)
        if self.random.random() < 0.3:
            options["desc"] = self.random.choice((*WORDS, f"${{{name}}}", "the thing\n  in two lines"))
        if annotation in ("int", "float") and self.random.random() < 0.4:
            options |= self.random.choice(({"gt": 3}, {"ge": 0, "le": 1.5}, {"lt": 9, "multiple_of": 3}))
        if annotation in (None, "str") and self.random.random() < 0.1:
            options |= {"max_length": 10, "min_length": 1}
        if kind == "output" and self.random.random() < 0.1:
            options["default"] = self.random.choice((None, "none given", 0))
        return {"name": name, "kind": kind, "annotation": annotation, "options": options}

    def _annotation(self, depth: int, kind: str) -> str:
        shape = self.random.random()
        if depth == 0 or shape < 0.45:
            return self.random.choice(SCALARS)
        if shape < 0.55:
            return f"Literal[{', '.join(self.random.sample(LITERALS, self.random.randint(1, 4)))}]"
        inner = self._annotation(depth - 1, kind)
        other = self._annotation(depth - 1, kind)
        return self.random.choice((
            f"list[{inner}]", f"list[{inner}]", f"dict[str, {inner}]", f"Optional[{inner}]", f"{inner} | None",
            f"Union[{inner}, {other}]", f"tuple[{inner}, {other}]", f"tuple[{inner}, ...]", f"List[{inner}]",
            f"Union[{inner}, {other}, None]", "set[int]", "frozenset[bool]", "dict[int, str]", f"Sequence[{inner}]",
            "Tree",
        ))  # fmt: skip

    def _fits_text(self, field: dict[str, Any]) -> bool:
        # DSPy's string form makes a class of the wrong name of Code['java'].
        return not field["options"] and not {"->", "Code["} & set(_marks(field["annotation"] or ""))

    def _text(self, fields: list[dict[str, Any]]) -> str:
        def side(kind: str) -> str:
            return self.random.choice((", ", ",", " , ")).join(
                field["name"] + (f": {field['annotation']}" if field["annotation"] else "")
                for field in fields
                if field["kind"] == kind
            )

        return f"{side('input')}{self.random.choice((' -> ', '->'))}{side('output')}"

    def _instructions(self) -> str | None:
        return self.random.choice((
            None, None, None, "Answer.", "  First\n    second\n  third", "a\n\n  b\n", "\n\n  x\n y", " ",
            "Ünï\tcode\n\n",
            "line\x0bbreak\u2028here", "# Title\n\n- one\n  - two",
        ))  # fmt: skip

    # --- values ---

    def _values(self, fields: list[dict[str, Any]], share: float) -> dict[str, Any]:
        found = {
            field["name"]: self.value(field["annotation"] or "str") for field in fields if self.random.random() < share
        }
        if self.random.random() < 0.05:
            found["augmented"] = True
        return found

    def _history(self, fields: list[dict[str, Any]]) -> dict[str, Any]:
        """A conversation for the first history field; DSPy takes nothing but a History there."""
        name = next((field["name"] for field in fields if field["annotation"] == "dspy.History"), None)
        if name is None:
            return {}
        others = [field for field in fields if field["annotation"] != "dspy.History"]
        turns = [self._values(others, self.random.choice((1, 0.5))) for _ in range(self.random.choice((0, 1, 2)))]
        return {name: ("dspy", "History", {"messages": turns})}

    def _of_dspy(self, annotation: str) -> Any:
        choose = self.random.choice
        image = ("dspy", "Image", {"url": choose(("http://h/a.png", "data:image/png;base64,AAAA"))})
        match annotation:
            case "dspy.Image" | "dspy.Image | None":
                return image
            case "list[dspy.Image]":
                return [image] * choose((0, 1, 2))
            case "dict[str, dspy.Image]":
                return {self.word(): image}
            case "dspy.Audio":
                return ("dspy", "Audio", {"data": "AAAA", "audio_format": "wav"})
            case "dspy.File" | "tuple[dspy.File, str]":
                file = (
                    "dspy",
                    "File",
                    choose(({"file_id": "f1"}, {"file_data": "data:a/b;base64,AA", "filename": "x.é"})),
                )
                return file if annotation == "dspy.File" else (file, self.word())
            case "dspy.Reasoning":
                return ("dspy", "Reasoning", {"content": self.word()})
            case "dspy.History":
                return ("dspy", "History", {"messages": []})
        language = {"language": "java"} if "java" in annotation else {"language": "c"} if "'c'" in annotation else {}
        return ("dspy", "Code", {"code": choose(("x = 1", "```py\ny\n```", self.word())), **language})

    def value(self, annotation: str) -> Any:
        """A value that mostly fits."""
        if "dspy." in annotation:
            return self._of_dspy(annotation)
        if self.random.random() < 0.12:
            return self.random.choice(
                (None, [], ["a", "b\nc"], [""], ["«x»"], 3, 2.5, True, {"k": [1]}, self.word(), (1, "x"))
            )
        return self._fitting(annotation, 3)

    def word(self) -> str:
        return self.random.choice(WORDS)

    def _fitting(self, annotation: str, depth: int) -> Any:
        choose = self.random.choice
        match annotation:
            case "str":
                return self.word()
            case "int":
                return choose((0, 1, -7, 10**12))
            case "float":
                return choose((0.0, 1.5, -2.25, 1e20, float("inf"), float("nan")))
            case "bool":
                return choose((True, False))
            case "Color":
                return choose(list(Color))
            case "Level":
                return choose(list(Level))
            case "Mood":
                return choose(list(Mood))
            case "Item":
                return Item(name=self.word(), qty=choose((0, 3)), price=choose((None, 1.5)))
            case "Order":
                return Order(items=[Item(name=self.word())] * choose((0, 1, 2)), when=choose((None, _WHEN)))
            case "Money":
                return Money(amount=decimal.Decimal("1.50"), currency=choose(("EUR", "USD")))
            case "Tree":
                return Tree(label=self.word(), children=choose((None, [Tree(label="leaf")])))
            case "datetime.datetime":
                return _WHEN
            case "datetime.date":
                return _WHEN.date()
            case "decimal.Decimal":
                return decimal.Decimal("12.340")
            case "uuid.UUID":
                return uuid.UUID(int=7)
            case "bytes":
                return choose((b"abc", b"\xff\x00", b""))
            case "set[int]":
                return choose((set(), {1}, {3, 1, 2}))
            case "frozenset[bool]":
                return frozenset({True})
            case "dict[int, str]":
                return choose(({}, {1: "a", 2: "b"}))
            case "list" | "tuple":
                made = [self.word() for _ in range(choose((0, 1, 2)))]
                return made if annotation == "list" else tuple(made)
        return self._container(annotation, depth)

    def _container(self, annotation: str, depth: int) -> Any:
        choose = self.random.choice
        if annotation.startswith("Literal["):
            return choose(("a", "b", 1, 2, True, None, "two words", "it's"))
        if annotation.startswith(("list[", "List[", "Sequence[")) and depth:
            return [self.value("str" if depth < 2 else _inner(annotation)) for _ in range(choose((0, 1, 2, 3)))]
        if annotation.startswith("dict[str"):
            return {self.word(): self.value(_inner(annotation, 1)) for _ in range(choose((0, 1, 2)))}
        if annotation.startswith("tuple["):
            return (self.value(_inner(annotation)), self.word())
        if annotation.startswith(("Optional[", "Union[")):
            return choose((None, self.value(_inner(annotation)), self.word()))
        if annotation.endswith(" | None"):
            return choose((None, self.value(annotation.removesuffix(" | None"))))
        return choose((self.word(), 1, None, {"any": self.word()}, {"n": 1, "deep": [1, {"x": None}]}, [True]))

    # --- answers ---

    def _answer(self, fields: list[dict[str, Any]], adapter: str) -> str:
        outputs = {
            f["name"]: "```py\nx\n```" if "dspy." in (f["annotation"] or "") else self.value(f["annotation"] or "str")
            for f in fields
            if f["kind"] == "output"
        }
        text = self._as_chat(outputs) if adapter == "chat" else self._as_json(outputs)
        return self._damaged(text) if self.random.random() < 0.4 else text

    def _as_chat(self, outputs: dict[str, Any]) -> str:
        parts = []
        for name, value in outputs.items():
            if self.random.random() < 0.05:
                continue
            between = self.random.choice(("\n", "\n", "\n", " ", "\n\n", "\r\n"))
            parts.append(f"[[ ## {name} ## ]]{between}{self._shown(value)}")
        if self.random.random() < 0.1:
            parts.insert(0, "Sure! Here it is.")
        if self.random.random() < 0.05:
            parts.append(self.random.choice(parts) if parts else "")
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])

    def _as_json(self, outputs: dict[str, Any]) -> str:
        values = {name: _jsonable(value) for name, value in outputs.items() if self.random.random() < 0.96}
        if self.random.random() < 0.05:
            values["extra"] = 1
        text = json.dumps(values, indent=self.random.choice((None, 2)), ensure_ascii=self.random.random() < 0.5)
        wrap = self.random.choice(("{}", "{}", "{}", "```json\n{}\n```", "Here: {} Done.", "[{}]", "{}\n{}", "'{}'"))
        return wrap.replace("{}", text)

    def _shown(self, value: Any) -> str:
        how = self.random.random()
        plain = _jsonable(value)
        if isinstance(plain, str):
            return (
                plain
                if how < 0.8
                else self.random.choice((f'"{plain}"', f"'{plain}'", f"Literal[{plain!r}]", f" {plain} "))
            )
        if how < 0.6:
            return json.dumps(plain)
        if how < 0.75:
            return repr(plain)
        return self.random.choice(
            (f"```json\n{json.dumps(plain)}\n```", str(plain), f"The value is {plain}.", json.dumps(plain, indent=1))
        )

    def _damaged(self, text: str) -> str:
        at = self.random.randint(0, len(text))
        return self.random.choice((
            lambda: text[:at], lambda: text[at:], lambda: text[:at] + self.word() + text[at:], lambda: "",
            lambda: text.replace('"', "'"), lambda: text.replace("[[ ##", "  [[ ##"),
            lambda: text.replace("## ]]", "##]]", 1), lambda: text.replace(",", ",,", 1),
            lambda: text.replace("}", "", 1), lambda: text.replace("\n", "\r\n"),
            lambda: text + text, lambda: text.upper(), lambda: text[:at] + text[at + 1 :],
            lambda: text.replace("true", "True"), lambda: text.replace("]]", "]] trailing", 1),
            lambda: f"\x1c{text}\x85", lambda: self.word(),
        ))()  # fmt: skip


def _marks(annotation: str) -> list[str]:
    return [mark for mark in ("->", "Code[") if mark in annotation]


_WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


def _inner(annotation: str, at: int = 0) -> str:
    """An argument of a generic's text, split at top-level commas."""
    parts, depth, start = [], 0, annotation.index("[") + 1
    for place in range(start, len(annotation)):
        mark = annotation[place]
        depth += (mark == "[") - (mark == "]")
        if (mark == "," and depth == 0) or depth < 0:
            parts.append(annotation[start:place].strip())
            start = place + 1
            if depth < 0:
                break
    return parts[min(at, len(parts) - 1)]


def _jsonable(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str, bytes_mode="base64")
