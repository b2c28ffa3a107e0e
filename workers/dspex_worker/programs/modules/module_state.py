"""Dump and load a module's saved state, in the form of DSPy's `save()`. Any thread."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import dspy

from ...saved_state import damage, stray_keys, without_lms
from ..dspy_errors import invalid_input
from ..values.wire_values import to_wire


def dump_state(program: dspy.Module) -> dict[str, Any]:
    """Return the program's state as `save()` writes it, without LMs, traces and training data."""
    state = program.dump_state()
    for part in _predictor_states(state):
        part.update(lm=None, traces=[], train=[])
    wire: dict[str, Any] = to_wire(state)
    return wire


def load_state(program: dspy.Module, state: Mapping[str, Any]) -> None:
    """Load a saved state into `program`, once it is certain that it is this program's.

    DSPy pairs saved fields with the signature's by position and takes any other key for an attribute; a state of
    another program would load and answer with wrong descriptions. An LM in it is left out.

    Raises:
        Failure: InvalidInput, when predictors or fields do not match, or a key is none of a program's.
    """
    given = {key: value for key, value in state.items() if key != "metadata"}
    if stray := stray_keys(given):
        raise invalid_input(f"The state holds {', '.join(stray[:5])}: a state says what a program is, and no more.")
    own = program.dump_state()
    if isinstance(program, dspy.Predict):
        _check_predictor("the program", own, given)
    else:
        _check_parts(own, given)
    if wrong := damage(given):
        raise invalid_input(f"The state is damaged: {wrong}.")
    cleaned, _ = without_lms(given)
    own_lms = [(predictor, predictor.lm) for predictor in program.predictors()]
    program.load_state(copy.deepcopy(cleaned))
    for predictor, lm in own_lms:  # DSPy takes a state without an LM for one that forbids it
        predictor.lm = lm


def _predictor_states(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "signature" in state and "demos" in state:
        return [state]  # type: ignore[list-item]
    return [part for part in state.values() if isinstance(part, dict) and "demos" in part]


def _check_parts(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    if own.keys() != state.keys():
        raise invalid_input(
            f"The state is of another program: it has the parts {', '.join(sorted(state))}; "
            f"this program has {', '.join(sorted(own))}."
        )
    for name, part in own.items():
        if isinstance(part, dict) and "signature" in part:
            _check_predictor(name, part, state[name])
        elif isinstance(part, dict) and (others := state[name].keys() - part.keys()):
            # DSPy's Retrieve, for one, would take them for its attributes.
            raise invalid_input(f"The state of {name!r} holds {min(others)}, which this program's has not.")


def _check_predictor(name: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    missing = {"demos", "signature"} - state.keys()
    if missing:
        raise invalid_input(f"The state of {name!r} lacks {', '.join(sorted(missing))}.")
    ours, theirs = own["signature"]["fields"], state["signature"]["fields"]
    if len(ours) != len(theirs):
        raise invalid_input(f"The state of {name!r} has {len(theirs)} fields; its signature has {len(ours)}.")
    # A state holds no field names, but prefixes are made of them. COPRO rewrites the last one.
    for mine, saved in list(zip(ours, theirs, strict=True))[:-1]:
        if mine["prefix"] != saved["prefix"]:
            raise invalid_input(
                f"The state of {name!r} is of another signature: it has a field {saved['prefix']!r} where this "
                f"signature has {mine['prefix']!r}."
            )
