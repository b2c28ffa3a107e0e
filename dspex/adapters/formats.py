"""The formats by their adapters' names; the rarer ones are imported when they are first asked for."""

from __future__ import annotations

import functools

from .chat_format import ChatFormat
from .json_format import JSONFormat


@functools.cache
def format_named(adapter: str) -> ChatFormat:
    """Return the format of an adapter, which is one of `ADAPTERS`."""
    if adapter == "xml":
        from .xml_format import XMLFormat

        return XMLFormat()
    if adapter == "baml":
        from .baml_format import BAMLFormat

        return BAMLFormat()
    if adapter == "two_step":
        from .two_step_format import TwoStepFormat

        return TwoStepFormat()
    return JSONFormat() if adapter == "json" else ChatFormat()
