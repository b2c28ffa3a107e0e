"""`dspex optimize`: optimize a program on the rows of a file, and save the best: by own workers, or by a service."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, JournalError, SettingsError
from .chosen_program import is_served
from .command_refusal import refused
from .data_file import DataFile, read_data
from .evaluate_command import metric_of
from .exit_codes import FAILED, INTERRUPTED, OK
from .job_options import OptimizeChoice, optimize_options
from .job_output import print_outcome
from .named_values import read_words
from .run_command import MISSING_LM, REFUSED
from .shared_options import command
from .shell_command import said_of
from .shell_program import ShellProgram, named_program, own_workers

if TYPE_CHECKING:
    from ..programs.optimization.job import OptimizationJob

WRONG = (*REFUSED, JournalError)  # before anything is paid
GIVEN_AGAIN = {  # what a journal's missing parts are called here
    "program": "PROGRAM",
    "trainset": "FILE",
    "metric": "--metric",
    "prompt_lm": "--prompt-lm",
    "tools": "PROGRAM (with its tools)",
}


@command("optimize")
@optimize_options
def optimize(options: OptimizeChoice) -> int:
    """Optimize; Ctrl-C ends the job, saves its best so far, and says how to go on."""
    with contextlib.ExitStack() as stack:
        try:
            require_output(options.output)
            require_output(options.report, option="--report", suffix=".html", what="a page")
            if is_served(options):
                from .served_optimization import optimize_served

                return optimize_served(options, optimizer_options(options), _budget(options))
            stack.enter_context(own_workers(options, optimizes=True))
            job = _begun(options)
        except WRONG as error:
            raise refused(_named_here(error)) from error
        except SettingsError as error:
            raise refused(error, MISSING_LM if error.key == "lm" else "") from error
        return _followed(options, job)


def _followed(options: OptimizeChoice, job: OptimizationJob[Any]) -> int:
    """Wait for the job, and print and save what came of it."""
    from ..programs.optimization.job_start import waited

    try:
        best = waited(job, None)
    except KeyboardInterrupt as error:
        partial = getattr(error, "partial", None)
        print_outcome(job, partial, options.output, as_json=options.as_json, resume=_again(job), report=options.report)
        return INTERRUPTED
    except Exception as error:  # whatever ends a job is told, with the best so far
        is_refused = isinstance(error, (*WRONG, SettingsError)) and not job.progress.requests
        if is_refused or said_of().is_debug:
            more = MISSING_LM if isinstance(error, SettingsError) and error.key == "lm" else ""
            raise refused(error, more) from error
        partial = getattr(error, "partial", None)
        how: Any = {"as_json": options.as_json, "error": error, "resume": _again(job), "report": options.report}
        print_outcome(job, partial, options.output, **how)
        return FAILED
    print_outcome(job, best, options.output, as_json=options.as_json, report=options.report)
    return OK


def _begun(options: OptimizeChoice) -> OptimizationJob[Any]:
    """Return the job that the options ask for, begun anew or from its journal.

    Raises:
        InvalidInput, UnknownName, SettingsError, SignatureError, JournalError: it cannot be; nothing was spent.
    """
    from ..programs.optimization.optimize import optimize as begin
    from ..programs.optimization.resume import resume

    journal = _journal_of(options)
    goes_on = options.resume and journal is not None and journal.exists()
    if options.resume and journal is None:
        raise InvalidInput("--resume goes on with a journal: name it with --journal.")
    if not goes_on:
        for word, said in (("PROGRAM", options.program), ("FILE", options.data)):
            if said is None:
                raise InvalidInput(f"{word} is missing: dspex optimize PROGRAM FILE --metric METRIC.")
    program: Any = None if options.program is None else named_program(options)
    given: Any = {
        "metric": None if options.metric is None else metric_of(options.metric),
        "prompt_lm": options.prompt_lm,
        "timeout": options.job_timeout,
        "budget": _budget(options),
        "progress": not options.quiet,
        **_examples(options, program),
    }
    if goes_on:
        assert journal is not None
        _require_same(options, journal)
        return resume(journal, program=program, wait=False, **given)
    rows = given.pop("trainset")
    inputs = list(options.inputs) or None
    named: Any = options.optimizer or "miprov2"
    own: Any = optimizer_options(options)
    for name in own.keys() & (given.keys() | {"journal", "inputs", "wait", "optimizer", "lm", "adapter", "session"}):
        raise InvalidInput(f"{name!r} is no option of an optimizer: it is given in another way.", field=name)
    return begin(program, rows, optimizer=named, journal=journal, inputs=inputs, wait=False, **given, **own)


def require_output(
    output: str | None, *, option: str = "--output", suffix: str = ".json", what: str = "a saved program"
) -> None:
    """Check that a result can be saved there, before anything is paid.

    Raises:
        InvalidInput: it cannot.
    """
    if output is None:
        return
    path = Path(output)
    if path.suffix != suffix:
        raise InvalidInput(f"{option} {output!r} is no {suffix} file, as {what} is.")
    if path.is_dir():
        raise InvalidInput(f"{option} {output!r}: it is a folder.")
    if not path.parent.is_dir():
        raise InvalidInput(f"{option} {output!r}: there is no folder {str(path.parent)!r}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"{option} {output!r} cannot be written.")


def optimizer_options(options: OptimizeChoice) -> dict[str, Any]:
    """Return the optimizer's own options.

    Raises:
        InvalidInput: one is not written as an option is, or comes twice.
    """
    words = read_words(options.option, what="option") if options.option else {}
    own = {name: value.read(as_text=False) for name, value in words.items()}
    if options.auto is not None:
        if "auto" in own:
            raise InvalidInput("--auto is given, and --option auto too.", field="auto")
        own["auto"] = None if options.auto == "none" else options.auto
    return own


def _examples(options: OptimizeChoice, program: Any) -> dict[str, Any]:
    """Return the rows of the files.

    Raises:
        InvalidInput: a file or a row cannot be read, or lacks an input.
    """
    found: dict[str, Any] = {"trainset": None, "valset": None}
    for name, path in (("trainset", options.data), ("valset", options.val)):
        if path is not None:
            found[name] = _rows(read_data(path, options.limit), options, program)
    return found


def _rows(data: DataFile, options: OptimizeChoice, program: Any) -> list[dict[str, Any]]:
    if program is None:
        return [dict(row.fields) for row in data.rows]
    rules = ShellProgram(program).rules
    inputs = list(options.inputs) or [name for name in rules.names if name in rules.required]
    return data.examples(inputs, rules)


def _budget(options: OptimizeChoice) -> Any:
    limits = {"requests": options.max_requests, "tokens": options.max_tokens, "usd": options.max_usd}
    return {name: limit for name, limit in limits.items() if limit is not None} or None


def _journal_of(options: OptimizeChoice) -> Path | None:
    """Return the journal's file; one that is named by its job's id is in the settings' folder."""
    if options.journal is None:
        return None
    path = Path(options.journal).expanduser().absolute()
    if path.exists() or "/" in options.journal or path.suffix:
        return path
    from ..programs.optimization.job_settings import job_settings
    from .job_rows import settings_tables

    folder = job_settings(settings_tables(options.config)).folder
    kept = None if folder is None else folder / f"{options.journal}.jsonl"
    return kept if kept is not None and kept.exists() else path


def _require_same(options: OptimizeChoice, journal: Path) -> None:
    """Check that the optimizer that is named is the journal's.

    Raises:
        JournalError: it is another, or the journal cannot be read.
    """
    from ..programs.optimization.journal_summary import records_of

    about = next(iter(records_of(journal)), {})
    own, known = optimizer_options(options), about.get("options") or {}
    asked = {"optimizer": (options.optimizer, about.get("optimizer")), "options": (own or None, known)}
    for name, (given, kept) in asked.items():
        if given is not None and given != kept:
            raise JournalError(
                f"The journal {journal} is of a job with the {name} {kept!r}, not {given!r}: leave it out to go on "
                f"with that job, or name another journal.",
                path=str(journal),
                reason="mismatch",
                missing=(name,),
            )


def _named_here(error: Exception) -> Exception:
    """Return the error in the words of the command line."""
    if isinstance(error, JournalError) and error.reason == "incomplete":
        words = " ".join(GIVEN_AGAIN.get(name, name) for name in error.missing)
        return InvalidInput(f"To go on with {error.path} give again what no file holds: {words}.")
    if isinstance(error, JournalError) and error.reason == "exists":
        return InvalidInput(f"There is a file {error.path} already: --resume goes on with it, if it is a journal.")
    return error


def _again(job: OptimizationJob[Any]) -> str | None:
    """Return the command that goes on with the job; None if it has no journal."""
    if job.journal is None:
        return None
    words = [word for word in sys.argv[1:] if word != "--resume"]
    if not any(word.split("=")[0] == "--journal" for word in words):
        words += ["--journal", str(job.journal)]
    return shlex.join(["dspex", *words, "--resume"])
