"""`dspex new`: write a bridge, or a web service, with tests that pass."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import InvalidInput
from .command_refusal import refused
from .new_project import BRIDGE, SERVICE, write_project
from .printing import print_json, print_line
from .shared_options import command, group

new = group("new")


@command("bridge", of=new, summary="write a bridge, a script whose commands run in workers, with its tests")
@click.argument("name", metavar="NAME", help="The bridge's name: letters, digits and _.")
@click.option("--folder", default=".", metavar="DIR", type=click.Path(), help="Where to (default: this folder).")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def bridge(name: str, folder: str, force: bool, as_json: bool) -> None:
    """Write NAME_bridge.py and its tests."""
    _write(BRIDGE, name, Path(folder), force=force, as_json=as_json, steps=(f"python -m pytest test_{name}_bridge.py",))


@command("service", of=new, summary="write a FastAPI project with a program, settings and tests")
@click.argument("name", metavar="NAME", help="Its name, and that of its folder: letters, digits and _.")
@click.option("--folder", default=".", metavar="DIR", type=click.Path(), help="Where to (default: this folder).")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def service(name: str, folder: str, force: bool, as_json: bool) -> None:
    """Write the folder NAME."""
    steps = (f"cd {Path(folder) / name}", "python -m pytest", "uvicorn app:app")
    _write(SERVICE, name, Path(folder) / name, force=force, as_json=as_json, steps=steps)


def _write(
    files: dict[str, str], name: str, folder: Path, *, force: bool, as_json: bool, steps: tuple[str, ...]
) -> None:
    try:
        written = write_project(files, name, folder, force=force)
    except InvalidInput as error:
        raise refused(error) from error
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        print_line(f"wrote {path}")
    print_line("next:" + "".join(f"\n  {step}" for step in steps))
