"""Parity: the cases of DSPy's tests/signatures/test_signature.py, natively; see docs/internals/upstream-cases.md."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any, Literal, Union, get_args

import cloudpickle  # type: ignore[import-untyped]
import pydantic
import pytest

from dspex.adapters import compile_signature
from dspex.errors import SignatureError
from dspex.programs.files.program_state import native_state, saved_prefix
from dspex.signatures.field import InputField, OutputField
from dspex.signatures.signature import Signature, signature
from tests.support.parity.one_case import agreed, call, case, field, out, values
from tests.support.parity.oracle import Oracle

pytestmark = pytest.mark.parity


class Rating(Signature):
    """Rate it."""

    review: str = InputField()
    stars: int = InputField(desc="so far")
    pros: list[str] = OutputField()
    verdict = OutputField()


def test_class_form_gives_types_sides_and_instructions() -> None:
    """parity: annotations as written, str where nothing is written, the docstring as instructions."""
    assert isinstance(Rating, Signature) and Rating.instructions == "Rate it."
    assert [Rating.input_fields[name].annotation for name in Rating.input_fields] == [str, int]
    assert [Rating.output_fields[name].annotation for name in Rating.output_fields] == [list[str], str]


def test_members_that_are_no_fields_are_refused() -> None:
    """parity: DSPy raises TypeError for both."""
    with pytest.raises(SignatureError):

        class Bare(Signature):
            review: str

    with pytest.raises(SignatureError):

        class Foreign(Signature):
            review: str = pydantic.Field()


def test_names_of_a_string() -> None:
    """parity: both inputs and the output."""
    sig = signature("left, right -> sum")
    assert list(sig.input_fields) == ["left", "right"] and list(sig.output_fields) == ["sum"]


@pytest.mark.parametrize("text", ["same -> same", "", "left, right"])
def test_strings_that_are_no_signature_are_refused(text: str) -> None:
    """parity: one name on both sides, nothing at all, no arrow."""
    with pytest.raises(SignatureError):
        signature(text)


def test_instructions_can_be_replaced_and_extended() -> None:
    """parity: by new signatures; the first stays as it is, also where its text was made for it."""
    for base in (Rating, signature("q -> a"), signature("q -> a", "Begin.")):
        before = base.instructions
        assert base.with_instructions("Otherwise.").instructions == "Otherwise."
        twice = base.append_instructions("One.").append_instructions("Two.")
        assert twice.instructions == f"{before}\n\nOne.\n\nTwo." and twice.fields == base.fields
        assert base.instructions == before


def test_one_field_can_be_changed() -> None:
    """parity: its description or type, in a new signature; the others keep theirs."""
    changed = Rating.with_updated_fields("stars", float, desc="out of five")
    assert (changed.fields["stars"].annotation, changed.fields["stars"].shown_desc) == (float, "out of five")
    assert Rating.fields["stars"].shown_desc == "so far" and changed.instructions == Rating.instructions
    assert all(changed.fields[name] == Rating.fields[name] for name in Rating.fields if name != "stars")


def test_instructions_are_given_or_made() -> None:
    """parity: by position, by name, or DSPy's own sentence."""
    assert signature("q -> a", "Do.").instructions == signature("q -> a", instructions="Do.").instructions == "Do."
    assert signature("x, y -> z").instructions == "Given the fields `x`, `y`, produce the fields `z`."


def test_fields_can_be_given_by_name() -> None:
    """parity: a mapping of fields, with or without types."""
    plain = signature({"x": InputField(), "y": InputField(), "z": OutputField()})
    assert [each.annotation for each in plain.fields.values()] == [str] * 3
    types = [list[str], dict[str, int], tuple[int, float]]
    sides = [InputField(), InputField(), OutputField()]
    typed = signature(dict(zip("xyz", zip(types, sides, strict=True), strict=True)))
    assert [each.annotation for each in typed.fields.values()] == types


def test_equality_is_by_content() -> None:
    """parity: equal strings, other names, two spellings of one union."""
    assert signature("q -> a") == signature("q -> a") != signature("p -> b")
    assert signature("q: str | None -> a: int | str") == signature("q: Optional[str] -> a: Union[int, str]")


def test_text_of_a_signature() -> None:
    """parity: names and an arrow."""
    assert str(signature("one -> two")) == "one -> two"


def test_fields_can_be_added_at_either_end() -> None:
    """parity: of the inputs and of the outputs."""
    made = Rating.prepend("a", InputField(), str).append("b", InputField(), str)
    made = made.prepend("c", OutputField(), str).append("d", OutputField(), str)
    assert list(made.input_fields) == ["a", "review", "stars", "b"]
    assert list(made.output_fields) == ["c", "pros", "verdict", "d"]


def test_fields_keep_their_order() -> None:
    """parity: also where only some have a type."""
    assert list(Rating.fields) == ["review", "stars", "pros", "verdict"]


def test_instructions_of_several_lines_are_sent_as_dspy_sends_them(oracle: Oracle) -> None:
    """parity: a docstring with deeper lines, and a signature without inputs."""
    text = "First this.\n        Then that.\n            And deeper."
    one = case([out("said")], form="class", instructions=(None, text), calls=[call("[[ ## said ## ]]\nok")])
    native = agreed(oracle, one)
    assert values(native["calls"][0]["outcome"]) == {"said": "'ok'"}


def test_a_saved_state_is_taken_over() -> None:
    """parity: instructions and descriptions of another signature with the same fields; the first stays as it was."""
    fields = [{"prefix": "Review:", "description": "kinder"}, {"prefix": "Verdict:", "description": "${verdict}"}]
    state = {"signature": {"instructions": "Be kind.", "fields": fields}, "demos": [], "lm": None}
    strict = signature({"review": InputField(desc="harsh"), "verdict": OutputField()}, "Be harsh.")
    loaded = native_state("dspy.Predict", strict, state, ()).signature
    assert (loaded.instructions, loaded.fields["review"].shown_desc) == ("Be kind.", "kinder")
    assert (strict.instructions, strict.fields["review"].shown_desc) == ("Be harsh.", "harsh")
    assert [saved_prefix(name) for name in loaded.fields] == [each["prefix"] for each in fields]


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("int", int), ("float", float), ("list[int]", list[int]), ("dict[str, float]", dict[str, float]),
        ("tuple[str, int]", tuple[str, int]), ("Optional[str]", str | None), ("Union[int, None]", int | None),
        ("Union[int, str]", int | str), ("Any", Any), ("list[Union[str, int]]", list[str | int]),
        ("Tuple[int, Optional[float], list[str]]", tuple[int, float | None, list[str]]),
        ("dict[str, list[Optional[Tuple[int, str]]]]", dict[str, list[tuple[int, str] | None]]),
        ("Union[list[str], dict[str, Any]]", list[str] | dict[str, Any]), ("str | None", str | None),
        ("None | int", int | None), ("int | str", int | str), ("Literal['x', 1]", Literal["x", 1]),
        ("str | (int | float) | None", str | int | float | None),
    ],
)  # fmt: skip
def test_types_in_strings(text: str, annotation: Any) -> None:
    """parity: builtin and typing forms, nested, on either side."""
    sig = signature(f"x: {text} -> y: {text}")
    assert sig.fields["x"].annotation == annotation == sig.fields["y"].annotation


def test_constraints_are_put_in_words(oracle: Oracle) -> None:
    """parity: below the field's description."""
    fields = [field("q", "str"), out("short", "str", min_length=2, max_length=9), out("few", "int", ge=1, le=4)]
    system = agreed(oracle, case(fields, inputs={"q": "x"}))["messages"][0]["content"]
    assert "Constraints: minimum length: 2, maximum length: 9" in system
    assert "Constraints: greater than or equal to: 1, less than or equal to: 4" in system


@pytest.mark.parametrize("annotation", ["Item", "Item | None", "list[Item]"])
def test_models_of_the_callers_are_named_by_custom_types(oracle: Oracle, annotation: str) -> None:
    """parity: alone, beside None, and (where DSPy finds them with custom_types too) inside another type."""
    one = case(f"thing: {annotation} -> said", inputs={}, calls=[call("[[ ## said ## ]]\nseen")])
    from tests.support.parity import shapes

    item = shapes.Item(name="lamp")
    one["inputs"] = {"thing": [item] if annotation.startswith("list") else item}
    assert values(agreed(oracle, one)["calls"][0]["outcome"]) == {"said": "'seen'"}


def test_types_of_other_modules_are_passed_not_imported() -> None:
    """parity, but for the import: DSPy would import whatever a string names."""
    with pytest.raises(SignatureError, match="custom_types"):
        signature("place: Path -> said")
    sig = signature("place: Path -> said", custom_types={"Path": pathlib.Path})
    compiled = compile_signature(sig)
    assert sig.fields["place"].annotation is pathlib.Path
    assert compiled.messages({"place": pathlib.Path("/a/b")})[-1]["content"].startswith("[[ ## place ## ]]\n/a/b\n")
    assert compiled.parse("[[ ## said ## ]]\n/a/b") == {"said": "/a/b"}


def test_unions_with_a_bar_in_class_form() -> None:
    """parity: equal to the older spelling, kept when other fields are added."""

    class Bars(Signature):
        x: str | (int | float) | None = InputField()
        y: int | str = OutputField()

    class Older(Signature):
        x: Union[str, int, float, None] = InputField()  # noqa: UP007
        y: Union[int, str] = OutputField()  # noqa: UP007

    assert isinstance(Bars, Signature) and isinstance(Older, Signature) and Bars.fields == Older.fields
    assert set(get_args(Bars.fields["x"].annotation)) == {str, int, float, type(None)}
    for adapter in ("chat", "json"):
        assert compile_signature(Bars, adapter).prefix() == compile_signature(Older, adapter).prefix()
    more = Bars.prepend("first", InputField(), float | int)
    assert more.fields["first"].annotation == float | int
    assert more.fields["x"] == Bars.fields["x"] and more.fields["y"] == Bars.fields["y"]


def test_signatures_survive_pickling() -> None:
    """parity: by pickle and, also of a class inside a function, by cloudpickle: names, order and instructions."""

    class Local(Signature):
        """Answer the question."""

        context: list[str] = InputField()
        question: str = InputField()
        answer: str = OutputField()

    assert pickle.loads(pickle.dumps(Rating)) == Rating
    again = pickle.loads(cloudpickle.dumps(Local))
    assert again == Local and again.instructions == "Answer the question."
    assert (list(again.input_fields), list(again.output_fields)) == (["context", "question"], ["answer"])
