"""`dspex serve`: answer HTTP requests, or an MCP client's, with programs, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .. import defaults
from ..config import PoolConfig
from ..control import connect
from ..errors import InvalidInput, SettingsError, SignatureError, UnknownName
from ..programs.options.routing import GENERAL_POOL
from .command_refusal import refused
from .exit_codes import FAILED, OK
from .option_types import AMOUNT, POSITIVE, SPAN
from .printing import print_json, print_line
from .program_choice import PROGRAM, ProgramChoice
from .shared_options import command, gathered
from .shell_program import find_modules_of, named_program, own_settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ..programs.calling.program import Program

TOKEN_VARIABLE: Final = "DSPEX_SERVE_TOKEN"
TOKEN_MOST: Final = 4096  # bytes of a file with a token
_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(ProgramChoice):
    """What `dspex serve` is told; `timeout` is the most that a request may take."""

    program: str | None = None
    programs: tuple[str, ...]
    host: str
    port: int
    token_file: str | None
    open: bool
    mcp: bool
    mcp_stdio: bool
    budget_usd: float | None
    budget_tokens: int | None
    budget_requests: int | None
    request_limit: int | None
    batch_limit: int | None
    body_limit: int | None
    grace: float | None
    connect: str | None
    log_level: str
    as_json: bool


@command("serve", more="With --json it prints where it listens as JSON.")
@click.argument("programs", metavar="[NAME=]PROGRAM...", nargs=-1, required=True, help=PROGRAM)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where it listens (default: 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, metavar="N", help="Default: 8000; 0 is any that is free."
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="What requests must send as a bearer token; '-' is standard input (default: $DSPEX_SERVE_TOKEN).",
)
@click.option("--open", is_flag=True, help="Serve whoever reaches an address that is not loopback.")
@click.option("--mcp", is_flag=True, help="Serve them as MCP tools at /mcp too.")
@click.option("--mcp-stdio", is_flag=True, help="As MCP tools on standard input and output instead.")
@click.option("--timeout", type=SPAN, metavar="S", help="That a request may take at most (default: 120).")
@click.option("--budget-usd", type=AMOUNT, metavar="N", help="Dollars that a request may spend at most.")
@click.option("--budget-tokens", type=POSITIVE, metavar="N", help="Tokens, likewise.")
@click.option("--budget-requests", type=POSITIVE, metavar="N", help="Requests to models, likewise.")
@click.option("--request-limit", type=POSITIVE, metavar="N", help="Requests at a time (default: 1000).")
@click.option("--batch-limit", type=POSITIVE, metavar="N", help="Rows of a batch (default: 100).")
@click.option("--body-limit", type=POSITIVE, metavar="BYTES", help="Of a request's body (default: 1048576).")
@click.option("--grace", type=SPAN, metavar="S", help="For running requests at a stop (default: the pool's).")
@click.option(
    "--init",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument of its constructor; JSON, or else text; may be given several times.",
)
@click.option("--signature", metavar="TEXT", help="What a module takes and gives: 'question -> answer'.")
@click.option("--kind", metavar="KIND", help="Of a signature: predict (the default), chain_of_thought, ...")
@click.option("--lm", metavar="MODEL", help="The language model.")
@click.option("--adapter", metavar="NAME", help="Chat, json, xml, ...")
@click.option(
    "--connect", metavar="NAME", help="Run them by the workers and language models of the running service of this name."
)
@click.option("--config", metavar="FILE", type=click.Path(), help="Settings of its workers (default: $DSPEX_CONFIG).")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", help="Default: info."
)
@gathered(ServeOptions, "options")
def serve(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT; 0 if every request that ran then came to its end."""
    from ..serving.asgi import require_installed
    from .process_privacy import hide_from_workers
    from .stderr_log import logging_to_stderr

    require_installed("starlette", "serve")
    require_installed("uvicorn", "serve")
    hide_from_workers()
    with logging_to_stderr(options.log_level), _workers(options):
        try:
            programs = _programs(options)
        except (InvalidInput, SignatureError, UnknownName) as error:
            raise refused(error) from error
        if options.mcp_stdio:
            return _serve_stdio(_application(options, programs, token=None, hosts=None, mcp=True))
        return _serve_http(options, programs)


def _serve_http(options: ServeOptions, programs: dict[str, Program[Any]]) -> int:
    from ..serving.access_gate import LOOPBACK
    from ..serving.http_server import address_of, bound
    from ..serving.http_server import serve as serve_http

    token = _token(options)
    is_local = _is_loopback(options.host)
    if token is None and not is_local and not options.open:
        raise SettingsError(
            f"Whoever reaches port {options.port} of {options.host} could ask the programs, at your cost. Set "
            f"{TOKEN_VARIABLE}, or give --token-file FILE; --open serves everybody.",
            key="token",
        )
    hosts = LOOPBACK if token is None and is_local else None
    app = _application(options, programs, token=token, hosts=hosts, mcp=options.mcp)
    with contextlib.closing(bound(options.host, options.port)) as listener:
        address = address_of(listener)

        def told() -> None:
            if options.as_json:
                print_json({"programs": [*programs], "address": address, "pid": os.getpid()}, indent=None)
            else:
                print_line(f"serving {', '.join(programs)} at {address}, pid {os.getpid()}")

        cut = serve_http(app, listener, grace=_grace(options), on_ready=told)
    return FAILED if cut else OK


def _serve_stdio(app: Starlette) -> int:
    async def run() -> None:
        async with app.router.lifespan_context(app):
            await app.state.tools.serve_stdio()

    asyncio.run(run())
    return OK


def _application(options: ServeOptions, programs: dict[str, Program[Any]], **how: Any) -> Starlette:
    from ..serving.asgi import asgi

    names = ("budget_usd", "budget_tokens", "budget_requests", "request_limit", "batch_limit", "body_limit")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.timeout is not None:
        given["timeout"] = options.timeout
    return asgi(programs, **given, **how)


@contextlib.contextmanager
def _workers(options: ServeOptions) -> Generator[None]:
    """Use a service's workers in the block, or some of this command's own: these live as long as the application."""
    if options.connect is not None:
        if options.config is not None:
            raise SettingsError(
                "--config is for workers of this command's own: a service has its settings.", key="config"
            )
        with connect(name=options.connect) as client:
            defaults.configure(supervisor=client, lm=options.lm)
            yield
        return
    defaults.configure(config=own_settings(options, None), lm=options.lm)
    try:
        yield
    finally:
        defaults.stop_default_supervisor()
        defaults.release_client()


def _programs(options: ServeOptions) -> dict[str, Program[Any]]:
    """Return the programs by the names under which they are served."""
    from ..serving.asgi import own_name

    if len(options.programs) > 1 and (options.init or options.kind or options.signature):
        raise InvalidInput("--init, --kind and --signature are for one program: give each of them a server of its own.")
    found: dict[str, Program[Any]] = {}
    for text in options.programs:
        named = _NAMED.fullmatch(text)
        what = named[2] if named else text
        find_modules_of(what)
        program = named_program(dataclasses.replace(options, program=what, timeout=None))
        name = named[1] if named else own_name(program)
        if name in found:
            raise InvalidInput(f"Two programs would be served as {name!r}: write NAME={what}.")
        found[name] = program
    return found


def _token(options: ServeOptions) -> str | None:
    """Return the token of a file, or of the environment: a command line is there for all to see."""
    from ..serving.access_gate import checked_token

    if options.token_file is None:
        given = os.environ.get(TOKEN_VARIABLE)
        return None if given is None else checked_token(given)
    if options.token_file == "-":
        data = sys.stdin.buffer.readline(TOKEN_MOST + 1)
    else:
        with Path(options.token_file).open("rb") as file:
            data = file.read(TOKEN_MOST + 1)
    if len(data) > TOKEN_MOST:
        raise SettingsError(f"The file of the token has more than {TOKEN_MOST:,} bytes.", key="token")
    return checked_token(data.decode("ascii", "replace"))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _grace(options: ServeOptions) -> float:
    """Return --grace, else the grace of the pool that runs programs, which a service keeps to itself."""
    if options.grace is not None:
        return float(options.grace)
    if options.connect is not None:
        return PoolConfig(GENERAL_POOL).stop_grace
    pools = own_settings(options, None).pools
    return next(float(pool.stop_grace) for pool in pools if pool.name == GENERAL_POOL)
