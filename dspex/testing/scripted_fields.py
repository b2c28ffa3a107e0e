"""Script a fake model by what DSPy asks for: answers by output field, or by a predictor's signature. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .script import FakeReply, FakeRequest, NoAnswerLeft, Player, reply_of

FieldScript = Mapping[str, Any]  # of each field: a value, a list of values in turn, or a function of the request
SignatureScript = Mapping[Any, Any]  # of each signature: an answer, a list of answers in turn, or a function


class Unscripted(NoAnswerLeft):
    """This part of the script says nothing of the request; another part may."""


def by_field(script: FieldScript, *, cycle: bool) -> Player:
    """Return a player that answers each output field of a request.

    Raises:
        TypeError: the script is no mapping, or a whole reply stands where a field's value should.
    """
    if not isinstance(script, Mapping):
        raise TypeError(f"by_field is a dict from output fields to answers, not {type(script).__name__}.")
    turns = {name: _Turns(f"the field {name!r}", value, cycle) for name, value in script.items()}
    for name, turn in turns.items():
        if any(isinstance(value, FakeReply) for value in turn.values):
            raise TypeError(f"by_field[{name!r}] holds a FakeReply, which answers a whole request: use by_signature.")

    def play(request: FakeRequest) -> FakeReply:
        wanted = request.outputs
        if not any(name in turns for name in wanted):
            raise Unscripted(f"FakeLM has answers for the fields {_names(turns)}; {_described(request)}.")
        missing = [name for name in wanted if name not in turns and name != "reasoning"]
        if missing:
            raise NoAnswerLeft(f"FakeLM's by_field has no answer for {_names(missing)}; {_described(request)}.")
        return FakeReply({name: turns[name].next(request) for name in wanted if name in turns})

    return play


def by_signature(script: SignatureScript, *, cycle: bool) -> Player:
    """Return a player that answers each predictor's requests, known by its signature.

    Raises:
        TypeError: the script is no mapping.
        ValueError: a key is no signature.
    """
    if not isinstance(script, Mapping):
        raise TypeError(f"by_signature is a dict from signatures to answers, not {type(script).__name__}.")
    sides = [(_sides(key), _Turns(f"the signature {_shown(key)!r}", value, cycle)) for key, value in script.items()]

    def play(request: FakeRequest) -> FakeReply:
        for (inputs, outputs), turn in sides:
            if _is_of(inputs, request.input_names) and _is_of(outputs, request.outputs):
                return reply_of(_of_fields(request, turn.next(request)))
        raise Unscripted(f"FakeLM has answers for the signatures {_names(map(_shown, script))}; {_described(request)}.")

    return play


def in_turn(players: Sequence[Player]) -> Player:
    """Return a player that asks each of these, in order, until one knows the request."""

    def play(request: FakeRequest) -> FakeReply:
        for player in players[:-1]:
            try:
                return player(request)
            except Unscripted:
                continue
        return players[-1](request)

    return play


def asked_for(what: Any) -> Callable[[FakeRequest], bool]:
    """Return whether a request asks for this output field, or comes from a predictor of this signature.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(what, str) and "->" not in what:
        return lambda request: what in request.outputs
    inputs, outputs = _sides(what)
    return lambda request: _is_of(inputs, request.input_names) and _is_of(outputs, request.outputs)


class _Turns:
    """The answers for one field or signature."""

    def __init__(self, whose: str, answer: Any, cycle: bool) -> None:
        self.values: list[Any] = list(answer) if isinstance(answer, list | tuple) else [answer]
        self._whose = whose
        self._is_constant = not isinstance(answer, list | tuple)
        self._cycle = cycle
        self._given = 0

    def next(self, request: FakeRequest) -> Any:
        at = self._given
        if self._is_constant:
            at = 0
        elif self._cycle and self.values:
            at %= len(self.values)
        elif at >= len(self.values):
            raise NoAnswerLeft(
                f"FakeLM was given {len(self.values)} answer(s) for {self._whose} and is asked for number {at + 1}."
            )
        self._given += 1
        value = self.values[at]
        return value(request) if callable(value) and not isinstance(value, type) else value


def _sides(key: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of a signature's inputs and outputs: of its text, or of a Signature, DSPex's or DSPy's."""
    if isinstance(key, str) and key.count("->") >= 1:
        inputs, _, outputs = key.partition("->")
        return frozenset(_field_names(inputs)), frozenset(_field_names(outputs))
    sides = getattr(key, "input_fields", None), getattr(key, "output_fields", None)
    if isinstance(sides[0], Mapping) and isinstance(sides[1], Mapping):
        return frozenset(sides[0]), frozenset(sides[1])
    raise ValueError(f"{key!r} is no signature: write 'question -> query', or '-> query' for any inputs.")


def _field_names(side: str) -> Iterator[str]:
    depth, name = 0, ""
    for char in side + ",":
        if char == "," and not depth:
            if name.strip():
                yield re.split(r"[:\s]", name.strip(), maxsplit=1)[0]
            name = ""
            continue
        depth += (char in "[(") - (char in "])")
        name += char


def _is_of(scripted: frozenset[str], asked: Sequence[str]) -> bool:
    """Compare one side; an empty one stands for any, and `reasoning`, which DSPy's modules add, need not be named."""
    return not scripted or scripted in (frozenset(asked), frozenset(asked) - {"reasoning"})


def _of_fields(request: FakeRequest, answer: Any) -> Any:
    """A text stands for the only output field; a reply that is to be a text as it is, is a FakeReply."""
    if not isinstance(answer, str):
        return answer
    fields = [name for name in request.outputs if name != "reasoning"] or request.outputs
    if len(fields) != 1:
        raise NoAnswerLeft(
            f"FakeLM was given the text {answer!r} for several fields: give a dict; {_described(request)}."
        )
    return {fields[0]: answer}


def _described(request: FakeRequest) -> str:
    if not request.outputs:
        return "the request names no output fields: it was not written by one of DSPy's adapters"
    return f"the request is of {request.signature!r}"


def _shown(key: Any) -> str:
    if isinstance(key, str):
        return key
    return f"{', '.join(key.input_fields)} -> {', '.join(key.output_fields)}"


def _names(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "(none)"
