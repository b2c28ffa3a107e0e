"""`dspex start`: run a supervisor as a service, in this terminal or in the background.

The main thread sits in `ServiceLoop.run`; it alone handles signals. This is the one place that installs signal
handlers and a log handler: the library does neither.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dspex_worker.process_title import set_title

from ..config import Config, load
from ..errors import SettingsError
from ..lm.redaction import redact
from .background_start import start_in_background
from .option_types import POSITIVE, SPAN
from .printing import print_json
from .shared_options import command, gathered, target_options
from .start_options import StartOptions
from .start_report import StartReport

if TYPE_CHECKING:
    from ..pools.supervisor import Supervisor
    from ..services.running_jobs import WatchedJob

logger = logging.getLogger("dspex")


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
@click.option("--log-file", metavar="PATH", type=click.Path(), help="Log there, not to standard error; see [log].")
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
        return start_in_background(options)
    report = StartReport(options.report_fd)
    try:
        return _run(options, report)
    except BaseException as error:  # whoever started us waits for a word, also if this is SystemExit
        report.failed(error)
        raise


def _run(options: StartOptions, report: StartReport) -> int:
    from ..control.server import Service
    from ..pools.supervisor import Supervisor
    from ..programs.optimization.job_settings import job_settings
    from ..services.services import services_of
    from .beginning import Beginning
    from .control_settings import has_socket, http_port, max_clients
    from .environment_names import strange_variables
    from .log_file import LogFile, LogSettings
    from .process_memory import give_memory_back
    from .process_privacy import hide_from_workers
    from .service_loop import ServiceLoop, hangup_action
    from .stderr_log import logging_to, stderr_handler

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is a log to open anew
    beginning = Beginning()
    hide_from_workers()
    give_memory_back()
    _fill_standard_descriptors()
    if options.report_fd >= 0:
        os.set_inheritable(options.report_fd, False)
    source = options.config or os.environ.get("DSPEX_CONFIG") or None
    config = load(source)
    most = max_clients(config.tables, options.max_clients)
    log = LogSettings.of(config.tables, options.log_file)
    http = http_port(config.tables, options.http)
    jobs = job_settings(config.tables)  # what is wrong there is said now, not when a job begins
    supervisor = Supervisor(config)
    _provide_lm(supervisor, config, options.lm)
    path = options.target.path
    name = options.target.name or path.stem
    set_title(f"dspex: supervisor {name}")
    services_of(supervisor).jobs.starter = functools.partial(_start_job, supervisor)

    def ready() -> bool:
        if jobs.resumes:
            threading.Thread(target=_resume_jobs, args=(supervisor,), name="dspex-resume", daemon=True).start()
        if options.as_json:
            print_json({"pid": os.getpid(), "name": name, "socket": str(path)}, indent=None)
        if service is not None and service.http is not None:
            logger.info("answering on %s", service.http.url)
        return report.ready()

    handler = stderr_handler() if log.file is None else LogFile(log, log.file)
    loop = ServiceLoop(
        supervisor,
        source=source,
        grace=options.grace,
        on_ready=ready,
        hangup=hangup_action(is_daemon=options.report_fd >= 0),
        reopen_log=handler.reopen if isinstance(handler, LogFile) else None,
    )
    service = None
    if has_socket(config.tables):
        service = Service(
            supervisor,
            path,
            name=name,
            kind="service",
            on_stop=loop.ask_to_stop,
            on_restart=loop.ask_to_restart,
            max_clients=most,
            http=http,
        )
    with logging_to(handler, options.log_level):
        for variable in strange_variables(pool.name for pool in config.pools):
            logger.warning("%s", variable)
        code = loop.run(service)
    if loop.wants_restart:
        beginning.again()
    return code


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


def _fill_standard_descriptors() -> None:
    """Open what the shell closed (`<&-`): else a socket gets the number, and what is printed goes there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
