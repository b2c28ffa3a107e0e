"""Score a program on examples in a worker of the general pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..services.services import services_of
from . import program_options, worker_answers
from .jobs import Progress, followed, input_names, program_of, wire_examples
from .optimized import Optimized
from .program import Program
from .routing import GENERAL_POOL


def evaluate(
    program: Program[Any] | Optimized[Any],
    devset: Sequence[Mapping[str, Any]],
    *,
    metric: Callable[..., Any] | str | Mapping[str, Any],
    num_threads: int | None = None,
    on_progress: Progress | None = None,
    timeout: float | None = None,
    inputs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return a program's score on examples: {"score": percent, "results": [...]}; blocks.

    `metric` is as for `optimize`.

    Raises:
        SettingsError, InvalidInput: at once, for what cannot be evaluated; nothing was spent.
    """
    subject = program_of(program, "evaluate")
    program_options.require_seconds(timeout)
    if num_threads is not None:
        program_options.require_whole("num_threads", num_threads)
    supervisor, lm = subject.supervisor_used, subject.lm_of_workers
    services = services_of(supervisor)
    with services.metrics.described(metric) as described, subject.registered(services):
        arguments = {
            "spec": subject.to_wire() | subject.wire_lms(services),
            "devset": wire_examples(devset, subject.signature, "devset"),
            "metric": described,
            "lm": None if lm is None else services.lm_record(lm),
            "adapter": subject.wire_adapter(lm),
            "num_threads": num_threads,
            "inputs": input_names(inputs, subject),
        }
        stream = supervisor.stream(GENERAL_POOL, "evaluate", arguments, timeout=timeout)
        return worker_answers.evaluated(*followed(stream, on_progress))
