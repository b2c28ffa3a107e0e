"""Title this process for `ps` and `top`, such as "dspex: dspy/0"; without setproctitle it keeps its command line.

The title takes the place of the command line alone: what a process began with in its environment stays to be read
(`starting`). The name in /proc/<pid>/comm is the caller's to set again.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

_SWITCH = "SPT_NOENV"  # of setproctitle: without it, it writes over the environment too


def set_title(title: str) -> None:
    """Title this process; what it forks inherits that."""
    setter = _setter()
    if setter is not None:
        setter(title)


@functools.lru_cache(maxsize=1)
def _setter() -> Callable[[str], None] | None:
    """Return setproctitle's function, prepared; forks inherit it, or that there is none."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        from setproctitle import getproctitle, setproctitle

        getproctitle()  # it finds its room at the first call, in a copy of the environment that is read once
    except (ImportError, ValueError):  # a command line that is no UTF-8: it stays as it is
        return None
    else:
        return setproctitle
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before
