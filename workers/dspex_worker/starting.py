"""Tell whether a supervisor is starting this process: then it may not start one, or there would be no end of it.

Code that workers import may be the program itself (a bridge that is its own host, without a `__main__` guard), and an
"interpreter" may be a launcher that runs the program once more. The supervisor marks what it starts in the environment,
so that this program learns of it too; a worker removes the mark once it has started, for its commands may do as they
like.
"""

from __future__ import annotations

import os

VARIABLE = "DSPEX_STARTING"  # its value is the pool's name


def begun_by() -> str | None:
    """Return the name of the pool that this process is being started for; None if it is not."""
    return os.environ.get(VARIABLE)


def end() -> None:
    """Remove the mark: the process has started."""
    os.environ.pop(VARIABLE, None)
