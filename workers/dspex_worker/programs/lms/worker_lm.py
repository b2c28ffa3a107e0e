"""Make DSPy's LMs in a worker: the same class, the same request bytes, but no connection, key, retry or cache here.

`LMCache.get` gives the `dspy.LM` for a record that came with a call; equal records give the same object. The engine is
lm15's, on a transport that sends each request to the parent (`lm_transport.py`). A record with `direct` set is plain
`dspy.LM` with its key, for models that lm15 cannot express. Any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.exceptions import LMConfigurationError

from ...failure import Failure
from ..calls.call_context import USAGE, CallUsage
from ..dspy_errors import unspeakable_refused
from ..dspy_parts import (
    HAS_LM15,
    AsyncLM15Engine,
    Capabilities,
    LM15Engine,
    Request,
    Response,
    RouterConfig,
    StreamAccumulator,
    Usage,
    capabilities,
    stream_emitted,
)
from .body_members import members_in
from .chat_requests import ChatRequests, usage_paid
from .direct_lms import DirectLM, Viewer
from .lm_fallbacks import FallbackLM, FallbackTurn
from .lm_transport import (
    PLACEHOLDER_KEY,
    AsyncParentTransport,
    LMCallOptions,
    ParentTransport,
    current_lm_call,
    lm_call,
)
from .stream_ends import with_begun_usage
from .whole_requests import require_whole

WATCH = "dspex_watch"  # among DSPy's settings: who wants an LM's text as it arrives (field_streams.py)
KEPT = 64  # LM objects kept per worker
_NAMES = re.compile(r"key|token|secret|password|credential")  # of options that hold a secret


class LMCache:
    """The LM objects of one worker, by record."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[str, dspy.LM] = OrderedDict()

    def get(self, record: Mapping[str, Any] | None) -> dspy.LM | None:
        """Return the LM for a record, or None for none.

        Raises:
            Failure: LMUnsupportedFeatureError, when lm15 has no provider for the record's model.
        """
        if record is None:
            return None
        digest = json.dumps(record, sort_keys=True, default=repr)
        with self._lock:
            lm = self._made.get(digest)
            if lm is None:
                lm = self._made[digest] = made_lm(record)
                if len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(digest)
        return lm


def made_lm(record: Mapping[str, Any]) -> FallbackLM:
    """Return the LM for a record, with its fallbacks."""
    lm = direct_lm(record) if record.get("direct") else parent_lm(record)
    lm.fallbacks = tuple(made_lm(fallback) for fallback in record.get("fallbacks") or ())
    lm.is_temperature_fixed = bool(record.get("is_temperature_fixed"))
    return lm


def parent_lm(record: Mapping[str, Any]) -> WorkerLM:
    """Return an LM whose requests go through the parent."""
    model = str(record["model"])
    transport = ParentTransport(
        str(record["ref"]),
        timeout=record.get("timeout"),
        cache=bool(record.get("cache", True)),
        is_bare=bool(record.get("is_bare")),
    )
    if not HAS_LM15:
        return _chat_lm(record, ChatRequests(record, transport))
    engine = ParentEngine(record, transport)
    made = WorkerLM(
        model,
        model_type=record.get("model_type") or "chat",
        engine=engine,
        async_engine=AsyncParentEngine(record, transport, engine),
        cache=False,
        num_retries=0,
        **options_of(record),
    )
    made.ref = str(record["ref"])
    made.record = record
    return made


def _chat_lm(record: Mapping[str, Any], requests: ChatRequests) -> ChatLM:
    requests.require_possible()
    lm = ChatLM(str(record["model"]), cache=False, num_retries=0, **options_of(record))
    lm.requests = requests
    lm.record = record
    return lm


def direct_lm(record: Mapping[str, Any]) -> DirectLM:
    """Return DSPy's LM as it is, with the key that the record carries; its requests leave from this process."""
    connection = {name: record[name] for name in ("api_key", "api_base", "timeout") if record.get(name)}
    if record.get("headers"):
        connection["extra_headers"] = dict(record["headers"])
    further = {
        "model_type": record.get("model_type") or "chat",
        "cache": False,
        "num_retries": int(record.get("retries") or 3),
    }
    own: dict[str, Any] = {**further, **connection, **options_of(record), **(record.get("direct_options") or {})}
    if record.get("dialect") == "anthropic":  # LiteLLM would send it as a member of that name
        own |= own.pop("extra_body", None) or {}
    provider = own.pop("provider", None)  # of OpenRouter; DSPy's own `provider` is who trains a model
    lm = DirectLM(str(record["model"]), **own)
    lm.kwargs |= {} if provider is None else {"provider": provider}
    lm.watching = WATCH
    lm.ref = str(record.get("ref") or "")
    return lm


def options_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an LM call that a record sets (temperature, max_tokens, top_p, n, ...)."""
    options = {name: record.get(name) for name in ("temperature", "max_tokens")} | (record.get("options") or {})
    if (record.get("n") or 1) != 1:
        options["n"] = record["n"]
    return {name: value for name, value in options.items() if value is not None}


def secrets_of(record: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what must not appear in an error of a call with this LM record."""
    if record is None:
        return ()
    given = {**(record.get("headers") or {}), **(record.get("direct_options") or {})}
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    if isinstance(file := given.get("vertex_credentials"), Mapping):
        texts |= {name: value for name, value in file.items() if isinstance(value, str)}
    own = tuple(
        value for name, value in {"api_key": record.get("api_key"), **texts}.items() if value and _NAMES.search(name)
    )
    return own + tuple(key for fallback in record.get("fallbacks") or () for key in secrets_of(fallback))


class WorkerLM(FallbackLM):
    """A `dspy.LM` that passes its transport what lm15's requests do not carry: the rollout, members of the body."""

    record: Mapping[str, Any] = {}

    def ask(self, turn: FallbackTurn, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        with self._asking(turn, options):
            return super().ask(turn, prompt, messages, options)

    async def aask(self, turn: FallbackTurn, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        with self._asking(turn, options):
            return await super().aask(turn, prompt, messages, options)

    @contextmanager
    def _asking(self, turn: FallbackTurn, options: dict[str, Any]) -> Generator[None]:
        if options.pop("model", None) is not None:  # the record's price and limits are for its own model
            raise LMConfigurationError("model belongs to LM(), not to a call's configuration.", model=self.model)
        # `cache` leaves the options: DSPy would answer from its own cache, which knows neither endpoint nor age.
        asked = LMCallOptions(
            options.get("rollout_id", self.kwargs.get("rollout_id")), options.pop("cache", None), turn
        )
        asked.members = members_in(self.record, {**self.kwargs, **options})
        options |= dict.fromkeys(asked.members)  # None: DSPy leaves them to whoever can say them
        with counted(asked), unspeakable_refused(str(self.model)):
            yield

    def __deepcopy__(self, _: dict[int, Any]) -> WorkerLM:
        copied: WorkerLM = self.copy()  # its engine holds locks, and nothing that a copy should not share
        return copied

    def dump_state(self) -> dict[str, Any]:
        return {"model": self.model}  # a state says what a program is: `module_state` leaves it out


@contextmanager
def counted(asked: LMCallOptions) -> Generator[None]:
    """Make an LM call's requests inside, with these options, and count them for the running command."""
    call_usage: CallUsage = dspy.settings.get(USAGE) or CallUsage()
    number = call_usage.asking()
    try:
        with lm_call(asked):
            yield
    except Exception as error:  # counted, since modules and optimizers swallow some
        call_usage.failed(error)
        raise
    finally:
        call_usage.answered(len(asked.were_cached), sum(asked.were_cached), number)


class ChatLM(WorkerLM):
    """The LM of a DSPy without lm15, whose own would import LiteLLM and connect from here."""

    requests: ChatRequests

    def forward(self, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        watch = dspy.settings.get(WATCH)
        asked = messages or [{"role": "user", "content": prompt}]
        merged = {**self.kwargs, **options}
        count, viewer = int(merged.pop("n", None) or 1), None if watch is None else watch.viewer()
        replies = [self.requests.ask(asked, merged, viewer if at == 0 else None) for at in range(count)]
        replies[0]["choices"] = [choice for reply in replies for choice in reply["choices"]]
        if count > 1:
            replies[0]["usage"] = usage_paid(replies)
        return replies[0]

    async def aforward(self, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        return await asyncio.to_thread(self.forward, prompt, messages, **options)

    @property
    def supports_function_calling(self) -> bool:
        return self._supports("function_calling")

    @property
    def supports_reasoning(self) -> bool:
        return self._supports("reasoning")

    @property
    def supports_response_schema(self) -> bool:
        return self._supports("response_schema")

    @property
    def supported_params(self) -> set[str]:
        params = {"temperature", "max_tokens", "top_p", "n", "stop", "seed"}
        if self.supports_response_schema or self.supports_function_calling:
            params.add("response_format")
        if self.supports_function_calling:
            params |= {"tools", "tool_choice", "parallel_tool_calls"}
        return params | {"reasoning_effort"} if self.supports_reasoning else params

    def _supports(self, ability: str) -> bool:
        return bool((self.requests.record.get("supports") or {}).get(ability))


class _Routed:
    """The common part of both engines: one look-up per model, and its abilities by DSPy's own table."""

    supports_function_calling: bool
    supports_reasoning: bool
    supports_response_schema: bool
    supported_params: frozenset[str]
    droppable: Collection[str] | None = None

    def resolve(self, model: str) -> Any:
        found = self._resolved.get(model)  # type: ignore[attr-defined]
        if found is None:
            found = self._resolved[model] = super().resolve(model)  # type: ignore[misc,attr-defined]
        return found

    def declare(self, abilities: Capabilities) -> None:
        self.supports_function_calling = abilities.function_calling
        self.supports_reasoning = abilities.reasoning
        self.supports_response_schema = abilities.response_schema
        self.supported_params = abilities.params


class ParentEngine(_Routed, LM15Engine):  # type: ignore[misc]
    """lm15's engine over the parent's HTTP; streams when somebody watches."""

    def __init__(self, record: Mapping[str, Any], transport: ParentTransport) -> None:
        self._resolved: dict[str, Any] = {}
        super().__init__(_config(record, transport), model_type=record.get("model_type") or "chat")
        self.declare(_abilities(record))
        self.droppable = record.get("droppable")

    def complete(self, request: Request) -> Response:
        require_whole(self, request, self.droppable)
        watch = dspy.settings.get(WATCH)
        return _charged(super().complete(request) if watch is None else self._watched(request, watch.viewer()))

    def _watched(self, request: Request, viewer: Viewer) -> Response:
        accumulator = StreamAccumulator(request)
        for event in self.stream(request):
            accumulator.push(event)
            _show(event, viewer)
        viewer.finish()
        return with_begun_usage(accumulator.response())


class AsyncParentEngine(_Routed, AsyncLM15Engine):  # type: ignore[misc]
    """The asynchronous twin, for modules of the user's that await."""

    def __init__(self, record: Mapping[str, Any], transport: ParentTransport, sync: ParentEngine) -> None:
        self._resolved: dict[str, Any] = {}
        super().__init__(_config(record, AsyncParentTransport(transport)), model_type=sync.model_type)
        self.declare(_abilities(record))
        self.droppable = sync.droppable

    async def complete(self, request: Request) -> Response:
        require_whole(self, request, self.droppable)
        watch = dspy.settings.get(WATCH)
        return _charged(await (super().complete(request) if watch is None else self._watched(request, watch.viewer())))

    async def _watched(self, request: Request, viewer: Viewer) -> Response:
        accumulator = StreamAccumulator(request)
        events: Any = self.stream(request)
        async with contextlib.aclosing(events):
            async for event in events:
                accumulator.push(event)
                _show(event, viewer)
        viewer.finish()
        return with_begun_usage(accumulator.response())


def _show(event: Any, viewer: Viewer) -> None:
    """Show an event of an answer that arrives; what was shown is not asked for again, as in DSPy's streams."""
    if event.type == "delta" and event.delta.type == "text" and viewer.show(event.delta.text):
        if (asked := current_lm_call()) is not None:
            asked.turn.was_shown = True
        stream_emitted()


def _charged(response: Response) -> Response:
    """Return the answer without its usage if it came from the parent's cache: that was paid before."""
    asked = current_lm_call()
    is_cached = asked is not None and bool(asked.were_cached) and asked.were_cached[-1]
    return replace(response, usage=Usage()) if is_cached else response


def _config(record: Mapping[str, Any], transport: object) -> RouterConfig:
    provider = _provider(record)
    url, settings = record.get("api_base"), record.get("settings")
    return RouterConfig(
        env={},  # no key and no address of the environment: both are the parent's business
        api_keys={provider: PLACEHOLDER_KEY},
        base_urls={provider: url} if url else None,
        settings={provider: settings} if settings else None,  # what names a cloud's endpoint; who signs is the parent's
        transport=transport,
    )


def lm15_provider(model: str) -> str | None:
    """Return the provider of a model whose name says none ("gpt-4o-mini"), as DSPy understands it."""
    if not HAS_LM15:
        return "openai"
    try:
        return str(LM15Engine(RouterConfig(env={}), model_type="chat").resolve(model).provider)
    except Exception:  # lm15 raises several kinds; each means that it knows no such model
        return None


def _provider(record: Mapping[str, Any]) -> str:
    engine = LM15Engine(RouterConfig(env={}), model_type=record.get("model_type") or "chat")
    try:
        resolution = engine.resolve(str(record["model"]))
    except Exception as error:  # lm15 raises several kinds; each means that it cannot go there
        raise _unroutable(record, str(error)) from None
    if resolution.credential_policy == "oauth":
        raise _unroutable(record, f"{resolution.provider} is asked with a login of the local user's.")
    return str(resolution.provider)


def _unroutable(record: Mapping[str, Any], reason: str) -> Failure:
    return Failure(
        "LMUnsupportedFeatureError",
        f"The parent cannot carry this model's requests: {reason} Use LM(..., direct=True), which lets the worker "
        f"connect by itself.",
        model=str(record["model"]),
    )


def _abilities(record: Mapping[str, Any]) -> Capabilities:
    """Return the model's abilities by DSPy's table, unless the record sets them otherwise."""
    probe = FallbackLM(str(record["model"]), model_type=record.get("model_type") or "chat", engine="lm15")
    found: Capabilities = capabilities(probe)
    stated = record.get("supports") or {}
    tools = bool(stated.get("function_calling", found.function_calling))
    reasoning = bool(stated.get("reasoning", found.reasoning))
    schema = bool(stated.get("response_schema", found.response_schema))
    params = set(found.params) - {"response_format"}
    if schema or tools:
        params |= {"response_format"}
    if tools:
        params |= {"tools", "tool_choice", "parallel_tool_calls"}
    if reasoning:
        params |= {"reasoning_effort"}
    return Capabilities(tools, reasoning, schema, frozenset(params))
