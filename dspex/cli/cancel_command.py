"""`dspex cancel`: end one call."""

from __future__ import annotations

import click

from .exit_codes import FAILED, OK
from .printing import print_error, print_json, print_line
from .shared_options import command, target_options
from .target import Target


@command("cancel", more="Its caller gets CallCancelled. A worker that does not let go of it is replaced.")
@target_options
@click.argument("call", metavar="CALL", type=int, help="Its id, as `dspex calls` shows it.")
def cancel(target: Target, call: int, as_json: bool) -> int:
    """End it; 1 if there is no such call any more."""
    with target.connect() as client:
        was_there = client.cancel_call(call)
    if as_json:
        print_json({"call": call, "cancelled": was_there})
    elif was_there:
        print_line(f"call {call} is cancelled")
    else:
        print_error(f"no call {call} runs or waits: it has ended, or was cancelled before")
    return OK if was_there else FAILED
