"""Read what a worker's request asks for, where the model and the stream are named in its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..record import LM


def streams(url: str, asked: Mapping[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return bool(asked.get("stream"))


def names_another(lm: LM, asked: Mapping[str, Any]) -> bool:
    """Return whether a request's body names another model than the record."""
    return asked.get("model") != lm.name
