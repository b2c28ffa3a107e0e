"""Parity: prompts, response formats, request bodies, results and error classes are DSPy's own, on random cases."""

from __future__ import annotations

import copy
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.parity import shapes
from tests.support.parity.cases import Cases
from tests.support.parity.comparison import CONTRACT, Report
from tests.support.parity.native_side import imported, native_results, wire_case
from tests.support.parity.oracle import Case, Oracle, is_error
from tests.support.parity.run import compared
from tests.support.paths import ROOT

CHECKS = int(os.environ.get("DSPEX_PARITY_CHECKS", "1000"))
SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261122"))

pytestmark = pytest.mark.parity


def test_native_and_dspy_agree_on_random_cases(oracle: Oracle) -> None:
    """parity: no message, format, answer, request body, result or error class of this seed differs."""
    print(f"seed {SEED}, {CHECKS} checks")
    report = compared(oracle, SEED, CHECKS)
    assert not report.differences, f"{len(report.differences)} differences:\n" + "\n".join(report.differences[:3])
    assert report.errors.total() < report.total / 2  # most of what was compared is values
    assert report.comparisons["request bodies"] > CHECKS / 20
    assert {"parse", "unsent", "call", "entry", "signature"} <= {point for point, _, _ in report.errors}


def test_the_comparison_sees_what_differs(oracle: Oracle) -> None:
    """parity: one character of a prompt, one byte of a request, the type of a value, the class of an error."""
    cases = list(islice(Cases(SEED), 60))
    pairs = list(zip(cases, map(native_results, cases), oracle.ask(cases), strict=True))
    spoilt = 0
    for case, native, dspy in pairs:
        assert not _differences(case, native, dspy)
        if is_error(native["signature"]) != is_error(dspy["signature"]):
            continue  # by a documented rule
        for spoil in _spoilers(case, native):
            changed = copy.deepcopy(native)
            spoil(changed)
            assert _differences(case, changed, dspy), (case, spoil)
            spoilt += 1
    assert spoilt > 60


def _differences(case: Case, native: Any, dspy: Any) -> list[str]:
    report = Report()
    report.add(case, native, dspy)
    return report.differences


def _spoilers(case: Case, native: Any) -> list[Any]:
    """Ways to spoil this result, each in one place; no stream's, which may be asked for again where DSPy gives up."""
    found: list[Any] = []
    if is_error(native["signature"]):
        return [lambda made: made.update(signature=("error", "InvalidInput", ""))]
    if isinstance(native.get("messages"), list):
        found.append(lambda made: made["messages"][0].update(content=made["messages"][0]["content"] + " "))
    for at, call in enumerate(native.get("calls", ())):
        if case["calls"][at]["streamed"]:
            continue
        if call["bodies"]:
            found.append(lambda made, at=at: made["calls"][at]["bodies"].append(b"{}"))
        if is_error(call["outcome"]):
            found.append(lambda made, at=at: made["calls"][at].update(outcome=("error", "LMBillingError", "")))
    for at, parsed in enumerate(native.get("parsed", ())):
        if is_error(parsed):
            found.append(lambda made, at=at: made["parsed"].__setitem__(at, ("error", "InvalidInput", "")))
        elif parsed[0] == "dict" and parsed[1]:
            found.append(lambda made, at=at: made["parsed"][at][1].pop())
    return found


def test_every_error_of_dspys_has_one_class_here() -> None:
    """contract: the table names classes that exist."""
    from dspex import errors

    assert all(hasattr(errors, name) for ours in CONTRACT.values() for name in ours.split(", "))


def test_the_page_shows_the_table_of_errors() -> None:
    """contract: docs/internals/parity.md has the pairs of `CONTRACT`, all of them and no others."""
    page = (ROOT / "docs" / "internals" / "parity.md").read_text(encoding="utf-8")
    table = page.partition("| point | DSPy | DSPex | when |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    shown = {}
    for points, theirs, ours in (map(str.strip, row.split("|")[1:4]) for row in table.splitlines()):
        for point in points.split(", "):
            shown |= {(point, name): name if ours == "the same" else ours for name in theirs.split(", ")}
    assert shown == CONTRACT


def test_the_page_names_tests_that_exist() -> None:
    """contract: each copied habit is shown by the test beside it."""
    page = (ROOT / "docs" / "internals" / "parity.md").read_text(encoding="utf-8")
    habits = re.findall(r"^\| .+ \| `(test_\w+)` \|$", page, re.MULTILINE)
    source = Path(__file__).with_name("test_dspy_habits.py").read_text(encoding="utf-8")
    assert len(habits) > 15 and set(habits) == set(re.findall(r"^def (test_\w+)", source, re.MULTILINE))


# --- across the wire ----------------------------------------------------------------------------------------------


def _predicts(seed: int | str, count: int) -> list[dict[str, Any]]:
    supply = Cases(seed)
    return [supply.case() for _ in range(count)]


def test_workers_build_the_same_prompts_from_the_wire_form(oracle: Oracle) -> None:
    """collaboration: signature and inputs as plain data give, in a worker's DSPy, the messages that are native here."""
    made = [found for found in map(_crossing, _predicts(SEED + 1, 300)) if found is not None]
    assert len(made) > 60
    answers = oracle.ask([case for case, _ in made])
    served = 0
    for (case, messages), answer in zip(made, answers, strict=True):
        if is_error(answer["messages"]):
            # Models that a schema does not describe wholly: refused with a reason, never served differently.
            said = answer["messages"][2]
            assert "cannot be rebuilt" in said or "There is no type 'tests.support.parity" in said, (answer, case)
        else:
            assert answer["messages"] == messages, case
            served += 1
    assert served > len(made) / 2


def _crossing(case: dict[str, Any]) -> Any:
    """The case for a worker, without defaults that do not fit their types, which DSPy takes and workers refuse."""
    for field in case["fields"]:
        field["options"].pop("default", None)
    known = native_results({**case, "answers": [], "calls": []})
    return wire_case(case) if isinstance(known.get("messages"), list) else None


def test_a_signature_class_that_a_worker_describes_gives_dspys_prompts(oracle: Oracle) -> None:
    """collaboration: a dspy.Signature class of the user's, exported by a worker and served natively."""
    cases = [{**case, "kind": "export", "form": "class"} for case in _predicts(SEED + 2, 200)]
    for case in cases:
        case["instructions"] = case["instructions"] if isinstance(case["instructions"], tuple) else (None, "Do.")
    served = routed = 0
    for case, answer in zip(cases, oracle.ask(cases), strict=True):
        if is_error(answer) or is_error(answer["messages"]):
            continue  # DSPy itself refuses the class, or its values
        found = imported({**case, "custom_types": shapes.NAMES}, answer)
        if found[0] == "routed":
            routed += 1
            continue
        assert found == answer["messages"], case["fields"]
        served += 1
    assert served > 80 and served > routed, (served, routed)


# --- strings that are worth a name --------------------------------------------------------------------------------


def _case(text: str, **given: object) -> dict[str, object]:
    empty: dict[str, object] = {"fields": [], "inputs": {}, "demos": [], "answers": [], "calls": [], "parents": 0}
    return {"kind": "predict", "form": "text", "text": text, "instructions": None, "adapter": "chat", **empty, **given}


@pytest.mark.parametrize(
    "text",
    [
        "->a", "q->", " -> ", "q,->a,", "é -> ü", "a\n,b->c", "ﬁeld -> a", "q -> a: typing.List[int]",
        "q: NoneType -> a", "schema, copy -> json", "self, model_x -> completed", "q -> a: Optional[int]",
        "q -> a: None | str", "q: tuple[()] -> a", "q -> a: Annotated[int, Field(gt=3)]",
        "q -> a: list[Annotated[int, Field(gt=3)]]", "q: Literal[\"it's\", 'say \"x\"'] -> a",
        "q: dict[str, list[tuple[int, ...]]] -> a: Union[int, str, None]", "q: Any -> a: Sequence[int]",
        "q: datetime.datetime, u: uuid.UUID -> d: decimal.Decimal", "q: dspy.Image -> a: dspy.Code",
        "q: Tuple[int, ...] -> a: typing.Dict[str, int]", "q:\nint\n|\nNone -> a", "q -> a: list[int, str]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_string_signatures_read_as_in_dspy(oracle: Oracle, text: str, adapter: str) -> None:
    """parity: what DSPy accepts and means, the native grammar accepts and means."""
    names = [name.strip() for name in text.replace("->", ",").split(",")]
    case = _case(text, adapter=adapter, inputs={name: "x" for name in names if name.isidentifier()})
    case["custom"] = False
    native = native_results(case)
    assert "messages" in native, native
    assert not _differences(case, native, oracle.ask([case])[0])


@pytest.mark.parametrize(
    "text",
    [
        "q", "q -> a -> b", "q -> q", "q -> a: strng", "q -> a: list[int", "fields -> a", "q -> instructions",
        "_q -> a", "q: List -> a", "q: Optional[int, str] -> a", "q: int[str] -> a", "q: Callable[[int], str] -> a",
        "q q -> a", "q: bytearray -> a", "q: dict[str] -> a",
        "q: 3 -> a", "q: 'int' -> a", "q: (int, str) -> a", "q: Literal[a] -> a", "q: type -> a", "def -> a", ", -> a",
    ],
)  # fmt: skip
def test_what_dspy_refuses_is_refused(oracle: Oracle, text: str) -> None:
    """parity: a SignatureError for whatever DSPy raises."""
    case = _case(text)
    native, dspy = native_results(case), oracle.ask([case])[0]
    assert native["signature"][1] == "SignatureError" and is_error(dspy["signature"])
    assert not _differences(case, native, dspy)
