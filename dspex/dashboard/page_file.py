"""Put the page together: one document, and the policy that lets a browser run its own script and nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

SCRIPTS: Final = ("parts.js", "sections.js", "page.js")  # in this order they are one


class PageFile(NamedTuple):
    """The document, and its Content-Security-Policy."""

    html: bytes
    policy: str


@cache
def page_file() -> PageFile:
    """Return the page."""
    folder = resources.files(__package__ or "dspex.dashboard") / "page"
    style, frame = ((folder / name).read_text("utf-8") for name in ("page.css", "page.html"))
    script = "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS)
    html = frame.replace("/* page.css */", style).replace("/* scripts */", script)
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return PageFile(html.encode(), policy)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
