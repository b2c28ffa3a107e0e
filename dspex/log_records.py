"""Write what happens into the standard `logging` tree, through structlog's bound loggers. Any thread.

`dspex` is the logger of events, `dspex.worker.<pool>` that of what workers print and log. A host that has configured
structlog gets its own processors in the place of ours, which render logfmt; what they return goes to the same loggers,
whose levels and handlers are the host's too. structlog is imported with the first record that is written.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

from .terminal_text import inert

IDS = ("pool", "worker", "pid", "call", "session")  # that each record of a worker's output has
SPAN_IDS = ("trace_id", "span_id")  # that a record has whose event belongs to a span
_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
_NOT_OF_A_KEY = re.compile(r"[^\w.:-]")  # a key with a space, a quote or "=" is none in logfmt

Entry = MutableMapping[str, Any]


def write_event(name: str, level: int, facts: Mapping[str, Any]) -> None:
    """Write an event to the logger `dspex`."""
    logger = logging.getLogger("dspex")
    if logger.isEnabledFor(level):
        _write(logger, level, name, _clean(facts), _logfmt)


def write_output(level: int, facts: Mapping[str, Any]) -> None:
    """Write what a worker printed or logged to its pool's logger, as one record."""
    logger = workers_logger().getChild(str(facts.get("pool")))
    if logger.isEnabledFor(level):
        text = str(facts.get("text")).replace("\n", "\n    ")  # no line of it can pass for a record of its own
        known = {**{name: facts.get(name) for name in IDS}, "source": str(facts.get("logger")), **_span_ids(facts)}
        _write(logger, level, text, known, _output_line)


def prepare() -> None:
    """Import what records need: at the first one there may be no descriptor left for that."""
    _record_logger()
    _logfmt_renderer()


@functools.lru_cache(maxsize=1)
def workers_logger() -> logging.Logger:
    """Return the logger above those of the pools (`dspex.worker.<pool>`): INFO and above, unless the host set a level.

    It has no handler: without one of the host's, `logging` shows what is WARNING and above on stderr.
    """
    logger = logging.getLogger("dspex.worker")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    return logger


# ======================================================================================================================


class Renderer(Protocol):
    """A structlog processor that makes a record of an entry."""

    def __call__(self, logger: Any, method: str, entry: Entry, /) -> Any: ...


def _write(logger: logging.Logger, level: int, event: str, facts: Mapping[str, Any], render: Renderer) -> None:
    import structlog

    if structlog.is_configured():
        try:
            processors = [*structlog.get_config()["processors"], _as_text]
            _bound(logger, processors, facts).write(level, event)
            return
        except Exception:  # a processor of the host's that fails loses no record
            logger.debug("structlog's processors failed", exc_info=True)
    _bound(logger, [render], facts).write(level, event)


def _bound(logger: logging.Logger, processors: list[Any], facts: Mapping[str, Any]) -> Any:
    """Return a logger with these facts bound; they may have any name, which keywords of `bind` may not."""
    return _record_logger()(logger, processors, dict(facts))


@functools.lru_cache(maxsize=1)
def _record_logger() -> Any:
    """Return the class of bound loggers whose records keep any level, as `logging` has them."""
    import structlog

    class RecordLogger(structlog.BoundLoggerBase):
        def write(self, level: int, event: str) -> None:
            name = _NAMES[max(10, min(50, level // 10 * 10))]
            try:
                args, keywords = self._process_event(name, event, {})
            except structlog.DropEvent:
                return
            self._logger.log(level, *args, **keywords)

    return RecordLogger


def _as_text(logger: Any, method: str, entry: Any) -> Any:
    """Decode what renderers for bytes return: records hold text."""
    return entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry


# -- our own form --


def _logfmt(logger: Any, method: str, entry: Entry, /) -> Any:
    return (_logfmt_renderer()(None, "", dict(entry)),), {"extra": _span_ids(entry)}


@functools.lru_cache(maxsize=1)
def _logfmt_renderer() -> Any:
    import structlog

    return structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)


def _output_line(logger: Any, method: str, entry: Entry, /) -> Any:
    ids = [f"{name}={entry[name]}" for name in ("pid", "call", "session") if entry[name]]
    where = " ".join([str(entry["worker"]), *ids, entry["source"]])
    extra = {name: entry[name] for name in (*IDS, "source")} | _span_ids(entry)
    return ("[%s] %s", where, entry["event"]), {"extra": extra}


def _span_ids(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in SPAN_IDS if name in facts}


def _clean(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as logfmt has them: simple values, and no name that the line has itself."""
    simple = (str, int, float, bool, type(None))
    return {_key(key): _shown(value if isinstance(value, simple) else repr(value)) for key, value in facts.items()}


def _shown(value: Any) -> Any:
    return inert(value) if isinstance(value, str) else value


def _key(key: str) -> str:
    key = _NOT_OF_A_KEY.sub("_", key) or "_"
    return "event_" + key if key in ("event", "level") else key
