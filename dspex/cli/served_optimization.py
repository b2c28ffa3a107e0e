"""Optimize in a running service: the job is started over its control socket, and followed from here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..control.client import connect
from ..control.client_job import ClientJob
from ..errors import InvalidInput, SettingsError
from .data_file import read_data
from .event_lines import event_text
from .exit_codes import FAILED, INTERRUPTED, OK
from .job_options import OptimizeChoice
from .named_values import read_words
from .printed_units import span
from .printing import print_error, print_json, print_line
from .shell_program import is_file, named_program, signature_rules

SHOWN = frozenset({
    "queued", "running", "stage", "candidate", "warning", "cancelling", "worker_died", "resumed", "done", "failed",
    "stopped",
})  # fmt: skip


def optimize_served(options: OptimizeChoice, own: dict[str, Any], budget: Any) -> int:
    """Start the job, show what happens, and save its best; Ctrl-C ends it.

    Raises:
        SettingsError, InvalidInput, UnknownName: it cannot be; nothing was paid.
        NotRunning, TooManyClients: no service answers there, or has a place.
    """
    program, file = _required(options)
    given = _request(options, own, budget, file)
    with connect(options.target.socket, name=options.target.name) as client:
        job = client.optimize(program, given.pop("trainset"), **given)
        code = OK
        try:
            _follow(job, is_quiet=options.quiet)
        except KeyboardInterrupt:
            job.cancel()
            job.wait()
            code = INTERRUPTED
        row = job.progress
        _print(options, row, job.program())
        return code if code or row["state"] == "done" else FAILED


def _required(options: OptimizeChoice) -> tuple[str, str]:
    """Return the program's name and the file of its rows, once all that is given is a service's to heed.

    Raises:
        SettingsError, InvalidInput: something is not.
    """
    for name in ("config", "journal", "adapter"):
        if getattr(options, name) is not None:
            raise SettingsError(f"--{name} is for workers of this command's own: a service has its settings.", key=name)
    if options.report is not None:
        raise SettingsError("--report is of this command's own jobs: a service keeps what it tells of.", key="report")
    if options.resume:
        raise SettingsError("--resume is for a journal of this command: a service resumes by itself.", key="resume")
    program, file = options.program, options.data
    if program is None or file is None:
        word = "PROGRAM" if program is None else "FILE"
        raise InvalidInput(f"{word} is missing: dspex optimize PROGRAM FILE --metric METRIC.")
    if is_file(program) or program.endswith(".json") or is_file(options.metric or ""):
        raise InvalidInput("A service runs what its pool's imports name: write package.module:Class, not a file.")
    return program, file


def _request(options: OptimizeChoice, own: dict[str, Any], budget: Any, file: str) -> dict[str, Any]:
    init = {name: value.read(as_text=False) for name, value in read_words(options.init, what="argument").items()}
    given = {
        "options": own or None,
        "kind": options.kind,
        "signature": options.signature,
        "init": init or None,
        "inputs": list(options.inputs) or None,
        "lm": options.lm,
        "prompt_lm": options.prompt_lm,
        "timeout": options.job_timeout,
        "budget": budget,
        "metric": options.metric,
        "optimizer": options.optimizer or "miprov2",
        "trainset": _rows(options, file),
        "valset": None if options.val is None else _rows(options, options.val),
    }
    return {name: value for name, value in given.items() if value is not None or name in ("metric", "valset")}


def _rows(options: OptimizeChoice, path: str) -> list[dict[str, Any]]:
    data = read_data(path, options.limit)
    if "->" not in (options.program or ""):
        return [dict(row.fields) for row in data.rows]
    rules = signature_rules(named_program(options))
    return data.examples(list(options.inputs) or [name for name in rules.names if name in rules.required], rules)


def _follow(job: ClientJob, *, is_quiet: bool) -> None:
    for event in job.events():
        if not is_quiet and event["kind"] in SHOWN:
            print_error(f"{job.id}: {event['kind']} {event_text(event)}".rstrip())


def _print(options: OptimizeChoice, row: dict[str, Any], document: dict[str, Any] | None) -> None:
    """Print what came of it; the program goes to the file, or to standard output."""
    saved = options.output if document is not None else None
    if document is not None and saved is not None:
        Path(saved).write_text(json.dumps(document, ensure_ascii=False, indent=2), encoding="utf-8")
    if options.as_json:
        print_json({**row, "output": saved, **({} if saved else {"program": document})})
        return
    if document is not None and saved is None:
        print_json(document)
    score = None if document is None else document["metadata"]["dspex"]["score"]
    told = "nothing was scored" if score is None else f"score {score:g}"
    base = "" if row["baseline"] is None else f" (baseline {row['baseline']:g})"
    how = "" if row["state"] == "done" else f"{row['state']}, best so far: "
    text = f"{how}{told}{base}{f'; saved to {saved}' if saved else ''} ({row['requests']:,} requests, "
    say = print_line if saved is not None and row["state"] == "done" else print_error
    say(f"{text}{span(row['elapsed'])})")
    if row["message"]:
        print_error(row["message"])
