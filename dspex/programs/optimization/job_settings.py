"""Read the settings' [jobs] table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SettingsError, UnknownName

SETTINGS = ("folder", "resume")


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Where jobs keep their journals, and whether a service goes on with its own after a restart."""

    folder: Path | None = None
    resumes: bool = False


def job_settings(tables: Mapping[str, Any]) -> JobSettings:
    """Return what the settings' [jobs] table says.

    Raises:
        SettingsError: the table holds something else.
    """
    table = tables.get("jobs")
    if table is None:
        return JobSettings()
    for name in table if isinstance(table, Mapping) else ():
        if name not in SETTINGS:
            raise SettingsError(str(UnknownName("setting", name, SETTINGS, where="[jobs]")), key=f"jobs.{name}")
    folder = table.get("folder") if isinstance(table, Mapping) else None
    if not isinstance(folder, str) or not folder:
        raise SettingsError('The [jobs] table takes folder, such as folder = "/var/lib/myapp/jobs".', key="jobs")
    resumes = table.get("resume", False)
    if not isinstance(resumes, bool):
        raise SettingsError(f"jobs.resume is {resumes!r}: it is true or false.", key="jobs.resume")
    return JobSettings(Path(folder).expanduser().absolute(), resumes)
