"""`dspex start`: a supervisor as a service, in this terminal or in the background.

The main thread sits in `Host.run`; it alone handles signals. This is the one place that installs signal handlers and a
log handler: the library does neither.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config, load
from ..control import runfiles
from ..errors import SettingsError
from .finding import print_line, socket_of

if TYPE_CHECKING:
    from ..pools.supervisor import Supervisor


def start(options: argparse.Namespace) -> int:
    """Run until told to stop; with --daemon, start such a process and wait until it is ready."""
    if options.daemon:
        return _start_in_background(options)
    report = Report(options.report_fd)
    try:
        return _run(options, report)
    except BaseException as error:
        report.failed(error)
        raise


class Report:
    """Tells the process that started us in the background how it went; writes at most once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self) -> None:
        self._write({"ready": True, "pid": os.getpid()})

    def failed(self, error: BaseException) -> None:
        code = 2 if isinstance(error, SettingsError) else 1
        self._write({"ready": False, "error": str(error) or repr(error), "code": code})

    def _write(self, facts: dict[str, Any]) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.write(descriptor, json.dumps(facts).encode()[:60_000])
            os.close(descriptor)


def _run(options: argparse.Namespace, report: Report) -> int:
    from ..control.service import Service
    from ..pools.supervisor import Supervisor
    from .hosting import Host

    if options.report_fd >= 0:
        os.set_inheritable(options.report_fd, False)
    source = options.config or os.environ.get("DSPEX_CONFIG") or None
    config = load(source)
    supervisor = Supervisor(config)
    _provide_lm(supervisor, config, options.lm)
    path = socket_of(options)
    name = options.name or path.stem
    host = Host(supervisor, source=source, grace=options.grace, on_ready=report.ready)
    service = Service(supervisor, path, name=name, kind="service", on_stop=host.ask_to_stop)
    with _logging_to_stderr(options.log_level):
        return host.run(service)


def _provide_lm(supervisor: Supervisor, config: Config, model: str | None) -> None:
    """Make the LM of --lm, or of the [lm] table, the default, and this supervisor the one that serves it."""
    from .. import defaults
    from ..services import services_of

    table = config.tables.get("lm")
    if model is None and table is not None and not (isinstance(table, dict) and "model" in table):
        raise SettingsError("The [lm] table needs a model, such as model = 'openai/gpt-4o-mini'.", key="lm.model")
    chosen = model if model is not None else table
    services = services_of(supervisor)  # the workers' way to LMs and tools is there with or without a default LM
    if chosen is not None:
        lm = defaults.as_lm(chosen)
        defaults.configure(lm=lm, supervisor=supervisor)
        services.lm_record(lm)


@contextlib.contextmanager
def _logging_to_stderr(level: str) -> Iterator[None]:
    logger = logging.getLogger("dspex")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


# -- in the background -------------------------------------------------------------------------------------------------


def _start_in_background(options: argparse.Namespace) -> int:
    """Start ourselves anew, detached, and wait for its word: no fork of a process that has threads or a terminal."""
    path = socket_of(options)
    runfiles.private_directory(path.parent)
    log = path.with_suffix(".log")
    reading, writing = os.pipe()
    try:
        process = _launch(options, path, log, writing)
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()  # until it is ready, has failed, or is gone
    facts: dict[str, Any] = (
        json.loads(said) if said else {"ready": False, "error": f"it ended at once; see {log}", "code": 1}
    )
    if facts["ready"]:
        print_line(f"started pid {process.pid}, socket {path}, log {log}")
        process.returncode = 0  # it outlives us on purpose: no warning about a child that still runs
        return 0
    sys.stderr.write(f"dspex: {facts['error']}\n")
    process.wait(timeout=30.0)
    code: int = facts["code"]
    return code


def _launch(options: argparse.Namespace, path: Path, log: Path, report: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dspex.cli", "start", "--foreground", "--socket", str(path)]
    command += ["--name", options.name or path.stem, "--log-level", options.log_level, "--report-fd", str(report)]
    for option, value in (("--config", options.config), ("--lm", options.lm), ("--grace", options.grace)):
        if value is not None:
            command += [option, _word(option, value)]
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


def _word(option: str, value: Any) -> str:
    """How an option's value is written on a command line: seconds without an exponent."""
    if option == "--config":
        return str(Path(value).absolute())
    return f"{value:f}" if isinstance(value, float) else str(value)
