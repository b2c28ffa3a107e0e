"""Say what of an `LM` a worker gets. Pure."""

from __future__ import annotations

from typing import Any

from .dspy_lm15 import DROPPABLE
from .record_checks import thawed
from .record_facts import LMFacts
from .sent_options import EXTRA, refused_by, worded_by


def wire_form(lm: LMFacts) -> dict[str, Any]:
    """Return what a worker needs to build the same `dspy.LM`: plain data, no key, no headers.

    "options" are what DSPy words; the members of a body stay here, but for one that workers send by themselves.
    """
    worded = worded_by(lm.provider)
    options = {name: thawed(value) for name, value in lm.config if lm.direct or name in worded}
    if lm.direct and lm.extra_body:
        options[EXTRA] = dict(lm.extra_body)
    return {
        "ref": lm.ref,
        "model": f"hosted_vllm/{lm.name}" if lm.provider.prefix == "local" else lm.provider.dspys_name(lm.name),
        "named": lm.model,
        "model_type": lm.model_type,
        "provider": lm.provider.id,
        "dialect": lm.provider.dialect,
        "api_base": lm.worker_base,
        "settings": dict(lm.host_settings),
        "temperature": lm.temperature,
        "max_tokens": lm.max_tokens,
        "n": lm.n,
        "cache": lm.cache,
        "timeout": lm.timeout,
        "options": options,
        "worded": [] if lm.direct else sorted(worded),
        "refused": {} if lm.direct else dict(refused_by(lm.provider)),
        "supports": {
            "response_schema": lm.supports_schema,
            "function_calling": lm.supports_tools,
            "reasoning": lm.supports_reasoning,
        },
        "structured_outputs": lm.structured_outputs,
        "is_temperature_fixed": lm.is_temperature_fixed,
        "droppable": sorted(DROPPABLE) if lm.provider.by_lm15 else None,
        "direct": lm.direct,
        "fallbacks": [wire_form(each) for each in lm.fallbacks],
    }
