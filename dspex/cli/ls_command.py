"""`dspex ls`: list this user's supervisors, and what dead ones left."""

from __future__ import annotations

from dataclasses import asdict

from .printed_units import span
from .printing import print_error, print_json, print_text
from .shared_options import command
from .tables import table

HEADS = ("name", "pid", "state", "pools", "age", "version", "folder", "socket")


@command("ls", more="It looks into every run folder that this user may have: one for each way to log in.")
def ls(as_json: bool) -> None:
    """Print a row for each; what is wrong with one is said below."""
    from .found_supervisors import found_supervisors

    found = list(found_supervisors())
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        print_error("no supervisor is running; start one with `dspex start`")
        return
    rows = [
        (
            one.name, str(one.pid), one.state, ",".join(one.pools) or "-", span(one.age_s), one.version,
            one.folder or "-", one.socket,
        )
        for one in found
    ]  # fmt: skip
    print_text(table(HEADS, rows))
    for one in found:
        if one.detail:
            print_error(f"{one.name}: {one.detail}")
