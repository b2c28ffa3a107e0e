"""`dspex start`: run a supervisor as a service, in this terminal or in the background.

The main thread sits in `ServiceLoop.run`; it alone handles signals. This is the one place that installs signal
handlers and a log handler: the library does neither.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import Config, load
from ..control import run_files
from ..errors import SettingsError
from ..lm.redaction import redact
from .exit_codes import FAILED, OK, USAGE
from .option_types import POSITIVE, SPAN
from .printing import print_error, print_line
from .shared_options import command, gathered, target_options
from .target import Target

if TYPE_CHECKING:
    from ..pools.supervisor import Supervisor
    from ..services.running_jobs import WatchedJob

END_PATIENCE = 30.0  # seconds that a process in the background may take to end
REPORT_MOST = 2000  # characters of an error: whole in what a pipe takes at once

logger = logging.getLogger("dspex")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What `dspex start` is told; `report_fd`: where the command that started it waits for a word."""

    config: str | None
    lm: str | None
    foreground: bool
    grace: float | None
    max_clients: int | None
    http: int | None
    log_level: str
    report_fd: int
    as_json: bool
    target: Target


@command("start")
@target_options
@click.option("--config", metavar="FILE", type=click.Path(), help="Settings file (default: $DSPEX_CONFIG, else none).")
@click.option("--lm", metavar="MODEL", help="The default language model, such as openai/gpt-4o-mini.")
@click.option(
    "--foreground/--daemon",
    "foreground",
    default=True,
    help="Stay in this terminal (the default), or return once it is ready; then it logs to a file.",
)
@click.option("--grace", type=SPAN, metavar="S", help="For running calls at a stop (default: the pools').")
@click.option(
    "--max-clients", type=POSITIVE, metavar="N", help="Connected at once (default: [control] max_clients, else 64)."
)
@click.option(
    "--http",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="A port of 127.0.0.1 for /livez, /readyz and /metrics, 0 for a free one (default: [http] port, else none).",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--report-fd", type=int, default=-1, hidden=True)
@gathered(StartOptions, "options")
def start(options: StartOptions) -> int:
    """Run until told to stop; with --daemon, start such a process and wait until it is ready."""
    if not options.foreground:
        return _start_in_background(options)
    report = StartReport(options.report_fd)
    try:
        return _run(options, report)
    except BaseException as error:  # whoever started us waits for a word, also if this is SystemExit
        report.failed(error)
        raise


class StartReport:
    """Reports to the command that started us in the background; once at most."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self) -> bool:
        """Report success; False if the command that waits for it is gone."""
        return self._write({"ready": True, "pid": os.getpid()})

    def failed(self, error: BaseException) -> None:
        """Report the error and the exit code."""
        code = USAGE if isinstance(error, SettingsError) else FAILED
        self._write({"ready": False, "error": (str(error) or repr(error))[:REPORT_MOST], "code": code})

    def _write(self, facts: dict[str, Any]) -> bool:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return True
        try:
            os.write(descriptor, json.dumps(facts).encode())
        except OSError:  # the command was interrupted or killed
            return False
        finally:
            os.close(descriptor)
        return True


def _run(options: StartOptions, report: StartReport) -> int:
    from ..control.server import Service
    from ..pools.supervisor import Supervisor
    from ..programs.optimization.job_settings import job_settings
    from ..services.services import services_of
    from .process_memory import give_memory_back
    from .process_privacy import hide_from_workers
    from .service_loop import ServiceLoop
    from .stderr_log import logging_to_stderr

    hide_from_workers()
    give_memory_back()
    _fill_standard_descriptors()
    if options.report_fd >= 0:
        os.set_inheritable(options.report_fd, False)
    source = options.config or os.environ.get("DSPEX_CONFIG") or None
    config = load(source)
    most = _max_clients(config, options.max_clients)
    http = _http_port(config, options.http)
    jobs = job_settings(config.tables)  # what is wrong there is said now, not when a job begins
    supervisor = Supervisor(config)
    _provide_lm(supervisor, config, options.lm)
    path = options.target.path
    name = options.target.name or path.stem
    services_of(supervisor).jobs.starter = functools.partial(_start_job, supervisor)

    def ready() -> bool:
        if jobs.resumes:
            threading.Thread(target=_resume_jobs, args=(supervisor,), name="dspex-resume", daemon=True).start()
        if service.http is not None:
            logger.info("answering on %s", service.http.url)
        return report.ready()

    loop = ServiceLoop(supervisor, source=source, grace=options.grace, on_ready=ready)
    service = Service(
        supervisor, path, name=name, kind="service", on_stop=loop.ask_to_stop, max_clients=most, http=http
    )
    with logging_to_stderr(options.log_level):
        return loop.run(service)


def _start_job(supervisor: Supervisor, asked: Mapping[str, Any]) -> WatchedJob:
    """Start the job that a client asks for; what that needs is imported with the first."""
    from ..programs.optimization.served_jobs import started_for_client

    return started_for_client(supervisor, asked)


def _resume_jobs(supervisor: Supervisor) -> None:
    """Go on with what clients' jobs were at when the service ended."""
    try:
        from ..programs.optimization.served_jobs import resume_served

        if resumed := resume_served(supervisor):
            logger.info("optimizations go on from their journals: %s", ", ".join(resumed))
    except Exception as error:  # the service serves all the same
        logger.warning("optimizations do not go on: %s", redact(str(error) or repr(error)))


def _provide_lm(supervisor: Supervisor, config: Config, model: str | None) -> None:
    """Make the LM of --lm, or of the [lm] table, the default, and this supervisor the one that serves it."""
    from .. import defaults
    from ..services.services import services_of

    table = config.tables.get("lm")
    if model is None and table is not None and not (isinstance(table, dict) and "model" in table):
        raise SettingsError("The [lm] table needs a model, such as model = 'openai/gpt-4o-mini'.", key="lm.model")
    chosen = model if model is not None else table
    services = services_of(supervisor)  # the workers' way to LMs and tools is there with or without a default LM
    services.described_lms.policy = "named"  # what serves others asks only what its operator configured
    for lm in supervisor.lms.by_name.values():
        services.lm_record(lm)
    if chosen is not None:
        lm = defaults.as_lm(chosen, supervisor)
        defaults.configure(lm=lm, supervisor=supervisor)
        services.lm_record(lm)


def _max_clients(config: Config, wanted: int | None) -> int:
    """Return --max-clients, else what the [control] table says, else the default."""
    from ..control.connection_places import MAX_CLIENTS

    table = config.tables.get("control", {})
    if not isinstance(table, dict) or set(table) - {"max_clients"}:
        raise SettingsError("The [control] table has one setting: max_clients.", key="control")
    own = table.get("max_clients", MAX_CLIENTS)
    if isinstance(own, bool) or not isinstance(own, int) or own < 1:
        raise SettingsError(f"control.max_clients is {own!r}: it must be 1 or more.", key="control.max_clients")
    return own if wanted is None else wanted


def _http_port(config: Config, wanted: int | None) -> int | None:
    """Return --http, else what the [http] table says, else None: no port is opened."""
    table = config.tables.get("http", {})
    if not isinstance(table, dict) or set(table) - {"port"}:
        raise SettingsError("The [http] table has one setting: port.", key="http")
    if (port := table.get("port")) is not None:
        from ..telemetry.http_listener import checked_port

        port = checked_port(port)
    return port if wanted is None else wanted


def _fill_standard_descriptors() -> None:
    """Open what the shell closed (`<&-`): else a socket gets the number, and what is printed goes there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


# -- in the background -------------------------------------------------------------------------------------------------


def _start_in_background(options: StartOptions) -> int:
    """Start ourselves anew, detached, and wait for its report: no fork of a process that has threads or a terminal."""
    path = options.target.path
    run_files.private_directory(path.parent)
    log = path.with_suffix(".log")
    reading, writing = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    with os.fdopen(reading, "rb") as pipe:
        try:
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
    print_line(f"started pid {process.pid}, socket {path}, log {log}")
    process.returncode = 0  # it outlives us on purpose: no warning about a child that still runs
    return OK


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
    command = [sys.executable, "-m", "dspex.cli", "start", "--foreground", "--socket", str(path)]
    command += [
        "--name",
        options.target.name or path.stem,
        "--log-level",
        options.log_level,
        "--report-fd",
        str(report),
    ]
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


def _as_argument(option: str, value: Any) -> str:
    """Return how an option's value is written on a command line: seconds without an exponent."""
    if option == "--config":
        return str(Path(value).absolute())
    return f"{value:f}" if isinstance(value, float) else str(value)
