"""Text of models and users in an HTML page: escaped, bounded, without characters that no page may hold. Pure."""

from __future__ import annotations

import html
import re
from typing import Any

TEXT_MOST = 8000  # characters of one text
CELL_MOST = 600
# Controls are no characters of HTML. Those that turn the direction of text could make it read as another, and reach
# beyond their own element.
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def escaped(value: Any, most: int = TEXT_MOST) -> str:
    """Return a value as text that holds no markup; what is too long is cut, and said to be."""
    whole = value if isinstance(value, str) else _shown(value)
    rest = len(whole) - most
    cut = whole if rest <= 0 else f"{whole[:most]} … ({rest:,} more characters)"
    seen = _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", cut)
    return html.escape(seen.encode("utf-8", "replace").decode("utf-8"), quote=True)


def cell(value: Any) -> str:
    """Return a value for a table's cell; nothing of None."""
    return "" if value is None else escaped(value, CELL_MOST)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # an object of the user's
        return f"a {type(value).__name__} whose repr fails ({type(error).__name__})"
