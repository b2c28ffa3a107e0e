"""Find jobs: those of a running service, and those that journals of a folder tell of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import load
from ..errors import DspexError, InvalidInput, NotRunning, UnknownName
from .job_options import JobsChoice

Row = dict[str, Any]


def settings_tables(config: str | None) -> Mapping[str, Any]:
    """Return the tables of the settings that a command has.

    Raises:
        SettingsError: they cannot be read.
    """
    source = config or os.environ.get("DSPEX_CONFIG") or None
    return {} if source is None else load(source).tables


def rows_of(options: JobsChoice) -> list[Row]:
    """Return all jobs, the newest last: a service's own word of its jobs counts.

    Raises:
        NotRunning: a service was named, and none answers.
        SettingsError: the settings cannot be read.
    """
    served, settings = _served(options)
    kept = journal_rows(_folder(options, settings))
    found: dict[str, Row] = {row["id"]: row for row in kept}
    for row in served:
        found[row["id"]] = row
    return sorted(found.values(), key=lambda row: str(row["id"]))


def row_of(options: JobsChoice, named: str) -> Row:
    """Return the job that the command names: by its id, the beginning of it, or its journal.

    Raises:
        UnknownName: there is none.
        InvalidInput: there are several.
        JournalError: its journal is gone.
    """
    if "/" in named or Path(named).suffix == ".jsonl":
        from ..programs.optimization.journal_summary import summary_of

        path = Path(named).expanduser().absolute()
        of_service = (row for row in _served(options)[0] if row["journal"] == str(path))
        return next(of_service, None) or {**summary_of(path).row, "where": ""}
    rows = rows_of(options)
    exact = [row for row in rows if row["id"] == named]
    found = exact or [row for row in rows if row["id"].startswith(named)]
    if not found:
        raise UnknownName("job", named, [row["id"] for row in rows])
    if len(found) > 1:
        raise InvalidInput(f"{named!r} begins the ids of {len(found)} jobs: {', '.join(row['id'] for row in found)}.")
    return found[0]


def journal_rows(folder: Path | None) -> list[Row]:
    """Return the rows of a folder's journals."""
    if folder is None:
        return []
    from ..programs.optimization.journal_summary import summaries_in

    return [{**summary.row, "where": ""} for summary in summaries_in(folder)]


def _served(options: JobsChoice) -> tuple[list[Row], str | None]:
    """Return the jobs of the service, and the file of its settings."""
    try:
        with options.target.connect() as client:
            where = str(client.greeting.get("name") or "service")
            rows = [{**row, "where": where} for row in client.jobs()]
            return rows, str(client.status()["supervisor"]["settings"])
    except NotRunning:
        if options.target.is_expected:
            raise
        return [], None


def _folder(options: JobsChoice, settings: str | None) -> Path | None:
    from ..programs.optimization.job_settings import job_settings

    if options.folder is not None:
        folder = Path(options.folder).expanduser().absolute()
        if not folder.is_dir():
            raise InvalidInput(f"There is no folder {options.folder!r}.")
        return folder
    if options.config is None and not os.environ.get("DSPEX_CONFIG") and settings and Path(settings).is_file():
        try:
            return job_settings(load(settings).tables).folder
        except DspexError:  # the service has read them when they were right
            return None
    return job_settings(settings_tables(options.config)).folder
