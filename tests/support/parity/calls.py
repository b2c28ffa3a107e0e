"""Random calls: a language model's record, the call's options, and what the endpoint answers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from tests.support.parity.answers import Answers
from tests.support.parity.endings import Endings
from tests.support.parity.random_values import Kind, Kinds
from tests.support.parity.wire_replies import Family, family_of

MODELS: Final = (
    "openai/gpt-4o-mini", "openai/gpt-4o-mini", "openai/nobody-knows-it", "openai/gpt-4o", "openai/o3-mini",
    "hosted_vllm/qwen", "ollama_chat/llama3", "deepseek/deepseek-chat", "groq/llama-3.3-70b-versatile",
    "openai/gpt-3.5-turbo", "deepseek/deepseek-reasoner", "xai/grok-4", "anthropic/claude-sonnet-4-5",
    "anthropic/claude-3-haiku-20240307", "openrouter/openai/gpt-4o", "moonshot/kimi-k2", "ollama/llama3",
    "gemini/gemini-2.5-flash",
)  # fmt: skip
LOST_BY_DSPY: Final[dict[str, tuple[str, ...]]] = {  # DSPex sends or refuses what DSPy leaves out in silence
    "anthropic": ("seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "store", "user"),
    "gemini": ("user", "parallel_tool_calls"),
    "xai": ("logprobs", "top_logprobs"),
    "openrouter": ("reasoning_effort",),  # refused by lm15; LiteLLM and DSPex send it
}
SCHEMA: Final = {
    "type": "json_schema",
    "json_schema": {"name": "mine", "strict": True, "schema": {"type": "object", "properties": {"a": {"const": 1}}}},
}
TOOL: Final = {"type": "function", "function": {"name": "look", "description": "é", "parameters": {"type": "object"}}}
FAILURES: Final = (
    {"status": 401, "error": {"message": "bad key"}},
    {"status": 429, "error": {"message": "slow", "type": "rate_limit_error"}},
    {"status": 400, "error": {"message": "too long", "code": "context_length_exceeded"}},
    {"status": 500, "error": {"message": "oops"}},
    {"status": 404, "error": {"message": "The model `x` does not exist", "code": "model_not_found"}},
    {"status": 200, "body": "not json"},
)


def without_lost(model: str, family: Family, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options but those that DSPy would not send to the model's provider."""
    lost = LOST_BY_DSPY.get(model.partition("/")[0], LOST_BY_DSPY.get(family, ()))
    lost = (*lost, "top_k") if family == "openai" else lost
    return {name: value for name, value in options.items() if name not in lost}


class Calls:
    """Calls of one random source."""

    def __init__(self, source: random.Random, kinds: Kinds, answers: Answers) -> None:
        self.random = source
        self.kinds = kinds
        self.answers = answers
        self.endings = Endings(source)

    def call(self, outputs: Mapping[str, Kind], adapter: str) -> dict[str, Any]:
        """One `Predict` with the model's answers, enough of them for a second question in json."""
        return self.call_of(self.random.choice(MODELS), outputs, adapter)

    def call_of(
        self, model: str, outputs: Mapping[str, Kind], adapter: str, family: Family | None = None
    ) -> dict[str, Any]:
        """One `Predict` with this model; `family` is its provider's, where that is no common one."""
        lm = self._options(0.25, n=True)
        family = family or family_of(model)
        is_anthropic = family == "anthropic"
        asked = (adapter, adapter, "json", "json")
        replies = [self._reply(outputs, each, is_anthropic) for each in asked]
        if family != "openai":  # whose own code this is not: DSPex knows it all the same, DSPy does not
            replies = [reply for reply in replies if "code" not in reply.get("error", {})] or [{"text": "x"}]
        config = without_lost(model, family, self._options(0.2, n=True) | self._rare())
        streamed = self.random.random() < 0.1 and (config.get("n") or lm.get("n") or 1) == 1
        if streamed and self.random.random() < 0.1:
            replies = [{**reply, "broken": True} for reply in replies]
        return {
            "model": model,
            "lm": without_lost(model, family, lm),
            "config": config,
            "replies": replies,
            "demos": self.random.random() < 0.5,
            "streamed": streamed,
        }

    def _options(self, share: float, n: bool) -> dict[str, Any]:
        choose = self.random.choice
        every = {
            "temperature": choose((0, 0.0, 0.1, 0.5, 1, 1.0, None)),
            "max_tokens": choose((1, 100, 20_000)),
            "top_p": choose((1, 0.5)),
            "stop": choose(("END", ["a", "b"], [], None)),
            "seed": 7,
            "presence_penalty": choose((1, -0.5)),
        }
        if n:
            every["n"] = choose((1, 2, 3, None))
        return {name: value for name, value in every.items() if self.random.random() < share}

    def _rare(self) -> dict[str, Any]:
        rare = (
            {"response_format": {"type": "json_object"}}, {"response_format": SCHEMA}, {"rollout_id": 3},
            {"tools": [TOOL], "tool_choice": "auto"}, {"reasoning_effort": "low"},
            {"user": "u", "metadata": {"k": "v"}}, {"max_completion_tokens": 50}, {"logit_bias": {"5": -1}},
            {"frequency_penalty": 0.5}, {"tools": [TOOL]}, {"service_tier": "flex"}, {"parallel_tool_calls": False},
            {"top_k": 4}, {"verbosity": "low"}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2},
        )  # fmt: skip
        return dict(self.random.choice(rare)) if self.random.random() < 0.25 else {}

    def _reply(self, outputs: Mapping[str, Kind], adapter: str, is_anthropic: bool) -> dict[str, Any]:
        how = self.random.random()
        if how < 0.04:
            return dict(self.random.choice(FAILURES))
        if how > 0.85:
            return self.endings.ending(self.answers.answer(outputs, adapter), is_anthropic)
        if how < 0.07:
            return {"text": self.random.choice(("", None, " ", "\n"))}
        made = {"text": self.answers.answer(outputs, adapter)}
        if how < 0.1:
            made["finish"] = "length"
        return made
