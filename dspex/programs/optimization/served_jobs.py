"""Run the optimizations that clients of a service ask for, and go on with them when the service starts again.

A client names code by import path, and the pool's `imports` decide whether workers may import it: calls of such a
program are not trusted. What the client asked for is in the journal, beside what every journal says.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from ...adapters.plain_data import is_json
from ...control.call_lms import DEFAULT, named_lm
from ...control.job_request import JobRequest, read_job_request
from ...errors import DspexError, InvalidInput, NotConfigured, UnknownName
from ...lm.record import LM
from ...lm.redaction import redact
from ...pools.supervisor import Supervisor
from ...services.running_jobs import WatchedJob
from ...services.services import services_of
from ..calling.program import Program
from ..factories.program_factories import predictor
from ..modules.module import own_module
from ..options.routing import OPTIMIZER_POOL
from .job_checks import checked_job
from .job_settings import job_settings
from .job_start import require_how, started
from .journal_summary import summaries_in
from .optimizer_options import PLAIN_OPTIONS
from .resume import resume

_CALLED = (  # how a program is called, which is not a client's to say
    "lm", "lms", "adapter", "config", "implementation", "timeout", "supervisor", "demos", "rollout_id", "idempotent",
    "use_native_function_calling", "trace", "history", "callbacks", "tools", "signature",
)  # fmt: skip
_ABOUT = ("program", "kind", "signature", "init", "metric", "lm", "prompt_lm")  # what a journal says of a request

logger = logging.getLogger("dspex")


def started_for_client(supervisor: Supervisor, fields: Mapping[str, Any]) -> WatchedJob:
    """Start a client's job.

    Raises:
        UnknownName, SettingsError, InvalidInput, SignatureError, LMConfigurationError: it cannot be.
    """
    asked = read_job_request(dict(fields), PLAIN_OPTIONS)
    budget: Any = asked.budget
    require_how(asked.timeout, budget, None)
    named: Any = asked.optimizer
    checked = checked_job(
        _program(supervisor, asked),
        asked.trainset,
        named,
        asked.options,
        _metric(asked.metric),
        asked.valset,
        prompt_lm=None if asked.prompt_lm is None else _lm(supervisor, asked.prompt_lm),
        inputs=asked.inputs,
        supervisor=supervisor,
    )
    about = {name: value for name, value in asdict(asked).items() if name in _ABOUT}
    job = started(checked, timeout=asked.timeout, budget=budget, asked=about)
    return services_of(supervisor).jobs.job(job.id)


def resume_served(supervisor: Supervisor) -> list[str]:
    """Go on with the jobs of clients that ended with their service; return the ids.

    Those that cannot are logged with the reason; their journals stay.

    Raises:
        SettingsError: the settings' [jobs] table holds something else than it can.
    """
    settings = job_settings(supervisor.config.tables)
    if settings.folder is None or not settings.resumes:
        return []
    resumed: list[str] = []
    for summary in summaries_in(settings.folder):
        asked = summary.about.get("asked")
        if not isinstance(asked, Mapping) or not _is_unfinished(summary.state, summary.end):
            continue
        try:
            _resumed(supervisor, str(summary.path), asked)
        except (DspexError, TypeError) as error:
            logger.warning("the optimization %s does not go on: %s", summary.id, redact(str(error)))
        else:
            resumed.append(summary.id)
    return resumed


def _is_unfinished(state: str, end: Mapping[str, Any] | None) -> bool:
    """Whether a job ended with its service, which died or was stopped; not by itself, nor by a client's word."""
    if state == "failed" and end is not None:
        return bool(end.get("is_host_stopped"))
    return state == "interrupted"


def _resumed(supervisor: Supervisor, path: str, about: Mapping[str, Any]) -> None:
    known = {name: about.get(name) for name in _ABOUT}
    fields = {name: value for name, value in known.items() if value is not None}
    asked = read_job_request({"optimizer": "", "trainset": [], **fields}, PLAIN_OPTIONS)
    resume(
        path,
        program=_program(supervisor, asked),
        metric=_metric(asked.metric),
        prompt_lm=None if asked.prompt_lm is None else _lm(supervisor, asked.prompt_lm),
        supervisor=supervisor,
        progress=False,
        wait=False,
    )


def _program(supervisor: Supervisor, asked: JobRequest) -> Program[Any]:
    """Return the program that a client names; nothing is imported here.

    Raises:
        InvalidInput, UnknownName, SignatureError, SettingsError: it cannot be.
    """
    given: Any = {"lm": _lm(supervisor, asked.lm or DEFAULT), "supervisor": supervisor}
    if "->" in asked.program or ":" not in asked.program:
        if asked.signature is not None:
            raise InvalidInput("program is a signature itself: leave `signature` out.", field="signature")
        kind: Any = asked.kind or "predict"
        if ":" in kind:
            raise InvalidInput("kind is a built-in one; a module of yours is `program`.", field="kind")
        made: Any = predictor(kind, asked.program, **given, **_init(asked, _CALLED))
        return replace(made, is_named_by_file=True)
    if asked.kind is not None:
        raise InvalidInput(f"kind is for a signature, and {asked.program!r} is none.", field="kind")
    signature = None if asked.signature is None else _signature(asked.signature)
    imports = supervisor.pool(OPTIMIZER_POOL).config.imports
    if (name := asked.program.partition(":")[0]) not in imports:
        raise UnknownName("module", name, imports, where=f"the imports of the pool {OPTIMIZER_POOL!r}")
    own = own_module(asked.program, signature, (), _init(asked, ()), is_named_by_file=True)
    return own.using(**given)


def _init(asked: JobRequest, taken: Collection[str]) -> dict[str, Any]:
    """Return what a client gives a constructor.

    Raises:
        InvalidInput: it says how the program is called, or is no plain data.
    """
    for name, value in asked.init.items():
        if name in taken or not is_json(value):
            raise InvalidInput(f"{name!r} is no argument that a client may give a constructor.", field="init")
    return asked.init


def _signature(text: str) -> Any:
    from ...signatures.signature import signature

    return signature(text)


def _metric(metric: str | None) -> str | None:
    if metric is not None and "->" in metric:
        raise InvalidInput(f"{metric!r} is no metric.", field="metric")
    return metric


def _lm(supervisor: Supervisor, name: str) -> LM:
    """Return one of the service's language models.

    Raises:
        LMConfigurationError, NotConfigured: it has none of this name.
    """
    found = named_lm(name, OPTIMIZER_POOL, supervisor)
    if found is None:
        raise NotConfigured(
            "The service has no default language model: name one of its own, or configure one.", key="lm"
        )
    return found
