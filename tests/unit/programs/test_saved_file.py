"""Unit: files that are no saved program are refused with InvalidInput, whatever they hold."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from dspex.errors import DspexError, InvalidInput, UnsafeProgram
from dspex.programs.examples import example_jobs
from dspex.programs.factories import loading, program_factories
from dspex.programs.files.saved_file import SavedFile
from dspex.signatures.signature import signature
from dspex.signatures.wire_form import signature_to_wire

WHOLE = {"format": 1, "module": "dspy.Predict", "signature": signature_to_wire(signature("a -> b"))}


@pytest.mark.parametrize(
    "metadata",
    [
        3,
        [1],
        {"dspex": 3},
        {"dspex": {"module": "dspy.Predict"}},
        {"dspex": {**WHOLE, "signature": 3}},
        {"dspex": {**WHOLE, "signature": {"fields": [3]}}},
        {"dspex": {**WHOLE, "module": None}},
        {"dspex": {**WHOLE, "format": 2}},
    ],
)
def test_metadata_that_are_not_ours_are_refused(tmp_path: Path, metadata: Any) -> None:
    """unit: also with a program at hand, and a newer form is said to be one"""
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"metadata": metadata}))
    for program in (None, program_factories.predictor("predict", "a -> b")):
        with pytest.raises(InvalidInput):
            loading.load(path, program=program)


def test_file_without_our_metadata_needs_its_program(tmp_path: Path) -> None:
    """unit"""
    path = tmp_path / "theirs.json"
    path.write_text('{"metadata": {"dspex": {}}}')
    with pytest.raises(InvalidInput, match="saved by DSPy itself"):
        loading.load(path)
    assert loading.load(path, program=program_factories.predictor("predict", "a -> b")).program.inputs == ("a",)


def test_examples_that_are_no_mappings_are_refused() -> None:
    """unit: an element of a text, or a number, is no example"""
    for row in ("x", 3, ["a"]):
        with pytest.raises(InvalidInput, match="mapping"):
            example_jobs.require_inputs([row], signature("a -> b"))


class Person(pydantic.BaseModel):
    name: str
    tags: list[str] = []


ODD: list[Any] = [None, True, 3, -1, 1e400, "", "x", "http://x", "\ud800", [], {}, [[]], [3], {"a": 1}, {"$ref": "#"}]
KEYS = ("lm", "config", "properties", "$defs", "anyOf", "other")


def _ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _ways(each, (*way, key))


def _mutated(document: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The document with one thing of it gone, replaced, or with one more key."""
    changed = copy.deepcopy(document)
    *way, last = chance.choice(list(_ways(changed)))
    inner: Any = changed
    for key in way:
        inner = inner[key]
    act = chance.random()
    if act < 0.2:
        del inner[last]
    elif act < 0.4 and isinstance(inner, dict):
        inner[chance.choice(KEYS)] = copy.deepcopy(chance.choice(ODD))
    else:
        inner[last] = copy.deepcopy(chance.choice(ODD))
    return changed


@pytest.mark.parametrize("seed", range(8))
def test_a_file_with_anything_changed_loads_or_is_refused(tmp_path: Path, seed: int) -> None:
    """unit: 8 x 100 mutations of a whole file: no error but DSPex's own, and what loads can be saved."""
    sig = signature("q: list[int], p: Person -> kind: Literal['x', 'y'], b: float", custom_types={"Person": Person})
    fields = [{"prefix": f"{name.capitalize()}:", "description": "${" + name + "}"} for name in sig.fields]
    state = {"demos": [{"q": [1]}], "lm": None, "signature": {"instructions": "Be brief.", "fields": fields}}
    whole = program_factories.predictor("predict", sig, temperature=0.5).with_state(state)
    path, again = tmp_path / "it.json", tmp_path / "again.json"
    loading.Optimized(whole, 1.0, 0.5, [{"trial": 1}], "copro", {"python": "3.11.1"}).save(path)
    document, chance, loaded = json.loads(path.read_text()), random.Random(seed), 0
    for _ in range(100):
        path.write_text(json.dumps(_mutated(document, chance)))
        try:
            found = loading.load(path, program=chance.choice([None, whole]))
        except DspexError:
            continue
        loaded += 1
        found.save(again)
        assert repr(loading.load(again, program=whole).program) == repr(found.program)
    assert 0 < loaded < 100


def test_the_arguments_of_a_scripts_class_have_any_names_but_those_of_calling(tmp_path: Path) -> None:
    """unit: its module's name in the file is the class's alone; DSPy's modules have the options that they have."""
    file, described = tmp_path / "program.json", signature_to_wire(signature("question -> answer"))

    def read(module: str, options: dict[str, Any]) -> SavedFile:
        own = {"format": 1, "module": module, "signature": described, "options": options}
        file.write_text(json.dumps({"metadata": {"dspex": own}}))
        return SavedFile.read(file)

    assert read("MultiHop", {"k": 2, "hops": 3}).own["options"] == {"k": 2, "hops": 3}
    for module, options in [("predict", {"k": 2}), ("dspy.Predict", {"k": 2}), ("MultiHop", {"api_base": "http://x"})]:
        with pytest.raises(UnsafeProgram):
            read(module, options)
