"""Start a service in the background: a detached process whose report this one waits for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from dspex_worker import launching

from ..config import load
from ..control import run_folders
from ..terminal_text import inert
from .exit_codes import FAILED, OK
from .printing import print_error, print_json, print_text
from .start_options import StartOptions
from .tables import prose

END_PATIENCE = 30.0  # seconds that a process in the background may take to end
_ROOT = str(Path(__file__).absolute().parents[2])


def start_in_background(options: StartOptions) -> int:
    """Start ourselves anew, detached, and wait for its report: no fork of a process that has threads or a terminal."""
    path = options.target.path
    run_folders.private_directory(path.parent)
    log = _log_of(options) or path.with_suffix(".log")
    reading, writing = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    with os.fdopen(reading, "rb") as pipe:
        try:
            with _signals_that_end_us():
                try:
                    process = _launch(options, path, log, writing)
                finally:
                    os.close(writing)
                report = pipe.read()  # until it is ready, has failed, or is gone
        except BaseException:  # also Ctrl-C: a service that nobody saw start must not stay
            if process is not None:
                _end_unready(process, log)
            raise
    assert process is not None
    facts: dict[str, Any] = json.loads(report) if report else {"ready": False}
    if not facts["ready"]:
        return _failed_in_background(process, facts, log)
    if options.as_json:
        print_json({"pid": process.pid, "socket": str(path), "log": str(log)})
    else:
        print_text(prose(inert(f"started pid {process.pid}, socket {path}, log {log}"), indent=2))
    process.returncode = 0  # it outlives us on purpose: no warning about a child that still runs
    return OK


@contextlib.contextmanager
def _signals_that_end_us() -> Generator[None]:
    """Have SIGTERM and SIGHUP raise, as SIGINT does: what is being started must not outlive the wish for it."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, old in before.items():
        if old is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _log_of(options: StartOptions) -> Path | None:
    from .log_file import LogSettings

    config = load(options.config or os.environ.get("DSPEX_CONFIG") or None)
    return LogSettings.of(config.tables, options.log_file).file


def _failed_in_background(process: subprocess.Popen[bytes], facts: dict[str, Any], log: Path) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_PATIENCE)
    if process.returncode is None:
        _end_unready(process, log)
    print_error(str(facts.get("error") or f"it ended at once ({_end_of(process.returncode)}); see {log}"))
    return int(facts.get("code", FAILED))


def _end_unready(process: subprocess.Popen[bytes], log: Path) -> None:
    """End a process that nobody waits for any more: it must not come up unseen."""
    process.terminate()
    try:
        process.wait(timeout=END_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    print_error(f"the supervisor that was starting (pid {process.pid}) has been ended; see {log}")


def _end_of(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _launch(options: StartOptions, path: Path, log: Path, report: int) -> subprocess.Popen[bytes]:
    command = launching.command(sys.executable, "dspex.cli", _folders())
    command += ["start", "--foreground", "--socket", str(path), "--name", options.target.name or path.stem]
    command += ["--log-file", str(log), "--log-level", options.log_level, "--report-fd", str(report)]
    for option in ("--config", "--lm", "--grace", "--max-clients", "--http"):
        if (value := getattr(options, option[2:].replace("-", "_"))) is not None:
            command += [option, _as_argument(option, value)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(log, flags, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            pass_fds=(report,),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def _folders() -> list[str]:
    """Return where this process looks for packages, in its order, but for the folder that it happens to be in."""
    here = {"", str(Path.cwd())}
    return [*dict.fromkeys([entry for entry in sys.path if entry not in here] + [_ROOT, *launching.ROOTS])]


def _as_argument(option: str, value: Any) -> str:
    """Return how an option's value is written on a command line: seconds without an exponent."""
    if option == "--config":
        return str(Path(value).absolute())
    return f"{value:f}" if isinstance(value, float) else str(value)
