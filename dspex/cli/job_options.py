"""The options of the commands that begin optimizations and look at them."""

from __future__ import annotations

import argparse

from .option_types import count, names, positive


def add_optimize(command: argparse.ArgumentParser) -> None:
    """Add the options of `dspex optimize` beside those that name the program."""
    command.add_argument("data", metavar="FILE", nargs="?", help="the rows to learn from: .jsonl, .json or .csv; '-' "
                         "is JSON lines from standard input")  # fmt: skip
    command.add_argument("--val", metavar="FILE", help="the rows to score candidates on (default: the optimizer's own "
                         "choice)")  # fmt: skip
    command.add_argument("--metric", metavar="METRIC", help="exact_match, f1, ..., or module:function")
    command.add_argument("--optimizer", metavar="NAME", help="miprov2 (the default), gepa, copro, ...")
    command.add_argument("--auto", choices=("light", "medium", "heavy", "none"), help="how much miprov2 or gepa tries")
    command.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="another option of the "
                         "optimizer; JSON, or else text; may be given several times")  # fmt: skip
    command.add_argument("--prompt-lm", metavar="MODEL", help="the language model that writes instructions")
    command.add_argument("--inputs", type=names, default=(), metavar="A,B", help="the fields that go in (default: the "
                         "program's inputs)")  # fmt: skip
    command.add_argument("--limit", type=positive, metavar="N", help="only the first N rows of each file")
    budget = command.add_argument_group("limits; a job that reaches one keeps its best so far")
    budget.add_argument("--max-requests", type=count, metavar="N", help="to language models")
    budget.add_argument("--max-tokens", type=count, metavar="N", help="of all requests together")
    budget.add_argument("--max-usd", type=_dollars, metavar="USD", help="for requests whose price is known")
    command.add_argument("--output", "-o", metavar="FILE", help="where the best program is saved, .json (default: it "
                         "is printed)")  # fmt: skip
    command.add_argument("--report", metavar="FILE", help="where a page about the job is written, .html")
    command.add_argument("--journal", metavar="FILE", help="where the job keeps what it has paid for (default: in the "
                         "settings' [jobs] folder, if there is one)")  # fmt: skip
    command.add_argument("--resume", action="store_true", help="go on with the journal, if there is one; what it holds "
                         "need not be given again")  # fmt: skip
    command.add_argument("--quiet", action="store_true", help="show no progress")
    command.add_argument("--json", action="store_true", help="print JSON")


def add_jobs(command: argparse.ArgumentParser) -> None:
    """Add the options of `dspex jobs`."""
    _journals(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def add_job(command: argparse.ArgumentParser) -> None:
    """Add the options of `dspex job`."""
    command.add_argument("id", metavar="ID", help="the job's id, the beginning of it, or its journal's file")
    _journals(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="print what happens, until it ends")
    what.add_argument("--events", action="store_true", help="print what has happened")
    what.add_argument("--cancel", action="store_true", help="end it now; it keeps its best so far")
    command.add_argument("--json", action="store_true", help="print JSON")


def _journals(command: argparse.ArgumentParser) -> None:
    command.add_argument("--folder", metavar="DIR", help="of the journals (default: the settings' [jobs] folder)")
    command.add_argument("--config", metavar="FILE", help="settings (default: $DSPEX_CONFIG, else the service's)")


def _dollars(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount: 0 or more")
    return number
