"""Spans of pipelines, steps, calls, workers and LM requests, made with OpenTelemetry. Any thread.

    pipeline -> step -> call -> worker -> LM request

The parent of a span is the current one, which is a context variable: a call keeps its caller's, callbacks run in that,
and a client of a service sends it along. A call ends under its pool's lock, so its spans are ended by a thread of ours,
with the times that were noted there.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import spans
from ..lm.usage import Account, UsageMeter

if TYPE_CHECKING:
    from ..lm.record import LM

_FIELD: Final = "traceparent"
_CARRIED_MOST: Final = 100  # characters
_PROMPT_MOST: Final = 1024 * 1024  # bytes of a request's body that is looked into
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OpenTelemetrySpans:
    """The spans of this process, until `stop`."""

    def __init__(self, tracer_provider: Any, *, captures_prompts: bool) -> None:
        self._tracer = trace.get_tracer("dspex", None, tracer_provider)
        self._captures_prompts = captures_prompts
        self._begin()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the spans of all calls that have ended are with the tracer provider; False if it took longer."""
        done = threading.Event()
        self._ended.put(done.set)
        return done.wait(timeout)

    def stop(self) -> None:
        """Make no more spans."""
        if spans.source is self:
            spans.source = None
        self.flush()
        self._ended.put(None)

    def __enter__(self) -> OpenTelemetrySpans:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what `spans.SpanSource` asks for ------------------------------------------------------------------------

    @contextlib.contextmanager
    def block(self, name: str, facts: Mapping[str, str]) -> Generator[None]:
        with self._tracer.start_as_current_span(
            name, attributes=facts, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:  # also a cancel: whoever reads the trace sees how it ended
                _fail(span, type(error).__name__)
                raise

    def call(self, pool: str, command: str, id: int, context: Any) -> TracedCall:
        if self._pid != os.getpid():  # a forked child, which has no thread yet
            self._begin()
        facts: dict[str, Any] = {"dspex.pool": pool, "dspex.command": command, "dspex.call": id}
        span = self._tracer.start_span(f"call {pool}.{command}", context=None, attributes=facts)
        made = self._calls[id] = TracedCall(self._tracer, span, self._ended.put)
        context.run(contexts.attach, trace.set_span_in_context(span))
        return made

    def lm_request(
        self, lm: LM, body: bytes, meter: UsageMeter, carry_out: Callable[[UsageMeter], Any]
    ) -> Generator[Any, Any, Any]:
        provider, _, model = lm.model.partition("/")
        kind = "embeddings" if lm.model_type == "embedding" else "chat"
        facts: dict[str, Any] = {
            "gen_ai.operation.name": kind,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model or provider,
        }
        for name in ("temperature", "max_tokens"):
            if isinstance(value := getattr(lm, name, None), int | float):
                facts[f"gen_ai.request.{name}"] = value
        if self._captures_prompts and (messages := _messages_in(body)):
            facts["gen_ai.input.messages"] = messages
        span = self._tracer.start_span(f"{kind} {model or provider}", kind=SpanKind.CLIENT, attributes=facts)
        try:
            made = yield from carry_out(_TracedMeter(meter, span))
            if self._captures_prompts and (text := getattr(getattr(made, "answer", None), "text", None)):
                span.set_attribute("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": text}]))
            return made
        except BaseException as error:  # also a stream that is given up
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def carried(self) -> str | None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get(_FIELD)

    def adopt(self, carried: str) -> None:
        if len(carried) <= _CARRIED_MOST:
            contexts.attach(_PROPAGATOR.extract({_FIELD: carried}))

    def ids(self, call: object) -> dict[str, str]:
        known = self._calls.get(call) if isinstance(call, int) else None
        context = (known.innermost if known is not None else trace.get_current_span()).get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    # ============================================================================================================

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._calls: weakref.WeakValueDictionary[int, TracedCall] = weakref.WeakValueDictionary()
        self._ended: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=_end_spans, args=(self._ended,), name="dspex-spans", daemon=True).start()


class TracedCall:
    """The span of a call, and that of the worker that runs it."""

    def __init__(self, tracer: Any, span: Any, later: Callable[[Callable[[], None]], None]) -> None:
        self.innermost = span
        self._tracer = tracer
        self._span = span
        self._later = later
        self._lock = threading.Lock()
        self._worker: Any = None
        self._worker_name = ""
        self._since_epoch = time.time() - time.monotonic()

    def enter_worker(self, context: Any, sent_at: float, worker: str) -> None:
        with self._lock:
            span = self._of_worker(sent_at, worker)
        context.run(contexts.attach, trace.set_span_in_context(span))

    def end(self, error: str, sent_at: float, worker: str) -> None:
        at = time.time()
        self._later(lambda: self._end(error, sent_at, worker, at))

    def _end(self, error: str, sent_at: float, worker: str, at: float) -> None:
        with self._lock:
            inner = self._of_worker(sent_at, worker) if sent_at else None
        for span in (inner, self._span):
            if span is not None:
                if error:
                    _fail(span, error)
                span.end(end_time=int(at * 1e9))

    def _of_worker(self, sent_at: float, worker: str) -> Any:
        """Return the span of the worker's part; another worker, after the first one's death, has its own."""
        if self._worker is None or self._worker_name != worker:
            if self._worker is not None:
                _fail(self._worker, "WorkerDied")
                self._worker.end(end_time=int((sent_at + self._since_epoch) * 1e9))
            self._worker_name = worker
            self._worker = self.innermost = self._tracer.start_span(
                f"worker {worker}",
                context=trace.set_span_in_context(self._span),
                attributes={"dspex.worker": worker},
                start_time=int((sent_at + self._since_epoch) * 1e9),
            )
        return self._worker


class _TracedMeter(UsageMeter):
    """A meter that notes in a span what it counts."""

    def __init__(self, meter: UsageMeter, span: Any) -> None:
        self.total = meter.total
        self._meter = meter
        self._noted = span

    def add(self, lm: LM, usage: Mapping[str, Any], more: Iterable[Account] = ()) -> float | None:
        cost = self._meter.add(lm, usage, more)
        facts = {
            "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
            "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
            "dspex.cost_usd": cost,
            "dspex.cached": False,
        }
        self._noted.set_attributes({name: value for name, value in facts.items() if value is not None})
        return cost

    def add_cached(self, more: Iterable[Account] = ()) -> float:
        self._noted.set_attribute("dspex.cached", True)
        return self._meter.add_cached(more)


def _fail(span: Any, error: str) -> None:
    """Note the class of an error; its text may quote a prompt."""
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR, error))


def _messages_in(body: bytes) -> str:
    """Return the messages of a request's body as JSON, "" where it has none."""
    if len(body) > _PROMPT_MOST:
        return ""
    try:
        asked = json.loads(body)
    except ValueError:
        return ""
    found = next((asked[name] for name in ("messages", "input", "contents") if name in asked), None)
    return "" if found is None else json.dumps(found, ensure_ascii=False)


def _end_spans(ended: SimpleQueue[Callable[[], None] | None]) -> None:
    while (end := ended.get()) is not None:
        with contextlib.suppress(Exception):  # a span processor's own: other spans end all the same
            end()
