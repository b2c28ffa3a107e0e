"""`dspex call`: run one command on a worker of a live supervisor."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..control.call_request import StreamRequestOptions
from ..control.command_client import DirectStream
from ..errors import InvalidInput
from .command_refusal import refused
from .completions import pool_names
from .printing import print_json, print_text
from .shared_options import command, target_options, timeout_option
from .tables import table
from .target import Target


@command("call", more="Without a command it lists those of the pool, with their arguments.")
@target_options
@click.argument("pool", metavar="POOL", help="The pool's name.", shell_complete=pool_names)
@click.argument("name_of_command", metavar="[COMMAND]", required=False, help="The command's name.")
@click.argument(
    "words",
    metavar="[JSON | key=value]...",
    nargs=-1,
    help="One JSON object ('-': from stdin), or key=value pairs whose values are JSON, or else text.",
)
@click.option("--session", metavar="ID", help="In this session, which outlives the command.")
@timeout_option("Deadline (default: the pool's call_timeout).")
@click.option("--idempotent", is_flag=True, help="Run it once more if its worker dies.")
@click.option("--stream", is_flag=True, help="Print chunks as they come, a JSON object a line.")
def call(
    target: Target,
    pool: str,
    name_of_command: str | None,
    words: tuple[str, ...],
    session: str | None,
    timeout: float | None,
    idempotent: bool,
    stream: bool,
    as_json: bool,
) -> None:
    """Run it and print its result as JSON; chunks too with --stream. A --session is shared: other commands find it."""
    if name_of_command is None:
        _list_commands(target, pool, timeout, as_json=as_json)
        return
    try:
        arguments = read_arguments(words)
    except InvalidInput as error:  # of the command line, not of a worker
        raise refused(error) from error
    chosen: StreamRequestOptions = {"session": session, "shared": True, "timeout": timeout}
    with target.connect_to_call() as client:
        if stream:
            _print_stream(client.stream(pool, name_of_command, arguments, **chosen))
        else:
            print_json(client.call(pool, name_of_command, arguments, idempotent=idempotent, **chosen))


def _list_commands(target: Target, pool: str, timeout: float | None, *, as_json: bool) -> None:
    with target.connect_to_call() as client:
        rows = client.call(pool, "commands", {}, timeout=timeout)
    if as_json:
        print_json(rows)
        return
    print_text(table(("command", "arguments", "what it does"), [_described(row) for row in rows]))


def _described(row: dict[str, Any]) -> tuple[str, str, str]:
    words = [one["name"] + ("" if one["name"].startswith("*") else "=") for one in row["arguments"]]
    shown = [
        f"{word}{one['type'] or '...'}" if one["needed"] else f"[{word}{one['default'] or ''}]"
        for word, one in zip(words, row["arguments"], strict=True)
    ]
    return row["name"], " ".join(shown) or "-", f"{row['about']}{' (streams)' if row['stream'] else ''}".strip()


def _print_stream(stream: DirectStream) -> None:
    for chunk in stream:
        print_json({"chunk": chunk}, indent=None)
    print_json({"value": stream.value}, indent=None)


def read_arguments(words: Sequence[str]) -> dict[str, Any]:
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
