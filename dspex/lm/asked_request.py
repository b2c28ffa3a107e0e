"""Read what a worker's request asks for: a completion by its LM's own model, and nothing else. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import LMConfigurationError
from .reading_cost import MARKS_MOST, is_readable_request
from .sent_options import ROUTING

if TYPE_CHECKING:
    from .dialects.dialect import Dialect
    from .record import LM


def asked_of(lm: LM, dialect: Dialect, body: bytes) -> dict[str, Any]:
    """Return the request's object.

    Raises:
        LMConfigurationError: it is none, or asks for another model than the record's, which another price would be for.
    """
    if not is_readable_request(body):
        raise refused(lm, f"The request's body holds over {MARKS_MOST:,} values and is not read.")
    try:
        asked = json.loads(body.decode(), object_pairs_hook=_once_each)  # bytes would be searched for other encodings
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise refused(lm, "The request's body is not a JSON object, or says something twice.")
    naming = next((name for name in asked if name != "model" and name.casefold() in ROUTING), None)  # Go takes any case
    if naming is not None:
        raise refused(
            lm,
            f"The request holds {naming!r}: by it another model than {lm.name!r} may answer, elsewhere, later, or from "
            f"what others asked. In the host it can be set in LM().",
        )
    if dialect.names_another(lm, asked):
        raise refused(lm, f"The request is for another model than {lm.name!r}; make an LM() for it.")
    return asked


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose members are named once: of two models, the server might take the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def refused(lm: LM, message: str) -> LMConfigurationError:
    """Return the error for a request that does not go out with the LM's key."""
    return LMConfigurationError(message, model=lm.model, provider=lm.provider.id)
