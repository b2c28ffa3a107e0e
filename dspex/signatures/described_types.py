"""Tell whether a worker can do without the classes of an annotation: their schemas say all that they do."""

from __future__ import annotations

from typing import Any

from dspex_worker.types.annotation_facts import classes_in
from dspex_worker.types.described_classes import is_described_class

from .annotations import is_dspy_type

__all__ = ["is_described", "is_described_class"]


def is_described(annotation: Any) -> bool:
    """Whether a worker needs none of the classes in this annotation to do what they do."""
    return all(is_dspy_type(kind) or is_described_class(kind) for kind in classes_in(annotation))
