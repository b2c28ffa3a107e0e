"""Find the language models of a service that its clients name. Any thread."""

from __future__ import annotations

from typing import Any

from .. import defaults
from ..errors import LMConfigurationError, NotConfigured
from ..lm.record import LM
from ..lm.served_lm import DEFAULT, FALLBACK, SCHEME, read_ref, told_of
from ..pools.supervising import Supervising


def lm_of_ref(ref: str, supervisor: Supervising) -> LM:
    """Return the LM that a client's ref names, with the options that it changes.

    Raises:
        LMConfigurationError, NotConfigured: there is none, or it cannot be changed so.
    """
    name, changes = read_ref(ref)
    name, _, at = name.partition(FALLBACK)
    lm = _named(name, supervisor)
    if at:
        lm = _fallback(lm, at)
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


def _fallback(lm: LM, at: str) -> LM:
    """Return one of the LMs that this one falls back to, as its clients count them."""
    told = [each for each in lm.fallbacks if not each.direct and each.account is None]
    if not at.isdecimal() or int(at) >= len(told):
        raise LMConfigurationError(f"{lm.model!r} falls back to {len(told)} language models that clients may name.")
    return told[int(at)]


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
