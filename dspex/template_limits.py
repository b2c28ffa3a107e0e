"""Bound what one rendering of a template may cost: texts that grow, numbers that grow, loops in loops.

A template may come from a settings file or a stranger; what it can reach is jinja2's sandbox's business, how much it
makes is this file's. A budget belongs to one rendering and is charged before anything is made. Not covered: loops over
the caller's own values, which are as long as the caller gave them.
"""

from __future__ import annotations

import contextvars
import functools
import re
from collections.abc import Callable, Generator, Sized
from contextlib import contextmanager
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHARS_MOST = 8 * 1024 * 1024  # that one rendering makes, its result included
STEPS_MOST = 1_000_000  # of ranges, over all loops
NUMBER_MOST = 1_000_000  # an argument of a method or filter: a width, a count
BITS_MOST = 4096  # of a number
_WIDE = re.compile(r"\d{7,}")  # in a format: a width or a precision over NUMBER_MOST
_NESTED = re.compile(r"\{[^{}]*:[^{}]*\{|%[^a-zA-Z%]*\*")  # which takes its width from a value
_GROWING = frozenset({"*", "**", "%", "+"})
_WIDTHS = ("center", "indent", "wordwrap", "truncate", "batch", "slice")  # filters that a number tells how much to make


class _Budget:
    """What is left of one rendering."""

    __slots__ = ("chars", "steps")

    def __init__(self) -> None:
        self.chars = CHARS_MOST
        self.steps = STEPS_MOST

    def take_chars(self, count: int) -> None:
        self.chars -= count
        if self.chars < 0:
            raise SecurityError(f"it makes over {CHARS_MOST:,} characters")

    def take_steps(self, count: int) -> None:
        self.steps -= count
        if self.steps < 0:
            raise SecurityError(f"its loops take over {STEPS_MOST:,} steps")


_budget: contextvars.ContextVar[_Budget | None] = contextvars.ContextVar("dspex_template_budget", default=None)


@contextmanager
def rendering() -> Generator[_Budget]:
    """Open a budget for the time of the block."""
    budget = _Budget()
    token = _budget.set(budget)
    try:
        yield budget
    finally:
        _budget.reset(token)


class _Generator(CodeGenerator):
    """Writes `a ~ b` as a call that is charged."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with bounds."""

    intercepted_binops = _GROWING
    code_generator_class = _Generator

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        known: dict[str, Any] = dict(self.globals)
        known.pop("lipsum", None)
        self.globals = {**known, "range": _range}
        for name in (*_WIDTHS, "format", "join", "replace"):
            self.filters[name] = _bounded(FILTERS[name], _CHECKS.get(name, _widths))

    def joined(self, parts: tuple[Any, ...]) -> str:
        """Return `a ~ b ~ c`."""
        texts = [str(part) for part in parts]
        _charge(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Carry out an operator whose result may be far larger than its operands."""
        if operator == "*":
            _product(left, right)
        elif operator == "+":
            _charge(sum(len(part) for part in (left, right) if isinstance(part, str | bytes | list | tuple)))
        elif operator == "**":
            _power(left, right)
        elif isinstance(left, str | bytes):
            _require_format(left)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return what formats in place of `str.format`, within bounds."""
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else _bounded(wrapped, lambda *_: _require_format(value.__self__))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the template's values."""
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str | bytes):
            check: Callable[..., None] = _CHECKS.get(str(getattr(function, "__name__", "")), _widths)
            check(owner, *args, *kwargs.values())
        return super().call(context, function, *args, **kwargs)


def _range(*given: int) -> range:
    made = range(*given)
    if (budget := _budget.get()) is not None:
        budget.take_steps(len(made) + 1)
    return made


def _bounded(wrapped: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """Return a filter that is checked before it makes anything; jinja2's marks on it stay."""
    skipped = 1 if hasattr(wrapped, "jinja_pass_arg") else 0  # the environment or the context

    @functools.wraps(wrapped)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        check(*args[skipped:], *kwargs.values())
        made = wrapped(*args, **kwargs)
        _charge(len(made) if isinstance(made, str) else 0)
        return made

    return bounded


# --- checks, each with the value and what it is given ---------------------------------------------------------------


def _widths(value: Any, *given: Any) -> None:
    texts = [len(part) for part in given if isinstance(part, str | bytes)]
    size = len(value) if isinstance(value, Sized) else 1
    for number in given:
        if isinstance(number, int) and not isinstance(number, bool):
            if abs(number) > NUMBER_MOST:
                raise SecurityError(f"a number in it is over {NUMBER_MOST:,}, as a width or a count")
            lines = value.count("\n") + value.count("\t") + 1 if isinstance(value, str) else 1
            _charge(abs(number) * lines)
    _charge(size * max(texts, default=0) if len(texts) else size)


def _join(value: Any, *given: Any) -> None:
    """Of the filter, the value is what is joined; of the method, the text between."""
    between, parts = (
        (value, given[0]) if isinstance(value, str | bytes) and given else (given[0] if given else "", value)
    )
    if isinstance(parts, list | tuple):
        gap = len(between) if isinstance(between, str | bytes) else 20
        _charge(sum(len(part) if isinstance(part, str | bytes) else 20 for part in parts) + gap * len(parts))


def _replace(value: Any, *given: Any) -> None:
    if len(given) >= 2 and isinstance(value, str | bytes) and isinstance(given[1], str | bytes):
        old = len(given[0]) if isinstance(given[0], str | bytes) else 1
        same: Any = value  # of the same kind as what is looked for
        found = same.count(given[0]) if old and isinstance(given[0], type(value)) else len(value) + 1
        _charge(len(value) + found * len(given[1]))


def _format(value: Any, *given: Any) -> None:
    _require_format(value)


_CHECKS: dict[str, Callable[..., None]] = {"join": _join, "replace": _replace, "format": _format}


def _charge(chars: int) -> None:
    if (budget := _budget.get()) is not None:
        budget.take_chars(chars)


def _product(left: Any, right: Any) -> None:
    for whole, times in ((left, right), (right, left)):
        if isinstance(whole, str | bytes | list | tuple) and isinstance(times, int):
            _charge(len(whole) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int):
        _require_bits(left.bit_length() + right.bit_length())


def _power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _require_bits(base.bit_length() * min(abs(exponent), BITS_MOST + 1))


def _require_bits(bits: int) -> None:
    if bits > BITS_MOST:
        raise SecurityError(f"a number in it has over {BITS_MOST:,} bits")


def _require_format(text: Any) -> None:
    shown = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    if _NESTED.search(shown):
        raise SecurityError("a format in it takes its width from a value")
    if ("%" in shown or "{" in shown) and _WIDE.search(shown):
        raise SecurityError(f"a format in it is wider than {NUMBER_MOST:,}")
