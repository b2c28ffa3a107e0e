"""`user_lms` for a DSPy without lm15 (before 3.4): the LMs of user code ask by `forward` of what carries them."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from ..dspy_errors import ParentRefused
from .body_members import members_in
from .lm_fallbacks import FallbackLine, FallbackLM
from .lm_lookup import LMS, CallLMs, headers_of, is_forgotten, is_of_user, lms_of_call, options_for
from .lm_transport import LMCallOptions
from .worker_lm import counted

_ABILITIES = ("supports_function_calling", "supports_reasoning", "supports_response_schema", "supported_params")


def install() -> None:
    """Carry the requests of user code's LMs through the parent, in this process from now on."""
    lm_class: Any = dspy.LM
    lm_class.forward = _forwarding(lm_class.forward)
    lm_class.aforward = _aforwarding(lm_class.aforward)
    for name in _ABILITIES:
        setattr(lm_class, name, property(_telling(name, getattr(lm_class, name).fget)))


def _forwarding(forward: Any) -> Any:
    @wraps(forward)
    def forward_here(self: Any, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        asked = messages or [{"role": "user", "content": prompt}]
        if not is_of_user(self):
            return forward(self, prompt, messages, **options)
        lms, given = lms_of_call(self), {**self.kwargs, **options}
        carrier = lms.carrier(self, given)
        try:
            return _carried(self, carrier, asked, given)
        except ParentRefused as refused:
            if not is_forgotten(refused) or not lms.forget(carrier):
                raise
        return _carried(self, lms.carrier(self, given), asked, given)

    return forward_here


def _aforwarding(aforward: Any) -> Any:
    @wraps(aforward)
    async def aforward_here(self: Any, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        if not is_of_user(self):
            return await aforward(self, prompt, messages, **options)
        return await asyncio.to_thread(self.forward, prompt, messages, **options)

    return aforward_here


def _telling(name: str, told: Any) -> Any:
    @wraps(told)
    def ability_here(self: Any) -> Any:
        lms: CallLMs | None = dspy.settings.get(LMS)
        return told(self) if lms is None or not is_of_user(self) else getattr(lms.carrier(self, {}), name)

    return ability_here


def _carried(lm: Any, carrier: FallbackLM, messages: Any, given: dict[str, Any]) -> Any:
    """Return the reply of what carries an LM's call, or of one of its fallbacks."""
    cache = bool(given.pop("cache", lm.cache))
    line, headers = FallbackLine(carrier), headers_of(lm, given)
    for one, turn in line:
        asked, options = LMCallOptions(given.get("rollout_id"), cache, turn, headers=headers), options_for(one, given)
        try:
            asked.members = members_in(getattr(one, "record", {}), options)
            options |= dict.fromkeys(asked.members)
            with counted(asked):
                reply: Any = one.forward(None, messages, **options)
        except dspy_errors.LMError as error:
            line.failed(error)
            continue
        if asked.were_cached and all(asked.were_cached):
            reply["cache_hit"] = True  # nothing was used
        return reply
    raise AssertionError("the last failure is raised")
