"""Find the versions of the installed DSPy, and of what decides about parity, without importing them.

Reads names of folders only: importlib.metadata would cost 80 ms of a first prediction. Any thread.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SUFFIX = ".dist-info"
_DECIDING = ("dspy", "pydantic", "json_repair", "regex")  # JSON schemas and the repair of answers depend on them


def dspy_folder() -> Path | None:
    """Return the folder of the package `dspy`; None where it is not installed."""
    try:
        spec = find_spec("dspy")
    except ValueError:  # something that is no module stands under its name in sys.modules
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def dspy_version() -> str | None:
    """Return its version; None where it is not installed."""
    folder = dspy_folder()
    beside = _versions_in(folder.parent) if folder is not None else []
    return beside[0] if len(beside) == 1 else _version_on_record()


@cache
def unlike_here(python: str) -> str:
    """Return how the packages that decide about prompts differ beside another interpreter; empty if not at all."""
    sites = {path.resolve() for path in Path(python).parent.parent.glob("lib*/python*/site-packages")}
    if not sites:
        return f"the packages beside {python} cannot be seen"
    for package in _DECIDING:
        ours, theirs = _versions_here(package), [found for site in sites for found in _versions_in(site, package)]
        if theirs != ours and (ours or package != "dspy"):
            return f"{package} is {_said(theirs)} in the workers and {_said(ours)} here"
    return ""


def _said(versions: list[str]) -> str:
    return " or ".join(versions) or "missing"


def _versions_here(package: str) -> list[str]:
    spec = find_spec(package)
    return _versions_in(Path(spec.origin).parent.parent, package) if spec is not None and spec.origin else []


def _versions_in(site: Path, package: str = "dspy") -> list[str]:
    """Return the versions that its records beside it name: one, but for what is edited in place."""
    return [path.name[len(package) + 1 : -len(_SUFFIX)] for path in site.glob(f"{package}-*{_SUFFIX}")]


def _version_on_record() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dspy")
    except PackageNotFoundError:
        return None
