"""parity: prompts, response formats and parsed values are DSPy's own, on random signatures, values and answers."""

from __future__ import annotations

import os
from typing import Any

import pytest
from native_cases import Cases
from native_oracle import Oracle
from native_side import differences, native_results, wire_case

CASES = int(os.environ.get("DSPEX_PARITY_CASES", "600"))  # seven comparisons each
SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261122"))
BATCH = 60

pytestmark = pytest.mark.parity


def test_native_and_dspy_agree_on_random_cases(oracle: Oracle) -> None:
    """parity: no case of this seed differs in a message, a format or a parsed value."""
    print(f"seed {SEED}, {CASES} cases")
    supply = Cases(SEED)
    found: list[str] = []
    read = 0
    for _ in range(0, CASES, BATCH):
        cases = [supply.case() for _ in range(BATCH)]
        oracle.give(cases)
        natives = [native_results(case) for case in cases]
        for case, native, dspy in zip(cases, natives, oracle.take(), strict=True):
            found += [
                f"{case['text'] or case['fields']} ({case['adapter']}): {each}"
                for each in differences(case, native, dspy)
            ]
            read += sum(outcome[0] != "error" for outcome in native.get("parsed", ()))
    assert not found, f"{len(found)} differences, the first:\n" + "\n".join(found[:3])
    assert read > CASES  # the answers are not all unreadable


def test_a_changed_prompt_would_be_noticed(oracle: Oracle) -> None:
    """parity: the comparison itself sees a difference of one character, and of one type."""
    supply = Cases(SEED)
    case = next(made for made in iter(supply.case, None) if "parsed" in native_results(made))
    native, dspy = native_results(case), oracle.ask([case])[0]
    assert not differences(case, native, dspy)
    native["messages"][0]["content"] += " "
    assert differences(case, native, dspy)


def test_workers_build_the_same_prompts_from_the_wire_form(oracle: Oracle) -> None:
    """collaboration: signature and inputs as plain data give, in a worker's DSPy, the messages that are native here."""
    supply = Cases(SEED + 1)
    made = [found for found in (_crossing(supply.case()) for _ in range(400)) if found is not None]
    assert len(made) > 150
    answers = oracle.ask([case for case, _ in made])
    served = 0
    for (case, messages), answer in zip(made, answers, strict=True):
        if answer["messages"][0] == "error":
            # Models that a schema does not describe wholly: refused with a reason, never served differently.
            assert "cannot be rebuilt" in answer["messages"][2] or "native_shapes:" in answer["messages"][2], answer
        else:
            assert answer["messages"] == messages, case
            served += 1
    assert served > len(made) / 2


def _crossing(case: dict[str, Any]) -> Any:
    """The case for a worker.

    Without defaults that do not fit their types, which DSPy takes and workers refuse; and without Mood, whose docstring
    travels as "doc" beside "enum", which workers do not read yet.
    """
    for field in case["fields"]:
        field["options"].pop("default", None)
    known = native_results({**case, "answers": []})
    return None if "signature" in known or "Mood" in repr(case["fields"]) else wire_case(case)


def _case(text: str, **given: object) -> dict[str, object]:
    empty: dict[str, object] = {"fields": [], "inputs": {}, "demos": [], "answers": []}
    return {"text": text, "instructions": None, "adapter": "chat", **empty, **given}


@pytest.mark.parametrize(
    "text",
    [
        "->a", "q->", " -> ", "q,->a,", "é -> ü", "a\n,b->c", "ﬁeld -> a", "q -> a: typing.List[int]",
        "q: NoneType -> a", "schema, copy -> json", "self, model_x -> completed", "q -> a: Optional[int]",
        "q -> a: None | str", "q: tuple[()] -> a", "q -> a: Annotated[int, Field(gt=3)]",
        "q -> a: list[Annotated[int, Field(gt=3)]]", "q: Literal[\"it's\", 'say \"x\"'] -> a",
        "q: dict[str, list[tuple[int, ...]]] -> a: Union[int, str, None]", "q: Any -> a: Sequence[int]",
        "q: datetime.datetime, u: uuid.UUID -> d: decimal.Decimal", "q: dspy.Image -> a: dspy.Code",
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
    assert not differences(case, native, oracle.ask([case])[0])


@pytest.mark.parametrize(
    "text",
    [
        "q", "q -> a -> b", "q -> q", "q -> a: strng", "q -> a: list[int", "fields -> a", "q -> instructions",
        "_q -> a", "q: List -> a", "q: Optional[int, str] -> a", "q: int[str] -> a", "q: Callable[[int], str] -> a",
        "q q -> a",
        "q: 3 -> a", "q: 'int' -> a", "q: (int, str) -> a", "q: Literal[a] -> a", "q: type -> a", "def -> a", ", -> a",
    ],
)  # fmt: skip
def test_what_dspy_refuses_is_refused(oracle: Oracle, text: str) -> None:
    """parity: an error on both sides."""
    case = _case(text)
    assert "signature" in native_results(case)
    assert "signature" in oracle.ask([case])[0]
