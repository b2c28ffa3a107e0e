"""The versions of the packages that decide about prompts and parsing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

_PACKAGES = ("dspy", "pydantic", "json_repair", "regex", "optuna", "cloudpickle")


def versions() -> dict[str, str | None]:
    """Return the versions of what decides about prompts and parsing, None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {**found, "python": python_version()}
