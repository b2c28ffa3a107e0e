"""Random types as small trees, and values that mostly fit them; the same random source gives the same ones."""

from __future__ import annotations

import datetime
import decimal
import enum
import random
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.parity import shapes

START, END = "<<CUSTOM-TYPE-START-IDENTIFIER>>", "<<CUSTOM-TYPE-END-IDENTIFIER>>"
WORDS: Final = (
    "Paris", "42", "3.5", "True", "None", "null", "yes", "", " ", "  padded  ", "two\nlines", "a\n\n\nb", "tab\there",
    "«q»", "naïve ünïcödé 😀", "[[ ## answer ## ]]", "  [[ ## a ## ]] rest", "[[ ## completed ## ]]", '{"a": 1}',
    "[1, 2]", "it's", 'say "hi"', "back\\slash", "a; b", "1,000", "50%", "\u2028sep", "para\u2029", "nel\x85",
    "nul\x00", "\x0bvt", "cr\rlf\r\n", "`code`", "```json\n[1]\n```", f'{START}[{{"type": "text", "text": "x"}}]{END}',
    "${question}", "{question}", "Literal['a']", "'a'", "Infinity", "NaN", "-0", "1e3", "0x10", "a->b",
    "שלום \u202eRTL", "e\u0301 vs é", "\ufeffbom", "\ud83d lone", "<b>&amp;</b>", "«««\n    x\n»»»", "[1] «x»",
    "\x1b[31m", "𝔘𝔫𝔦", "%s {0}", "N/A", "{'k': 1}", "(1, 2)", "x" * 300, "2026-02-03T04:05:06Z", "P1DT2H", "12:30",
    "AB", "red", "GOOD", "ONE",
)  # fmt: skip
LITERALS: Final = (
    "'a'", "'b'", "1", "2", "True", "None", "'two words'", '"it\'s"', "'say \"x\"'", "'1'", "'a->b'", "-3", "''",
    "'é\\n'", "\"both ' and \\\"\"", "'Literal[x]'",
)  # fmt: skip
INPUTS_OF_DSPY: Final = (
    "dspy.Image", "dspy.History", "dspy.Code", "dspy.Code['java']", "dspy.Reasoning", "dspy.Audio", "dspy.File",
    "list[dspy.Image]", "dict[str, dspy.Image]", "Optional[dspy.Code]", "dspy.Image | None", "tuple[dspy.File, str]",
    "list[dspy.Audio]", "Union[str, dspy.Image]", "dict[str, list[dspy.Image]]", "Gallery", "Optional[Gallery]",
)  # fmt: skip
OUTPUTS_OF_DSPY: Final = ("dspy.Code", "dspy.Code['c']", "dspy.Reasoning", "list[dspy.Code]", "Optional[dspy.Code]")

_WHEN: Final = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
_LEAVES: Final[dict[str, tuple[Any, ...]]] = {
    "int": (0, 1, -7, 10**12),
    "float": (0.0, 1.5, -2.25, 1e20, 1e-9, float("inf"), float("nan")),
    "bool": (True, False),
    "Color": tuple(shapes.Color),
    "Level": tuple(shapes.Level),
    "Mood": tuple(shapes.Mood),
    "Tone": tuple(shapes.Tone),
    "Mixed": tuple(shapes.Mixed),
    "Money": (shapes.Money(amount=decimal.Decimal("1.50"), currency="USD"), {"amount": "2", "currency": "EUR"}),
    "Tight": (shapes.Tight(code="AB"), shapes.Tight(code="XY", share=0.25, tags=["a", "é"], pair=(2, "y"))),
    "Checked": (shapes.Checked(first="UP"), shapes.Checked(first="x", second=3, made=["m"]), {"first": "RAW"}),
    "Owner": (
        shapes.Owner(pet=shapes.Cat()),
        shapes.Owner(pet=shapes.Dog(tricks=["sit"]), extra={"k": [1]}, maybe={"m": [1, None]}),
        {"pet": {"kind": "dog"}},
    ),
    "Computed": (shapes.Computed(side=3), {"side": 2}),
    "Words": (shapes.Words(["a", "b c"]), shapes.Words([])),
    "Point": (shapes.Point(1, 2.5), {"x": 3}),
    "Link": (shapes.Link(url="http://h/x"), shapes.Link(url="https://h/é", path=Path("/a b")), {"url": "http://h"}),
    "Shown": (shapes.Shown(), shapes.Shown(text="é", hidden=5, made=[]), {"text": "x"}),
    "Ranged": (shapes.Ranged(low=1, tags=["ab"]), shapes.Ranged(), {"low": None}),
    "Nest": (shapes.Nest(), shapes.Nest(pair=(shapes.Item(name="in"),)), {"item": {"name": "x"}}),
    "Doubled": (shapes.Doubled(n=1), {"n": 2, "word": "é"}),
    "IntBox": (shapes.IntBox(item=1), {"item": 2}),
    "Pair": (shapes.Pair(1), shapes.Pair(2, "é"), (3, "x")),
    "Row": ({"key": "k", "value": None}, {"key": "é", "value": 7}),
    "datetime.datetime": (_WHEN, _WHEN.replace(tzinfo=None), _WHEN.replace(microsecond=1500)),
    "datetime.date": (_WHEN.date(),),
    "datetime.time": (_WHEN.time(), datetime.time(1, 2, 3, 4)),
    "datetime.timedelta": (datetime.timedelta(days=1, seconds=2.5), datetime.timedelta(0)),
    "decimal.Decimal": (decimal.Decimal("12.340"), decimal.Decimal("1E+3"), decimal.Decimal("NaN")),
    "uuid.UUID": (uuid.UUID(int=7),),
    "bytes": (b"abc", b"\xff\x00", b""),
    "dict": ({}, {"k": 1}, {"n": {"m": [None]}}),
    "set[int]": (set(), {1}),
    "frozenset[bool]": (frozenset({True}),),
    "dict[int, str]": ({}, {1: "a", 2: "b"}),
    "dict[Color, int]": ({}, {shapes.Color.RED: 1}),
    "complex": (1 + 2j,),
    "NoneType": (None,),
}
_BLOCK: Final = ("dspy", "Image", {"url": "http://h/b.png"})
_OBJECTS: Final = (
    shapes.Loud("loud"), [shapes.Loud("in a list")], shapes.Degrees(1.5), {"k": shapes.Degrees(2)}, shapes.Rows(["a"]),
    {1}, frozenset({"x"}), [{2}], defaultdict(list, {"k": [1]}), OrderedDict(b=1), deque([1, 2]), Counter("a"),
    shapes.Pair(1), [shapes.Pair(2)], shapes.Item(name="held"), [shapes.Doubled(n=3)], {"m": shapes.Shown()},
    shapes.Point(1), _BLOCK, [_BLOCK, "text"], {"k": [_BLOCK]}, (_BLOCK, 1), ("dspy", "File", {"file_id": "f"}),
    decimal.Decimal("1.10"), Path("/a"), complex(1, 2), range(3), Ellipsis,
)  # fmt: skip
_SCALARS: Final = (
    "str", "str", "str", "int", "float", "bool", "Color", "Level", "Mood", "Tone", "Mixed", "Item", "Order", "Money",
    "Tight", "Checked", "Owner", "Computed", "Words", "Point", "Row", "Link", "Shown", "Ranged", "Nest", "Doubled",
    "IntBox", "Pair", "Any", "datetime.datetime", "datetime.date",
    "datetime.time", "datetime.timedelta", "decimal.Decimal", "uuid.UUID", "bytes", "dict", "list", "tuple",
)  # fmt: skip
_ODD: Final = ("set[int]", "frozenset[bool]", "dict[int, str]", "dict[Color, int]", "Tree", "NoneType", "complex")


@dataclass(frozen=True)
class Kind:
    """A type: its text, its shape, and the types inside."""

    text: str
    shape: str = "leaf"
    parts: tuple[Kind, ...] = ()


TEXT: Final = Kind("str")


class Kinds:
    """Types and values from one random source."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.choose = source.choice

    # --- types ---

    def kind(self, side: str, depth: int = 2) -> Kind:
        """A type for an input or an output."""
        if depth == 2 and self.random.random() < (0.12 if side == "input" else 0.04):
            return Kind(self.choose(INPUTS_OF_DSPY if side == "input" else OUTPUTS_OF_DSPY), "dspy")
        shape = self.random.random()
        if depth == 0 or shape < 0.45:
            return Kind(self.choose(_SCALARS))
        if shape < 0.55:
            return self.literal()
        return self._composed(side, depth)

    def literal(self) -> Kind:
        chosen = self.random.sample(LITERALS, self.random.randint(1, 4))
        return Kind(f"Literal[{', '.join(chosen)}]", "literal", tuple(map(Kind, chosen)))

    def _composed(self, side: str, depth: int) -> Kind:
        a, b = self.kind(side, depth - 1), self.kind(side, depth - 1)
        make: Callable[[], Kind] = self.choose((
            lambda: Kind(f"{self.choose(('list', 'list', 'List', 'Sequence', 'typing.List'))}[{a.text}]", "list", (a,)),
            lambda: Kind(f"list[{a.text}]", "list", (a,)),
            lambda: Kind(f"dict[str, {a.text}]", "dict", (a,)),
            lambda: Kind(f"Dict[str, {a.text}]", "dict", (a,)),
            lambda: Kind(f"Optional[{a.text}]", "union", (a, Kind("NoneType"))),
            lambda: Kind(f"{a.text} | None", "union", (a, Kind("NoneType"))),
            lambda: Kind(f"Union[{a.text}, {b.text}]", "union", (a, b)),
            lambda: Kind(f"Union[{a.text}, {b.text}, None]", "union", (a, b, Kind("NoneType"))),
            lambda: Kind(f"tuple[{a.text}, {b.text}]", "tuple", (a, b)),
            lambda: Kind(f"Tuple[{a.text}, ...]", "list", (a,)),
            lambda: Kind(f"tuple[{a.text}, ...]", "list", (a,)),
            lambda: Kind(self._annotated(), "annotated", (Kind("int"),)),
            lambda: Kind(self.choose(_ODD)),
        ))  # fmt: skip
        return make()

    def _annotated(self) -> str:
        given = self.choose(("gt=3", "ge=0, le=9", "description='how many'", "multiple_of=2"))
        return f"list[Annotated[int, Field({given})]]"

    # --- values ---

    def word(self) -> str:
        return self.choose(WORDS)

    def value(self, kind: Kind, depth: int = 3) -> Any:
        """A value that mostly fits."""
        if kind.shape == "dspy":
            return self._of_dspy(kind.text)
        if self.random.random() < 0.1:
            odd = (None, [], ["a", "b\nc"], [""], ["«x»"], 3, 2.5, True, {"k": [1]}, self.word(), (1, "x"), [1, "x"])
            return self.choose((*odd, {"a": {1}}, shapes.Color.RED, 2**70, object, b"raw", _WHEN, *_OBJECTS))
        return self._fitting(kind, depth)

    def _fitting(self, kind: Kind, depth: int) -> Any:
        if kind.text == "str":
            return self.word()
        if kind.text in _LEAVES:
            return self.choose(_LEAVES[kind.text])
        if kind.shape == "literal":
            return self.choose(("a", "b", 1, 2, True, None, "two words", "it's", "", -3))
        if kind.shape in ("list", "annotated"):
            count = self.choose((0, 1, 2, 3)) if depth else 0
            return [self.value(kind.parts[0], depth - 1) for _ in range(count)]
        if kind.shape == "dict":
            return {self.word(): self.value(kind.parts[0], depth - 1) for _ in range(self.choose((0, 1, 2)))}
        if kind.shape == "tuple":
            return tuple(self.value(part, depth - 1) for part in kind.parts)
        if kind.shape == "union":
            return self.value(self.choose(kind.parts), depth - 1)
        return self._made(kind.text)

    def _made(self, text: str) -> Any:
        match text:
            case "Item":
                return shapes.Item(name=self.word(), qty=self.choose((0, 3)), price=self.choose((None, 1.5)))
            case "Order":
                items = [shapes.Item(name=self.word())] * self.choose((0, 1, 2))
                return shapes.Order(items=items, when=self.choose((None, _WHEN)), notes={self.word(): "n"})
            case "Tree":
                return shapes.Tree(label=self.word(), children=self.choose((None, [shapes.Tree(label="leaf")])))
            case "list" | "tuple":
                made = [self.word() for _ in range(self.choose((0, 1, 2)))]
                return made if text == "list" else tuple(made)
        return self.choose((self.word(), 1, None, {"any": self.word()}, {"n": 1, "deep": [1, {"x": None}]}, [True]))

    def _of_dspy(self, text: str) -> Any:
        choose = self.choose
        urls = ("http://h/a.png", "data:image/png;base64,AAAA", 'https://h/é?q=1&b="2"')
        image = ("dspy", "Image", {"url": choose(urls)})
        audio = ("dspy", "Audio", {"data": "AAAA", "audio_format": choose(("wav", "mp3"))})
        match text:
            case "dspy.Image" | "dspy.Image | None":
                return image
            case "Union[str, dspy.Image]":
                return choose((image, self.word()))
            case "list[dspy.Image]":
                return [image] * choose((0, 1, 2))
            case "list[dspy.Audio]":
                return [audio] * choose((0, 1, 2))
            case "dict[str, dspy.Image]":
                return {self.word(): image}
            case "dict[str, list[dspy.Image]]":
                return {self.word(): [image, image]}
            case "dspy.Audio":
                return audio
            case "Gallery" | "Optional[Gallery]":
                return ("dspy", "Gallery", {"images": [image] * choose((0, 1, 2)), "tags": [self.word()]})
            case "dspy.File" | "tuple[dspy.File, str]":
                given = choose(({"file_id": "f1"}, {"file_data": "data:a/b;base64,AA", "filename": "x.é"}))
                file = ("dspy", "File", given)
                return file if text == "dspy.File" else (file, self.word())
            case "dspy.History":
                return ("dspy", "History", {"messages": []})
            case "dspy.Reasoning":
                return choose((("dspy", "Reasoning", {"content": self.word()}), self.word()))
        language = {"language": text.split("'")[1]} if "'" in text else {}
        made = ("dspy", "Code", {"code": choose(("x = 1", "```py\ny\n```", self.word())), **language})
        return [made] if text.startswith("list") else made


def jsonable(value: Any) -> Any:
    """What a model would have written for the value."""
    from pydantic_core import to_jsonable_python

    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return value
    try:
        return to_jsonable_python(value, fallback=str, bytes_mode="base64")
    except UnicodeEncodeError:  # a lone surrogate somewhere inside
        return str(value)
