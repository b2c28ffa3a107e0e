"""Signature classes from wire specs, and back."""

from __future__ import annotations

import json
import sys
from typing import Any

import dspy

from dspex_worker.programs.code.user_imports import UserImports
from dspex_worker.programs.modules import signature_classes
from tests.support import user_code as mine
from tests.support.worker_cases.parent import RECORD, chat, fails_with, parent, programs, signature, spec

NONE = UserImports()
MINE = UserImports.of(["tests.support.user_code"])


def _system(sig: Any, adapter: Any) -> str:
    return str(adapter.format_system_message(sig))


def test_string_forms_make_the_prompts_that_dspy_makes() -> None:
    """parity: each annotation, in both adapters, against DSPy's own string parser."""
    types = (
        *("str", "int", "float", "bool", "list[str]", "dict[str, int]", "tuple[int, ...]", "tuple[int, str]"),
        *("Optional[str]", "str | None", "Union[int, str]", "Literal['a', 'b']", "Literal[1, True, None]"),
        *("list[Literal['x']]", "List[str]", "Dict[str, List[int]]", "set[int]", "list", "dict", "Any", "bytes"),
        *("datetime.datetime", "dspy.Image", "list[dspy.Image]", "dspy.History", "dspy.Code", "list[dict[str, Any]]"),
    )
    for annotation in types:
        theirs = dspy.Signature(f"a, b: {annotation} -> c: {annotation}, d", custom_types=_names())
        ours = signature_classes.build(signature(f"a; b: {annotation}", f"c: {annotation}; d"), NONE)
        assert ours.instructions == theirs.instructions
        for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()):
            assert _system(ours, adapter) == _system(theirs, adapter), annotation


def _names() -> dict[str, Any]:
    import datetime
    import types

    return {"dspy": dspy, "datetime": types.SimpleNamespace(datetime=datetime.datetime), "NoneType": type(None)}


def test_class_forms_survive_the_round_trip() -> None:
    """parity: describe, build, describe again; prompts equal those of the user's class."""
    described = signature_classes.describe(mine.Describe, MINE)
    assert described["types"] == {  # by import for workers, with what the host makes of them
        "Mood": {"enum": {"GOOD": "good", "BAD": "bad"}, "import": "tests.support.user_code:Mood"},
        "Person": {"import": "tests.support.user_code:Person", "model": mine.Person.model_json_schema()},
    }
    by_name = {field["name"]: field for field in described["fields"]}
    assert by_name["score"]["constraints"] == {"ge": 0, "lt": 1} and by_name["score"]["desc"] == "how sure"
    assert by_name["hints"]["default"] == {"value": None} and by_name["person"]["desc"] is None
    rebuilt = signature_classes.build(described, MINE)
    assert signature_classes.describe(rebuilt, MINE) == described
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter()):
        assert _system(rebuilt, adapter) == _system(mine.Describe, adapter)


def test_models_are_rebuilt_from_their_schema_without_import() -> None:
    """parity: the prompt of a rebuilt model equals the original's; what cannot be rebuilt is refused."""
    described = signature_classes.describe(mine.Describe, NONE)
    assert "model" in described["types"]["Person"]
    rebuilt = signature_classes.build(described, NONE)
    assert _system(rebuilt, dspy.ChatAdapter()) == _system(mine.Describe, dspy.ChatAdapter())
    schema = {"type": "object", "title": "T", "properties": {"a": {"type": "string", "format": "email"}}}
    with fails_with("InvalidInput") as caught:
        signature_classes.build(signature("q", "a: T", types={"T": {"model": schema}}), NONE)
    assert "imports" in caught[0].message


def test_annotation_text_imports_nothing() -> None:
    """unit: DSPy's parser would import the module `this`; the whitelist refuses it (X1)."""
    for gadget in (
        "this",
        "antigravity",
        "os.system",
        "dspy._vendor.lm15.auth.os",
        "list[this]",
        "__import__('this')",
    ):
        sys.modules.pop("this", None)
        with fails_with("InvalidInput") as caught:
            signature_classes.build(signature("q", f"a: {gadget}"), NONE)
        assert "this" not in sys.modules and "antigravity" not in sys.modules
        assert caught[0].facts["field"] == "a"


def test_names_of_the_bridge_are_not_found_in_frames() -> None:
    """unit: DSPy looks up to 100 callers for a type's name; ours looks nowhere."""
    request = int  # noqa: F841 - what a frame walk would find
    with fails_with("InvalidInput"):
        signature_classes.build(signature("q", "a: request"), NONE)


def test_unusable_specs_are_refused() -> None:
    """unit: duplicate names, reserved names, imports outside the pool's."""
    with fails_with("InvalidInput"):
        signature_classes.build(signature("q", "q"), NONE)
    with fails_with("InvalidInput"):
        signature_classes.build(signature("_q", "a"), NONE)
    with fails_with("UnknownName"):
        signature_classes.build(signature("q", "a: T", types={"T": {"import": "subprocess:Popen"}}), MINE)
    with fails_with("UnknownName"):
        signature_classes.build(
            signature("q", "a: T", types={"T": {"import": "tests.support.user_code:os.PathLike"}}), MINE
        )


def test_signature_of_exports_the_users_class() -> None:
    """unit: the command behind class-style signatures of the pool's imports."""
    found = programs().signature_of(parent(""), "tests.support.user_code:Describe")
    assert [field["name"] for field in found["fields"]] == ["person", "hints", "mood", "score"]
    with fails_with("InvalidInput"):
        programs().signature_of(parent(""), "tests.support.user_code:Mood")
    with fails_with("UnknownName"):
        programs().signature_of(parent(""), "tests.support.user_code:Describe.__init__")


def test_rich_inputs_and_outputs_cross_exactly() -> None:
    """unit: models and enums come in from wire values and go out as wire values."""
    described = programs().signature_of(parent(""), "tests.support.user_code:Describe")
    call = parent(chat(mood="bad", score="0.25"))
    given = {"person": {"name": "Ann", "age": 3}, "hints": ["h"]}
    result = call.call(programs().run, call, spec(sig=described), given, RECORD)
    assert result["outputs"] == {"mood": "bad", "score": 0.25}
    assert '{"name": "Ann", "age": 3}' in call.bodies[0]["messages"][-1]["content"]
    with fails_with("InvalidInput") as caught:
        call.call(programs().run, call, spec(sig=described), {"person": {"age": 3}}, RECORD)
    assert caught[0].facts["field"] == "person" and "Ann" not in caught[0].message


def test_values_become_exact_wire_values() -> None:
    """unit: no subclass, tuple, set, enum or model is left."""
    from dspex_worker.programs.values.wire_values import to_wire

    class Text(str):
        pass

    found = to_wire(
        {
            1: (1, {2, 1}),
            "e": mine.Mood.GOOD,
            "p": mine.Person(name="n"),
            "t": Text("s"),
            "c": dspy.Code(code="x = 1"),
        }
    )
    assert found == {"1": [1, [1, 2]], "e": "good", "p": {"name": "n", "age": 1}, "t": "s", "c": "x = 1"}
    assert type(found["t"]) is str
    assert to_wire(dspy.Prediction(a=1)) == {"a": 1}


def test_the_parents_own_specs_are_understood() -> None:
    """parity: what dspex writes, this reads, and describes the same; both render one system message."""
    from dspex import compile_signature
    from dspex.errors import UsageError
    from dspex.signatures.signature import signature as native
    from dspex.signatures.wire_form import signature_to_wire

    texts = (
        "q -> a",
        "q: list[str], n: int -> a: Literal['x', 'y'], b: float | None",
        "q: dict[str, list[int]] -> a: Person, c: Mood, l: list[Person]",
        "img: dspy.Image, h: dspy.History -> a: dspy.Code['java']",
        "q -> r: dspy.Reasoning, a",
        "d: datetime.datetime -> e: Annotated[int, Field(gt=3)], f: list[Annotated[int, Field(ge=1)]]",
        "a: tuple[int, ...] -> b: set[str], c: List[str], d: Any",
    )
    inputs: dict[str, Any] = {"q": "x", "n": 1, "d": "2026-01-01T00:00:00", "a": [1]}
    compared = 0
    for text in texts:
        theirs = native(text, custom_types={"Person": mine.Person, "Mood": mine.Mood})
        sent = json.loads(json.dumps(signature_to_wire(theirs)))
        built = signature_classes.build(sent, NONE)
        assert signature_classes.describe(built, NONE) == sent, text
        given = {name: inputs[name] for name in theirs.input_fields if name in inputs}
        given |= {"q": []} if "q: list" in text else {"q": {}} if "q: dict" in text else {}
        for name, adapter in (("chat", dspy.ChatAdapter()), ("json", dspy.JSONAdapter())):
            try:
                messages = compile_signature(theirs, adapter=name).messages(given)
            except (UsageError, ValueError):
                continue  # the native side leaves it to a worker
            assert messages[0]["content"] == _system(built, adapter), (text, name)
            compared += 1
    assert compared >= 6
