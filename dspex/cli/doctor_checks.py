"""The checks of `dspex doctor`, the cheap ones first. None leaves a change behind, or keeps others from being run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

from . import environment_checks, kernel_checks, settings_checks
from .check_result import Check


def checks(source: str | None, *, is_quick: bool) -> Iterator[Check]:
    """Run the checks, the cheap ones first; `source` is the settings file."""
    for check in (
        environment_checks.check_python,
        environment_checks.check_packages,
        environment_checks.check_optional,
        kernel_checks.check_platform,
        kernel_checks.check_pidfd,
        kernel_checks.check_lifeline,
        kernel_checks.check_memory,
        kernel_checks.check_cgroup,
        environment_checks.check_run_folder,
        environment_checks.check_supervisors,
        environment_checks.check_temporary,
        environment_checks.check_keys,
        functools.partial(settings_checks.check_settings, source),
        *(() if is_quick else (settings_checks.check_fork_server,)),
    ):
        yield from _results(check)


def _results(check: Callable[[], Check | Iterable[Check]]) -> Iterator[Check]:
    try:
        found = check()
        yield from (found,) if isinstance(found, Check) else found
    except Exception as error:  # a machine that is so broken is what this command is for
        function = check.func if isinstance(check, functools.partial) else check
        name = function.__name__.removeprefix("check_").replace("_", " ")
        yield Check(name, "fail", f"it could not be checked: {error}", "Mend that first, and run this again.")
