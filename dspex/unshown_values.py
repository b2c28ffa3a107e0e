"""Keep secrets out of what reporters of errors show: the variables of each frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class UnshownOptions(dict[str, Any]):
    """A table that may hold keys; a dict, but for what it shows: neither its repr nor the usual reporters show values.

    Sentry and rich walk through dicts, and ask such a method first.
    """

    def __repr__(self) -> str:
        return f"<{len(self)} options, not shown>"

    def __rich_repr__(self) -> Iterator[str]:
        yield f"{len(self)} options, not shown"

    __sentry_repr__ = __repr__


def unshown(value: Any) -> Any:
    """Return plain data in which every table is an `UnshownOptions`."""
    if isinstance(value, dict):
        return UnshownOptions({name: unshown(item) for name, item in value.items()})
    return [unshown(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Return the same data with plain dicts, as the codec takes it."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def without_frames(error: Exception) -> Exception:
    """Return the error without the frames that it passed, and so those behind it: their variables hold the options.

    What was wrong is in its message, and where it was asked for is in the caller's frames.
    """
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
    return error
