"""Give a client's call the language model that its request names: one that the service has, by name or model.

The record goes to the worker alone; keys stay in the service, and so does the choice of models.
"""

from __future__ import annotations

from typing import Any, Final

from dspex_worker.wire import Packed, decode

from .. import defaults
from ..errors import LMConfigurationError, NotConfigured
from ..lm.record import LM
from ..pools.supervisor import Supervisor
from ..services.services import services_of

DEFAULT: Final = "default"  # the service's own; a program that needs none does without


def with_lm(arguments: dict[str, Any] | Packed, name: str, pool: str, supervisor: Supervisor) -> dict[str, Any]:
    """Return a call's arguments with the record of the LM of this name.

    Raises:
        LMConfigurationError: the service has no such LM, and its pool takes no other.
    """
    given = decode(bytes(arguments.data)) if isinstance(arguments, Packed) else arguments
    lm = named_lm(name, pool, supervisor)
    return {**given, "lm": None if lm is None else services_of(supervisor).lm_record(lm)}


def named_lm(name: str, pool: str, supervisor: Supervisor) -> LM | None:
    if name == DEFAULT:
        try:
            return defaults.configured_lm(supervisor)
        except NotConfigured:
            return None
    known = defaults.configured_lms(supervisor)
    lms = [lm for lm in (known.default, *known.by_name.values()) if lm is not None]
    found = known.by_name.get(name) or next((lm for lm in lms if lm.model == name), None)
    if found is not None:
        return found
    policy = supervisor.pool(pool).config.lms or services_of(supervisor).described_lms.policy
    if policy == "any":
        return defaults.as_lm(name, supervisor)
    raise LMConfigurationError(
        f"The service has no language model {name!r} (names: {', '.join(sorted(known.by_name)) or 'none'}; models: "
        f"{', '.join(sorted({lm.model for lm in lms})) or 'none'}), and the pool {pool!r} takes configured ones only "
        f'(its setting lms is "named"). Configure it there, in the [lm] table or as [lms.<name>].',
        model=name,
    )
