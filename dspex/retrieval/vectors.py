"""Check vectors and texts, and give vectors the form that callers expect. Pure; numpy is used where it is installed."""

from __future__ import annotations

import array
import importlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput

if TYPE_CHECKING:
    from ..lm.dialects.embeddings import Vector

TEXTS_MOST = 1_000_000  # of one call
WIDTH_MOST = 65_536  # numbers of one vector


def checked_texts(given: Any) -> list[str]:
    """Return texts as a list.

    Raises:
        InvalidInput: they are no list of texts, too many, or one is empty or no Unicode.
    """
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise InvalidInput(f"Texts are a list of str, not one {type(given).__name__}.", field="texts")
    texts: list[str] = []
    for text in given:
        if len(texts) == TEXTS_MOST:
            raise InvalidInput(f"One call takes at most {TEXTS_MOST:,} texts: embed them in parts.", field="texts")
        texts.append(_checked_text(text, len(texts)))
    return texts


def _checked_text(text: Any, at: int) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"Text {at + 1} is a {type(text).__name__}; only a str has an embedding.", field="texts")
    if not text:
        raise InvalidInput(f"Text {at + 1} is empty, and has no embedding: leave it out.", field="texts")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"Text {at + 1} holds half of a surrogate pair.", field="texts") from None
    return text


def checked_vectors(given: Any, count: int) -> list[Vector]:
    """Return what a function gave as the vectors of `count` texts.

    Raises:
        InvalidInput: it gave another number, or not lists of as many finite numbers each.
    """
    rows = list(given) if isinstance(given, Iterable) else None
    if rows is None:
        raise InvalidInput(f"The embedder gave a {type(given).__name__} in place of vectors.", field="embedder")
    if len(rows) != count:
        raise InvalidInput(f"The embedder gave {len(rows)} vectors for {count} texts.", field="embedder")
    vectors = [_checked_vector(row, at) for at, row in enumerate(rows)]
    require_width(vectors, len(vectors[0]) if vectors else 0)
    return vectors


def _checked_vector(row: Any, at: int) -> Vector:
    try:
        made = array.array("f", _plain(row))
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"The embedder's vector {at + 1} is no list of numbers.", field="embedder") from None
    if not 0 < len(made) <= WIDTH_MOST:
        raise InvalidInput(
            f"The embedder's vector {at + 1} has {len(made):,} numbers; 1 to {WIDTH_MOST:,} are taken.",
            field="embedder",
        )
    if not math.isfinite(sum(made)):
        raise InvalidInput(f"The embedder's vector {at + 1} is not finite.", field="embedder")
    return made


def _plain(row: Any) -> Any:
    """Return a row whose numbers are Python's: those of an array or a tensor are not, and slow to take one by one."""
    if isinstance(row, str | bytes | dict):
        raise TypeError("no numbers")
    tolist = getattr(row, "tolist", None)
    return row if tolist is None or isinstance(row, array.array) else tolist()


def require_width(vectors: Sequence[Vector], width: int) -> None:
    """Check that all vectors are of this length.

    Raises:
        InvalidInput: one is not; vectors of different models cannot be compared.
    """
    odd = next((vector for vector in vectors if len(vector) != width), None)
    if odd is not None:
        raise InvalidInput(f"The embedder made a vector of {len(odd)} numbers, not of {width}.", field="embedder")


def unit(vector: Vector) -> Vector:
    """Return the vector of length 1 in its direction; of zeros there is none, and they stay."""
    length = math.hypot(*vector)
    return array.array("f", (number / length for number in vector)) if length else vector


def loaded_numpy() -> Any:
    """Return numpy; None where it is not installed."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def as_callers_expect(vectors: Sequence[Vector], *, is_single: bool, width: int) -> Any:
    """Return a numpy array of float32, one row for each text, or one row alone; lists where there is no numpy."""
    numpy = loaded_numpy()
    if numpy is None:
        lists = [vector.tolist() for vector in vectors]
        return lists[0] if is_single else lists
    if not vectors:
        return numpy.zeros((0, width), dtype=numpy.float32)
    table = numpy.array(vectors, dtype=numpy.float32)
    return table[0] if is_single else table
