"""Parse the command line: every command, its options, and the module that runs it (imported only then)."""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Callable
from typing import Any

from . import job_options
from .option_types import count, names, positive, seconds

Runner = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """Return the parser; the parsed options carry `run(options) -> exit code`."""
    root = argparse.ArgumentParser(prog="dspex", description="Pools of DSPy workers, as a service.")
    root.add_argument("--debug", action="store_true", help="show the traceback of an error")
    root.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for add in (_run, _evaluate, _start, _status, _health, _stop, _call, _resize, _recycle, _drain, _forgive, _events):
        add(commands)
    for add in (_optimize, _jobs, _job, _serve, _cache, _doctor, _bench):
        add(commands)
    return root


class _CommandParser(argparse.ArgumentParser):
    """A command's parser: options may stand anywhere among its words."""

    _is_within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - overloads
        if self._is_within:  # argparse's own two passes
            return super().parse_known_args(args, namespace)
        self._is_within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_within = False


class _ShowVersion(argparse.Action):
    """`--version`; the version is looked up only then (that takes 40 ms)."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        parser.exit(message=f"dspex {version('dspex')}\n")


def _command(
    commands: Any, name: str, text: str, run: Runner | None = None, *, module: str = "", finds: bool = True
) -> argparse.ArgumentParser:
    """Add a command, which the function of its name runs; that is in `module` (default: the command's own).

    `finds` gives it the options that say which supervisor is meant.
    """
    run = run or functools.partial(_run_in, module or f"{name}_command", name)
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.set_defaults(run=run)
    added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    if finds:
        added.add_argument("--name", metavar="NAME", help="the supervisor's name (default: default)")
        added.add_argument("--socket", metavar="PATH", help="its control socket, instead of a name")
    return added


def _run_in(module: str, name: str, options: argparse.Namespace) -> int:
    code: int = getattr(importlib.import_module(f".{module}", __package__), name)(options)
    return code


def _run(commands: Any) -> None:
    command = _command(commands, "run", "run a program once and print what it returns")
    _program(command)
    command.add_argument("inputs", nargs="*", metavar="NAME=VALUE", help="text, or JSON where the input is no text; "
                         "NAME:=JSON; NAME=@FILE; NAME=- is standard input; or one JSON object, or '-'")  # fmt: skip
    command.add_argument("--stream", action="store_true", help="print the fields as they arrive")
    command.add_argument("--json", action="store_true", help="print JSON")


def _evaluate(commands: Any) -> None:
    command = _command(commands, "evaluate", "score a program on the rows of a file")
    _program(command)
    command.add_argument("data", metavar="FILE", help=".jsonl, .json or .csv; '-' is JSON lines from standard input")
    command.add_argument("--metric", required=True, metavar="METRIC", help="exact_match, f1, ..., or module:function")
    command.add_argument("--inputs", type=names, default=(), metavar="A,B", help="the fields that go in (default: "
                         "the program's inputs)")  # fmt: skip
    command.add_argument("--num-threads", type=positive, metavar="N", help="rows at a time (default: as many as fit)")
    command.add_argument("--max-errors", type=count, metavar="N", help="end when N rows have failed (default: never)")
    command.add_argument("--limit", type=positive, metavar="N", help="only the first N rows")
    command.add_argument("--json", action="store_true", help="print JSON, with every row")


def _program(command: argparse.ArgumentParser, *, of: str = "of each call (default: the pool's)", **how: Any) -> None:
    """Add the words that say which program runs, and how; `of` says what the timeout is of."""
    command.add_argument("program", metavar="PROGRAM", **how, help="package.module:Class, file.py:Class, "
                         "'question -> answer', or a saved program's file (.json)")  # fmt: skip
    command.add_argument("--init", action="append", default=[], metavar="NAME=VALUE", help="an argument of its "
                         "constructor; JSON, or else text; may be given several times")  # fmt: skip
    command.add_argument("--signature", metavar="TEXT", help="what a module takes and gives: 'question -> answer'")
    command.add_argument("--kind", metavar="KIND", help="of a signature: predict (the default), chain_of_thought, ...")
    command.add_argument("--lm", metavar="MODEL", help="the language model; of a service, one of its names")
    command.add_argument("--adapter", metavar="NAME", help="chat, json, xml, ...")
    dest = "job_timeout" if how else "timeout"
    command.add_argument("--timeout", dest=dest, type=seconds, metavar="S", help=of)
    command.add_argument(
        "--private", action="store_true", help="by workers of its own, also where $DSPEX_SOCKET is set"
    )
    command.add_argument("--config", metavar="FILE", help="settings of its own workers (default: $DSPEX_CONFIG)")


def _start(commands: Any) -> None:
    command = _command(commands, "start", "run a supervisor until it is told to stop")
    command.add_argument("--config", metavar="FILE", help="settings file (default: $DSPEX_CONFIG, else none)")
    command.add_argument("--lm", metavar="MODEL", help="the default language model, such as openai/gpt-4o-mini")
    ground = command.add_mutually_exclusive_group()
    ground.add_argument("--foreground", action="store_true", help="stay in this terminal (the default)")
    ground.add_argument("--daemon", action="store_true", help="return once it is ready; it logs to a file")
    command.add_argument("--grace", type=seconds, metavar="S", help="for running calls at a stop (default: the pools')")
    command.add_argument(
        "--max-clients", type=positive, metavar="N", help="connected at once (default: [control] max_clients, else 64)"
    )
    command.add_argument("--log-file", metavar="PATH", help="log there, not to standard error; see [log]")
    command.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    command.add_argument("--report-fd", type=int, default=-1, help=argparse.SUPPRESS)


def _status(commands: Any) -> None:
    command = _command(commands, "status", "show what a live supervisor is doing")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--watch", nargs="?", type=seconds, const=1.0, metavar="S", help="again every S seconds (1)")


def _health(commands: Any) -> None:
    command = _command(commands, "health", "say whether each pool can take a call now", module="status_command")
    command.add_argument("--json", action="store_true", help="print JSON")


def _stop(commands: Any) -> None:
    command = _command(commands, "stop", "stop a supervisor and wait until it is gone")
    command.add_argument("--grace", type=seconds, metavar="S", help="for running calls (default: the pools')")
    command.add_argument("--now", action="store_true", help="end running calls; kill it if it does not answer")


def _call(commands: Any) -> None:
    command = _command(commands, "call", "run a command on a worker and print its result as JSON")
    command.add_argument("pool")
    command.add_argument("command")
    command.add_argument("arguments", nargs="*", metavar="JSON | key=value", help="one JSON object ('-': from stdin), "
                         "or key=value pairs whose values are JSON, or else text")  # fmt: skip
    command.add_argument("--session", metavar="ID", help="in this session, which outlives the command")
    command.add_argument("--timeout", type=seconds, metavar="S", help="deadline (default: the pool's call_timeout)")
    command.add_argument("--idempotent", action="store_true", help="run it once more if its worker dies")
    command.add_argument("--stream", action="store_true", help="print chunks as they come, a JSON object a line")


def _resize(commands: Any) -> None:
    command = _command(commands, "resize", "change how many workers a pool has", module="pool_commands")
    command.add_argument("pool")
    command.add_argument("size", type=count)


def _recycle(commands: Any) -> None:
    command = _command(commands, "recycle", "replace a pool's workers, one at a time, and wait", module="pool_commands")
    command.add_argument("pool")
    command.add_argument("--reload", action="store_true", help="import the workers' code anew")
    command.add_argument("--timeout", type=seconds, metavar="S", help="wait no longer; it goes on")


def _drain(commands: Any) -> None:
    command = _command(
        commands, "drain", "let a pool take no new calls, and wait until the others have ended", module="pool_commands"
    )
    command.add_argument("pool")
    command.add_argument("--timeout", type=seconds, metavar="S", help="wait no longer; it stays closed")


def _forgive(commands: Any) -> None:
    command = _command(
        commands, "forgive", "end the quarantine of a call that killed its workers", module="pool_commands"
    )
    command.add_argument("pool")
    command.add_argument("digest", help="as the PoisonCall error and `dspex status` name it")


def _events(commands: Any) -> None:
    command = _command(commands, "events", "print the last events, and with --follow the coming ones")
    command.add_argument("--follow", "-f", action="store_true", help="go on until interrupted")
    command.add_argument("--recent", type=count, metavar="N", help="at most N of the last events")
    command.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _optimize(commands: Any) -> None:
    command = _command(commands, "optimize", "optimize a program on the rows of a file, and save what is best")
    _program(command, of="of the whole job (default: none)", nargs="?")
    job_options.add_optimize(command)
    command.set_defaults(timeout=None)


def _jobs(commands: Any) -> None:
    command = _command(commands, "jobs", "list optimizations: of a running service, and of the folder of journals")
    job_options.add_jobs(command)


def _job(commands: Any) -> None:
    command = _command(commands, "job", "show, follow or cancel one optimization", module="jobs_command")
    job_options.add_job(command)


def _serve(commands: Any) -> None:
    command = _command(commands, "serve", "answer HTTP requests, or an MCP client's, with programs", finds=False)
    command.add_argument("programs", metavar="[NAME=]PROGRAM", nargs="+", help="package.module:Class, file.py:Class, "
                         "'question -> answer', or a saved program's file (.json)")  # fmt: skip
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens (127.0.0.1)")
    command.add_argument("--port", type=count, default=8000, metavar="N", help="(8000); 0 is any that is free")
    command.add_argument("--token-file", metavar="FILE", help="what requests must send as a bearer token; '-' is "
                         "standard input (default: $DSPEX_SERVE_TOKEN)")  # fmt: skip
    command.add_argument("--open", action="store_true", help="serve whoever reaches an address that is not loopback")
    command.add_argument("--mcp", action="store_true", help="serve them as MCP tools at /mcp too")
    command.add_argument("--mcp-stdio", action="store_true", help="as MCP tools on standard input and output instead")
    command.add_argument("--timeout", type=seconds, metavar="S", help="that a request may take at most (120)")
    command.add_argument("--budget-usd", type=float, metavar="N", help="dollars that a request may spend at most")
    command.add_argument("--budget-tokens", type=positive, metavar="N", help="tokens, likewise")
    command.add_argument("--budget-requests", type=positive, metavar="N", help="requests to models, likewise")
    command.add_argument("--request-limit", type=positive, metavar="N", help="requests at a time (1000)")
    command.add_argument("--batch-limit", type=positive, metavar="N", help="rows of a batch (100)")
    command.add_argument("--body-limit", type=positive, metavar="BYTES", help="of a request's body (1048576)")
    command.add_argument("--grace", type=seconds, metavar="S", help="for running requests at a stop (default: the "
                         "pool's)")  # fmt: skip
    command.add_argument("--init", action="append", default=[], metavar="NAME=VALUE", help="an argument of its "
                         "constructor; JSON, or else text; may be given several times")  # fmt: skip
    command.add_argument("--signature", metavar="TEXT", help="what a module takes and gives: 'question -> answer'")
    command.add_argument("--kind", metavar="KIND", help="of a signature: predict (the default), chain_of_thought, ...")
    command.add_argument("--lm", metavar="MODEL", help="the language model")
    command.add_argument("--adapter", metavar="NAME", help="chat, json, xml, ...")
    command.add_argument("--config", metavar="FILE", help="settings of its workers (default: $DSPEX_CONFIG)")
    command.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def _cache(commands: Any) -> None:
    command = _command(commands, "cache", "show or clear a cache file of language models' answers", finds=False)
    command.add_argument("action", choices=("stats", "clear"))
    command.add_argument("path", nargs="?", help="the file (default: the path of the settings' [cache] table)")
    command.add_argument("--config", metavar="FILE", help="the settings file")
    command.add_argument("--json", action="store_true", help="print JSON")


def _doctor(commands: Any) -> None:
    command = _command(commands, "doctor", "check this machine and its settings, with a remedy for each fault")
    command.add_argument("--config", metavar="FILE", help="settings file to check (default: $DSPEX_CONFIG)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--quick", action="store_true", help="leave out what imports DSPy (seconds)")


def _bench(commands: Any) -> None:
    def run(options: argparse.Namespace) -> int:
        if options.chaos:
            from .chaos_command import chaos

            return chaos(options)
        from .bench_command import bench

        return bench(options)

    command = _command(commands, "bench", "measure the call path on this machine, or what faults do", run, finds=False)
    command.add_argument("--json", action="store_true", help="print JSON")
    speed = command.add_argument_group("the call path")
    speed.add_argument("--seconds", type=seconds, default=2.0, metavar="S", help="for each figure (2)")
    speed.add_argument("--size", type=count, default=2, metavar="N", help="workers (2)")
    faults = command.add_argument_group("faults, beside other pools; those that are not installed are left out")
    faults.add_argument("--chaos", action="store_true", help="inject faults instead: minutes, not seconds")
    faults.add_argument("--quick", action="store_true", help="each fault once")
    faults.add_argument("--repeats", type=count, metavar="N", help="trials of each fault (5)")
    faults.add_argument("--cases", type=names, default=(), metavar="A,B", help="only these faults")
    faults.add_argument("--peers", type=names, default=(), metavar="A,B", help="only these pools")
