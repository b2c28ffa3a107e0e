"""`dspex init`: write a settings file in which every setting stands, commented, with its default."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import SettingsError
from .printing import print_json, print_line
from .shared_options import command

MODEL = "openai/gpt-4o-mini"


@command("init", more="It overwrites nothing unless told to.")
@click.argument("file", default="dspex.toml", metavar="[FILE]", type=click.Path(), help="Default: dspex.toml.")
@click.option("--lm", metavar="MODEL", default=MODEL, help=f"The default language model (default: {MODEL}).")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(file: str, lm: str, force: bool, as_json: bool) -> None:
    """Write it, and say what comes next."""
    write_new(Path(file), settings_text(lm), force=force)
    if as_json:
        print_json({"file": file})
        return
    steps = (f"dspex config check {file}", f"dspex start --config {file} --daemon", "dspex call dspy")
    print_line(f"wrote {file}; next:" + "".join(f"\n  {step}" for step in steps))


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file that is not there yet, whole or not at all.

    Raises:
        SettingsError: it is there, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        raise SettingsError(f"There is a file {str(path)!r} already: --force writes over it.", key="file") from None
    except OSError as error:
        raise SettingsError(f"{str(path)!r} cannot be written: {error.strerror}.", key="file") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)


def settings_text(model: str = MODEL) -> str:
    """Return the file's text: what is commented shows the default."""
    import dataclasses
    import json

    from ..config import PoolConfig
    from .toml_text import toml_value

    pool = PoolConfig("dspy")
    lines = []
    for one in dataclasses.fields(PoolConfig):
        if one.name in ("name", "size", "concurrency"):
            continue
        value = getattr(pool, one.name)
        shown = toml_value(value) if value is not None else '"none"'
        if one.name == "python":
            shown = '"/path/to/venv/bin/python"'
        lines.append(f"# {one.name} = {shown}".ljust(36) + f"  # {one.metadata['text']}")
    return TEXT.format(size=pool.size, concurrency=pool.concurrency, model=json.dumps(model), settings="\n".join(lines))


TEXT = """\
# Settings of DSPex. What is commented out shows the default; `dspex config check` finds what is wrong,
# `dspex config show` says what is in force. DSPEX_DSPY_SIZE=8 in the environment overrides `size` below.

[pools.dspy]
size = {size}                             # workers
concurrency = {concurrency}                      # calls in flight in one worker
{settings}

# [pools.mipro]                      # a pool for optimizers: few workers, much memory
# memory_cap = "4GiB"

[lm]
model = {model}
# api_key = "..."                    # or the provider's variable, such as OPENAI_API_KEY
# temperature = 0.2
# price = [0.15, 0.60]               # USD per million input and output tokens

# [lms.strong]                       # another, for lm="strong"
# model = "openai/gpt-4o"

# [budget]                           # for the whole process
# usd = 20.0

# [cache]                            # answers of language models, kept in a file
# path = "answers.db"
# most_disk_bytes = 1_000_000_000

# [jobs]                             # optimizations keep a journal there
# folder = "jobs"
# resume = true

# [control]                          # of the service that `dspex start` runs
# max_clients = 64
"""
