"""Let the LMs that user code makes (`dspy.LM(...)`) work unchanged: their requests go through the parent.

`install` takes the places of the functions in which DSPy carries out a prepared LM call (clients/execution.py), and of
the one that says what a model can do (clients/capabilities.py). LMs with an engine of the user's, `DummyLM` and other
classes are left alone. Everything else (copies, subclasses, `set_lm`, callbacks, history) is DSPy's own.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import wraps
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from ..dspy_errors import ParentRefused
from ..dspy_parts import module_of_dspy
from .body_members import members_in
from .carried_media import acarrying, carrying
from .lm_fallbacks import FallbackLine, FallbackLM, FallbackTurn
from .lm_lookup import LMS, CallLMs, headers_of, is_forgotten, is_of_user, lms_of_call, options_for
from .lm_transport import LMCallOptions, note_carried
from .lost_options import akeeping, keeping
from .prompt_capture import refuse_to_send
from .worker_lm import WorkerLM, counted


def install() -> None:
    """Carry the requests of user code's LMs through the parent, in this process from now on."""
    execution, capabilities = module_of_dspy("clients.execution"), module_of_dspy("clients.capabilities")
    execution.execute = _executing(carrying(keeping(execution.execute)))
    execution.aexecute = _aexecuting(acarrying(akeeping(execution.aexecute)))
    capabilities._capabilities = _telling(capabilities._capabilities)


def _executing(execute: Any) -> Any:
    @wraps(execute)
    def execute_here(lm: Any, call: Any) -> Any:
        refuse_to_send(call)
        if not (call.managed and is_of_user(lm)):
            return execute(lm, call)
        lms, carried = lms_of_call(lm), CarriedCall(lm, call)
        try:
            return carried.execute(lms.carrier(lm, call.legacy), execute)
        except ParentRefused as refused:
            if not is_forgotten(refused) or not lms.forget(carried.carrier):
                raise
        return carried.execute(lms.carrier(lm, call.legacy), execute)

    return execute_here


def _aexecuting(aexecute: Any) -> Any:
    @wraps(aexecute)
    async def aexecute_here(lm: Any, call: Any) -> Any:
        refuse_to_send(call)
        if not (call.managed and is_of_user(lm)):
            return await aexecute(lm, call)
        lms, carried = lms_of_call(lm), CarriedCall(lm, call)
        try:
            return await carried.aexecute(await asyncio.to_thread(lms.carrier, lm, call.legacy), aexecute)
        except ParentRefused as refused:
            if not is_forgotten(refused) or not lms.forget(carried.carrier):
                raise
        return await carried.aexecute(await asyncio.to_thread(lms.carrier, lm, call.legacy), aexecute)

    return aexecute_here


def _telling(told: Any) -> Any:
    @wraps(told)
    def capabilities_here(lm: Any, options: Any = None) -> Any:
        lms: CallLMs | None = dspy.settings.get(LMS)
        if lms is None or not is_of_user(lm):
            return told(lm, options)
        return told(lms.carrier(lm, options or {}))

    return capabilities_here


class CarriedCall:
    """One prepared call of a user's LM, asked of what carries it and of its fallbacks."""

    carrier: FallbackLM

    def __init__(self, lm: dspy.LM, call: Any) -> None:
        self._call = call
        self._headers = headers_of(lm, {**lm.kwargs, **call.legacy})
        if call.legacy.get("model", lm.model) != lm.model:
            raise dspy_errors.LMConfigurationError(
                "model belongs to LM(), not to a call's configuration.", model=lm.model
            )

    def execute(self, carrier: FallbackLM, execute: Any) -> Any:
        """Carry it out by DSPy's own `execute`."""
        self.carrier, line = carrier, FallbackLine(carrier)
        for lm, turn in line:
            try:
                call = self._for(lm)
                with counted(asked := self._asked(turn, lm, call)):
                    result = execute(lm, call)
                return _accounted(result, asked)
            except dspy_errors.LMError as error:
                line.failed(error)
        raise AssertionError("the last failure is raised")

    async def aexecute(self, carrier: FallbackLM, aexecute: Any) -> Any:
        """`execute`, awaited."""
        self.carrier, line = carrier, FallbackLine(carrier)
        for lm, turn in line:
            try:
                call = self._for(lm)
                with counted(asked := self._asked(turn, lm, call)):
                    result = await aexecute(lm, call)
                return _accounted(result, asked)
            except dspy_errors.LMError as error:
                line.failed(error)
        raise AssertionError("the last failure is raised")

    def _asked(self, turn: FallbackTurn, lm: FallbackLM, call: Any) -> LMCallOptions:
        rollout_id = self._call.legacy.get("rollout_id", self._call.kwargs.get("rollout_id"))
        asked = LMCallOptions(rollout_id, bool(self._call.cache), turn, headers=self._headers)
        if call.request is None and isinstance(lm, WorkerLM):
            asked.members = members_in(lm.record, call.legacy)
            for name in asked.members:
                del call.legacy[name]  # DSPy leaves them to whoever can say them
        return asked

    def _for(self, lm: FallbackLM) -> Any:
        """Return the call as this LM takes it: with its options where the code gives none, under its model's name."""
        if self._call.request is not None:
            return replace(self._call, request=replace(self._call.request, model=lm.model), cache=False)
        legacy = options_for(lm, self._call.legacy) | {"model": lm.model}
        return replace(self._call, legacy=legacy, n=legacy.get("n") or 1, cache=False)


def _accounted(result: Any, asked: LMCallOptions) -> Any:
    note_carried(asked)
    if asked.were_cached and all(asked.were_cached):
        result.cache_hit, result.usage = True, {}  # the parent's cache answered, and nothing was used
    return result
