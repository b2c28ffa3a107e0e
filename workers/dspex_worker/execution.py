"""Run a call's command and write its reply. On whichever thread runs the call; see `LeaderFollower`."""

from __future__ import annotations

import contextlib
from typing import Any

from .bridge import Command
from .context import running_context
from .error_report import describe
from .failure import Failure
from .frame_writer import FrameWriter
from .memory import rlimits
from .running_call import RunningCall
from .wire.messages import Kind


def execute(running: RunningCall, writer: FrameWriter) -> None:
    """Run the command to its end, and send the one final message of its call."""
    kind, body = _outcome(running)
    if kind != Kind.ERROR:
        try:
            frame = writer.frame(kind, running.id, body, running.session_notes())
        except Exception as error:  # also what another thread does to the value meanwhile
            if isinstance(error, MemoryError):
                rlimits.open_reserve()
            body = error
        else:
            writer.write(frame)
            return
    _send_error(running, writer, body)


def _outcome(running: RunningCall) -> tuple[Kind, Any]:
    token = running_context.set(running.context)
    try:
        value = _run_command(running)
        return (Kind.END if running.command.is_stream else Kind.RESULT), value
    except BaseException as error:  # whatever user code raises is an answer, also SystemExit and RecursionError
        running.user_code.leave()
        if rlimits.is_exhausted(error):
            rlimits.open_reserve()
        return Kind.ERROR, error
    finally:
        running_context.reset(token)


def _run_command(running: RunningCall) -> Any:
    running.user_code.enter()
    try:
        produced = running.command.function(running.context, **running.arguments)
    except TypeError as error:
        raise _explained(error, running.command) from None
    finally:
        running.user_code.leave()
    return _drain(running, produced) if running.command.is_stream else produced


def _explained(error: TypeError, command: Command) -> Exception:
    """Return the failure for wrong arguments, or the TypeError that the command's own code raised."""
    if error.__traceback__ is not None and error.__traceback__.tb_next is None:
        return Failure("InvalidInput", f"command {command.name!r} does not take these arguments: {error}")
    return error


def _drain(running: RunningCall, stream: Any) -> Any:
    """Send what the generator yields, at the consumer's pace, and return what it returns."""
    try:
        while True:
            running.user_code.enter()
            try:
                chunk = next(stream)
            finally:
                running.user_code.leave()
            running.send_chunk(chunk)
    except StopIteration as end:
        return end.value
    finally:
        stream.close()


def _send_error(running: RunningCall, writer: FrameWriter, error: BaseException) -> None:
    notes: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # the first error is the one to report
        notes.update(running.session_notes() or {})
    if rlimits.is_exhausted(error):
        notes["retire"] = "memory"  # what it left half done is anybody's guess
    elif running.user_code.was_interrupted and not running.command.cancel_safe:
        notes["retire"] = "interrupted"  # it may have left a lock held
    writer.send(Kind.ERROR, running.id, describe(error, running.secrets), notes or None)
