"""`dspex config`: check the settings, or show each with where its value comes from."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from .colors import painted
from .exit_codes import OK, USAGE
from .printing import print_json, print_text
from .shared_options import command, group
from .tables import prose, table

config = group("config")


@command("check", of=config, summary="find every error of the settings: its file, line and column, and near names")
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(), help="Default: $DSPEX_CONFIG, else none.")
def check(file: str | None, as_json: bool) -> int:
    """Print a line for each; 2 if there is an error. A variable that means nothing is a warning."""
    from .settings_faults import settings_faults

    source = file or os.environ.get("DSPEX_CONFIG") or None
    found = settings_faults(source, os.environ)
    errors = [fault for fault in found if fault.level == "error"]
    if as_json:
        print_json({"source": source, "is_right": not errors, "faults": [asdict(fault) for fault in found]})
        return USAGE if errors else OK
    for fault in found:
        level = painted(fault.level, "red" if fault.level == "error" else "yellow")
        rest = prose(f"{painted(fault.place, '')}: {'.' * len(fault.level)}: {fault.message}", indent=2)
        print_text(rest.replace("." * len(fault.level), level, 1))
    where = source or "the defaults"
    print_text(painted(f"{where}: {len(errors)} error(s)" if errors else f"{where}: right", "bold"))
    return USAGE if errors else OK


@command("show", of=config, summary="show every setting in force, and where its value comes from")
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(), help="Default: $DSPEX_CONFIG, else none.")
@click.option("--set", "is_set", is_flag=True, help="Leave out defaults.")
def show(file: str | None, is_set: bool, as_json: bool) -> None:
    """Print a row for each; keys and passwords are not shown."""
    from .shown_settings import shown_settings

    source = file or os.environ.get("DSPEX_CONFIG") or None
    found = [one for one in shown_settings(source) if not is_set or one.origin != "default"]
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [(f"{one.table}.{one.key}".lstrip("."), _text(one.value), one.origin) for one in found]
    print_text(table(("setting", "value", "from"), rows))


def _text(value: object) -> str:
    if value is None or value in ((), {}):
        return "-"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
