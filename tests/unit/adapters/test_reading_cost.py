"""Unit: the work of reading a reply is bounded by its length, whatever it holds; what costs more is refused."""

from __future__ import annotations

import enum
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import json_repair
import pytest
from pydantic import BaseModel, Field

from dspex.adapters import compile_signature, validation_cost
from dspex.adapters.chat_format import HEADERS_MOST
from dspex.adapters.streaming import ChatFields, JsonFields
from dspex.adapters.validation import typed_outputs
from dspex.errors import AdapterParseError
from dspex.types import lenient_json, markers, parse_budget
from dspex.types.content import Code
from dspex.types.markers import END, START, expand
from dspex.types.parse_budget import ParseBudget, Paused, TooCostly
from dspex.types.tool_calls import ToolCalls
from tests.support.adapters.hostile_replies import ATOMS, Fork, Leaf, Mood, colliding, grown, nested, signature_of

SIZES = (500, 4_000)
# Of a thread's own time, so that a busy machine counts for nothing: 10 to 30 times what was measured.
SLOWEST_S = 20.0
LISTS = signature_of(list[str])


def _cpu_s(act: Callable[..., object], *given: object) -> float:
    begun = time.thread_time()
    try:
        act(*given)
    except (AdapterParseError, ValueError, RecursionError):
        pass
    return time.thread_time() - begun


def _read(text: str, kind: Any = list[str], adapter: str = "json") -> dict[str, Any]:
    return compile_signature(signature_of(kind), adapter).parse(text)


def _refusal(text: str, kind: Any = list[str], adapter: str = "chat") -> str:
    with pytest.raises(AdapterParseError) as caught:
        _read(text, kind, adapter)
    return str(caught.value)


# --- growth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATOMS)
def test_repairing_takes_steps_in_proportion_to_the_length(name: str) -> None:
    """unit: work is counted, so the bound is exact; without it some shapes take the square of their length."""
    for prefix in ("", "[", '{"a":', '{"a":['):
        for size in SIZES:
            text = grown(ATOMS[name], size, prefix)
            budget = ParseBudget(len(text))
            most = budget.left
            token = parse_budget.begin(budget)
            try:
                lenient_json.loads(text)
            except (ValueError, RecursionError):
                pass
            finally:
                parse_budget.end(token)
            cut = len(text) // 16 + 2  # what is cut out or searched last may go over it by itself
            assert most - budget.left <= parse_budget.STEPS_LEAST + parse_budget.STEPS_PER_CHAR * size + cut, prefix


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("name", ATOMS)
def test_reading_grows_no_faster_than_the_reply(name: str, adapter: str) -> None:
    """unit: eight times the reply takes some eight times the time; the square would be 64 times."""
    times = []
    for size in (2_000, 16_000):
        text = grown(ATOMS[name], size, "[[ ## a ## ]]\n[" if adapter == "chat" else '{"a": [')
        times.append(_cpu_s(_read, text, list[str], adapter))
    small, large = times
    assert large <= 8 * 3 * small + 1.0 and large < SLOWEST_S, times


HELD = ("blanks", "line feeds", "header begins", "brackets", "digits", "quotes")  # while more of them come


@pytest.mark.parametrize("fields", [ChatFields, JsonFields])
@pytest.mark.parametrize(("name", "cut"), [*((name, 1) for name in HELD), *((name, 10**6) for name in ATOMS)])
def test_streaming_grows_no_faster_than_the_reply(name: str, fields: Any, cut: int) -> None:
    """unit: character by character, and many lines or members in one piece."""

    def streamed(text: str) -> None:
        stream = fields(("a",))
        for at in range(0, len(text), cut):
            for _ in stream.feed(text[at : at + cut]):
                pass
        for _ in stream.finish():
            pass

    sizes = (25_000, 200_000) if cut == 1 else (100_000, 800_000)
    for prefix in ("[[ ## a ## ]]\n", "[[ ## a") if fields is ChatFields else ('{"a":[', '{"'):
        small, large = (_cpu_s(streamed, grown(ATOMS[name], size, prefix)) for size in sizes)
        assert large <= 8 * 3 * small + 0.5 and large < SLOWEST_S, (prefix, small, large)


@pytest.mark.parametrize(
    ("act", "atom"),
    [
        (lambda text: Code.model_validate(text), "```"),
        (lambda text: Code.model_validate(text), "```py"),
        (lambda text: expand({"role": "user", "content": text}), START),
        (lambda text: expand({"role": "user", "content": text}), START + "[" + END),
        (lenient_json.first_braced, "{"),
        (lenient_json.first_braced, "{}}{"),
        (lambda text: _read(text, str, "chat"), "[[ ## x ## ]"),
        (lambda text: _read(text, str, "chat"), "\n [[ ## "),
    ],
)
def test_searches_of_a_text_do_not_begin_again_at_each_opening(act: Callable[[str], object], atom: str) -> None:
    """unit: fences, markers, braces, headers: the square of 2 MB would take minutes."""
    small, large = _cpu_s(act, atom * (250_000 // len(atom))), _cpu_s(act, atom * (2_000_000 // len(atom)))
    assert large <= 8 * 3 * small + 0.5 and large < SLOWEST_S


@pytest.mark.parametrize("text", ["word and more words. ", "a\n", "\r\n", "\u2028", "{[", " "])
def test_a_text_field_takes_any_length(text: str) -> None:
    """unit: 16 MB of an answer in words are that answer; nothing is repaired there."""
    whole = text * (16_000_000 // len(text)) + "x"
    assert _read(f"[[ ## a ## ]]\n{whole}", str, "chat")["a"] == "\n".join(whole.splitlines()).strip()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "limit", "actual"),
    [
        ('["a" ' * 8000, list[str], "over 1,000,000 steps", ""),
        ("{" * 40_000, list[str], "over 1,000,000 steps", ""),
        (f"[{'1,' * 600_000}1]", list[int], "1,048,576", "1,200,003 characters"),
        ("1," * 100_000, list[int], "131,072", "200,000 characters"),
        (nested(40), Leaf | Fork, "400,000 steps", "deep"),
        (colliding(5000), set[int], "4,096", "5,000 numbers"),
        (json.dumps({str(n): "" for n in range(5000)}), dict[int, str], "4,096", "5,000 numbers"),
        ("[[ ## x ## ]]\n" * (HEADERS_MOST + 1), str, "50,000", "header"),
    ],
)
def test_what_costs_too_much_is_refused_with_its_limit_and_size(text: str, kind: Any, limit: str, actual: str) -> None:
    """unit: and the remedy; never with the text itself."""
    said = _refusal(f"[[ ## a ## ]]\n{text}" if kind is not str else text, kind)
    assert limit in said and actual in said and ("Ask for" in said or "ask for" in said), said
    assert len(said) < 500 and text[:20] not in said


def test_a_json_answer_is_refused_likewise() -> None:
    """unit: where the text as a whole is repaired."""
    assert "steps" in _refusal('{"a": ' + '["a" ' * 8000, adapter="json")
    long = json.dumps({"a": "a word " * 400_000})
    assert "1,048,576" in _refusal(long[:-1], str, "json") and len(_read(long, str)["a"]) == 2_800_000


def test_lists_that_are_scanned_without_looking_at_the_text_are_refused_by_the_clock() -> None:
    """unit: json_repair goes through all rows for each that follows; of that no step is counted."""
    text = '{"a":[[1]]' + "[1]," * 40_000
    begun = time.thread_time()
    assert "or 1 s" in _refusal(text, adapter="json") and time.thread_time() - begun < SLOWEST_S


def test_tool_calls_share_the_budget_of_their_answer() -> None:
    """unit: the arguments of each call are repaired; a small budget for each of many would be a large one."""
    call = {"name": "f", "arguments": '{"x": ' + '["a" ' * 300}
    text = json.dumps({"a": {"tool_calls": [call] * 400}})
    assert "steps" in _refusal(text, ToolCalls, "json")
    few = {"a": {"tool_calls": [{"name": "f", "arguments": "{'x': 1}"}] * 3}}
    assert [call.args for call in _read(json.dumps(few), ToolCalls)["a"].tool_calls] == [{"x": 1}] * 3


def test_code_that_cannot_be_repaired_is_still_code() -> None:
    """unit: DSPy takes the text as it is where it is no JSON of the type; so do refused repairs."""
    source = "x = {\n" * 20_000
    assert _read(f"[[ ## a ## ]]\n{source}", Code, "chat")["a"].code.strip() == source.strip()


@pytest.mark.parametrize("digits", [5000, 50_000])
@pytest.mark.parametrize("kind", [int, float, list[int], dict[str, int], Mood, Literal["a"], Code, Leaf])
def test_absurd_numbers_are_read_or_refused_at_once(kind: Any, digits: int) -> None:
    """unit: Python's limit of 4,300 digits raises ValueError in each of three parsers."""
    for number in ("9" * digits, "-" + "9" * digits, "1e" + "9" * digits, "0x" + "f" * digits, "1e999", "-1e999"):
        for adapter, text in (("chat", f"[[ ## a ## ]]\n{number}"), ("json", f'{{"a": {number}}}')):
            assert _cpu_s(_read, text, kind, adapter) < SLOWEST_S


@pytest.mark.parametrize("kind", [str, list[str], dict[str, Any], Leaf, Code, ToolCalls])
@pytest.mark.parametrize("opening", ["[", '{"a":', "(", '{"a":[', '{"tool_calls":['])
def test_deep_nesting_is_an_unreadable_answer(kind: Any, opening: str) -> None:
    """unit: RecursionError and MemoryError of the parsers are the answer's fault."""
    for depth in (100, 1000, 30_000):
        for adapter in ("chat", "json"):
            text = ("[[ ## a ## ]]\n" if adapter == "chat" else "") + opening * depth
            assert _cpu_s(_read, text, kind, adapter) < SLOWEST_S  # and no error but AdapterParseError's kinds


def test_an_error_does_not_keep_a_line_for_each_wrong_item() -> None:
    """unit: pydantic's error of 200,000 items is 60 MB, and prints as many lines."""
    with pytest.raises(AdapterParseError) as caught:
        _read(json.dumps({"a": ["x"] * 200_000}), list[int])
    error = caught.value
    assert "200,000 of its parts" in str(error) and error.__cause__ is None and error.__context__ is None


# --- what is not refused ------------------------------------------------------------------------------------------

DOCUMENT = {
    "a": [f'item {number}: "quoted", it\'s {{braced}} [and] so on' for number in range(300)],
    "b": {"deep": [[number / 7, None, True] for number in range(300)]},
}
WHOLE = json.dumps(DOCUMENT)
DAMAGED = {
    "trailing comma": WHOLE[:-1] + ",}",
    "cut": WHOLE[: len(WHOLE) // 2],
    "single quotes": repr(DOCUMENT),
    "fenced": f"Here it is:\n```json\n{WHOLE}\n```\nI hope that helps!",
    "fenced and cut": f"```json\n{json.dumps(DOCUMENT, indent=2)[:-20]}",
    "comments": WHOLE.replace('"b"', '// the rest\n"b"'),
    "bare names": WHOLE.replace('"a"', "a").replace('"deep"', "deep"),
    "no commas": WHOLE.replace("], [", "] ["),
    "line feeds in strings": WHOLE.replace("so on", "so\non"),
    "unescaped quotes": WHOLE.replace('\\"', '"'),
    "prose before": "Sure, {here} it is. " * 50 + WHOLE,
    "thoughts": f"<think>{'hm, ' * 500}</think>{WHOLE}",
    "twice": WHOLE + "\n" + WHOLE,
    "in quotes": f"'{WHOLE}'",
    "repeated names": WHOLE.replace('"b"', '"a"').replace("}", "", 1),
    "escaped names": '{\\"a\\": \\"x\\"}',
    "doubled braces": "{" + json.dumps(DOCUMENT, indent=2) + "}",
    "surrogates": WHOLE.replace("item", "\ud83d\\ud83d")[:-1],
}


PLAIN = {dict, list, str, int, float, bool, type(None)}


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(item)


@pytest.mark.parametrize("name", DAMAGED)
def test_usual_damage_is_repaired_as_ever_with_a_tenth_of_the_steps(name: str) -> None:
    """unit: the metered text gives what json_repair gives, and stays far from its budget."""
    text = DAMAGED[name]
    budget = ParseBudget(len(text))
    most = budget.left
    token = parse_budget.begin(budget)
    try:
        found = lenient_json.loads(text)
        assert found == json_repair.loads(text) and set(map(type, _parts(found))) <= PLAIN
    finally:
        parse_budget.end(token)
    assert most - budget.left < most / 8


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Leaf | Fork, nested(12)),
        (list[Leaf], f"[{','.join([nested(5)] * 500)}]"),
        (set[int], json.dumps(list(range(4000)))),
        (set[str], json.dumps([f"{n}" for n in range(20_000)])),
        (dict[str, int], json.dumps({f"{n}": n for n in range(20_000)})),
        (list[int], json.dumps(list(range(100_000)))),
    ],
)
def test_large_values_of_such_types_are_read(kind: Any, text: str) -> None:
    """unit: the looks before pydantic let through what is cheap."""
    assert _read(f"[[ ## a ## ]]\n{text}", kind, "chat")["a"]


CATEGORIES = [f"category-{n}" for n in range(3000)]
Category: Any = enum.Enum("Category", {f"M{n}": category for n, category in enumerate(CATEGORIES)})


class Sorted(BaseModel):
    """A model with such a list inside."""

    under: dict[str, list[Category]]


@pytest.mark.parametrize("kind", [list[Literal[tuple(CATEGORIES)]], dict[str, Category] | None, list[Sorted]])
def test_wrong_parts_that_would_quote_many_choices_are_refused(kind: Any) -> None:
    """unit: pydantic quotes all choices for each of them: 200 KB of answer took 2 GB."""
    wrong = ["x"] * 40_000
    value = {f"{n}": "x" for n in range(40_000)} if "dict" in str(kind) else wrong
    text = json.dumps({"a": [{"under": {"x": wrong}}] if kind == list[Sorted] else value})
    with pytest.raises(AdapterParseError, match="choices"):
        _read(text, kind)


def test_lists_of_many_choices_are_read() -> None:
    """unit: as many parts as there are choices, and more of a shorter list."""
    assert _read(json.dumps({"a": CATEGORIES[:2000]}), list[Category])["a"][1] is Category.M1
    assert len(_read(json.dumps({"a": ["glad"] * 50_000}), list[Mood])["a"]) == 50_000


class Plus(BaseModel):
    """A node of a tree with a discriminator."""

    kind: Literal["plus"]
    of: list[Annotated[Plus | Minus, Field(discriminator="kind")]] = []


class Minus(BaseModel):
    """The other node."""

    kind: Literal["minus"]
    of: list[Annotated[Plus | Minus, Field(discriminator="kind")]] = []


Plus.model_rebuild()


def test_a_union_with_a_discriminator_may_be_deep() -> None:
    """unit: one choice is tried at each level, so nothing doubles."""
    value: dict[str, Any] = {"kind": "plus"}
    for _ in range(60):
        value = {"kind": "minus", "of": [value]}
    assert validation_cost.guard_of(Plus) is None and _read(json.dumps({"a": value}), Minus)["a"].of


@pytest.mark.parametrize(
    "kind", [str, list[str], dict[str, int], Mood, Code, list[Fork | None], tuple[int, str], int | str]
)
def test_most_types_need_no_look(kind: Any) -> None:
    """unit: a guard costs a walk through the value."""
    recursive = kind == list[Fork | None]
    assert (validation_cost.guard_of(kind) is None) is not recursive


def test_the_first_braces_are_those_of_the_recursive_expression() -> None:
    """unit: DSPy's, on random texts."""
    import random

    import regex

    source = random.Random(5)
    for _ in range(20_000):
        text = "".join(source.choices("{}{}ab", k=source.randint(0, 12)))
        found = regex.search(r"\{(?:[^{}]|(?R))*\}", text, regex.DOTALL)
        assert lenient_json.first_braced(text) == (found.group() if found else None), text


def test_fences_are_found_as_by_dspys_expressions() -> None:
    """unit: on random texts."""
    import random

    fenced = (re.compile(r"```(?:[^\n]*)\n(.*?)```", re.DOTALL), re.compile(r"```(.*?)```", re.DOTALL))
    source = random.Random(6)
    for _ in range(20_000):
        text = "".join(source.choices(["```", "`", "\n", "x", " "], k=source.randint(0, 10)))
        found = next((match for each in fenced if (match := each.search(text))), None)
        assert Code.model_validate(text).code == (found.group(1).strip() if found else text), text


def test_markers_become_blocks_as_by_dspys_expression() -> None:
    """unit: also those that are not closed."""
    import random

    source = random.Random(7)
    for _ in range(5_000):
        text = "".join(source.choices([START, END, "[]", "x", '["a"]'], k=source.randint(1, 8)))
        content = expand({"role": "user", "content": text})["content"]
        wanted: list[Any] = []
        for at, part in enumerate(re.split(f"{START}(.*?){END}", text, flags=re.DOTALL)):
            if at % 2:
                wanted.extend(markers._payload_blocks(part.strip()))
            elif part:
                wanted.append({"type": "text", "text": part})
        assert content == (wanted if START in text else text), text


# --- the budget ------------------------------------------------------------------------------------------------


def test_a_trial_pauses_instead_of_refusing() -> None:
    """unit: and with a whole budget the same answer is read."""
    compiled = compile_signature(LISTS, "json")
    text = '{"a": [' + "'x', " * 3000 + "]"
    with pytest.raises(Paused):
        compiled.parse(text, budget=ParseBudget(len(text), trial_steps=100))
    assert len(compiled.parse(text)["a"]) == 3000


def test_texts_that_are_cut_out_or_joined_are_counted_on() -> None:
    """unit: json_repair goes on with a copy of the text where a key is repeated."""
    budget = ParseBudget(0)
    text: Any = lenient_json._Metered.of("abc", budget)
    before = budget.left
    joined = text[:2] + "{" + text[2:]
    assert joined == "ab{c" and joined[1] == "b" and joined.find("c") == 3 and before - budget.left >= 4
    with pytest.raises(TooCostly):
        for _ in range(parse_budget.STEPS_LEAST + 65):
            joined[0]


def test_a_workers_outputs_are_looked_at_before_they_are_validated() -> None:
    """unit: they are as untrusted as a model's."""
    deep: Any = None
    for _ in range(40):
        deep = {"of": deep}
    with pytest.raises(AdapterParseError, match="400,000 steps"):
        typed_outputs(signature_of(Leaf | Fork), {"a": deep})
    with pytest.raises(AdapterParseError, match="4,096"):
        typed_outputs(signature_of(set[int]), {"a": list(range(5000))})
    assert typed_outputs(signature_of(set[int]), {"a": [1, 1]}) == {"a": {1}}
