"""The checks of `dspex doctor`, the cheap ones first. None leaves a change behind."""

from __future__ import annotations

from collections.abc import Iterator

from . import environment_checks, kernel_checks, settings_checks
from .check_result import Check


def checks(source: str | None, *, is_quick: bool) -> Iterator[Check]:
    """Run the checks, the cheap ones first; `source` is the settings file."""
    yield environment_checks.check_python()
    yield environment_checks.check_packages()
    yield from environment_checks.check_optional()
    yield kernel_checks.check_platform()
    yield kernel_checks.check_pidfd()
    yield kernel_checks.check_lifeline()
    yield from kernel_checks.check_memory()
    yield kernel_checks.check_cgroup()
    yield environment_checks.check_run_folder()
    yield environment_checks.check_supervisors()
    yield environment_checks.check_temporary()
    yield environment_checks.check_keys()
    yield from settings_checks.check_settings(source)
    if not is_quick:
        yield settings_checks.check_fork_server()
