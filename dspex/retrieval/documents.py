"""Documents as they are given, and passages as they are found. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidInput

Passage = dict[str, Any]  # {"id", "text", "title", "score", "rank", "metadata"}
Document = str | Mapping[str, Any]
DocumentRow = tuple[str | None, str, str, str]  # id, title, text, metadata as JSON


def rows_of(documents: Iterable[Document]) -> list[DocumentRow]:
    """Return documents in the form that is kept.

    Raises:
        InvalidInput: they are no list, or one of them is no document.
    """
    # A text is iterable, and so is a mapping: each would be indexed letter by letter, key by key.
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InvalidInput(
            f"Documents are a list of texts or mappings, not one {type(documents).__name__}.", field="documents"
        )
    return [_row_of(document) for document in documents]


def _row_of(document: Document) -> DocumentRow:
    if isinstance(document, str):
        document = {"text": document}
    if not isinstance(document, Mapping):
        raise InvalidInput(
            f"A document must be a str, or a mapping with a 'text', not a {type(document).__name__}.", field="documents"
        )
    rest = dict(document)
    id, title, text = rest.pop("id", None), rest.pop("title", None) or "", rest.pop("text", None)
    if not isinstance(text, str):
        raise InvalidInput("A document must be a str, or a mapping with a 'text'.", field="text")
    try:
        metadata = json.dumps(rest) if rest else ""
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"A document's metadata must be JSON: {error}.", field="metadata") from None
    row = (None if id is None else str(id), str(title), text, metadata)
    try:
        "".join(filter(None, row)).encode()
    except UnicodeEncodeError:
        raise InvalidInput("A document's text holds half of a surrogate pair.", field="text") from None
    return row


def check_search(query: str, k: int) -> None:
    """Check what is looked up, and how many passages are wanted.

    Raises:
        InvalidInput: the query is no text, or `k` no whole number.
    """
    if not isinstance(query, str):
        raise InvalidInput(f"A query is text, not a {type(query).__name__}.", field="query")
    if isinstance(k, bool) or not isinstance(k, int):
        raise InvalidInput(f"k is {k!r}; it is how many passages to give, a whole number.", field="k")


def passage(rank: int, id: str, title: str, text: str, metadata: str, score: float) -> Passage:
    """Return a passage that was found."""
    return {
        "id": id,
        "text": text,
        "title": title,
        "score": float(score),
        "rank": rank,
        "metadata": json.loads(metadata) if metadata else {},
    }
