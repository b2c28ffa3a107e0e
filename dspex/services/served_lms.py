"""Find the language models of a service that its clients name. Any thread."""

from __future__ import annotations

from typing import Any

from .. import defaults
from ..errors import LMConfigurationError, NotConfigured
from ..lm.record import LM
from ..lm.served_lm import DEFAULT, SCHEME, read_ref, told_of
from ..pools.supervising import Supervising


def lm_of_ref(ref: str, supervisor: Supervising) -> LM:
    """Return the LM that a client's ref names, with the options that it changes.

    Raises:
        LMConfigurationError, NotConfigured: there is none, or it cannot be changed so.
    """
    name, changes = read_ref(ref)
    lm = _named(name, supervisor)
    return lm.replace(**changes) if changes else lm


def is_served_ref(ref: object) -> bool:
    """Whether a worker's word for an LM is a client's name for one of the service's."""
    return isinstance(ref, str) and ref.startswith(SCHEME)


def told_lms(supervisor: Supervising) -> dict[str, dict[str, Any]]:
    """Return what clients are told of the service's LMs, by name."""
    known = defaults.configured_lms(supervisor)
    told = {name: told_of(lm) for name, lm in known.by_name.items()}
    try:
        told[DEFAULT] = told_of(defaults.configured_lm(supervisor))
    except NotConfigured:
        pass
    return told


def _named(name: str, supervisor: Supervising) -> LM:
    known = defaults.configured_lms(supervisor).by_name
    if (found := known.get(name)) is not None:
        return found
    if name == DEFAULT:
        return defaults.configured_lm(supervisor)
    names = ", ".join(sorted(known)) or "none"
    raise LMConfigurationError(
        f"The service has no language model {name!r} (names: {names}). Configure it there, as [lms.{name}]."
    )
