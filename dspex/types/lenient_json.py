"""Read JSON out of a model's text, repaired if need be, at a cost that the text's length bounds.

json_repair (0.64) needs n²/64 looks at the text for `["a" "a" "a"`, 160 for each `{` of a row of them, and copies the
text for each repeated key; most other damage takes 2 or 3 for each character. So it is given a str that counts what is
looked at: what comes out is the same, byte for byte, or TooCostly. Nothing of json_repair but its public function is
used, so another version is metered just so. It is imported only for text that is not JSON.
"""

from __future__ import annotations

import json
from typing import Any, SupportsIndex

from .parse_budget import CHARS_MOST, ParseBudget, budget_for, require_short

_COPIED = 64  # characters that are copied, or searched by the str itself, in the time of one step


def loads(text: str) -> Any:
    """Return what `json_repair.loads` returns; it, too, tries the standard parser first.

    Raises:
        TooCostly: repairing the text would take too long (a ValueError).
        RecursionError, ValueError: what is nested too deep.
        TypeError: json_repair fails over it.
    """
    require_short(text)
    try:
        return json.loads(text)
    except ValueError:
        return _repaired(text)


def first_object(text: str) -> Any:
    """Return the first `{...}` whose braces match, read; None when there is none; errors as for `loads`.

    DSPy looks for it with a recursive expression, `\\{(?:[^{}]|(?R))*\\}`, which tries every brace to the end.
    """
    found = first_braced(text)
    return None if found is None else loads(found)


def first_braced(text: str) -> str | None:
    """Return the text of the first `{...}` whose braces match: from the leftmost brace that is closed."""
    opened: list[int] = []
    first, first_end = len(text), 0
    at, next_open, next_close = 0, text.find("{"), text.find("}")
    while next_close >= 0:
        if 0 <= next_open < next_close:
            opened.append(next_open)
            at = next_open + 1
            next_open = text.find("{", at)
            continue
        if opened:
            begin = opened.pop()
            if begin < first:
                first, first_end = begin, next_close + 1
            if not opened:
                break  # nothing further left can close any more
        at = next_close + 1
        next_close = text.find("}", at)
    return text[first:first_end] if first_end else None


def _repaired(text: str) -> Any:
    import json_repair

    budget = budget_for(text)
    if len(text) > CHARS_MOST:
        budget.refuse(f"its JSON is damaged, and {len(text):,} characters are over the {CHARS_MOST:,} of a repair")
    try:
        return _plain(json_repair.loads(_Metered.of(text, budget), skip_json_loads=True))
    except (AssertionError, AttributeError, LookupError) as error:  # accidents of its own, over odd texts
        raise TypeError(f"its JSON is damaged beyond repair ({type(error).__name__})") from error


def _plain(value: Any) -> Any:
    """Return the value without metered strs, of which another version of json_repair may make values or keys."""
    if type(value) is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    if type(value) is list:
        return [_plain(item) for item in value]
    return str.__str__(value) if type(value) is _Metered else value


class _Metered(str):
    """A str that charges a step for each access; so do the strs made from it."""

    __slots__ = ("_budget",)
    _budget: ParseBudget

    @classmethod
    def of(cls, text: str, budget: ParseBudget) -> _Metered:
        made = cls(text)
        made._budget = budget
        return made

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        budget = self._budget
        budget.left -= 1
        if budget.left <= budget.watched:
            budget.look()
        found = str.__getitem__(self, key)
        if not isinstance(key, slice):
            return found
        budget.charge(len(found) // _COPIED)
        # What begins at the begin is what a new text is joined from; other cuts become values, which are plain.
        return _Metered.of(found, budget) if key.start is None else found

    def __add__(self, more: str) -> str:
        self._budget.charge((len(self) + len(more)) // _COPIED)
        return _Metered.of(str.__add__(self, more), self._budget)

    def find(self, part: str, start: SupportsIndex | None = None, end: SupportsIndex | None = None) -> int:
        begin = 0 if start is None else start.__index__()
        found = str.find(self, part, begin, end)
        self._budget.charge(((len(self) if found < 0 else found) - begin) // _COPIED + 1)
        return found
