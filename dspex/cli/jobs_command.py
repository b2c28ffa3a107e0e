"""`dspex jobs`: list optimizations."""

from __future__ import annotations

from ..errors import InvalidInput, JournalError, UnknownName
from .command_refusal import refused
from .job_options import JobsChoice, jobs_options
from .job_rows import Row, rows_of
from .printed_units import span
from .printing import print_error, print_json, print_text
from .shared_options import command
from .tables import table

WRONG = (InvalidInput, JournalError, UnknownName)
HEADS = ("id", "program", "optimizer", "state", "stage", "trial", "best", "requests", "cost", "elapsed", "where")


@command("jobs")
@jobs_options
def jobs(options: JobsChoice, as_json: bool) -> None:
    """Print a line for each job; what is wrong with damaged journals goes to standard error."""
    try:
        rows = rows_of(options)
    except WRONG as error:
        raise refused(error) from error
    if as_json:
        print_json(rows)
        return
    if not rows:
        print_error("there are no jobs; the folder of journals is given by --folder, or by the settings' [jobs] table")
        return
    print_text(table(HEADS, [_cells(row) for row in rows]))
    for row in rows:
        if row["state"] == "damaged":
            print_error(f"{row['journal']}: {row['message']}")
    return


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
