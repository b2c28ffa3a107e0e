"""`dspex jobs` and `dspex job`: list optimizations, show one, follow it, cancel it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, JournalError, UnknownName
from .event_lines import print_event
from .exit_codes import FAILED, OK
from .job_rows import Row, row_of, rows_of
from .run_command import refused
from .status_command import LIVE, span
from .target import connect, print_error, print_json, print_line

WRONG = (InvalidInput, JournalError, UnknownName)
LOOK_S = 0.5  # between looks at a journal that another process writes
HEADS = ("id", "program", "optimizer", "state", "stage", "trial", "best", "requests", "cost", "elapsed", "where")


def jobs(options: argparse.Namespace) -> int:
    """Print a line for each job; what is wrong with damaged journals goes to standard error."""
    try:
        rows = rows_of(options)
    except WRONG as error:
        return refused(options, error)
    if options.json:
        print_json(rows)
        return OK
    if not rows:
        print_error("there are no jobs; the folder of journals is given by --folder, or by the settings' [jobs] table")
        return OK
    for line in _table(rows):
        print_line(line)
    for row in rows:
        if row["state"] == "damaged":
            print_error(f"{row['journal']}: {row['message']}")
    return OK


def job(options: argparse.Namespace) -> int:
    """Print a job's facts, or what happens in it, or end it; 1 says that it did not succeed."""
    try:
        row = row_of(options)
        if options.cancel:
            return _cancel(options, row)
        if options.watch or options.events:
            return _follow(options, row)
    except WRONG as error:
        return refused(options, error)
    _show(options, row)
    return _code(row)


def _show(options: argparse.Namespace, row: Row) -> None:
    if options.json:
        print_json(row)
        return
    for name, value in row.items():
        if value not in (None, ""):
            print_line(f"{name}: {value if name != 'elapsed' else span(value)}")


def _code(row: Row) -> int:
    return OK if row["state"] in ("done", *LIVE) else FAILED


def _cancel(options: argparse.Namespace, row: Row) -> int:
    if row["state"] not in LIVE:
        raise InvalidInput(f"The job {row['id']} has ended already: {row['state']}.")
    if not row["where"]:
        raise InvalidInput(
            f"The job {row['id']} runs in a process that serves no control socket: end it there, with Ctrl-C."
        )
    with connect(options) as client:
        client.cancel_job(row["id"])
        for _ in client.job_events(row["id"]):
            pass  # until it has ended
        now = client.job_row(row["id"])
    _show(options, {**now, "where": row["where"]})
    return OK if now["state"] == "stopped" else FAILED


def _follow(options: argparse.Namespace, row: Row) -> int:
    if row["where"]:
        with connect(options) as client:
            for event in client.job_events(row["id"], follow=options.watch):
                print_event(event, as_json=options.json)
            return _code(client.job_row(row["id"]))
    path = Path(row["journal"])
    for event in _journal_events(path, follows=options.watch):
        print_event(event, as_json=options.json)
    from ..programs.optimization.journal_summary import summary_of

    ended = summary_of(path)
    if ended.fault:
        print_error(f"{path}: {ended.fault}")
    return _code(ended.row)


def _journal_events(path: Path, *, follows: bool) -> Iterator[dict[str, Any]]:
    """Yield what a journal tells, as events without a time; with `follows` until its process has ended."""
    from ..programs.optimization.journal_summary import is_in_use, records_of

    seen = 0
    while True:
        is_last = not follows or not is_in_use(path)
        number = 0
        try:
            for number, record in enumerate(records_of(path), start=1):
                if number > seen and record.get("kind") != "answer":
                    yield _told(record)
        except JournalError as error:
            if error.reason != "damaged":
                raise
            is_last = True
        seen = max(seen, number)
        if is_last:
            return
        time.sleep(LOOK_S)


def _told(record: dict[str, Any]) -> dict[str, Any]:
    kind = {"journal": "began", "worker": "worker_died", "end": str(record.get("state", "end"))}.get(
        str(record["kind"]), str(record["kind"])
    )
    at = record.get("began") if kind == "began" else None
    if kind == "began":
        facts = {name: record.get(name) for name in ("title", "optimizer", "options")}
    else:
        facts = {name: value for name, value in record.items() if name not in ("kind", "sum", "versions", "state")}
    if isinstance(candidate := facts.get("candidate"), dict):
        facts["candidate"] = {name: value for name, value in candidate.items() if name != "state"}
    return {"kind": kind, "at": at, "facts": facts}


def _table(rows: Iterable[Row]) -> Iterator[str]:
    cells = [HEADS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    trial = f"{row['trial']}" if row["trials"] is None else f"{row['trial']}/{row['trials']}"
    best = "-" if row["best"] is None else f"{row['best']:g}"
    cost = "-" if row["cost"] is None else f"{row['cost']:.4f}"
    elapsed = "-" if row["elapsed"] is None else span(row["elapsed"])
    program = row["program"] if len(row["program"]) <= 40 else f"{row['program'][:39]}…"
    return (
        row["id"], program or "-", row["optimizer"] or "-", row["state"], row["stage"] or "-", trial, best,
        f"{row['requests']:,}", cost, elapsed, row["where"] or "journal",
    )  # fmt: skip
