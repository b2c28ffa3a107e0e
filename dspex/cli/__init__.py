"""The `dspex` command: start a supervisor as a service, inspect and change a live one, check the machine.

One module per command, imported when it is used, so that `dspex --help` is quick. `exit_codes` lists what they return.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .exit_codes import FAILED, INTERRUPTED, NOT_RUNNING, OK, USAGE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on stderr, with --debug their traceback.

    Raises:
        SystemExit: the command line is wrong (2), or only help was asked for.
    """
    import click

    from .command_group import root
    from .shell_command import Said

    said = Said()
    if instruction := os.environ.get("_DSPEX_COMPLETE"):
        from .completion_command import complete

        return complete(instruction)
    try:
        with root.make_context("dspex", list(sys.argv[1:] if argv is None else argv), obj=said) as context:
            return root.invoke(context) or OK
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        sys.exit(_report(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return FAILED
    except Exception as error:  # a user of the command line sees one line; --debug shows all
        if said.is_debug:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    import click

    from ..errors import DspexError, NotRunning, SettingsError, Unresponsive
    from .command_refusal import told
    from .printing import print_error

    if isinstance(error, click.ClickException):
        print_error(told(error)) if not isinstance(error, click.exceptions.NoArgsIsHelpError) else error.show()
        return error.exit_code
    print_error(str(error) if isinstance(error, DspexError | OSError | ValueError) else repr(error))
    if isinstance(error, NotRunning | Unresponsive):
        return NOT_RUNNING
    return USAGE if isinstance(error, SettingsError) else FAILED
