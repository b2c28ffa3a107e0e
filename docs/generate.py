"""Writes the pages that are made from the code: settings, events and the tree of errors. `python docs/generate.py`.

The tests compare the committed pages with what this gives, so that they cannot drift.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from pathlib import Path
from typing import Any

from dspex import errors
from dspex.config import PoolConfig
from dspex.events import Event, Name
from dspex.router import NATIVE_MODULES, Reason

HERE = Path(__file__).parent
NOTE = "<!-- Generated from the code by docs/generate.py: do not edit. -->\n"


def settings_page() -> str:
    """Every pool setting with its defaults."""
    general, heavy = PoolConfig("dspy"), PoolConfig("mipro")
    rows = [
        f"| `{f.name}` | {_shown(f.name, getattr(general, f.name))} | {_same_or(f.name, general, heavy)} "
        f"| {f.metadata['text']}{' ⟳' if f.metadata['makes'] else ''} |"
        for f in dataclasses.fields(PoolConfig)
        if f.name != "name"
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            NOTE,
            "A pool is declared by `PoolConfig(name, **settings)`, or by a `[pools.<name>]` table of a TOML file that "
            "`Supervisor(path)`,",
            "`dspex.configure(config=path)` or `dspex start --config` reads. Arguments go over the environment, the "
            "environment over the file, the",
            "file over the defaults. In the environment `DSPEX_<POOL>_<SETTING>` sets one value (`DSPEX_DSPY_SIZE=8`);",
            "`DSPEX_CONFIG` names the file, `DSPEX_LM` the language model.",
            "",
            'Durations are seconds, or text such as "90s", "15min", "1h"; sizes are bytes, or text such as "512MiB", '
            '"2GiB".',
            'A pool whose bridge is "mipro" has the second column\'s defaults.',
            "",
            "Workers are made from the settings with ⟳: `Pool.reconfigure(config)` and a reload (SIGHUP) apply those",
            "by replacing the workers one by one, and the others at once.",
            "",
            "| setting | default `dspy` | default `mipro` | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
            "```toml",
            "[pools.dspy]",
            "size = 8",
            'imports = ["myapp.programs"]     # modules whose classes, metrics and tools may be named',
            "",
            "[pools.mipro]",
            'memory_cap = "4GiB"',
            "",
            "[lm]",
            'model = "openai/gpt-4o-mini"',
            "temperature = 0.2",
            "price = [0.15, 0.60]             # USD per million input and output tokens",
            "",
            "[budget]                         # of the whole process; see language-models.md",
            "usd = 20.0",
            "",
            "[control]                        # of the service that `dspex start` runs",
            "max_clients = 64",
            "```",
            "",
        ]
    )


def events_page() -> str:
    """Every event with its level."""
    rows = [f"| `{name.value}` | {logging.getLevelName(Event(name).level).lower()} |" for name in Name]
    return "\n".join(
        [
            "# Events",
            "",
            NOTE,
            "`sup.on_event(fn)` calls `fn(event)` on the events thread: `event.name`, `event.facts`, `event.time`, "
            "`event.level`.",
            'The same events go to the standard logger "dspex"; DSPex adds no handlers. No event holds a prompt, an '
            "input or a key.",
            "",
            "| event | level |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def errors_page() -> str:
    """The tree of errors, with what each means and whether to try again."""
    lines = ["# Errors", "", NOTE, inspect.getdoc(errors) or "", "", "| error | retry | means |", "|---|---|---|"]
    lines += _rows(errors.DspexError, 0)
    return "\n".join([*lines, ""])


def routes_page() -> str:
    """Every reason for a route, and which programs may be native at all."""
    rows = [f"| `Reason.{reason.name}` | {_route(reason)} | {reason.value} |" for reason in Reason]
    modules = ", ".join(f"`{name}`" for name in sorted(NATIVE_MODULES))
    return "\n".join(
        [
            "# Routes",
            "",
            NOTE,
            "`dspex.explain(kind, what, ...)` and `program.decision` give a `Decision`: `implementation` is",
            '"native" or "python", `pool` the pool of the latter, `reason` one of these, `detail` what it is about.',
            "It is made before a byte is sent, and nothing is tried on a second route afterwards. With",
            '`implementation="auto"` a program is native only if nothing below speaks against it; with "native" the',
            "same obstacles are a `SettingsError` that names them, except `FEEDBACK`, which is a preference.",
            "",
            f"Native at all are {modules}, and what asks one of them more than once ([programs.md](programs.md)).",
            "",
            "| reason | route | because |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _route(reason: Reason) -> str:
    return {Reason.NATIVE: "native", Reason.ASKED_FOR: "either", Reason.OPTIMIZER: "python, `mipro`"}.get(
        reason, "python"
    )


def _rows(cls: type[errors.DspexError], depth: int) -> list[str]:
    first = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    builtin = [base.__name__ for base in cls.__mro__[1:] if base.__module__ == "builtins"]
    also = f" (a `{builtin[0]}`)" if builtin and builtin[0] not in ("Exception", "BaseException", "object") else ""
    indent = "&nbsp;&nbsp;" * depth
    rows = [f"| {indent}`{cls.__name__}`{also} | {cls.retryable} | {first} |"]
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            rows += _rows(child, depth + 1)
    return rows


def _same_or(name: str, general: PoolConfig, heavy: PoolConfig) -> str:
    mine, theirs = _shown(name, getattr(general, name)), _shown(name, getattr(heavy, name))
    return "same" if mine == theirs else theirs


def _shown(name: str, value: Any) -> str:
    if name == "python":
        return "this interpreter"
    if value is None or value == () or value == {}:
        return "none"
    if name.endswith(("cap", "memory")):
        return f"{value / 2**20:.0f} MiB"
    if isinstance(value, float):
        return f"{value:g} s"
    return f"`{value!r}`" if isinstance(value, str) else str(value)


PAGES = {
    "settings.md": settings_page,
    "events.md": events_page,
    "errors.md": errors_page,
    "routes.md": routes_page,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
