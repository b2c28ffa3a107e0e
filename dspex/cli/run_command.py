"""`dspex run`: run a program once, by workers of this command's own or by those of a running service."""

from __future__ import annotations

import contextlib

import click

from ..errors import InvalidInput, SettingsError, SignatureError, UnknownName
from .chosen_program import chosen_program
from .command_refusal import refused
from .named_values import read_words
from .outputs import print_result, print_stream
from .program_choice import ProgramChoice, program_options
from .shared_options import command

MISSING_LM = " Name one with --lm MODEL or the variable DSPEX_LM."
REFUSED = (InvalidInput, SignatureError, UnknownName)  # while a program is made: the command line is wrong


@command("run")
@program_options
@click.argument(
    "inputs",
    nargs=-1,
    metavar="[NAME=VALUE]...",
    help="Text, or JSON where the input is no text; NAME:=JSON; NAME=@FILE; NAME=- is standard input; or one JSON "
    "object, or '-'.",
)
@click.option("--stream", is_flag=True, help="Print the fields as they arrive.")
def run(choice: ProgramChoice, inputs: tuple[str, ...], stream: bool, as_json: bool) -> None:
    """Run it and print what it returns, on standard output alone."""
    with contextlib.ExitStack() as stack:
        try:
            words = read_words(inputs)
            program = stack.enter_context(chosen_program(choice))
        except REFUSED as error:
            raise refused(error) from error
        rules = program.rules
        try:
            values = rules.read(words)
        except InvalidInput as error:
            raise refused(error) from error
        try:
            if stream:
                print_stream(program.stream(values), as_json=as_json, is_single=rules.is_single)
            else:
                print_result(program.call(values), as_json=as_json)
        except SettingsError as error:
            raise refused(error, MISSING_LM if error.key == "lm" else "") from error
