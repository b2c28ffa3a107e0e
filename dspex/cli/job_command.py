"""`dspex job`: show an optimization, follow it, cancel it, write its report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import InvalidInput, JobNotCancelled, JournalError, UnknownName
from .command_refusal import refused
from .event_lines import print_event
from .exit_codes import FAILED, OK
from .job_options import JobsChoice, jobs_options
from .job_rows import Row, row_of
from .printed_units import span
from .printing import print_error, print_json, print_line
from .shared_options import command
from .status_text import LIVE
from .target import Target

WRONG = (InvalidInput, JournalError, UnknownName)
LOOK_S = 0.5  # between looks at a journal that another process writes


@command("job", more="It exits with 1 for a job that did not come to its end.")
@jobs_options
@click.argument("id", metavar="ID", help="The job's id, the beginning of it, or its journal's file.")
@click.option("--watch", is_flag=True, help="Print what happens, until it ends.")
@click.option("--events", is_flag=True, help="Print what has happened.")
@click.option("--cancel", is_flag=True, help="End it now, in whatever process it runs; it keeps its best so far.")
@click.option("--report", metavar="FILE", type=click.Path(), help="Write its report there, one HTML page.")
def job(
    options: JobsChoice, id: str, watch: bool, events: bool, cancel: bool, report: str | None, as_json: bool
) -> int:
    """Print a job's facts, or what happens in it, or end it; 1 says that it did not succeed."""
    if watch + events + cancel + (report is not None) > 1:
        raise click.UsageError("--watch, --events, --cancel and --report are four things: choose one")
    try:
        row = row_of(options, id)
        if cancel:
            return _cancel(options.target, row, as_json=as_json)
        if report is not None:
            return _write_report(row, report, as_json=as_json)
        if watch or events:
            return _follow(options.target, row, follows=watch, as_json=as_json)
    except WRONG as error:
        raise refused(error) from error
    _show(row, as_json=as_json)
    return _code(row)


def _show(row: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    for name, value in row.items():
        if value not in (None, ""):
            print_line(f"{name}: {value if name != 'elapsed' else span(value)}")


def _code(row: Row) -> int:
    return OK if row["state"] in ("done", *LIVE) else FAILED


def _cancel(target: Target, row: Row, *, as_json: bool) -> int:
    if row["state"] not in LIVE:
        raise InvalidInput(f"The job {row['id']} has ended already: {row['state']}.")
    if not row["where"]:
        return _cancel_elsewhere(row, as_json=as_json)
    with target.connect() as client:
        client.cancel_job(row["id"])
        for _ in client.job_events(row["id"]):
            pass  # until it has ended
        now = client.job_row(row["id"])
    _show({**now, "where": row["where"]}, as_json=as_json)
    return OK if now["state"] == "stopped" else FAILED


def _cancel_elsewhere(row: Row, *, as_json: bool) -> int:
    """End a job of a process that serves no control socket, by a request beside its journal."""
    from ..programs.optimization.cancel_request import cancel_job

    try:
        state = cancel_job(row["journal"])
    except JobNotCancelled as error:
        print_error(str(error))
        return FAILED
    _show({**row, "state": state}, as_json=as_json)
    return OK if state == "stopped" else FAILED


def _write_report(row: Row, file: str, *, as_json: bool) -> int:
    from ..programs.optimization.journal_report import job_report

    if not row["journal"]:
        raise InvalidInput(f"The job {row['id']} keeps no journal: what it tried is known where it runs alone.")
    try:
        job_report(row["journal"], file)
    except OSError as error:
        raise InvalidInput(f"The report {file!r} cannot be written: {error.strerror}.") from None
    if as_json:
        print_json({"id": row["id"], "report": str(Path(file).absolute())})
    else:
        print_line(f"wrote {file}")
    return OK


def _follow(target: Target, row: Row, *, follows: bool, as_json: bool) -> int:
    if row["where"]:
        with target.connect() as client:
            for event in client.job_events(row["id"], follow=follows):
                print_event(event, as_json=as_json)
            return _code(client.job_row(row["id"]))
    path = Path(row["journal"])
    for event in _journal_events(path, follows=follows):
        print_event(event, as_json=as_json)
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
