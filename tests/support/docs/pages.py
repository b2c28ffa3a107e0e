"""The pages of the site: which there are, and the fenced blocks that they show. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
_FENCE = re.compile(r"^( *)```(\w+)((?: [^\n]*)?)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_ROWS = {"guides/from-dspy.md"}  # pages whose tables hold code
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its title and text, its place on its page, and the output that the page shows."""

    page: str
    number: int
    language: str
    title: str
    text: str
    output: str | None = None

    @property
    def is_cell(self) -> bool:
        """Whether it is a notebook's cell, which may await."""
        return self.title.startswith("Cell")

    @property
    def is_file(self) -> bool:
        """Whether the page says that this is a file, which its other blocks may use."""
        return "." in self.title

    @property
    def id(self) -> str:
        return f"{self.page}:{self.title or self.number}"


def names() -> list[str]:
    """Every page, as a path below docs/."""
    return sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def user_pages() -> list[str]:
    """Every page but Internals."""
    return [name for name in names() if not name.startswith("internals/")]


def runnable(page: str) -> list[Block]:
    """What a page shows to be run: its Python blocks, and the rows of its tables."""
    shown = [block for block in blocks(page) if block.language == "python"]
    return shown + (rows(page) if page in _ROWS else [])


def blocks(page: str) -> list[Block]:
    """The blocks of a page in their order; a `text` block with the title "Output" belongs to the one before it."""
    return blocks_of(page, (DOCS / page).read_text(encoding="utf-8"))


def blocks_of(page: str, text: str) -> list[Block]:
    """`blocks`, of a page's text."""
    found: list[Block] = []
    for indent, language, rest, inside in _FENCE.findall(text):
        title = _TITLE.search(rest)
        body = re.sub(rf"^{indent}", "", inside, flags=re.MULTILINE)
        made = Block(page, len(found) + 1, language, title[1] if title else "", body)
        if made.title == "Output":
            found[-1] = Block(page, found[-1].number, found[-1].language, found[-1].title, found[-1].text, body)
        else:
            found.append(made)
    return found


def rows(page: str) -> list[Block]:
    """The right column of every table row of a page that holds code, each after the page's block "names.py"."""
    text = (DOCS / page).read_text(encoding="utf-8")
    shared = next(block for block in blocks(page) if block.title == "names.py").text
    cells = re.findall(r"^\| .+ \| `([^`]+)` \|$", text, re.MULTILINE)
    return [Block(page, 1000 + number, "python", "", f"{shared}\n\n{cell}\n") for number, cell in enumerate(cells)]
