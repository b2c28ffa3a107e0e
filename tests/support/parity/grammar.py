"""Random signature strings, right and wrong, and random operations on signatures."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.support.parity.random_values import WORDS, Kinds

NAMES: Final = (
    "q", "context", "answer", "ans2", "über", "ﬁeld", "self", "schema", "copy", "json", "model_x", "reasoning", "名前",
    "HTML", "x1", "config",
)  # fmt: skip
BAD_NAMES: Final = ("fields", "_p", "instructions", "class", "output_fields", "2nd", "a-b")
_TOKENS: Final = (
    "->", ",", ":", "[", "]", "|", " ", "\n", "=", "*", "/", "(", ")", "'", '"', ".", "None", "int", "Literal['x']",
    "= 3", "*args", "#", "str", "q", "...", "3", "list", "Color", "typing.", "lambda", "-", "\t", ";", "\\", "é",
    "\x0c",
)  # fmt: skip
_ODD_TYPES: Final = (
    "Literal", "List", "Optional", "Optional[int, str]", "int[str]", "list[3]", "list[int", "Callable[[int], str]",
    "foo", "foo.Bar", "Literal[1.5]", "Literal[a]", "Literal[-1]", "Literal[b'x']", "Union[int]", "Union[()]",
    "tuple[()]", "Annotated[int, Field(gt=3)]", "Annotated[str, 'x']", "Annotated[int]", "type", "object", "3",
    "'int'", "(int, str)", "None | str", "int | None | str", "dict[str]", "list[int, str]", "Tuple[int, ...]",
    "tuple[..., int]", "typing.Any", "typing.Optional[Color]", "Any", "Sequence[Item]", "Mapping[str, int]",
    "Iterable[str]", "Set[int]", "Type[int]", "list[Literal['a', 'b']]", "dspy.Image", "dspy.Code", "dspy.Nope",
    "datetime.datetime", "datetime.date", "uuid.UUID", "FrozenSet[int]", "MutableMapping[str, int]",
    "List[List[Item]]", "Dict[Color, Item]", "Optional[None]", "bytearray", "complex", "Union[int, Union[str, None]]",
    "Literal['a', Literal['b']]", "Optional[Literal['a']]", "not int",
)  # fmt: skip


class Grammar:
    """Cases about signatures alone."""

    def __init__(self, source: random.Random, kinds: Kinds) -> None:
        self.random = source
        self.kinds = kinds

    def case(self) -> dict[str, Any]:
        """A string, maybe spoilt, and what is done to the signature that it makes."""
        text = self._string()
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2))):
            text = self._spoilt(text)
        return {
            "kind": "signature",
            "text": text,
            "instructions": self.random.choice((None, None, "Do it.", "", "  a\n b")),
            "operations": [self._operation() for _ in range(self.random.choice((0, 1, 2, 3)))],
        }

    def _string(self) -> str:
        names = self.random.sample(NAMES, self.random.randint(1, 5))
        if self.random.random() < 0.1:
            names[self.random.randrange(len(names))] = self.random.choice(BAD_NAMES)
        cut = self.random.randint(0, len(names))
        inputs, outputs = (", ".join(map(self._declared, side)) for side in (names[:cut], names[cut:]))
        return f"{inputs}{self.random.choice((' -> ', '->', ' ->'))}{outputs}"

    def _declared(self, name: str) -> str:
        if self.random.random() < 0.4:
            return name
        return f"{name}{self.random.choice((': ', ':', ' : '))}{self._type()}"

    def _type(self) -> str:
        if self.random.random() < 0.15:
            return self.random.choice(_ODD_TYPES)
        return self.kinds.kind(self.random.choice(("input", "output"))).text

    def _spoilt(self, text: str) -> str:
        at = self.random.randint(0, len(text))
        token = self.random.choice(_TOKENS)
        return self.random.choice((
            lambda: text[:at] + token + text[at:], lambda: text[:at] + text[at + 1 :], lambda: text + token,
            lambda: text[:at] + token + text[at + len(token) :], lambda: token + text, lambda: text.replace(" ", "\n"),
        ))()  # fmt: skip

    def _operation(self) -> tuple[Any, ...]:
        choose, name = self.random.choice, self.random.choice((*NAMES, *NAMES, *BAD_NAMES))
        kind, options = choose(("input", "output")), {"desc": choose(WORDS)} if self.random.random() < 0.5 else {}
        annotation = choose((None, None, self.kinds.kind(kind, 1).text))
        field = (kind, annotation, options)
        return choose((
            ("prepend", name, *field), ("append", name, *field), ("insert", choose((-2, -1, 0, 1, 5)), name, *field),
            ("delete", name), ("with_instructions", choose(("New.", "", " a\n  b"))), ("append_instructions", "More."),
            ("with_updated_fields", name, annotation, options),
        ))  # fmt: skip
