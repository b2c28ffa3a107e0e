"""Let the LMs that user code makes work unchanged on a DSPy before 3.4: their requests go through the parent.

What `user_lms` does where DSPy prepares LM calls apart from carrying them out, which 3.3 does not: here `forward` and
`aforward` of `dspy.LM` are replaced. Subclasses that write their own are left alone.
"""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from .dspy_parts import CLIENT_KEYS
from .lm_fallbacks import FallbackLine
from .lm_transport import LMCallOptions
from .prompt_capture import CAPTURE, PromptCaptured
from .user_lms import headers_of, is_of_user, lms_of_call
from .worker_lm import counted


def install() -> None:
    """Carry the requests of user code's LMs through the parent, in this process from now on."""
    dspy.LM.forward = _forwarding(dspy.LM.forward)
    dspy.LM.aforward = _aforwarding(dspy.LM.aforward)


def _forwarding(forward: Any) -> Any:
    @wraps(forward)
    def forward_here(self: Any, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        if not is_of_user(self):
            return forward(self, prompt, messages, **options)
        return _carried(self, messages or [{"role": "user", "content": prompt}], options)

    return forward_here


def _aforwarding(aforward: Any) -> Any:
    @wraps(aforward)
    async def aforward_here(self: Any, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        if not is_of_user(self):
            return await aforward(self, prompt, messages, **options)
        return await asyncio.to_thread(_carried, self, messages or [{"role": "user", "content": prompt}], options)

    return aforward_here


def _carried(lm: Any, messages: list[dict[str, Any]], options: dict[str, Any]) -> Any:
    if dspy.settings.get(CAPTURE):
        raise PromptCaptured(messages)
    given = {name: value for name, value in {**lm.kwargs, **options}.items() if value is not None}
    cache, rollout_id = given.pop("cache", lm.cache), given.pop("rollout_id", None)
    headers = headers_of(lm, options)
    line = FallbackLine(lms_of_call(lm).carrier(lm, options))
    for carrier, turn in line:
        asked = LMCallOptions(rollout_id, bool(cache), turn, headers=headers)
        try:
            with counted(asked):
                reply = carrier.forward(None, messages, **_answers_options(given))
        except dspy_errors.LMError as error:
            line.failed(error)
            continue
        if asked.were_cached and all(asked.were_cached):
            reply["cache_hit"] = True  # the parent's cache answered, and nothing was used
        return reply
    raise AssertionError("the last failure is raised")


def _answers_options(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in CLIENT_KEYS}
