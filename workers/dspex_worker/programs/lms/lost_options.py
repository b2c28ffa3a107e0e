"""Find the options that DSPy's own client would leave out of a request of a direct LM, and send or refuse them.

lm15 notes what it drops after the answer was paid for; its plan says so before. `top_k` is sent to OpenAI-compatible
servers as a member of the body, as DSPex itself does; of anything else nobody would know that it was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from typing import Any

from dspy.utils.exceptions import LMUnsupportedFeatureError

from ..dspy_parts import LM15Engine, RouterConfig, module_of_dspy
from .direct_lms import DirectLM

_SENT_AS_MEMBERS = frozenset({"top_k"})
_PREFIX = "config."


def keeping(execute: Any) -> Any:
    """Return DSPy's `execute` that loses no option of a direct LM.

    The function it returns raises `LMUnsupportedFeatureError`, before anything is sent.
    """

    @wraps(execute)
    def execute_here(lm: Any, call: Any) -> Any:
        return execute(lm, whole(lm, call) if isinstance(lm, DirectLM) else call)

    return execute_here


def akeeping(aexecute: Any) -> Any:
    """Return DSPy's `aexecute` that loses no option of a direct LM."""

    @wraps(aexecute)
    async def aexecute_here(lm: Any, call: Any) -> Any:
        return await aexecute(lm, whole(lm, call) if isinstance(lm, DirectLM) else call)

    return aexecute_here


def whole(lm: DirectLM, call: Any) -> Any:
    """Return the prepared call so that all of its options are sent.

    Raises:
        LMUnsupportedFeatureError: one would not be.
    """
    lost = list(_dropped(lm, call))
    sent = {name: call.legacy[name] for name in lost if name in _SENT_AS_MEMBERS and name in call.legacy}
    for name in lost:
        if name not in sent:
            raise LMUnsupportedFeatureError(
                f"DSPy's client would leave {name} out of requests to {lm.model}. extra_body={{{name!r}: ...}} sends "
                f"it as it is.",
                model=lm.model,
            )
    if not sent:
        return call
    kept = {name: value for name, value in call.legacy.items() if name not in sent}
    return replace(call, legacy={**kept, "extra_body": {**sent, **(kept.get("extra_body") or {})}})


def _dropped(lm: DirectLM, call: Any) -> Iterator[str]:
    """Yield the options that lm15 would drop; none where LiteLLM, which drops nothing unsaid, is to be asked."""
    execution, backends = module_of_dspy("clients.execution"), module_of_dspy("clients.backend_selection")
    try:
        selection = backends.select_backend(lm, call.legacy)
        if call.request is not None or not selection.native or selection.resolution is None:
            return
        canonical = execution._canonical(call, compat=selection.resolution.compat)
        plan = LM15Engine(RouterConfig(env={}), model_type=lm.model_type).plan(canonical)
    except Exception:  # what lm15 cannot carry, DSPy leaves to LiteLLM, or refuses itself
        return
    for adaptation in plan:
        if adaptation.action == "dropped" and adaptation.field.startswith(_PREFIX):
            yield adaptation.field.removeprefix(_PREFIX).partition(".")[0]
