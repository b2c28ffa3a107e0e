"""A collection of real text that is on every machine: installed Python distributions, and the standard library's docs.

Nothing is imported to read it: distributions have their metadata, modules their docstrings in the source.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Document:
    """One text with a name and a place to cite."""

    id: str
    title: str
    text: str
    url: str

    def as_dict(self) -> dict[str, str]:
        return {"id": self.id, "title": self.title, "text": self.text, "url": self.url}


def distributions() -> list[Document]:
    """The installed distributions that describe themselves: name, summary, and the start of their description."""
    found: dict[str, Document] = {}
    for distribution in metadata.distributions():
        about = distribution.metadata
        name, summary = about["Name"], about["Summary"]
        if not name or not summary or summary == "UNKNOWN":
            continue
        body = about.get("Description") or (about.get_payload() if hasattr(about, "get_payload") else "") or ""
        text = f"{summary.rstrip('.')}. {_prose(str(body))}".strip()
        found[name.lower()] = Document(f"dist:{name.lower()}", name, text[:600], f"pip show {name}")
    return sorted(found.values(), key=lambda document: document.id)


def standard_library() -> list[Document]:
    """The standard library's public modules, with their docstrings."""
    folder = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in sorted(folder.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        text = _docstring(path)
        if text:
            documents.append(Document(f"module:{path.stem}", path.stem, text[:600], f"pydoc {path.stem}"))
    return documents


def summary_of(document: Document) -> str:
    """Its first sentence."""
    return re.split(r"(?<=[.!?])\s", document.text, maxsplit=1)[0].rstrip(".")


def _docstring(path: Path) -> str:
    try:
        found = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError, OSError):
        return ""
    return _prose(found or "")


def _prose(text: str) -> str:
    """Plain sentences: no markup, no badges, no tables."""
    text = re.sub(r"<[^>]+>|!\[[^\]]*\]\([^)]*\)|^[.:|=~*#-].*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`+|https?://\S+|[\[\]]", " ", text)
    return re.sub(r"\s+", " ", text).strip()
