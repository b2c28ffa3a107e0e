"""`File`: what prompts hold as a content block. Making one reads nothing but `from_path`.

Follows dspy/adapters/types/file.py of DSPy 3.4.1: its constructors, errors, name and prompt form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pydantic

from . import media_sources
from .custom_type import DspyType
from .media_sources import Source


class File(DspyType):
    """A document by content (`file_data`, a data URI) or by the provider's id: `File(data)`, `File(file_id=...)`.

    Raises:
        ValueError: a source that is neither bytes nor a data URI.
        TypeError: what the source says is said again by name.
    """

    dspy_name: ClassVar[str] = "dspy.File"
    model_config = pydantic.ConfigDict(frozen=True, str_strip_whitespace=True, validate_assignment=True, extra="forbid")
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None

    def __init__(self, *args: Any, **values: Any) -> None:
        if len(args) > 1:
            raise TypeError(f"File expected at most 1 positional argument, received {len(args)}")
        given = _document(args[0]) if args else {}
        if overlap := sorted(given.keys() & values.keys()):
            raise TypeError(f"File received {', '.join(overlap)} from both the positional source and keyword arguments")
        super().__init__(**given, **values)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _document(value)

    @classmethod
    def from_path(cls, file_path: Source, filename: str | None = None, mime_type: str | None = None) -> File:
        """Return a local file as a data URI, under its own name.

        Raises:
            ValueError: there is no such file.
        """
        data = media_sources.read_file(file_path)
        kind = mime_type or media_sources.type_of(file_path) or "application/octet-stream"
        name = Path(file_path).name if filename is None else filename
        return cls.from_bytes(data, name, kind)

    @classmethod
    def from_bytes(
        cls, file_bytes: bytes, filename: str | None = None, mime_type: str = "application/octet-stream"
    ) -> File:
        """Return the content as a data URI."""
        return cls(file_data=media_sources.data_uri(file_bytes, mime_type), filename=filename)

    @classmethod
    def from_file_id(cls, file_id: str, filename: str | None = None) -> File:
        """Return a file that the provider holds already."""
        return cls(file_id=file_id, filename=filename)

    def format(self) -> list[dict[str, Any]]:
        given = {"file_data": self.file_data, "file_id": self.file_id, "filename": self.filename}
        return [{"type": "file", "file": {key: value for key, value in given.items() if value}}]

    def __repr__(self) -> str:
        named = [("file_id", self.file_id), ("filename", self.filename)]
        shown = [f"{name}='{value}'" for name, value in named if value is not None]
        if self.file_data is not None:
            shown.insert(0, f"file_data=<{_data_shown(self.file_data)} chars)>")
        return f"File({', '.join(shown)})"


def _document(source: Any) -> dict[str, Any]:
    if isinstance(source, File):
        return {key: value for key, value in vars(source).items() if value is not None}
    if isinstance(source, dict):
        if source.keys() & {"file_data", "file_id", "filename"}:
            return source
        raise ValueError("Value of `dspy.File` must contain at least one of: file_data, file_id, or filename")
    if isinstance(source, bytes):
        return {"file_data": media_sources.data_uri(source, "application/octet-stream")}
    if not isinstance(source, str):
        raise ValueError(f"Unsupported file input type: {type(source)}")
    if source.startswith("data:"):
        return {"file_data": source}
    raise ValueError(
        f"String file inputs must be data URIs, received: {source}. Load local files with File.from_path()."
    )


def _data_shown(data: str) -> str:
    if not data.startswith("data:"):
        return f"DATA({len(data)}"
    kind = data.partition(";")[0].split(":")[1]
    inner = data.partition("base64,")[2].partition("base64,")[0] if "base64," in data else data
    return f"DATA_URI({kind}, {len(inner)}"
