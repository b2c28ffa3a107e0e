"""The `dspex` command: start a supervisor as a service, look into a live one, change it, check the machine.

One module per command, imported when it is used, so that `dspex --help` is quick. Exit codes: 0 it is well, 1 it is
not (or the call failed), 2 the command line or the settings are wrong, 3 no supervisor answers, 4 it is still starting.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

OK, FAILED, USAGE, NOBODY, STARTING = range(5)
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; errors are one line on stderr, with --debug their traceback."""
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
    from .target import say_error

    say_error(str(error) if isinstance(error, DspexError | OSError | ValueError) else repr(error))
    if isinstance(error, NotRunning | Unresponsive):
        return NOBODY
    return USAGE if isinstance(error, SettingsError) else FAILED
