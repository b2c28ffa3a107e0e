"""Parity: every option gets to every provider, the same from both routes, or is refused by name when an LM is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError, LMError
from dspex.lm.lm_options import GENERATION_OPTIONS
from dspex.testing import FakeLM

pytestmark = pytest.mark.parity

SENTINEL = "sentinel"
FUNCTION = {"name": SENTINEL, "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SCHEMA = {"name": "Out", "schema": {"type": "object", "properties": {SENTINEL: {"type": "string"}}}}
TEXTS = "prompt_cache_key user verbosity guided_regex guided_grammar guided_decoding_backend chat_template preset route"
TEXTS += " safety_identifier user_id inference_geo moderation guardrails keep_alive think prompt_cache_retention"
NUMBERS = (
    "max_tokens max_completion_tokens top_k seed best_of min_tokens truncate_prompt_tokens prompt_logprobs priority"
)
PARTS = "temperature top_p frequency_penalty presence_penalty min_p top_a typical_p repetition_penalty length_penalty"
SWITCHES = "ignore_eos include_stop_str_in_output skip_special_tokens spaces_between_special_tokens enable_thinking"
SWITCHES += " add_generation_prompt continue_final_message include_reasoning store"
MAPPINGS = (
    "metadata provider prediction chat_template_kwargs mm_processor_kwargs guided_json prompt_cache_options audio"
)
MAPPINGS += " web_search_options search_parameters usage options cache_control output_config context_management"
MAPPINGS += " container extra_body logit_bias reasoning"
LISTS = "stop bad_words guided_choice modalities models transforms tags"
ROWS = "documents plugins mcp_servers"
VALUES: dict[str, dict[str, Any]] = {
    **{name: {name: SENTINEL} for name in TEXTS.split()},
    **{name: {name: 4321} for name in NUMBERS.split()},
    **{name: {name: 0.625} for name in PARTS.split()},
    **{name: {name: True} for name in SWITCHES.split()},
    **{name: {name: {SENTINEL: 1}} for name in MAPPINGS.split()},
    **{name: {name: [SENTINEL]} for name in LISTS.split()},
    **{name: {name: [{SENTINEL: 1}]} for name in ROWS.split()},
    "num_ctx": {"num_ctx": 4321},
    "stop_token_ids": {"stop_token_ids": [4321]},
    "service_tier": {"service_tier": "flex"},
    "reasoning_format": {"reasoning_format": "parsed"},
    "reasoning_effort": {"reasoning_effort": "high"},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 4321}},
    "tools": {"tools": TOOLS},
    "tool_choice": {"tools": TOOLS, "tool_choice": "required"},
    "parallel_tool_calls": {"tools": TOOLS, "parallel_tool_calls": False},
    "response_format": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 3},
    "cache_control_injection_points": {
        "cache_control_injection_points": [{"location": "message", "role": "system", "control": {SENTINEL: 1}}]
    },
}
ENDPOINTS = [
    ("openai/gpt-4o", "chat"),
    ("openai/gpt-4o", "responses"),
    ("anthropic/claude-sonnet-4-5", "chat"),
    ("anthropic/claude-opus-4-6", "chat"),
    ("hosted_vllm/qwen", "chat"),
    ("ollama_chat/llama3", "chat"),
    ("ollama/llama3", "chat"),
    ("groq/llama", "chat"),
    ("openrouter/openai/gpt-4o", "chat"),
    ("deepseek/deepseek-chat", "chat"),
    ("xai/grok-4", "chat"),
    ("moonshot/kimi-k2", "chat"),
    ("gemini/gemini-2.5-flash", "chat"),
]


def test_each_option_has_a_value_here() -> None:
    """unit: a new name must be tried with every provider."""
    assert VALUES.keys() == GENERATION_OPTIONS


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.mark.parametrize("place", ["lm", "config"])
@pytest.mark.parametrize(("model", "model_type"), ENDPOINTS)
def test_an_option_is_sent_or_refused_by_name(sup: dspex.Supervisor, model: str, model_type: str, place: str) -> None:
    """parity: as an option of the LM and of a call; of both routes the bytes and the headers."""
    faults: list[Any] = []
    text = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
    with FakeLM(lambda _: text, model=model, model_type=model_type, retries=0) as plain:
        routes = ("native", "python") if plain.native else ("python",)
        bare = [_sent(sup, plain, route, plain.lm, {}) for route in routes]
        assert all(each == bare[0] for each in bare)
        for name, options in VALUES.items():
            if place == "config" and name in _OF_ADAPTERS:
                continue
            at_lm = place == "lm"
            try:
                lm = plain.lm.replace(**options) if at_lm else plain.lm
                found = [_sent(sup, plain, route, lm, {} if at_lm else options) for route in routes]
            except LMError as error:
                if not (name in str(error) or any(other in str(error) for other in options)):
                    faults.append((name, "refused without its name", error))
                continue
            except DspexError as error:
                faults.append((name, error))
                continue
            if found[0] == bare[0]:
                faults.append((name, "lost"))
            if any(each != found[0] for each in found):
                faults.append((name, "not alike", *found))
            if SENTINEL in str(options[name]) and SENTINEL not in str(found[0]):
                faults.append((name, "sent without its value", found[0]))
    assert not faults, "\n".join(map(str, faults))


_OF_ADAPTERS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})  # which set or leave them out, as in DSPy


def _sent(sup: dspex.Supervisor, server: FakeLM, route: Any, lm: dspex.LM, config: dict[str, Any]) -> Any:
    """What the endpoint gets by this route.

    Raises:
        DspexError: nothing: it was refused.
    """
    server.requests.clear()
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
    try:
        program.using(adapter="chat", config=config)(question="q")
    except DspexError:  # of an answer in another dialect, say
        if not server.requests:
            raise
    request = server.requests[-1]
    headers = {name: value for name, value in request.headers.items() if name.startswith(("x-", "anthropic"))}
    return request.path, request.raw, headers
