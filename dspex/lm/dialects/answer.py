"""`Answer`: one choice of a response, with tool calls and token counters in DSPy's shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import LMError, LMProviderError, LMRefusedError, LMUnexpectedError
from .error_envelopes import complaint_in

if TYPE_CHECKING:
    from ..record import LM

Details = Sequence[tuple[str, Any]]
PARTIAL = "partial_json"  # where arguments that are no JSON are kept, as in DSPy
REFUSAL_MOST = 10_000  # characters of a refusal that an error carries
COUNT_MOST = 10**12  # tokens of one response; sums and prices of what is beyond would not fit a float


@dataclass(slots=True)  # one for each response: a frozen one takes three times as long to make
class Answer:
    """One choice of a response. `text` is None when the model sent no text at all (only tool calls, or a refusal)."""

    text: str | None
    model: str
    finish_reason: str = "stop"
    usage: dict[str, Any] = field(default_factory=dict)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    reasoning: str | None = None
    logprobs: list[Any] | None = None  # of the tokens, as the provider lists them


def no_answer(lm: LM, data: Mapping[str, Any]) -> LMError:
    """Return the error for a JSON object that is no answer: the one it reports, else that it is none."""
    if complaint := complaint_in(data):
        return complaint.error(lm)
    return LMProviderError("The reply is JSON, but not an answer.", model=lm.model, provider=lm.provider.id, status=200)


def refused(lm: LM, refusal: str) -> LMRefusedError:
    """Return the error for an answer that is empty because the model refused it, or a filter held it back."""
    return LMRefusedError(
        "The model gave no answer: it refused, or a content filter held the answer back. The error's `refusal` is what "
        "was said of it.",
        refusal=refusal[:REFUSAL_MOST],
        model=lm.model,
        provider=lm.provider.id,
        status=200,
    )


def tool_call(lm: LM, id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call in the shape that DSPy's adapters read.

    Raises:
        LMUnexpectedError: the arguments hold NaN or an infinity.
    """
    try:
        given = json.dumps(arguments, allow_nan=False)
    except ValueError:
        text = f"The arguments of a call of {name[:100]!r} hold NaN or an infinity, which is no JSON."
        raise LMUnexpectedError(text, model=lm.model) from None
    return {"id": id, "type": "function", "function": {"name": name, "arguments": given}}


def arguments_of(given: Any, *, constants: bool = True) -> dict[str, Any]:
    """Return the arguments of a tool call. What is no JSON object is kept, under a name that no tool takes.

    As DSPy keeps it: a text that is no JSON as `partial_json`, a JSON value of another kind as `value`. Never as {}:
    a tool would then run with its defaults, of which the model said nothing. `constants`: NaN and Infinity are JSON.
    """
    if given is None or given == "":
        return {}
    try:
        value = (
            json.loads(given, parse_constant=None if constants else _no_constant) if isinstance(given, str) else given
        )
    except (ValueError, RecursionError):
        return {PARTIAL: given}
    return value if isinstance(value, dict) else {"value": value}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def count(value: Any) -> int | float | None:
    """Return a token counter as a provider sends it; None for anything that is no count, however many digits it has."""
    if type(value) is int and 0 <= value <= COUNT_MOST:  # nearly always
        return value
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return value if is_count and value <= COUNT_MOST else None


def counters(
    prompt: float | None,
    completion: float | None,
    total: float | None,
    prompt_details: Details,
    completion_details: Details,
) -> dict[str, Any]:
    """Return token counters in DSPy's shape: only what was reported, details present as None when the rest is."""
    found: dict[str, Any] = {}
    if prompt is not None:
        found["prompt_tokens"] = prompt
    if completion is not None:
        found["completion_tokens"] = completion
    if total is not None:
        found["total_tokens"] = total
    in_prompt = _reported(prompt_details) if prompt_details else None
    in_completion = _reported(completion_details) if completion_details else None
    if found or in_prompt or in_completion:
        found["prompt_tokens_details"] = in_prompt
        found["completion_tokens_details"] = in_completion
    return found


def _reported(details: Details) -> dict[str, Any] | None:
    return {name: value for name, found in details if (value := count(found)) is not None} or None
