"""Let DSPy read the source of a class that was sent by value: Refine and MIPROv2 show it to a model.

`inspect` looks for it in a file that this process does not have; the host sends the text along.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

_SOURCE = "__dspex_source__"


def keep(cls: type, source: str) -> None:
    """Keep the source of a class that was sent."""
    setattr(cls, _SOURCE, source)


def install() -> None:
    """Let `inspect.getsource` find sources that were sent, in this process from now on."""
    inspect.getsource = _finding(inspect.getsource)


def _finding(getsource: Any) -> Any:
    @wraps(getsource)
    def getsource_or_sent(thing: Any) -> str:
        sent = vars(thing).get(_SOURCE) if isinstance(thing, type) else None
        return sent if isinstance(sent, str) else getsource(thing)

    return getsource_or_sent
