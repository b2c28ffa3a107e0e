"""`dspex run`: run a program once, by workers of this command's own or by those of a running service."""

from __future__ import annotations

import argparse
import contextlib

from ..errors import InvalidInput, SettingsError, SignatureError, UnknownName
from .chosen_program import chosen_program
from .exit_codes import OK, USAGE
from .named_values import read_words
from .outputs import print_result, print_stream
from .target import print_error

MISSING_LM = " Name one with --lm MODEL or the variable DSPEX_LM."
REFUSED = (InvalidInput, SignatureError, UnknownName)  # while a program is made: the command line is wrong


def run(options: argparse.Namespace) -> int:
    """Run it and print what it returns, on standard output alone."""
    with contextlib.ExitStack() as stack:
        try:
            words = read_words(options.inputs)
            program = stack.enter_context(chosen_program(options))
        except REFUSED as error:
            return refused(options, error)
        rules = program.rules
        try:
            inputs = rules.read(words)
        except InvalidInput as error:
            return refused(options, error)
        try:
            if options.stream:
                print_stream(program.stream(inputs), as_json=options.json, is_single=rules.is_single)
            else:
                print_result(program.call(inputs), as_json=options.json)
        except SettingsError as error:
            return refused(options, error, MISSING_LM if error.key == "lm" else "")
    return OK


def refused(options: argparse.Namespace, error: Exception, more: str = "") -> int:
    """Print what is wrong with the command line or the settings; return the exit code. With --debug raise it."""
    if options.debug:
        raise error
    print_error(f"{str(error).splitlines()[0]}{more}")  # what follows shows a place in a text that is before their eyes
    return USAGE
