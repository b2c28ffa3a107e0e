"""`dspex.asgi`: programs as an ASGI application."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..errors import MissingDependency, SettingsError
from ..programs.calling.program import Program
from ..programs.saving.optimized import Optimized

if TYPE_CHECKING:
    from starlette.applications import Starlette

RESERVED: Final = frozenset({"livez", "readyz", "metrics", "mcp"})
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

Served = Program[Any] | Optimized[Any]


def asgi(
    programs: Served | Mapping[str, Served],
    /,
    *,
    token: str | None = None,
    timeout: float = 120.0,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    budget_requests: int | None = None,
    request_limit: int = 1000,
    batch_limit: int = 100,
    body_limit: int = 1024 * 1024,
    hosts: Collection[str] | None = None,
    mcp: bool = False,
    title: str = "DSPex programs",
    version: str = "1.0.0",
) -> Starlette:
    """Return an ASGI application that answers requests with programs: `POST /{name}` with the inputs as JSON.

    One program goes by its own name (of its class, signature or module); a mapping names several. There are also
    `POST /{name}/stream` (server-sent events), `POST /{name}/batch`, `GET /openapi.json`, `/livez`, `/readyz`,
    `/metrics`, and with `mcp=True` the same programs as tools at `/mcp`. Any ASGI server runs it (`uvicorn app:app`);
    its lifespan starts the workers that the programs need, and stops those that it started.

    Args:
        token: What requests send as `Authorization: Bearer TOKEN`, but for `/livez` and `/readyz`. None: nothing.
        timeout: Seconds that a request may take, and may ask for at most.
        budget_usd: Dollars that one request may spend, and may ask for at most; None: no bound. Prices must be known.
        budget_tokens: Tokens, likewise.
        budget_requests: Requests to language models, likewise.
        request_limit: How many requests run at a time; more are told to come again.
        batch_limit: Rows of one batch.
        body_limit: Bytes of a request's body.
        hosts: The names in the Host header that are answered; None: any.
        mcp: Serve the programs as MCP tools too; it needs the extra `mcp`.
        title: The title of the OpenAPI document.
        version: The version of what is served, as that document says it.

    Raises:
        MissingDependency: Starlette, or `mcp`, is not installed.
        SettingsError: a name, limit or token that cannot be, or a program whose types JSON cannot hold.
    """
    named = named_programs(programs)
    for key, value in (("request_limit", request_limit), ("batch_limit", batch_limit), ("body_limit", body_limit)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{key} is {value!r}; it is a whole number, 1 or more.", key=key)
    require_installed("starlette", "serve")
    if mcp:
        require_installed("mcp", "mcp")
    from .application import Settings, application
    from .call_limits import CallLimits

    calls = CallLimits(timeout, budget_usd, budget_tokens, budget_requests)
    names = None if hosts is None else frozenset(name.lower() for name in hosts)
    settings = Settings(calls, token, request_limit, batch_limit, body_limit, names, mcp, title, version)
    return application(named, settings)


def named_programs(programs: Served | Mapping[str, Served]) -> dict[str, Program[Any]]:
    """Return the programs by the names under which they are served.

    Raises:
        SettingsError: there is none, or a name that cannot be.
    """
    given: Mapping[str, Any] = programs if isinstance(programs, Mapping) else {own_name(programs): programs}
    if not given:
        raise SettingsError("There is no program to serve.", key="programs")
    return {_checked_name(name): _program(each) for name, each in given.items()}


def require_installed(package: str, extra: str) -> None:
    """Check that an optional package is there.

    Raises:
        MissingDependency: it is not.
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise MissingDependency(
            f"Serving programs needs {package}: pip install 'dspex[{extra}]'.", package=package, extra=extra
        )


def own_name(program: Any) -> str:
    """Return the name of a program that is given none: of its class, signature or module.

    Raises:
        SettingsError: it is no program.
    """
    found = _program(program)
    if not found.is_own and found.signature.name != "StringSignature":
        return str(found.signature.name)
    return found.name_shown.rpartition(":")[2].rpartition(".")[2]


def _program(given: Any) -> Program[Any]:
    found = given.program if isinstance(given, Optimized) else given
    if not isinstance(found, Program):
        raise SettingsError(
            f"What is served is a program, such as dspex.predictor(...) or dspex.module(...), not {given!r:.100}.",
            key="programs",
        )
    return found


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
        raise SettingsError(
            f"A program cannot be served as {name!r}: a name is a letter, then up to 63 letters, digits, - and _, and "
            f"none of {', '.join(sorted(RESERVED))}. Name it: dspex.asgi({{'qa': program}}).",
            key="programs",
        )
    return name
