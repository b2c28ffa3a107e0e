"""Keep `dspy.Predict` from setting a temperature that its model refuses, and from losing the caller's LM in `reset`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

import dspy

from .lm_fallbacks import FallbackLM
from .lm_lookup import LMS, CallLMs, is_of_user

TEMPERATURE_OF_SEVERAL = 0.7  # DSPy's for several answers to one question (predict/predict.py)


def install() -> None:
    """Change `dspy.Predict`, in this process from now on."""
    dspy.Predict._forward_preprocess = _preprocessing(dspy.Predict._forward_preprocess)
    dspy.Predict.reset = _resetting(dspy.Predict.reset)


def _preprocessing(preprocess: Any) -> Any:
    @wraps(preprocess)
    def preprocess_for_model(self: Any, **inputs: Any) -> Any:
        given = {**self.config, **(inputs.get("config") or {})}
        prepared = preprocess(self, **inputs)
        lm, config = prepared[0], prepared[1]
        is_raised = config.get("temperature") == TEMPERATURE_OF_SEVERAL != given.get("temperature")
        if is_raised and _is_temperature_fixed(lm, config):
            del config["temperature"]
            config |= {"temperature": given["temperature"]} if "temperature" in given else {}
        return prepared

    return preprocess_for_model


def _resetting(reset: Any) -> Any:
    @wraps(reset)
    def reset_all_but_lm(self: Any) -> None:
        lm = getattr(self, "lm", None)
        reset(self)
        if isinstance(lm, FallbackLM):  # the caller named it for this predictor; optimizers reset what they compile
            self.lm = lm

    return reset_all_but_lm


def _is_temperature_fixed(lm: Any, config: dict[str, Any]) -> bool:
    """Whether a model takes no temperature but its own: OpenAI's reasoning families, and what thinks."""
    lms: CallLMs | None = dspy.settings.get(LMS)
    asked = lm if lms is None or not is_of_user(lm) else lms.carrier(lm, config)  # it may only bear a configured name
    options = {**(getattr(lm, "kwargs", None) or {}), **config}
    within = options.get("extra_body")
    return _thinks(options | (within if isinstance(within, dict) else {})) or (
        isinstance(asked, FallbackLM) and asked.is_temperature_fixed
    )


def _thinks(options: Mapping[str, Any]) -> bool:
    """Whether these options make a model think; the same rule as the native side's (dspex/lm/record_facts.py)."""
    thinking, reasoning = options.get("thinking"), options.get("reasoning")
    is_on = isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
    efforts = (options.get("reasoning_effort"), reasoning.get("effort") if isinstance(reasoning, Mapping) else None)
    return is_on or any(effort not in (None, "none") for effort in efforts)
