"""Replies that are no plain answer: refusals, filters, tool calls cut short, errors as servers send them, and more."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from tests.support.lm.provider_errors import RECORDED

ARGUMENTS: Final = (
    '{"query": "cats \\u201cé\\u201d", "k": 2}', "{}", "", None, '{"query": "ca', '{"query": "cats", "k": ', "[1, 2]",
    "3", '"text"', "null", '{"k": NaN}', "{'query': 'cats'}", '{"query": "a"}{"query": "b"}', "  {\n}", {"query": "x"},
    {}, '{"a": {"b": [{"c": "d', '{"query": "\\ud83d"}', "{query: 1}",
)  # fmt: skip
NAMES: Final = ("search", "look", "no such tool", "a")
LOGPROBS: Final[tuple[Any, ...]] = (
    {"content": [{"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2}]}]},
    {"content": [{"token": "é", "logprob": -1, "bytes": None, "top_logprobs": []}, {"token": "x", "logprob": 0}]},
    {"content": []}, {"content": None}, None,
)  # fmt: skip
CHOICE_ERRORS: Final = ({"code": 502, "message": "upstream"}, {"code": 429, "message": "slow down"}, {"message": "no"})
ODD_BODIES: Final[tuple[Any, ...]] = (
    {}, [], None, "text", {"choices": []}, {"choices": None}, {"choices": [{}]}, {"choices": [{"message": None}]},
    {"choices": [{"message": {"role": "assistant"}, "finish_reason": "stop"}]}, {"object": "error", "message": "m"},
    {"type": "message", "content": []}, {"content": "x"},
)  # fmt: skip


class Endings:
    """Such replies of one random source."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def ending(self, answer: str, is_anthropic: bool) -> dict[str, Any]:
        """One of them; `answer` is what would have been said."""
        choose, cut = self.random.choice, self.random.randint(0, len(answer))
        made: tuple[Any, ...] = (
            lambda: {"text": None, "refusal": "I can't.", "finish": "stop"},
            lambda: {"text": answer, "refusal": "But I should not."},
            lambda: {"text": choose((None, "")), "finish": "content_filter"},
            lambda: {"text": answer[:cut], "finish": choose(("content_filter", "length"))},
            lambda: {"text": choose((None, "", answer)), "calls": self.tool_calls()},
            lambda: {"text": choose((None, "", answer[:cut])), "calls": self.tool_calls(), "finish": "length"},
            lambda: {"text": choose((answer, None, "")), "reasoning": "hm\n“so”"},
            lambda: {"text": answer, "logprobs": choose(LOGPROBS)},
            lambda: {"body": json.dumps(choose(ODD_BODIES))},
            lambda: {"text": choose((None, answer)), "choice_error": choose(CHOICE_ERRORS), "finish": "error"},
            lambda: self.recorded(is_anthropic),
            lambda: self.recorded(is_anthropic),
            lambda: {"text": answer, "usage": choose((None, {}, {"prompt_tokens": "3"}, [1]))},
        )
        return dict(choose(made)())

    def tool_calls(self) -> list[dict[str, Any]]:
        """Calls of tools, whole and not."""
        choose = self.random.choice
        return [
            {"id": choose((f"c{at}", f"c{at}", None)), "name": choose(NAMES), "arguments": choose(ARGUMENTS)}
            for at in range(choose((1, 1, 2)))
        ]

    def recorded(self, is_anthropic: bool) -> dict[str, Any]:
        """An error as its provider sent it, with the class that docs/internals/language-model-errors.md says."""
        one = self.random.choice([each for each in RECORDED if each.is_anthropic == is_anthropic])
        return {"status": one.status, "body": one.body, "recorded": one.kind.__name__}
