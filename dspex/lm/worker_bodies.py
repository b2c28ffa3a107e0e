"""Complete the body of a worker's request with what its LM's options put there. Pure.

Workers send what DSPy words. The members of the LM's record are added here, as they are to the process's own requests,
and so are those that a worker's code asks for beside them; no member of a worker's moves a request or takes another
model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import LMConfigurationError
from .clouds.cloud_options import CLOUD_OPTIONS
from .dialects.cache_marks import marked
from .record import LM
from .sent_options import DECIDING, MARKS, RESERVED, ROUTING, members_in

_NESTED = ("generationConfig", "metadata")  # objects of which DSPy has written some


def with_members(lm: LM, asked: dict[str, Any], given: Mapping[str, Any], *, is_bare: bool = False) -> dict[str, Any]:
    """Return the body with the members of the LM's options, and `given` ones of the worker's code, which go before.

    `is_bare` asks for the connection alone, without the record's options for answers: an LM of the user's code does.

    Raises:
        LMConfigurationError: one of the worker's is not its to set.
    """
    own, marks = _of_record(lm)
    if is_bare:
        own, marks = {name: value for name, value in own.items() if name in DECIDING}, ()
    if not (own or given or marks):
        return asked
    added = {**own}
    if given:
        marks = given.get(MARKS) or marks
        added = _joined(lm, own, given, {} if is_bare else lm.options())
    if lm.provider.dialect == "responses":
        from .dialects.responses_request import joined

        return joined(asked, added)
    for name in _NESTED:
        if isinstance(added.get(name), Mapping) and isinstance(asked.get(name), Mapping):
            added[name] = {**asked[name], **added[name]}
    return marked({**asked, **added}, marks) if marks else {**asked, **added}


def _joined(lm: LM, own: Mapping[str, Any], given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; what decides where a gateway asks stays as the record has it."""
    kept = {name: value for name, value in own.items() if name in DECIDING}
    added = {**members_in(lm.provider, {**options, **given}), **kept}
    for name in added:
        if name in CLOUD_OPTIONS:  # an identity that is no member of a body, and would be read by the provider
            raise LMConfigurationError(
                f"{name} belongs to LM() in the host: workers hold no credentials of clouds.",
                model=lm.model,
                provider=lm.provider.id,
            )
        if name.casefold() in ROUTING | RESERVED and name not in own:
            raise LMConfigurationError(
                f"A worker's code may not set {name!r}: it would take another model than {lm.name!r}, or move the "
                f"request. Give it to dspex.LM in the host.",
                model=lm.model,
                provider=lm.provider.id,
            )
    return added


@functools.lru_cache(maxsize=256)
def _of_record(lm: LM) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]]]:
    return lm.members, lm.cache_marks  # an LM never changes, and requests name the same few
