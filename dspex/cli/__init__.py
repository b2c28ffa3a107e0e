"""The `dspex` command: start a supervisor as a service, inspect and change a live one, check the machine.

One module per command, imported when it is used, so that `dspex --help` is quick. `exit_codes` lists what they return.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .exit_codes import FAILED, INTERRUPTED, NOT_RUNNING, USAGE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on stderr, with --debug their traceback."""
    from .parser import parser

    options = parser().parse_args(argv)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return FAILED
    except Exception as error:  # a user of the command line sees one line; --debug shows all
        if options.debug:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from ..errors import DspexError, NotRunning, SettingsError, Unresponsive
    from .target import print_error

    print_error(str(error) if isinstance(error, DspexError | OSError | ValueError) else repr(error))
    if isinstance(error, NotRunning | Unresponsive):
        return NOT_RUNNING
    return USAGE if isinstance(error, SettingsError) else FAILED
