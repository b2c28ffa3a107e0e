"""`dspex evaluate`: score a program on the rows of a file."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInput, SettingsError, SignatureError, UnknownName
from .chosen_program import chosen_program
from .command_refusal import refused
from .data_file import DataFile, read_data
from .exit_codes import FAILED, INTERRUPTED, OK
from .option_types import COUNT, NAMES, POSITIVE
from .outputs import plain_of
from .printing import print_error, print_json, print_line
from .program_choice import ProgramChoice, program_options
from .run_command import MISSING_LM, REFUSED
from .shared_options import command
from .shell_program import ShellProgram, find_modules_of, module_path

if TYPE_CHECKING:
    from ..programs.evaluation.evaluation import Evaluation

ERRORS_SHOWN = 5


@command("evaluate", more="With --json it prints every row.")
@program_options
@click.argument("data", metavar="FILE", help=".jsonl, .json or .csv; '-' is JSON lines from standard input.")
@click.option("--metric", required=True, metavar="METRIC", help="Exact_match, f1, ..., or module:function.")
@click.option(
    "--inputs", type=NAMES, default=(), metavar="A,B", help="The fields that go in (default: the program's inputs)."
)
@click.option("--num-threads", type=POSITIVE, metavar="N", help="Rows at a time (default: as many as fit).")
@click.option("--max-errors", type=COUNT, metavar="N", help="End when N rows have failed (default: never).")
@click.option("--limit", type=POSITIVE, metavar="N", help="Only the first N rows.")
def evaluate(
    choice: ProgramChoice,
    data: str,
    metric: str,
    inputs: tuple[str, ...],
    num_threads: int | None,
    max_errors: int | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Evaluate it and print the score; with --json every row. What was done is printed too if something ends it."""
    from ..programs.evaluation.evaluate import evaluate as evaluate_program

    with contextlib.ExitStack() as stack:
        try:
            rows = read_data(data, limit)
            program = stack.enter_context(chosen_program(choice, size=None))
            chosen_metric = metric_of(metric)
            rules = program.rules
            fields = list(inputs) or [name for name in rules.names if name in rules.required]
            examples = rows.examples(fields, rules)
        except REFUSED as error:
            raise refused(error) from error
        subject = program.program if isinstance(program, ShellProgram) else program
        try:
            found = evaluate_program(
                subject,
                examples,
                chosen_metric,
                num_threads=num_threads,
                max_errors=max_errors,
                inputs=fields or None,
                on_progress=_progress(),
            )
        except (InvalidInput, SignatureError, UnknownName) as error:
            raise refused(_placed(error, rows)) from error
        except SettingsError as error:
            raise refused(error, MISSING_LM if error.key == "lm" else "") from error
        except (Exception, KeyboardInterrupt) as error:
            partial: Evaluation | None = getattr(error, "partial", None)
            if partial is None or not partial.rows:
                raise
            print_evaluation(partial, rows, as_json=as_json)
            print_error(str(error) or "interrupted")
            return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    print_evaluation(found, rows, as_json=as_json)
    return OK


def metric_of(text: str) -> Any:
    """Return a metric: a built-in's name as it is; module:function or file.py:function is imported here.

    Raises:
        UnknownName: there is no such module, or nothing of that name in it.
        InvalidInput: it is no function.
    """
    if ":" not in text:
        return text
    find_modules_of(text)
    module_name, _, qualified = module_path(text).partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UnknownName("module", module_name, (), where="this command's import path") from None
    for part in qualified.split("."):
        if not hasattr(found, part):
            raise UnknownName("metric", text, [name for name in vars(found) if not name.startswith("_")])
        found = getattr(found, part)
    if not callable(found):
        raise InvalidInput(f"The metric {text!r} is no function.", field="metric")
    return found


def print_evaluation(found: Evaluation, data: DataFile, *, as_json: bool) -> None:
    """Print the score, with JSON every row; the first errors go to standard error."""
    low, high = found.confidence_interval()
    if as_json:
        print_json(_facts(found, data, (low, high)))
        return
    count = f"{len(found)}{'' if found.is_complete else f' of {found.total}'} rows"
    failed = f", {len(found.errors)} failed" if found.errors else ""
    print_line(f"{found.metric} {found.score} ({low:.1f} to {high:.1f}), {count}{failed}, {found.seconds:.1f} s")
    for row in found.errors[:ERRORS_SHOWN]:
        print_error(f"{data.place(row.index)}: {type(row.error).__name__}: {row.error}")
    if len(found.errors) > ERRORS_SHOWN:
        print_error(f"{len(found.errors) - ERRORS_SHOWN} other rows failed; --json shows each.")


def _facts(found: Evaluation, data: DataFile, interval: tuple[float, float]) -> dict[str, Any]:
    rows = [
        {
            "place": data.rows[row.index].place,
            "example": plain_of(data.rows[row.index].fields),
            "prediction": plain_of(row.prediction),
            "score": row.score,
            "error": None if row.error is None else f"{type(row.error).__name__}: {row.error}",
            "seconds": round(row.seconds, 6),
        }
        for row in found.rows
    ]
    return {
        "score": found.score,
        "interval": list(interval),
        "metric": found.metric,
        "total": found.total,
        "failed": len(found.errors),
        "is_complete": found.is_complete,
        "seconds": round(found.seconds, 3),
        "usage": plain_of(found.usage),
        "cost_usd": found.cost_usd,
        "rows": rows,
    }


def _placed(error: Exception, data: DataFile) -> Exception:
    """Return the error with the place in the file instead of the number of the example."""
    text = re.sub(r"devset\[(\d+)\]", lambda match: data.place(int(match[1])), str(error))
    return type(error)(text) if type(error) is InvalidInput else error


def _progress() -> Callable[[Mapping[str, Any]], None] | None:
    """Return what shows progress on a terminal: one line, which is written over."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(facts: Mapping[str, Any]) -> None:
        end = "\n" if facts["done"] == facts["total"] else ""
        sys.stderr.write(f"\r{facts['done']} of {facts['total']} rows, score {facts['score']}{end}")
        sys.stderr.flush()

    return show
