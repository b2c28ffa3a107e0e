"""Replies that grow: for each shape, a text of any size, and the signatures that read it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from dspex.signatures.field import InputField, OutputField
from dspex.signatures.signature import Signature, signature
from dspex.types.content import Code, ToolCalls


class Mood(enum.Enum):
    """A member by value."""

    GLAD = "glad"
    SAD = "sad"


class Leaf(BaseModel):
    """Half of a tree that is a union of two."""

    of: Leaf | Fork | None = None


class Fork(BaseModel):
    """The other half."""

    of: Leaf | Fork | None = None
    n: int = 0


Leaf.model_rebuild()

ATOMS = {
    "strings without commas": '["a" ',
    "braces": "{",
    "brackets": "[",
    "parentheses": "(",
    "quotes": '"',
    "backslashes": "\\",
    "nulls": "null,",
    "nested objects": '{"a":',
    "empty objects": "{},",
    "alternating quotes": "\"'",
    "headers": "[[ ## a ## ]]\n",
    "other headers": "[[ ## x ## ]]\n",
    "half headers": "[[ ## a ## ]\n",
    "header begins": "[[ ## ",
    "fences": "```",
    "fenced braces": "```json\n{",
    "thoughts": "<think>",
    "digits": "9",
    "infinities": "1e999,",
    "surrogates": "\ud83d",
    "escaped surrogates": "\\ud83d",
    "comments": "/*",
    "line comments": "#\n",
    "pairs": '"a":1 ',
    "unclosed pairs": '{"a":1 ',
    "repeated keys": '{"a":1,"a":1 ',
    "sets": '{"a",',
    "rows": "[1],",
    "mixed": '{"a":[1,"b',
    "tuple": "1,",
    "Python strings": "'a' ",
    "sum": "1+",
    "disjunction": "a or ",
    "line feeds": "\n",
    "carriage returns": "\r",
    "separators": "\u2028",
    "blanks": " ",
    "prose": "word and more words. ",
    "closers": "}]",
    "calls": '{"name":"f","arguments":"{a"},',
    "colliding numbers": f"{2**61 - 1},",
}
XML_ATOMS = {
    "open tags": "<a>",
    "empty tags": "<a/>",
    "elements": "<a>x</a>",
    "items": "<item>1</item>",
    "nested items": "<a><item>",
    "entries": "<entry key='a'>1</entry>",
    "references": "&#65;",
    "open comments": "<!--",
    "open sections": "<![CDATA[",
    "open attributes": "<a b='",
    "angles": "<",
}
PREFIXES = (
    "<a>",
    "<a><item>",
    "",
    "[",
    '{"a":',
    '{"a":[',
    '{"a":"',
    "[[ ## a ## ]]\n",
    "[[ ## a ## ]]\n[",
    '{"a":[[1]]',
    '{"a":[1,{},',
    "'",
)


def grown(atom: str, chars: int, prefix: str = "") -> str:
    """The prefix, and the atom as often as it takes."""
    return (prefix + atom * (chars // len(atom) + 1))[:chars]


def colliding(count: int) -> str:
    """A JSON list of different integers with one hash."""
    return f"[{','.join(str(number * (2**61 - 1)) for number in range(1, count + 1))}]"


def nested(depth: int) -> str:
    """An object of `of` in `of`, as deep as that."""
    return '{"of":' * depth + "null" + "}" * depth


def signatures() -> Iterator[Signature]:
    """One for each way to read a field `a`."""
    kinds: tuple[Any, ...] = (
        *(str, int, float, bool, list[str], list[int], dict[str, int], tuple[int, str], str | None, Mood),
        *(set[int], dict[int, str], Code, ToolCalls, Leaf | Fork, list[Leaf], list[Leaf | Fork], dict[str, Any]),
    )
    for kind in kinds:
        yield signature_of(kind)


def signature_of(kind: Any) -> Signature:
    """`q -> a` with `a` of this type."""
    return signature({"q": InputField(), "a": (kind, OutputField())})
