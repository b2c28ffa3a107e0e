"""The comparison of both sides of a case: values must be equal, errors must be of the class that the contract gives.

`CONTRACT` says, for each point of a call and each class that DSPy raises there, which class DSPex raises; some of
DSPy's are accidents (a TypeError of Python's own), and DSPex then refuses at the same point with an error of its own.
A pair that is not in the table is a difference. `docs/internals/parity.md` shows the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.parity.departures import departure, without_heat
from tests.support.parity.oracle import Case, Outcome, is_error

CONTRACT: Final[Mapping[tuple[str, str], str]] = {
    # a signature that cannot be: DSPy lets out whatever ast, typing, pydantic or its own code raised
    ("signature", "SyntaxError"): "SignatureError",
    ("signature", "ValueError"): "SignatureError",
    ("signature", "TypeError"): "SignatureError",
    ("signature", "AttributeError"): "SignatureError",
    ("signature", "PydanticUserError"): "SignatureError",
    ("signature", "PydanticSchemaGenerationError"): "SignatureError",
    ("signature", "SchemaError"): "SignatureError",
    ("operation", "ValueError"): "SignatureError",
    ("operation", "TypeError"): "SignatureError",
    ("operation", "PydanticUserError"): "SignatureError",
    ("operation", "PydanticSchemaGenerationError"): "SignatureError",
    ("operation", "KeyError"): "UnknownName",  # with_updated_fields of a field that is not there
    # values that cannot be shown
    ("messages", "TypeError"): "InvalidInput",  # a list for a text field, with items that are no text
    ("unsent", "TypeError"): "InvalidInput",
    ("unsent", "ValueError"): "InvalidInput",  # text with a lone surrogate, which no provider can receive
    # answers that cannot be read
    ("parse", "AdapterParseError"): "AdapterParseError",
    ("parse", "TypeError"): "AdapterParseError",  # a list or an object where an enum's member is wanted
    ("parse", "AssertionError"): "AdapterParseError",  # json_repair's own, over a damaged answer
    ("call", "AssertionError"): "AdapterParseError",
    ("call", "AdapterParseError"): "AdapterParseError",
    ("call", "TypeError"): "AdapterParseError",
    # half a surrogate pair in an answer that a second step is to read; an answer that is nested beyond all bounds
    ("call", "ValueError"): "InvalidInput, AdapterParseError",
    ("parse", "UnicodeEncodeError"): "AdapterParseError",  # half a surrogate pair, which no XML holds
    ("call", "UnicodeEncodeError"): "AdapterParseError",
    ("parse", "RecursionError"): "AdapterParseError",
    ("call", "RecursionError"): "AdapterParseError",
    # a model that BAML cannot show: it holds itself, or is in two places
    ("messages", "ValueError"): "SignatureError",
    ("messages", "PydanticSerializationError"): "InvalidInput",  # half a surrogate pair in a model that BAML shows
    ("unsent", "PydanticSerializationError"): "InvalidInput",
    ("unshown", "ValueError"): "SignatureError",
    # the LM's own errors, one for one
    ("call", "ContextWindowExceededError"): "LMContextWindowExceededError",
    **{
        (point, name): name
        for point in ("unsent", "call")
        for name in (
            "LMAuthError", "LMBillingError", "LMConfigurationError", "LMInvalidRequestError", "LMProviderError",
            "LMRateLimitError", "LMServerError", "LMTimeoutError", "LMUnexpectedError", "LMUnsupportedFeatureError",
            "LMUnsupportedModelError",
        )
    },
    **dict.fromkeys(
        [("unsent", "LMStreamAssemblyError"), ("call", "LMStreamAssemblyError")],
        "LMStreamAssemblyError, LMEmptyStreamError",
    ),
    # what DSPex refuses before either route (the oracle applies the same rules: native_dspy.admitted)
    ("entry", "InvalidInput"): "InvalidInput",
}  # fmt: skip


_COLD: Final = ("openai/o3-mini",)  # of the models that calls are drawn from


_COUNTED: Final = ("comparisons", "routed", "rules")


@dataclass
class Report:
    """What was compared, and what differs."""

    comparisons: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (point, DSPy's class, DSPex's)
    routed: Counter[str] = field(default_factory=Counter)  # why a worker would have been asked
    rules: Counter[str] = field(default_factory=Counter)  # where DSPex is stricter or wider, by rule
    differences: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many results were compared."""
        return self.comparisons.total()

    def add(self, case: Case, native: Mapping[str, Any], dspy: Mapping[str, Any]) -> None:
        """Compare one case's results."""
        found = list(_Comparison(self, native, dspy).differences(case))
        said = f"{case['text'] or case['fields']} ({case['kind']}, {case.get('adapter')})"
        self.differences += [f"{said}\n  {each}" for each in found]

    def add_calls(self, case: Case, ours: list[dict[str, Any]], dspy: Mapping[str, Any]) -> None:
        """Compare calls that were made by another route than the native one."""
        comparison, found = _Comparison(self, {}, dspy), list[str]()
        if is_error(dspy["signature"]):
            return
        for call, own, theirs in zip(case["calls"], ours, dspy["calls"], strict=True):
            found += comparison.call(call, own, theirs)
        self.differences += [
            f"{case['fields']} ({case['adapter']})\n  inputs {case['inputs']}\n  {each}" for each in found
        ]

    def merge(self, other: Report) -> None:
        """Take in what another process found."""
        for name in ("comparisons", "errors", "routed", "rules"):
            getattr(self, name).update(getattr(other, name))
        self.differences += other.differences

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        errors = [[*pair, count] for pair, count in self.errors.items()]
        return {name: dict(getattr(self, name)) for name in _COUNTED} | {
            "errors": errors,
            "differences": self.differences,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """The report that `to_json` wrote."""
        errors = Counter({(point, theirs, ours): count for point, theirs, ours, count in data["errors"]})
        counted = {name: Counter(data[name]) for name in _COUNTED}
        return cls(errors=errors, differences=list(data["differences"]), **counted)


class _Comparison:
    def __init__(self, report: Report, native: Mapping[str, Any], dspy: Mapping[str, Any]) -> None:
        self.report = report
        self.native = native
        self.dspy = dspy

    def differences(self, case: Case) -> Iterator[str]:
        ours, theirs = self.native["signature"], self.dspy["signature"]
        if is_error(ours) != is_error(theirs):
            rule = self.dspy.get("stricter" if is_error(ours) else "wider")
            expected = rule is not None and (not is_error(ours) or ours[1] == "SignatureError")
            self.report.comparisons["signatures"] += 1
            if expected:
                self.report.rules[f"{'stricter' if is_error(ours) else 'wider'}: {_general(str(rule))}"] += 1
            else:
                yield f"signature:\n    native {ours}\n    dspy   {theirs}"
            return
        yield from self.alike("signature", "signatures", ours, self._named(theirs))
        if is_error(ours):
            return
        if case["kind"] == "signature":
            yield from self._operations(case)
            return
        yield from self.alike("messages", "message lists", self.native["messages"], self.dspy["messages"])
        yield from self.alike("format", "response formats", self.native["format"], self.dspy["format"])
        for text, ours, theirs in zip(case["answers"], self.native["parsed"], self.dspy["parsed"], strict=True):
            yield from self.alike("parse", "parsed answers", ours, theirs, repr(text))
        for call, ours, theirs in zip(case["calls"], self.native["calls"], self.dspy["calls"], strict=True):
            yield from self.call(call, ours, theirs)

    def _named(self, described: Outcome) -> Outcome:
        """DSPy's description, but for the odd name that its string form gives to Code['java']."""
        if is_error(described) or "Code_('" not in repr(described):
            return described
        self.report.rules["renamed: Code['...'] in a string"] += 1
        instructions, fields = described
        return instructions, [(*f[:2], re.sub(r"Code_\('([^']*)',\)", r"Code_\1", f[2]), *f[3:]) for f in fields]

    def _operations(self, case: Case) -> Iterator[str]:
        for operation, ours, theirs in zip(
            case["operations"], self.native["operations"], self.dspy["operations"], strict=True
        ):
            if is_error(ours) and not is_error(theirs) and _adds_a_bad_name(operation) and ours[1] == "SignatureError":
                self.report.rules["stricter: a name that is no identifier"] += 1
                return  # from here on the two signatures are different ones
            if is_error(ours) or is_error(theirs):
                yield from self.alike("operation", "operations", ours, theirs, repr(operation))
                continue
            yield from self.alike("operation", "operations", ours[0], self._named(theirs[0]), repr(operation))
            if ours[1] and not theirs[1]:  # DSPy compares descriptions only; DSPex types and defaults too
                yield f"equality after {operation}: native says equal, DSPy says not"

    def call(self, call: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
        """One call: its outcome, and the body of each request."""
        point = "entry" if theirs.get("refused") else "call" if theirs["bodies"] else "unsent"
        if _is_routed(ours["outcome"]):
            self.report.routed[_general(ours["outcome"][1])] += 1
            return
        if point == "unsent" and is_error(ours["outcome"]) and ours["outcome"][1] == "SignatureError":
            point = "unshown"
        about = f"{call['model']} {call['lm']} {call['config']}{' streamed' if call.get('streamed') else ''}"
        if rule := departure(call, ours, theirs):
            self.report.comparisons["calls"] += 1
            self.report.rules[f"ends otherwise: {rule}"] += 1
            return
        yield from self.alike(point, "calls", ours["outcome"], theirs["outcome"], about)
        self.report.comparisons["request bodies"] += max(len(ours["bodies"]), len(theirs["bodies"]))
        if ours["bodies"] != theirs["bodies"] and not self._is_left_cold(call, ours["bodies"], theirs["bodies"]):
            yield f"requests, {about}: {_first_unequal(ours['bodies'], theirs['bodies'])}"

    def _is_left_cold(self, call: Mapping[str, Any], ours: list[bytes], theirs: list[bytes]) -> bool:
        """Whether DSPy alone heats a model that takes no temperature, for several answers."""
        is_cold = call["model"] in _COLD or "reasoning_effort" in {**call["lm"], **call["config"]}
        are_heated = any(b'"temperature":0.7' in body for body in theirs)
        if is_cold and are_heated and list(map(without_heat, ours)) == list(map(without_heat, theirs)):
            self.report.rules["not heated: a model that fixes its temperature"] += 1
            return True
        return False

    def alike(self, point: str, what: str, ours: Outcome, theirs: Outcome, about: str = "") -> Iterator[str]:
        """Equal values, or errors of the classes that belong together at this point."""
        if _is_routed(ours):
            self.report.routed[_general(ours[1])] += 1
            return
        self.report.comparisons[what] += 1
        if is_error(ours) and is_error(theirs):
            if ours[1] in CONTRACT.get((point, theirs[1]), "").split(", "):
                self.report.errors[point, theirs[1], ours[1]] += 1
                return
        elif not is_error(ours) and not is_error(theirs) and ours == theirs:
            return
        yield f"{point} {about}{_unequal(repr(ours), repr(theirs))}"


def _adds_a_bad_name(operation: Any) -> bool:
    name = operation[2] if operation[0] == "insert" else operation[1]
    return operation[0] in ("prepend", "append", "insert") and not name.isidentifier()


def _is_routed(found: Outcome) -> bool:
    return isinstance(found, tuple) and len(found) == 2 and found[0] == "routed"


def _general(reason: str) -> str:
    """A reason without the names in it."""
    return re.sub(r"'[^']*'", "'...'", re.sub(r"^\S+ is imported", "a name is imported", reason))


def _first_unequal(ours: list[bytes], theirs: list[bytes]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} native, {len(theirs)} of DSPy"
    one, other = next(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
    return _unequal(one.decode("utf-8", "replace"), other.decode("utf-8", "replace"))


def _unequal(one: str, other: str) -> str:
    """Both texts around the first character in which they differ."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, at - 160)
    return f" at {at}\n    native ...{one[start : at + 240]}\n    dspy   ...{other[start : at + 240]}"
