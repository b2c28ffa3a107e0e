"""`trace_spans`: have OpenTelemetry see what runs in this process and its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import spans
from ..errors import MissingDependency

if TYPE_CHECKING:
    from .opentelemetry_spans import OpenTelemetrySpans


def trace_spans(tracer_provider: Any = None, *, capture_prompts: bool = False) -> OpenTelemetrySpans:
    """Make OpenTelemetry spans from now on: of pipelines, steps, calls, workers and requests to language models.

        dspex.trace_spans()  # by the global tracer provider

    They are children of your own current span, also across the control socket of a service that makes spans too. The
    result's `stop()` (or the end of its `with` block) ends it, and `flush()` hands over what has ended before the
    provider is shut down. Records of the logger `dspex` get `trace_id` and `span_id`. Prompts and answers are in no
    span unless `capture_prompts=True`. Calling it again replaces the earlier one.

    Raises:
        MissingDependency: OpenTelemetry is not installed: the extra `telemetry`.
    """
    try:
        from .opentelemetry_spans import OpenTelemetrySpans
    except ImportError as error:
        raise MissingDependency(
            "Spans need OpenTelemetry: pip install 'dspex[telemetry]'.",
            package="opentelemetry-sdk",
            extra="telemetry",
        ) from error
    made = OpenTelemetrySpans(tracer_provider, captures_prompts=capture_prompts)
    spans.source = made
    return made
