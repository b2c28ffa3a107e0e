"""Which DSPy is installed, found without importing it; importlib.metadata would cost 80 ms of a first prediction.

Reads names of folders only. Any thread. Not covered: other packages.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_SUFFIX = ".dist-info"


def dspy_folder() -> Path | None:
    """The folder of the package `dspy`; None where it is not installed."""
    try:
        spec = find_spec("dspy")
    except ValueError:  # something that is no module stands under its name in sys.modules
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def dspy_version() -> str | None:
    """Its version; None where it is not installed."""
    folder = dspy_folder()
    beside = _versions_in(folder.parent) if folder is not None else []
    return beside[0] if len(beside) == 1 else _version_on_record()


def _versions_in(site: Path) -> list[str]:
    """The versions that its records beside it name: one, but for what is edited in place."""
    return [path.name[len("dspy-") : -len(_SUFFIX)] for path in site.glob(f"dspy-*{_SUFFIX}")]


def _version_on_record() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dspy")
    except PackageNotFoundError:
        return None
