"""What a shell offers for a word that is not whole yet: names of supervisors and pools, of those that run now."""

from __future__ import annotations

import click

PATIENCE = 1.0  # seconds that a key press may take


def supervisor_names(incomplete: str) -> list[str]:
    """Return the names of this user's running supervisors."""
    from ..control import run_files

    try:
        return [run.name for run in run_files.living() if run.name.startswith(incomplete)]
    except Exception:  # a shell that completes shows no errors
        return []


def pool_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the pools of the service that is meant, if it answers."""
    from .target import Target

    target = Target(context.params.get("name"), context.params.get("socket"))
    try:
        with target.connect() as client:
            return [name for name in client.health() if name.startswith(incomplete)]
    except Exception:  # a shell that completes shows no errors
        return []
