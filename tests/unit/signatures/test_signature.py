"""Unit: signatures: the string grammar, the class form, the operations, and the plain form for workers."""

from __future__ import annotations

import copy
import enum
import json
import pickle
import sys
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pytest

from dspex.adapters import compile_signature
from dspex.errors import SignatureError, UnknownName
from dspex.signatures.annotations import annotation_text, read_annotation
from dspex.signatures.field import InputField, OutputField
from dspex.signatures.signature import Signature, signature
from dspex.signatures.wire_form import signature_from_wire, signature_to_wire
from tests.support.parity import shapes
from tests.support.parity.shapes import Color, Item, Order


class QA(Signature):
    """Answer the question.

    Be exact.
    """

    question: str = InputField(desc="what is asked")
    hints: list[str] = InputField(default_factory=list)
    answer = OutputField()
    score: float = OutputField(ge=0, le=1)


def test_string_gives_fields_and_default_instructions() -> None:
    """unit: names, sides, types and DSPy's default text."""
    sig = signature("question, n: int -> answer, tags: list[str]")
    assert list(sig.input_fields) == ["question", "n"] and list(sig.output_fields) == ["answer", "tags"]
    assert sig.fields["n"].annotation is int and sig.fields["tags"].annotation == list[str]
    assert sig.fields["question"].untyped and not sig.fields["n"].untyped
    assert sig.instructions == "Given the fields `question`, `n`, produce the fields `answer`, `tags`."


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("q, q -> a", "q -> a"), ("q -> a, a", "a"), ("*args -> a", "*args"), ("q: int = 3 -> a", "= 3"),
        ("q, / -> a", "/"), ("q -> a: foo", "foo"), ("q -> a: list[foo]", "foo"), ("q -> a: dict[str, x.y]", "x.y"),
        ("q -> a -> b", "-> b"), ("q -> a: lambda: 1", ": 1"), ("q: [int] -> a", "[int]"), ("q -> a]", "]"),
        ("q -> a: None", "None"), ("q # all -> a", "# all"), ("1q -> a", "1q"), ("q -> a: 'x", "'x"),
    ],
)  # fmt: skip
def test_string_errors_point_at_their_place(text: str, marked: str) -> None:
    """unit: everything that DSPy drops silently, or imports, is an error here, with its position."""
    with pytest.raises(SignatureError) as caught:
        signature(text)
    assert caught.value.position is not None and caught.value.text == text
    assert text[caught.value.position :].startswith(marked)


def test_unknown_type_lists_near_names_and_imports_nothing() -> None:
    """unit: DSPy would run the module `antigravity`; the native parser names what it knows."""
    before = set(sys.modules)
    with pytest.raises(SignatureError, match="Did you mean 'str'"):
        signature("q -> a: strr")
    with pytest.raises(SignatureError, match="custom_types"):
        signature("q -> a: antigravity.Fly")
    assert "antigravity" not in set(sys.modules) - before


def test_arrow_may_stand_in_a_literal() -> None:
    """unit: wider than DSPy, which counts arrows before it reads quotes."""
    assert signature("q -> a: Literal['a->b', 'c,d:e']").fields["a"].annotation == Literal["a->b", "c,d:e"]


def test_custom_types_are_found_at_any_depth() -> None:
    """unit: DSPy finds them at the top level only."""
    sig = signature("q: Color -> a: list[Item] | None", custom_types=shapes.NAMES)
    assert (
        sig.fields["q"].annotation is Color and annotation_text(sig.fields["a"].annotation) == "Union[list[Item], None]"
    )


def test_class_form_is_a_signature_value() -> None:
    """unit: the docstring, the descriptions, constraints and defaults; and the value is no class."""
    assert isinstance(QA, Signature)
    assert QA.instructions == "Answer the question.\n\nBe exact."
    assert QA.fields["question"].shown_desc == "what is asked"
    assert QA.fields["score"].constraint_text == "greater than or equal to: 0, less than or equal to: 1"
    assert QA.fields["hints"].make_default() == [] and QA.fields["answer"].annotation is str


def test_class_form_can_be_narrowed_by_inheritance() -> None:
    """unit: a subclass adds fields after the inherited ones, and keeps the instructions unless it has its own."""

    class Longer(QA):  # type: ignore[misc, valid-type]
        question: int = InputField()
        reason: str = OutputField()

    assert isinstance(Longer, Signature)
    assert list(Longer.fields) == ["question", "hints", "answer", "score", "reason"]
    assert Longer.fields["question"].annotation is int and Longer.instructions == QA.instructions


def test_class_form_resolves_types_of_its_own_function() -> None:
    """unit: annotations are strings in this file, and the enum is known to this function only."""

    class Mine(enum.Enum):
        A = "a"

    class Local(Signature):
        kind: Mine = InputField()
        out: list[Mine] = OutputField()

    assert Local.fields["kind"].annotation is Mine


def test_class_form_refuses_what_is_no_field() -> None:
    """unit: bare annotations, methods, wrong options and constraints that do not fit."""
    with pytest.raises(SignatureError, match="needs = InputField"):

        class Bare(Signature):
            q: str

    with pytest.raises(SignatureError, match="not an InputField"):

        class Method(Signature):
            def run(self) -> None: ...

    with pytest.raises(UnknownName, match="'desc'"):
        InputField(descr="x")
    with pytest.raises(SignatureError, match="no effect"):
        InputField(prefix="Q:")
    with pytest.raises(SignatureError, match="do not fit"):
        signature({"q": InputField(), "a": (int, OutputField(le=1.5))})


@pytest.mark.parametrize("kind", [ClassVar, ClassVar[int], ClassVar[list[str]]])
def test_class_variables_are_no_fields(kind: Any) -> None:
    """unit: in a class, whatever they hold, in a mapping and in an operation; in a field's own type they may be."""
    with pytest.raises(SignatureError, match=r"'limit' .* not an InputField"):

        class Held(Signature):
            limit: kind = 3
            q: str = InputField()

    with pytest.raises(SignatureError, match="'q' is a ClassVar"):

        class Typed(Signature):
            q: kind = InputField()
            a: str = OutputField()

    for make in (
        lambda: signature({"q": (kind, InputField()), "a": OutputField()}),
        lambda: signature("q -> a").prepend("first", InputField(), kind),
        lambda: signature("q -> a").with_updated_fields("q", kind),
    ):
        with pytest.raises(SignatureError):
            make()

    class Limited(pydantic.BaseModel):
        limit: ClassVar[int] = 3
        size: int

    schema = compile_signature(signature({"q": InputField(), "a": (Limited, OutputField())})).prefix()[0]["content"]
    assert "size" in schema and "limit" not in schema


def test_operations_return_new_signatures() -> None:
    """unit: prepend, append, insert, delete and the rest; the original never changes."""
    sig = signature("q -> a")
    assert str(sig.prepend("r", OutputField(), int)) == "q -> r: int, a"
    assert str(sig.append("c", InputField())) == "q, c -> a"
    assert str(sig.insert(-1, "z", OutputField()).insert(1, "y", OutputField())) == "q -> a, y, z"
    assert str(sig.delete("a")) == "q -> " and sig.delete("nothing") == sig
    assert sig.with_instructions("Do it.").instructions == "Do it."
    assert sig.with_instructions("").instructions == sig.instructions
    assert sig.append_instructions("More.").instructions.endswith("`a`.\n\nMore.")
    assert sig.with_updated_fields("a", int, desc="x").fields["a"].annotation is int
    assert str(sig) == "q -> a"
    with pytest.raises(SignatureError, match="no place 9"):
        sig.insert(9, "x", InputField())
    with pytest.raises(UnknownName):
        sig.with_updated_fields("b")
    with pytest.raises(AttributeError, match="immutable"):
        sig.name = "x"


def test_prepend_of_an_existing_output_keeps_its_own_field() -> None:
    """unit: as in DSPy: it moves to the front and keeps its type."""
    sig = signature("q -> a, reasoning: int").prepend("reasoning", OutputField(), str)
    assert str(sig) == "q -> reasoning: int, a"


def test_signatures_are_values() -> None:
    """unit: equal by content, hashable, shared by copies, carried by pickle."""
    assert signature("q -> a") == signature("q -> a", None) and signature("q -> a") != signature("q -> b")
    assert hash(signature("q -> a: int")) == hash(signature({"q": InputField(), "a": (int, OutputField())}))
    assert copy.deepcopy(QA) is QA and pickle.loads(pickle.dumps(QA)) == QA


def test_wire_form_is_plain_and_rebuilds_the_same_prompts() -> None:
    """unit: enums and models come back from JSON with the same schema, so prompts and digests agree."""
    text = "q: Color, o: Order -> items: list[Item] | None, k: Literal['a', -1, None], d: dict[str, datetime.date]"
    sig = signature(text, "Do\n  it.", custom_types=shapes.NAMES)
    again = signature_from_wire(json.loads(json.dumps(signature_to_wire(sig))))
    assert signature_to_wire(again) == signature_to_wire(sig) and again.instructions == sig.instructions
    for adapter in ("chat", "json"):
        ours, theirs = compile_signature(sig, adapter), compile_signature(again, adapter)
        assert ours.prefix() == theirs.prefix() and ours.response_format() == theirs.response_format()
    value = compile_signature(again, "json").parse('{"items": [{"name": "x"}], "k": -1, "d": {"a": "2026-01-02"}}')
    assert value["items"][0].name == "x" and value["k"] == -1


def test_wire_form_keeps_the_docstring_of_an_enum() -> None:
    """unit: pydantic quotes it in the schema, so it belongs to the prompt."""
    sig = signature("q -> a: list[Mood]", custom_types=shapes.NAMES)
    again = signature_from_wire(signature_to_wire(sig))
    assert signature_to_wire(sig)["types"]["Mood"]["doc"] == "How someone feels."
    assert compile_signature(again).prefix() == compile_signature(sig).prefix()


def test_models_with_aliases_are_named_by_import() -> None:
    """unit: a schema shows the alias, a prompt the member's own name."""
    wire = signature_to_wire(signature("q -> a: Money", custom_types=shapes.NAMES))
    assert wire["types"] == {"Money": {"import": "tests.support.parity.shapes:Money"}}


def test_wire_form_keeps_every_part_of_a_field() -> None:
    """unit: description, constraints in their order, defaults, kinds."""
    wire = signature_to_wire(QA)
    assert wire["fields"][1]["default"] == {"value": []} and wire["fields"][0]["default"] is None
    assert list(wire["fields"][3]["constraints"].items()) == [("ge", 0), ("le", 1)]
    again = signature_from_wire(wire)
    assert signature_to_wire(again) == wire
    assert again.fields["hints"].make_default() is not again.fields["hints"].make_default()


def test_wire_form_refuses_what_it_cannot_say() -> None:
    """unit: classes by import, broken descriptions; of two types of one name the second has a name of its own."""

    class Item(pydantic.BaseModel):
        other: int

    twice = signature("a: A -> b: B", custom_types={"A": Item, "B": shapes.Item})
    wire = signature_to_wire(twice)
    assert wire["types"]["Item"].keys() == {"model"} and wire["types"]["Item_1"].keys() == {"import"}
    assert [field["annotation"] for field in wire["fields"]] == ["Item", "Item_1"]
    tree = signature_to_wire(signature("q -> a: Tree", custom_types=shapes.NAMES))
    rebuilt = signature_from_wire(tree)  # a model that refers to itself, too
    assert signature_to_wire(rebuilt) == tree and rebuilt.fields["a"].annotation is not shapes.Tree
    assert signature_from_wire(tree, custom_types=shapes.NAMES).fields["a"].annotation is shapes.Tree
    with pytest.raises(SignatureError, match="nothing is imported"):
        signature_from_wire({**tree, "types": {"Tree": {"import": "os:PathLike"}}})
    with pytest.raises(SignatureError, match="not whole"):
        signature_from_wire({"fields": [{}], "types": {}, "instructions": ""})


@pytest.mark.parametrize(
    "text",
    [
        "str", "list[str]", "Union[int, None]", "Literal['a', 1, None]", "tuple[int, ...]", "dict[str, list[int]]",
        "tuple[()]", "datetime.datetime", "Annotated[int, Field(gt=-3, le=9.5)]", "dspy.Image", "dspy.Code['java']",
        "Any",
    ],
)  # fmt: skip
def test_canonical_text_reads_back(text: str) -> None:
    """unit: what `annotation_text` writes, `read_annotation` reads as the same type, below the top level too."""
    nested = f"list[{text}]"
    assert annotation_text(read_annotation(nested)) == nested


def test_signature_models_with_a_wider_type_are_refused_when_compiled() -> None:
    """unit: a class that pydantic knows nothing of."""

    class Opaque:
        pass

    names: dict[str, Any] = {"Opaque": Opaque}
    with pytest.raises(SignatureError, match="without a JSON schema"):
        compile_signature(signature("q -> a: Opaque", custom_types=names))
    assert Item.__name__ == "Item" and Order.__name__ == "Order"


ANNOTATED = [
    (Annotated[int, pydantic.Field(gt=3)], int),
    (Annotated[str, "a note"], str),
    (Annotated[Annotated[Color, 1], pydantic.Field(description="said to nobody")], Color),
    (Annotated[Literal["a", "b"], 1], Literal["a", "b"]),
    (Annotated[list[Annotated[int, "kept"]], 1], list[Annotated[int, "kept"]]),
]


@pytest.mark.parametrize(("annotated", "plain"), ANNOTATED)
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_outermost_annotation_beside_a_type_is_dropped_as_by_dspy(annotated: Any, plain: Any, adapter: str) -> None:
    """unit: the class form and the operations give the bare type's prompt (pydantic drops it from DSPy's fields)."""

    def made(kind: Any) -> list[Signature]:
        members = {"q": InputField(), "y": OutputField(), "__annotations__": {"q": kind, "y": kind}}
        base: Any = Signature
        declared: Any = type(base)("Made", (base,), members)
        return [declared, signature("q -> a").append("y", OutputField(), kind), declared.with_updated_fields("y", kind)]

    for one, other in zip(made(annotated), made(plain), strict=True):
        assert one == other
        left, right = (compile_signature(sig, adapter).messages({"q": "5"}) for sig in (one, other))
        assert left == right


def test_default_inside_an_annotation_is_refused() -> None:
    """unit: DSPy takes it for the field's default; here it is said in one place."""
    kind = Annotated[int, pydantic.Field(default=5)]
    with pytest.raises(SignatureError, match="default of 'y'"):
        signature("q -> a").append("y", OutputField(), kind)
