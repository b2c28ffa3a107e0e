"""`Completion`: the answer of a language model, combined from the choices of its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .dialects.answer import Answer


@dataclass(slots=True)
class Completion:
    """The answer to one call: one entry per choice in each list.

    `texts` has "" where the model sent no text. `usage` has DSPy's keys and is empty when every choice came from the
    cache; `cost` is USD, None when a price is unknown; `attempts` counts the requests that were sent.
    """

    texts: list[str]
    tool_calls: list[list[dict[str, Any]]]
    reasoning: list[str | None]
    finish_reasons: list[str]
    model: str
    usage: dict[str, Any] = field(default_factory=dict)
    cost: float | None = None
    cached: bool = False
    attempts: int = 0
    logprobs: Sequence[list[Any] | None] = ()  # as the provider lists them; empty where no answer has any

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.texts[0]


@dataclass(slots=True)
class Choice:
    """One request's part of a completion."""

    answer: Answer
    cost: float | None
    cached: bool
    attempts: int


def completion_of(*choices: Choice) -> Completion:
    """Put the choices of `n` requests together."""
    if len(choices) == 1:
        choice = choices[0]
        answer = choice.answer
        return Completion(
            [answer.text or ""],
            [answer.tool_calls],
            [answer.reasoning],
            [answer.finish_reason],
            answer.model,
            {} if choice.cached else answer.usage,
            choice.cost,
            choice.cached,
            choice.attempts,
            () if answer.logprobs is None else (answer.logprobs,),
        )
    paid = [choice for choice in choices if not choice.cached]
    costs = [choice.cost for choice in paid if choice.cost is not None]
    return Completion(
        texts=[choice.answer.text or "" for choice in choices],
        tool_calls=[choice.answer.tool_calls for choice in choices],
        reasoning=[choice.answer.reasoning for choice in choices],
        finish_reasons=[choice.answer.finish_reason for choice in choices],
        model=choices[0].answer.model,
        usage=_sum([choice.answer.usage for choice in paid]),
        cost=sum(costs) if len(costs) == len(paid) else None,
        cached=not paid,
        attempts=sum(choice.attempts for choice in choices),
        logprobs=[choice.answer.logprobs for choice in choices],
    )


def _sum(usages: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            if isinstance(value, dict):
                inner = total.get(name) or {}
                total[name] = {key: inner.get(key, 0) + value.get(key, 0) for key in {*inner, *value}}
            elif value is not None:
                total[name] = total.get(name, 0) + value
            else:
                total.setdefault(name, None)
    return total
