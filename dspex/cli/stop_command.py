"""`dspex stop`: end a supervisor, and wait until its process is gone."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import click

from ..control.command_client import DirectClient
from ..control.process_end import ProcessEnd
from ..control.process_identity import Life
from ..control.unreachable import explained
from ..errors import DspexError, NotRunning
from .exit_codes import FAILED, OK
from .option_types import SPAN
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target

PATIENCE = 30.0  # seconds for the end itself, beyond the grace
CLOSING = 1.0  # seconds that a process which has closed its socket takes to exit


@command("stop")
@target_options
@click.option("--grace", type=SPAN, metavar="S", help="For running calls (default: the pools').")
@click.option("--now", is_flag=True, help="End running calls; kill it if it does not answer.")
def stop(target: Target, grace: float | None, now: bool, as_json: bool) -> int:
    """Ask it to stop and wait; one that does not accept the request is signalled, with --now killed.

    The exit code is 0 only if it is known to have ended, without cutting a call as far as is known.
    """
    path = target.path
    grace = 0.0 if now else grace
    with ProcessEnd(path) as ending:
        try:
            wait = _ask(ending, path, grace)
        except Exception as error:  # whatever it is: the operator wants it stopped, not an error alone
            return _stop_by_signal(ending, error, grace=grace, now=now, as_json=as_json)
        return _report(ending, ending.wait(wait + PATIENCE), wait + PATIENCE, as_json=as_json)


def _ask(ending: ProcessEnd, path: Path, grace: float | None) -> float:
    """Ask it to stop; return how long its calls may go on."""
    with explained(path), DirectClient(path) as client:
        ending.identify(client.greeting, client.peer_pid)
        wait = _longest(client, grace)
        client.stop(grace)
        return wait


def _longest(client: DirectClient, grace: float | None) -> float:
    """Return how long its calls may go on: unknown graces are the pools' own, at most their deadlines."""
    if grace is not None:
        return grace
    limits = client.greeting.get("timeouts", {}).values()
    return max((limit for limit in limits if math.isfinite(limit)), default=3600.0)


def _report(ending: ProcessEnd, life: Life, waited: float, *, as_json: bool) -> int:
    run = ending.run
    who = f"{run.name} (pid {run.pid})" if run is not None else str(ending.path)
    if life is Life.ALIVE:
        raise DspexError(f"Supervisor {who} still runs after {waited:g} s; use --now.")
    if life is Life.UNKNOWN:
        raise DspexError(
            f"Supervisor {who} was asked to stop, and whether its process has ended cannot be told from here: "
            f"{ending.obstacle or 'it cannot be identified'}. Look where it was started."
        )
    cut = ending.calls_cut
    if cut is None and ending.has_record:
        _say(ending, f"stopped {who}, which did not record whether calls were cut: look into its log", as_json=as_json)
        return FAILED
    _say(ending, f"stopped {who}" + (f"; {cut} call(s) were running and have been cut" if cut else ""), as_json=as_json)
    return FAILED if cut else OK


def _say(ending: ProcessEnd, text: str, *, as_json: bool, by: str = "request") -> None:
    """Print what became of it; `by`: its request, or the signal that ended it."""
    if not as_json:
        print_line(text)
        return
    run = ending.run
    who = {"name": run.name, "pid": run.pid} if run is not None else {"name": None, "pid": None}
    print_json({**who, "socket": str(ending.path), "ended_by": by, "calls_cut": ending.calls_cut})


def _stop_by_signal(ending: ProcessEnd, error: Exception, *, grace: float | None, now: bool, as_json: bool) -> int:
    """It does not accept the request: signal exactly that process, through a descriptor that no other can have.

    Raises:
        Exception: `error`, if there is no process to signal.
    """
    run = ending.run
    if run is None or (ending.life is Life.GONE and isinstance(error, NotRunning)):
        raise error
    if isinstance(error, NotRunning) and ending.wait(CLOSING) is Life.GONE:  # it was about to end
        return _report(ending, Life.GONE, CLOSING, as_json=as_json)
    if run.kind == "embedded":
        raise DspexError(
            f"Process {run.pid} is a host application and did not accept the request to stop ({error}). End that "
            f"application itself."
        ) from error
    ending.signal(signal.SIGKILL if now else signal.SIGTERM)
    wait = PATIENCE + (0.0 if now else grace or 0.0)
    if ending.wait(wait) is not Life.GONE:
        raise DspexError(
            f"Process {run.pid} did not end within {wait:g} s of a signal ({error}); use --now."
        ) from error
    return _report_signalled(ending, error, now=now, as_json=as_json)


def _report_signalled(ending: ProcessEnd, error: Exception, *, now: bool, as_json: bool) -> int:
    run, cut = ending.run, ending.calls_cut
    who = f"{run.name} (pid {run.pid})" if run is not None else str(ending.path)
    if now:
        text = f"killed {who}, which did not accept the request to stop ({error}); calls that it ran are lost"
        _say(ending, text, as_json=as_json, by="SIGKILL")
        return FAILED
    text = f"stopped {who} by a signal ({error})" + (f"; {cut} call(s) have been cut" if cut else "")
    _say(ending, text, as_json=as_json, by="SIGTERM")
    return FAILED if cut is None or cut else OK
