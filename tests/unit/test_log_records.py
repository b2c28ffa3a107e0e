"""Unit: records go to the standard loggers, in our form or through the processors that the host gave structlog."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from dspex.events import Event, Name, write_log

SAID = {"pool": "f", "worker": "f/0", "pid": 7, "call": 3, "session": "chat", "logger": "my.app", "level": 25}


class Kept(logging.Handler):
    """Keeps records and their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("dspex")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    structlog.reset_defaults()


def write_both() -> None:
    write_log(Event(Name.WORKER_LOGGED, {**SAID, "text": "one\ntwo"}))
    write_log(Event(Name.WORKER_DIED, {"pool": "f", "worker": "f/0", "event": "x y"}))


def test_without_structlogs_configuration_records_have_our_form(kept: Kept) -> None:
    """unit: logfmt for events; worker output with its ids, as attributes too, and with its own level."""
    write_both()
    assert kept.texts == [
        "[f/0 pid=7 call=3 session=chat my.app] one\n    two",
        'event=dspex.worker.died pool=f worker=f/0 event_event="x y"',
    ]
    said, died = kept.records
    assert (said.name, said.levelno, died.name, died.levelno) == ("dspex.worker.f", 25, "dspex", logging.ERROR)
    assert (said.pool, said.worker, said.pid, said.call, said.session, said.source) == (
        *("f", "f/0", 7, 3, "chat"),
        "my.app",
    )


@pytest.mark.parametrize("serializer", [json.dumps, lambda *a, **k: json.dumps(*a, **k).encode()])
def test_a_host_that_configured_structlog_gets_its_own_processors(kept: Kept, serializer: Any) -> None:
    """unit: with contextvars, levels and drops; also of a renderer that gives bytes. The loggers stay ours."""

    def drop(logger: Any, name: str, entry: Any) -> Any:
        if entry.get("call") == 4:
            raise structlog.DropEvent
        return entry

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            drop,
            structlog.processors.JSONRenderer(serializer=serializer),
        ]
    )
    with structlog.contextvars.bound_contextvars(request="r1"):
        write_both()
    write_log(Event(Name.WORKER_LOGGED, {**SAID, "call": 4, "text": "dropped"}))
    said, died = map(json.loads, kept.texts)
    ids = {name: value for name, value in SAID.items() if name not in ("logger", "level")}
    assert said == {
        **ids,
        "source": "my.app",
        "event": "one\n    two",
        "logger": "dspex.worker.f",
        "level": "info",
        "request": "r1",
    }
    assert (died["event"], died["level"], died["logger"]) == ("dspex.worker.died", "error", "dspex")
    assert [record.levelno for record in kept.records] == [25, logging.ERROR]


def test_the_hosts_formatter_renders_what_its_processors_leave(kept: Kept) -> None:
    """unit: structlog's ProcessorFormatter, as its documentation has it."""
    structlog.configure(processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter])
    kept.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer()))
    write_both()
    assert "wrap" not in kept.format(kept.records[0])
    assert json.loads(kept.format(kept.records[1]))["worker"] == "f/0"


def test_a_processor_that_fails_loses_no_record(kept: Kept) -> None:
    """unit"""

    def fail(logger: Any, name: str, entry: Any) -> Any:
        raise KeyError("user")

    structlog.configure(processors=[fail])
    write_both()
    assert [text.split()[0] for text in kept.texts] == ["[f/0", "event=dspex.worker.died"]


def test_what_no_level_admits_costs_nothing(kept: Kept) -> None:
    """unit: structlog is not even asked."""
    seen: list[Any] = []
    structlog.configure(processors=[lambda logger, name, entry: seen.append(entry) or entry])
    logging.getLogger("dspex").setLevel(logging.CRITICAL)
    write_log(Event(Name.WORKER_DIED, {"pool": "f"}))
    assert seen == [] == kept.records
