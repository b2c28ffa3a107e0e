"""Unit: what steps read and write: rules P1 and P2, in the four ways to run."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import pytest

import dspex
from dspex import native, parallel, pipeline, python
from dspex.errors import InvalidInput, InvalidReturn, PipelineError, SettingsError, UnknownName
from dspex.pipelines.core.results import Status
from tests.support.pipelines.doubles import NotedSupervisor, Scripted
from tests.support.pipelines.ways import Go

SUP: Any = NotedSupervisor()


class Found(TypedDict):
    docs: list[str]
    note: NotRequired[str]


def test_a_functions_parameter_names_are_its_reads(go: Go) -> None:
    """unit: P1"""
    p = pipeline([native(lambda question, *, style="plain": f"{question}/{style}", into="text")])
    assert p.inputs == ("question",)
    assert p.optional_inputs == ("style",)
    assert go(p, {"question": "q"})["text"] == "q/plain"
    assert go(p, {"question": "q", "style": "loud", "other": 1}).text == "q/loud"


def test_double_star_state_reads_everything(go: Go) -> None:
    """unit: P1"""
    p = pipeline([native(lambda **state: sorted(state), into="names")])
    assert go(p, {"b": 1, "a": 2})["names"] == ["a", "b"]


def test_options_go_to_the_parameters_of_their_names(go: Go) -> None:
    """unit: P1"""

    def search(question: str, index: str, k: int = 3) -> str:
        return f"{question}@{index}:{k}"

    p = pipeline([native(search, index="docs", k=5, into="hits")])
    assert p.inputs == ("question",)
    assert go(p, {"question": "q", "k": 99})["hits"] == "q@docs:5"
    with pytest.raises(UnknownName, match="'index'"):
        native(search, indx="docs", into="hits")


def test_a_class_gets_run_with_the_state_and_its_options(go: Go) -> None:
    """unit: P1"""

    class VectorSearch:
        def run(self, state: Any, *, index: str) -> dict[str, Any]:
            return {"docs": f"{state['question']} in {index}"}

    p = pipeline([native(VectorSearch, index="papers")])
    assert go(p, {"question": "q"})["docs"] == "q in papers"
    with pytest.raises(UnknownName, match="index"):
        native(VectorSearch, indexes="papers")


def test_static_run_methods_and_ready_made_objects_work(go: Go) -> None:
    """unit: P1"""

    class Static:
        def __init__(self, needs: str) -> None:
            raise AssertionError("is not made")

        @staticmethod
        def run(state: Any) -> dict[str, Any]:
            return {"a": state["x"]}

    class Ready:
        def __init__(self, by: int) -> None:
            self.by = by

        def run(self, state: Any) -> dict[str, Any]:
            return {"b": state["a"] * self.by}

    assert go(pipeline([native(Static), native(Ready(3))]), {"x": 2})["b"] == 6
    with pytest.raises(SettingsError, match="give an object"):
        native(Ready)


def test_async_functions_run_on_every_route(go: Go) -> None:
    """unit: P1"""

    async def double(x: int) -> int:
        return 2 * x

    class Later:
        async def run(self, state: Any) -> dict[str, Any]:
            return {"z": state["y"] + 1}

    assert go(pipeline([native(double, into="y"), native(Later)]), {"x": 4})["z"] == 9


def test_a_step_cannot_change_the_state_that_others_see(go: Go) -> None:
    """unit: P1, snapshots are read-only"""

    def spoil(items: list[int]) -> None:
        items.append(99)

    class Assigns:
        def run(self, state: Any) -> None:
            with pytest.raises(TypeError):
                state["items"] = []
            state["items"].clear()

    p = pipeline([native(spoil), native(Assigns), native(lambda items: list(items), into="seen")])
    assert go(p, {"items": [1, 2]})["seen"] == [1, 2]


def test_the_result_is_read_only() -> None:
    """unit: P1"""
    result = pipeline([native(lambda x: x, into="y")]).run({"x": 1})
    with pytest.raises(TypeError):
        result.state["y"] = 2  # type: ignore[index]
    with pytest.raises(AttributeError):
        result.y = 2
    with pytest.raises(KeyError, match="Did you mean 'y'"):
        result["yy"]


def test_a_dspy_step_reads_its_signatures_inputs_and_writes_its_outputs(go: Go) -> None:
    """unit: P1, P2: what the module adds goes to the step's record"""
    fake = Scripted(extra={"reasoning": "because"}, usage={"m": {"total_tokens": 7}})
    p = pipeline([python(fake, name="answerer")])
    assert p.inputs == ("question",)
    result = go(p, {"question": "q", "other": 1}, supervisor=SUP)
    assert fake.calls[-1][0] == {"question": "q"}
    assert dict(result.state) == {"question": "q", "other": 1, "answer": "yes"}
    step = result.steps["answerer"]
    assert (step.route, step.worker, step.attempts, step.status) == ("python:fake/1", "fake/1", 1, Status.DONE)
    assert step["reasoning"] == "because"
    assert result.usage == {"m": {"total_tokens": 7}}


def test_keep_writes_what_the_module_adds(go: Go) -> None:
    """unit: P2"""
    fake = Scripted(extra={"reasoning": "because"}, usage={"m": {"total_tokens": 7}})
    result = go(pipeline([python(fake, keep=["reasoning", "usage"])]), {"question": "q"}, supervisor=SUP)
    assert result["reasoning"] == "because"
    assert result["usage"] == {"m": {"total_tokens": 7}}
    with pytest.raises(PipelineError, match=r"to keep 'resoning'.*'reasoning'") as caught:
        go(pipeline([python(fake, keep=["resoning"])]), {"question": "q"}, supervisor=SUP)
    assert isinstance(caught.value.causes[0], InvalidReturn)


def test_into_takes_the_whole_value(go: Go) -> None:
    """unit: P2"""
    result = go(pipeline([python(Scripted(), into="kept")]), {"question": "q"}, supervisor=SUP)
    assert result["kept"] == {"answer": "yes"}
    assert "answer" not in result


def test_a_value_without_a_name_needs_into(go: Go) -> None:
    """unit: P2, at once where the annotation tells, else when it comes"""

    def text(question: str) -> str:
        return question

    with pytest.raises(SettingsError, match=r"'text' returns str.*into="):
        pipeline([native(text)])
    with pytest.raises(PipelineError, match=r"returned a str.*into=") as caught:
        go(pipeline([native(lambda question: question)]), {"question": "q"})
    assert isinstance(caught.value.causes[0], InvalidReturn)


def test_a_typed_dict_as_return_type_declares_the_writes(go: Go) -> None:
    """unit: P2"""

    def find(question: str) -> Found:
        return {"docs": [question]}

    p = pipeline([native(find), native(lambda docs: docs[0], into="first")])
    assert p.inputs == ("question",)
    assert p.explain()[0].writes == ("docs", "note")
    assert go(p, {"question": "q"})["first"] == "q"


def test_declared_writes_are_held_to(go: Go) -> None:
    """unit: P2: what is declared must come, and what is not goes to the record, or is kept on request"""
    p = pipeline([native(lambda x: {"a": x, "b": 2}, writes=["a"], name="s")])
    result = go(p, {"x": 1})
    assert "b" not in result
    assert result.steps["s"]["b"] == 2
    kept = pipeline([native(lambda x: {"a": x, "b": 2}, writes="a", keep=["b"])])
    assert go(kept, {"x": 1})["b"] == 2
    with pytest.raises(PipelineError, match="declares to write 'c'"):
        go(pipeline([native(lambda x: {"a": x}, writes=["a", "c"])]), {"x": 1})
    with pytest.raises(SettingsError, match="not both"):
        native(lambda x: {"a": x}, writes=["a"], into="b")


def test_a_missing_input_is_refused_before_anything_runs(go: Go) -> None:
    """unit: P1"""
    ran: list[int] = []

    def note() -> None:
        ran.append(1)

    p = pipeline([note, native(lambda docs: docs, into="x", name="reader")], name="rag")
    with pytest.raises(InvalidInput, match="'rag' needs 'docs', which step 'reader' reads"):
        go(p, {"doc": 1})
    assert ran == []


def test_what_an_undeclared_write_may_bring_is_checked_when_it_is_read(go: Go) -> None:
    """unit: P1"""
    p = pipeline([native(lambda q: {"docs": q} if q else {}), native(lambda docs: docs, into="out", name="reader")])
    assert p.inputs == ("q",)
    assert "docs" in p.optional_inputs
    assert go(p, {"q": "x"})["out"] == "x"
    with pytest.raises(PipelineError, match="Step 'reader' reads 'docs'") as caught:
        go(p, {"q": ""})
    assert isinstance(caught.value.causes[0], InvalidInput)
    assert caught.value.step == "reader"


def test_the_later_value_wins_and_that_is_recorded(go: Go) -> None:
    """unit: P3 in sequence"""
    p = pipeline([native(lambda x: x + 1, into="x", name="one"), native(lambda x: x * 10, into="x", name="two")])
    result = go(p, {"x": 1})
    assert result["x"] == 20
    assert result.steps["one"].overwrote == ("x",)
    assert result.steps[1].overwrote == ("x",)


def test_equal_names_are_numbered_and_nested_names_are_found() -> None:
    """unit"""

    def same(x: int) -> None:
        """Writes nothing."""

    p = pipeline([same, native(same), parallel([native(same), native(lambda x: None, name="leaf")])])
    result = p.run({"x": 1})
    assert [record.name for record in result.steps] == ["same", "same_2", "parallel"]
    assert [record.name for record in result.steps["parallel"].children] == ["same_3", "leaf"]
    assert result.steps["leaf"].index == 1
    with pytest.raises(KeyError, match="'same_3'"):
        result.steps["same_4"]


def test_templates_are_steps_that_read_their_names(go: Go) -> None:
    """unit: P1"""
    p = pipeline([native(dspex.template("Dear {{ name }}, {{ text | default('hello') }}"), into="letter")])
    assert (p.inputs, p.optional_inputs) == (("name",), ("text",))
    assert go(p, {"name": "Ann"})["letter"] == "Dear Ann, hello"
    with pytest.raises(SettingsError, match="into="):
        pipeline([native(dspex.template("x"))])


def test_what_can_never_run_is_refused_at_once() -> None:
    """unit"""
    for make in (
        lambda: native(3),
        lambda: native(),
        lambda: native(lambda x: x, timeout=0),
        lambda: native(lambda x: x, retry=-1),
        lambda: native(lambda x: x, when=3),
        lambda: native(lambda x: x, into=3),
        lambda: native(lambda x: x, into=""),
        lambda: native(lambda x: x, into="y", name=""),
        lambda: parallel([]),
        lambda: pipeline("question -> answer"),
        lambda: python(object()),
        lambda: python(Scripted(), signature="a -> b"),
    ):
        with pytest.raises(SettingsError):
            make()
