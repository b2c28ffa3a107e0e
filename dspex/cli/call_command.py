"""`dspex call`: run one command on a worker of a live supervisor."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..control.call_request import StreamRequestOptions
from ..control.command_client import DirectStream
from ..errors import InvalidInput
from .exit_codes import OK, USAGE
from .target import connect_to_call, print_error, print_json


def call(options: argparse.Namespace) -> int:
    """Run it and print its result as JSON; chunks too with --stream. A --session is shared: other commands find it."""
    try:
        arguments = read_arguments(options.arguments)
    except InvalidInput as error:  # of the command line, not of a worker
        print_error(str(error))
        return USAGE
    chosen: StreamRequestOptions = {"session": options.session, "shared": True, "timeout": options.timeout}
    with connect_to_call(options) as client:
        if options.stream:
            _print_stream(client.stream(options.pool, options.command, arguments, **chosen))
        else:
            value = client.call(options.pool, options.command, arguments, idempotent=options.idempotent, **chosen)
            print_json(value)
    return OK


def _print_stream(stream: DirectStream) -> None:
    for chunk in stream:
        print_json({"chunk": chunk}, indent=None)
    print_json({"value": stream.value}, indent=None)


def read_arguments(words: list[str]) -> dict[str, Any]:
    """Return the arguments that the words of the command line mean.

    Raises:
        InvalidInput: they are neither one JSON object nor key=value pairs.
    """
    if len(words) == 1 and (words[0] == "-" or words[0].lstrip().startswith("{")):
        text = _stdin() if words[0] == "-" else words[0]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"The arguments are not valid JSON: {error}.") from None
        if not isinstance(value, dict):
            raise InvalidInput("The arguments must be one JSON object.")
        return value
    return dict(map(_pair, words))


def _stdin() -> str:
    if sys.stdin is None:  # the shell closed it, as with `<&-`
        raise InvalidInput("The arguments are to come from standard input, which is closed.")
    return sys.stdin.read()


def _pair(word: str) -> tuple[str, Any]:
    key, separator, text = word.partition("=")
    if not separator or not key:
        raise InvalidInput(f"{word!r} is neither key=value nor a JSON object.")
    try:
        return key, json.loads(text)
    except (ValueError, RecursionError):
        return key, text
