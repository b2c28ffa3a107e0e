"""DSPy's own value types, for the parent: images, audio, files, code, reasoning, conversation history.

Each has the fields, the name and the prompt form of its DSPy namesake (dspy/adapters/types, 3.4.1), and reads
nothing: no file, no URL. Tools are in `tool_types.py`, their calls in `tool_calls.py`. Types that only workers render
(citations, documents) are present as names. Importing this file imports pydantic; a signature that names none of these
types never does.
"""

from __future__ import annotations

import base64
import functools
import mimetypes
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlparse

import pydantic

from .custom_type import DspyType
from .tool import Tool
from .tool_calls import ToolCallResults, ToolCalls

_FROZEN: Final = pydantic.ConfigDict(frozen=True, str_strip_whitespace=True, validate_assignment=True, extra="forbid")
_FENCE: Final = "```"


class Image(DspyType):
    """An image by URL (http, https, gs) or data URI: `Image("https://...")`, `Image(data_bytes, "image/png")`."""

    dspy_name: ClassVar[str] = "dspy.Image"
    model_config = _FROZEN
    url: str

    def __init__(self, source: Any = None, mime_type: str | None = None, /, **values: Any) -> None:
        if source is not None:
            values["url"] = source["url"] if isinstance(source, dict) and set(source) == {"url"} else source
        if "url" in values:
            values["url"] = _image_url(values["url"], mime_type)
        super().__init__(**values)

    @classmethod
    def from_path(cls, path: str | Path) -> Image:
        """Return a local file as a data URI.

        Raises:
            ValueError: its name does not tell its type.
        """
        mime_type, data = _file(path)
        if mime_type is None:
            raise ValueError(f"The type of {path} is not known by its name; use Image(data, 'image/...').")
        return cls(data, mime_type)

    def format(self) -> list[dict[str, Any]]:
        return [{"type": "image_url", "image_url": {"url": self.url}}]

    def __repr__(self) -> str:
        head, found, data = self.url.partition("base64,")
        if not found:
            return f"Image(url='{self.url}')"
        kind = head.partition(";")[0].rpartition("/")[2]
        return f"Image(url=data:image/{kind};base64,<IMAGE_BASE_64_ENCODED({len(data.partition('base64,')[0])})>)"


class Audio(DspyType):
    """Sound as base64 text and its format: `Audio(data=..., audio_format="wav")`, `Audio(data_bytes)`, a data URI."""

    dspy_name: ClassVar[str] = "dspy.Audio"
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
    data: str
    audio_format: str

    def __init__(self, source: Any = None, /, **values: Any) -> None:
        if source is not None:
            values = {**_audio(source, values.pop("audio_format", "wav")), **values}
        super().__init__(**values)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _audio(value, "wav")

    @classmethod
    def from_path(cls, path: str | Path) -> Audio:
        """Return a local sound file.

        Raises:
            ValueError: its name does not tell its type.
        """
        mime_type, data = _file(path)
        if not mime_type or not mime_type.startswith("audio/"):
            raise ValueError(f"{path} is not a sound file by its name; use Audio(data, audio_format=...).")
        return cls(data, audio_format=mime_type.partition("/")[2].removeprefix("x-"))

    def format(self) -> list[dict[str, Any]]:
        return [{"type": "input_audio", "input_audio": {"data": self.data, "format": self.audio_format}}]

    def __repr__(self) -> str:
        return f"Audio(data=<AUDIO_BASE_64_ENCODED({len(self.data)})>, audio_format='{self.audio_format}')"


class File(DspyType):
    """A document by content (`file_data`, a data URI) or by the provider's id: `File(data)`, `File(file_id=...)`."""

    dspy_name: ClassVar[str] = "dspy.File"
    model_config = _FROZEN
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None

    def __init__(self, source: Any = None, /, **values: Any) -> None:
        super().__init__(**({**_document(source), **values} if source is not None else values))

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _document(value)

    @classmethod
    def from_path(cls, path: str | Path, filename: str | None = None, mime_type: str | None = None) -> File:
        """Return a local file as a data URI, under its own name."""
        guessed, data = _file(path)
        kind = mime_type or guessed or "application/octet-stream"
        return cls(file_data=_data_uri(data, kind), filename=filename or Path(path).name)

    def format(self) -> list[dict[str, Any]]:
        given = {"file_data": self.file_data, "file_id": self.file_id, "filename": self.filename}
        return [{"type": "file", "file": {key: value for key, value in given.items() if value}}]

    def __repr__(self) -> str:
        named = [("file_id", self.file_id), ("filename", self.filename)]
        shown = [f"{name}='{value}'" for name, value in named if value is not None]
        if self.file_data is not None:
            shown.insert(0, f"file_data=<{_data_shown(self.file_data)} chars)>")
        return f"File({', '.join(shown)})"


class Code(DspyType):
    """Source text; `Code["java"]` is the type of another language. A Markdown fence around it is taken off."""

    dspy_name: ClassVar[str] = "dspy.Code"
    language: ClassVar[str] = "python"
    code: str

    def __class_getitem__(cls, language: Any) -> Any:
        return code_of(language) if isinstance(language, str) else super().__class_getitem__(language)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        text = value.get("code") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ValueError("code is a string, or a mapping with the string under 'code'")
        return {"code": _unfenced(text)}

    @classmethod
    def description(cls) -> str:
        # The words are DSPy's: they are part of the prompt that this type must give, byte for byte.
        return (
            "Code represented in a string, specified in the `code` field. If this is an output field, the code "
            f"field should follow the markdown code block format, e.g. \n```{cls.language.lower()}\n{{code}}\n```"
            f"\nProgramming language: {cls.language}"
        )

    def format(self) -> str:
        return self.code

    def to_wire(self) -> str:
        return self.code


class Reasoning(DspyType):
    """A model's reasoning: text, under a name of its own."""

    dspy_name: ClassVar[str] = "dspy.Reasoning"
    content: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        text = value.get("content") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ValueError("reasoning is a string, or a mapping with the string under 'content'")
        return {"content": text}

    def format(self) -> str:
        return self.content

    def __repr__(self) -> str:
        return repr(self.content)

    def to_wire(self) -> str:
        return self.content

    def __eq__(self, other: object) -> bool:
        return self.content == (other.content if isinstance(other, Reasoning) else other)

    def __hash__(self) -> int:
        return hash(self.content)


class History(pydantic.BaseModel):
    """The past turns of a conversation: one mapping of field values for each turn."""

    dspy_name: ClassVar[str] = "dspy.History"
    model_config = _FROZEN
    messages: list[dict[str, Any]]


# --- names that only workers fill ---------------------------------------------------------------------------------


class _WorkerType(DspyType):
    """The base of the types that a signature may name and only a worker can render."""

    worker_only: ClassVar[bool] = True


class Citations(_WorkerType):
    """Passages that the model cites."""

    dspy_name: ClassVar[str] = "dspy.experimental.Citations"


class Document(_WorkerType):
    """A document that the model may cite."""

    dspy_name: ClassVar[str] = "dspy.experimental.Document"


_BY_NAME: Final = {
    kind.__name__: kind
    for kind in (Image, Audio, File, Code, Reasoning, History, Tool, ToolCalls, ToolCallResults, Citations, Document)
}


def by_name(name: str) -> Any:
    """Return the class that stands for `dspy.<name>`."""
    return _BY_NAME[name]


@functools.lru_cache(maxsize=64)
def code_of(language: str) -> type[Code]:
    """`Code` for another language; the same class each time."""
    made = pydantic.create_model(f"Code_{language}", __base__=Code, __module__=__name__)
    made.language = language
    made.dspy_name = f"dspy.Code[{language!r}]"
    return made


def _unfenced(text: str) -> str:
    """Return the content of a text's first fence, without the language beside it, as DSPy's two expressions find it.

    They are ```[^\\n]*\\n(.*?)``` and, where that finds nothing, ```(.*?)```; a row of fences takes them n² steps.
    """
    begin = text.find(_FENCE)
    if begin < 0:
        return text
    last = text.rfind(_FENCE)
    line_end = text.find("\n", begin + len(_FENCE))
    if 0 <= line_end < last:
        return text[line_end + 1 : text.find(_FENCE, line_end + 1)].strip()
    end = text.find(_FENCE, begin + len(_FENCE))
    return text if end < 0 else text[begin + len(_FENCE) : end].strip()


def _image_url(source: Any, mime_type: str | None) -> str:
    if isinstance(source, Image):
        return source.url
    if isinstance(source, bytes):
        if mime_type is None:
            raise ValueError("Image bytes need their type: Image(data, 'image/png').")
        return _data_uri(source, mime_type)
    if isinstance(source, str) and (source.startswith("data:") or _is_url(source)):
        return source
    raise ValueError("An image is a URL, a data URI or bytes; a local file is read by Image.from_path(path).")


def _is_url(text: str) -> bool:
    try:
        found = urlparse(text)
    except ValueError:
        return False
    return found.scheme in ("http", "https", "gs") and bool(found.netloc)


def _audio(source: Any, audio_format: str) -> Any:
    if isinstance(source, Audio):
        return {"data": source.data, "audio_format": source.audio_format}
    if isinstance(source, dict) and "data" in source and "audio_format" in source:
        return source
    if isinstance(source, bytes):
        return {"data": base64.b64encode(source).decode(), "audio_format": audio_format}
    if isinstance(source, str) and source.startswith("data:audio/") and "," in source:
        head, _, data = source.partition(",")
        kind = head.removeprefix("data:").split(";", 1)[0].partition("/")[2]
        if kind:
            return {"data": data, "audio_format": kind.removeprefix("x-")}
    raise ValueError("Audio is bytes, a data URI or data= with audio_format=; a file is read by Audio.from_path.")


def _document(source: Any) -> Any:
    if isinstance(source, File):
        return {key: value for key, value in vars(source).items() if value is not None}
    if isinstance(source, dict) and source.keys() & {"file_data", "file_id", "filename"}:
        return source
    if isinstance(source, bytes):
        return {"file_data": _data_uri(source, "application/octet-stream")}
    if isinstance(source, str) and source.startswith("data:"):
        return {"file_data": source}
    raise ValueError("A file is bytes, a data URI, or one of file_data=, file_id=, filename=.")


def _file(path: str | Path) -> tuple[str | None, bytes]:
    return mimetypes.guess_type(str(path))[0], Path(path).read_bytes()


def _data_uri(data: bytes, mime_type: str) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _data_shown(data: str) -> str:
    if not data.startswith("data:"):
        return f"DATA({len(data)}"
    kind = data.partition(";")[0].split(":")[1]
    inner = data.partition("base64,")[2].partition("base64,")[0] if "base64," in data else data
    return f"DATA_URI({kind}, {len(inner)}"
