"""Say in a journal what its job is, and tell whether what is given when it is resumed is the same. No keys, no
endpoints.

What a file may hold is in it: the program as `Optimized.save` writes it, plain examples, a built-in metric's name,
options. What it may not is named with a digest, and given again: a function, a class, a tool, a language model.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex_worker.user_calls import name_of

from ...errors import DspexError, JournalError
from ...lm.record import LM
from ..calling.program import Program
from ..saving.optimized import Optimized
from ..worker.saved_demos import state_with_demos
from .checked_optimization import CheckedOptimization
from .held_out_test import plain_testset

_VOLATILE_LM = ("ref", "supports", "worded", "refused", "timeout")  # a key, or what follows from the model
_PACKAGES = ("dspex", "dspy", "gepa", "optuna")
_OF_ARGUMENTS = ("trainset", "valset", "inputs", "plain", "config", "rollout_id", "options")


def identity(
    job: CheckedOptimization[Any], id: str, *, timeout: float | None, budget: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a journal says of a job."""
    document, why = _document(job)
    arguments = job.arguments
    is_plain = "carried" not in arguments
    return {
        "id": id,
        "title": job.title,
        "optimizer": job.optimizer,
        "options": None if named_options(job) else dict(arguments["options"]),
        "given_options": named_options(job),
        "seed": arguments["options"].get("seed"),
        "program": document,
        "program_is_given": why,
        "adapter": job.student.adapter,
        "rollout_id": job.student.rollout_id,
        "inputs": list(arguments["inputs"]),
        "trainset": arguments["trainset"] if is_plain else None,
        "valset": arguments["valset"] if is_plain else None,
        "testset": plain_testset(job.testset),
        "keep_baseline": job.keeps_baseline,
        "metric": described_metric(job.metric),
        "lm": described_lm(job.student.lm_used),
        "prompt_lm": None if job.prompt_lm is None else described_lm(job.prompt_lm),
        "tools": [tool.name for tool in job.student.tools],
        "timeout": timeout,
        "metric_timeout": None if job.metric_job.limit_s == math.inf else job.metric_job.limit_s,
        "metric_pool": None if job.spread is None else job.spread.pool,
        "budget": None if budget is None else dict(budget),
        "digests": digests(job),
        "versions": versions(),
    }


def digests(job: CheckedOptimization[Any]) -> dict[str, str]:
    """Return what the job's answers depend on, digested part by part."""
    parts: dict[str, Any] = {name: job.arguments.get(name) for name in _OF_ARGUMENTS}
    parts["options"] = _portable(job.arguments["options"], {} if job.options is None else job.options.objects)
    parts |= {
        "optimizer": job.optimizer,
        "program": _program(job.student),
        "adapter": job.arguments["adapter"],
        "lm": described_lm(job.student.lm_used),
        "prompt_lm": None if job.prompt_lm is None else described_lm(job.prompt_lm),
        "lms": {name: described_lm(lm) for name, lm in job.student.lms_used.items()},
    }
    return {name: _digest(value) for name, value in parts.items()}


def named_options(job: CheckedOptimization[Any]) -> dict[str, Any]:
    """Return the names of the options that no file holds: language models, programs, code."""
    return {} if job.options is None else dict(job.options.named)


def _portable(options: Any, objects: Mapping[str, Any]) -> Any:
    """Return options without what stands for something in one process alone."""
    if isinstance(options, list):
        return [_portable(each, objects) for each in options]
    if not isinstance(options, Mapping):
        return options
    if len(options) == 1 and "dspex.lm" in options:
        return {name: value for name, value in options["dspex.lm"].items() if name in ("model", "kwargs", "options")}
    if len(options) == 1 and "dspex.object" in options:
        value = objects[options["dspex.object"]]
        return {"object": name_of(value), "code": _code_digest(value) if callable(value) else ""}
    if len(options) == 1 and "dspex.program" in options:
        spec = options["dspex.program"]["spec"]
        return {name: spec.get(name) for name in ("module", "label", "state", "demos")}
    return {name: _portable(value, objects) for name, value in options.items()}


def require_same(about: Mapping[str, Any], job: CheckedOptimization[Any], path: str) -> None:
    """Check that a job is the journal's, but for its metric.

    Raises:
        JournalError: something of it is another; the message names it.
    """
    known, found = about.get("digests") or {}, digests(job)
    others = [name for name, digest in found.items() if known.get(name) != digest]
    if not others:
        return
    said = {name: about.get(name) for name in others if name in ("lm", "prompt_lm", "optimizer", "options", "adapter")}
    hint = f" The journal's: {json.dumps(said, sort_keys=True)[:500]}." if said else ""
    raise JournalError(
        f"The journal {path} is of another job: its {', '.join(others)} differ from what is given or configured here."
        f"{hint} Its answers would be those of other questions; give what the job began with, or begin another.",
        path=path,
        reason="mismatch",
        missing=others,
    )


def is_same_metric(about: Mapping[str, Any], metric: Any) -> bool:
    """Whether the metric is the journal's, as far as its code says."""
    return bool(about.get("metric") == described_metric(metric))


def described_metric(metric: Any) -> dict[str, Any]:
    """Return a metric's name: a built-in's, an import path, or a function's with a digest of its code."""
    if callable(metric):
        return {"function": name_of(metric), "code": _code_digest(metric)}
    if isinstance(metric, Mapping):
        return dict(metric)
    return {"import" if ":" in str(metric) else "name": str(metric)}


def described_lm(lm: LM) -> dict[str, Any]:
    """Return what a language model's answers depend on; its endpoint as a digest, since a file names none."""
    wire = {name: value for name, value in lm.to_wire().items() if name not in _VOLATILE_LM}
    wire["api_base"] = _digest(lm.api_base)
    wire["members"] = _digest(lm.members)
    wire["fallbacks"] = [described_lm(each) for each in lm.fallbacks]
    return wire


def versions() -> dict[str, str | None]:
    """Return the versions here of what decides what an optimizer does."""
    return {name: _version(name) for name in _PACKAGES}


def _program(student: Program[Any]) -> dict[str, Any]:
    """Return what the program is, without what stands for it in one process alone."""
    fields = [] if student.is_open else student.signature.fields.values()
    return {
        "module": student.name_shown,
        "fields": [[field.name, field.kind, str(field.desc)] for field in fields],
        "instructions": None if student.is_open else student.signature.instructions,
        "options": dict(student.options),
        "state": state_with_demos(student) or None,
        "tools": [tool.to_wire() for tool in student.tools],
    }


def _document(job: CheckedOptimization[Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the program as its file has it, or why it must be given again."""
    student = job.student
    if student.lms:
        return None, "its predictors have language models of their own"
    try:
        document = Optimized(student, None, None).document()
    except DspexError as error:
        return None, str(error)
    if document["metadata"]["dspex"]["withheld"]:
        return None, "it has options that no file holds"
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError):
        return None, "its state is no plain data"
    return document, ""


def _code_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's own code; of other callables, of their class's `__call__`."""
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(function, "func", None) or type(function).__call__, "__code__", None)
    return "" if code is None else _digest(_code_parts(code))


def _code_parts(code: Any) -> Sequence[Any]:
    inner = [_code_parts(each) if hasattr(each, "co_code") else _constant(each) for each in code.co_consts]
    return [code.co_code.hex(), inner, list(code.co_names), list(code.co_varnames)]


def _constant(value: Any) -> Any:
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)  # a set's order is its process's


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_kind)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _kind(value: Any) -> str:
    """Return what is said of a value that is no plain data: its text may hold an address in memory."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
