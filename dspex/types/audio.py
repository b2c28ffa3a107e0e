"""`Audio`: what prompts hold as a content block. Making one reads nothing but `from_path` and `from_url`.

Follows dspy/adapters/types/audio.py of DSPy 3.4.1: its constructors, errors, name and prompt form.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import pydantic

from . import media_sources
from .custom_type import DspyType
from .media_sources import Source


class Audio(DspyType):
    """Sound as base64 text and its format: `Audio(data=..., audio_format="wav")`, `Audio(data)`, a data URI, samples.

    Raises:
        ValueError: a source that is none of these.
        TypeError: what is said twice, or what does not go with the source.
    """

    dspy_name: ClassVar[str] = "dspy.Audio"
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
    data: str
    audio_format: str

    def __init__(self, *args: Any, **values: Any) -> None:
        if len(args) > 1:
            raise TypeError(f"Audio expected at most 1 positional argument, received {len(args)}")
        super().__init__(**(_sound(args[0], values) if args else values))

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _audio(value)

    @classmethod
    def from_path(cls, file_path: Source) -> Audio:
        """Return a local sound file.

        Raises:
            ValueError: there is no such file, or its name is not that of a sound file.
        """
        data, mime_type = media_sources.read_file(file_path), media_sources.type_of(file_path)
        return cls(data=media_sources.encoded(data), audio_format=_audio_format(mime_type))

    @classmethod
    def from_url(cls, url: str, verify: bool = True, timeout: float | None = 30.0) -> Audio:
        """Fetch a URL, now and in this process, as `Image.from_url` does.

        Raises:
            ValueError: it is no HTTP(S) URL, or what came is no sound.
            OSError: it cannot be fetched.
        """
        mime_type, data = media_sources.fetched(url, "Audio", verify=verify, timeout=timeout)
        return cls(data=media_sources.encoded(data), audio_format=_audio_format(mime_type or "audio/wav"))

    @classmethod
    def from_array(cls, array: Any, sampling_rate: int, format: str = "wav") -> Audio:
        """Return samples (an array of numpy's, say), written by soundfile.

        Raises:
            ImportError: soundfile is not installed.
        """
        return cls(data=media_sources.sampled(array, sampling_rate, format), audio_format=format)

    @classmethod
    def from_file(cls, file_path: Source) -> Audio:
        """`from_path`, by DSPy's older name."""
        warnings.warn(
            "Audio.from_file is deprecated in DSPy; use Audio.from_path instead.", DeprecationWarning, stacklevel=2
        )
        return cls.from_path(file_path)

    def format(self) -> list[dict[str, Any]]:
        return [{"type": "input_audio", "input_audio": {"data": self.data, "format": self.audio_format}}]

    def __repr__(self) -> str:
        return f"Audio(data=<AUDIO_BASE_64_ENCODED({len(self.data)})>, audio_format='{self.audio_format}')"


def _sound(source: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a sound that was given by position."""
    if "data" in values:
        raise TypeError("Audio received data as both a positional and keyword argument")
    rate, audio_format = values.pop("sampling_rate", None), values.pop("audio_format", None)
    if audio_format is not None and _carries_format(source):
        raise TypeError(
            "Audio received audio_format alongside an input that already carries its format; provide only one"
        )
    if rate is not None and not hasattr(source, "shape"):
        raise TypeError("Audio received sampling_rate for a non-array input; it only applies to array data")
    return {**_audio(source, rate or 16000, audio_format or "wav"), **values}


def _carries_format(source: Any) -> bool:
    is_mapping = isinstance(source, dict) and "audio_format" in source
    return is_mapping or isinstance(source, Audio) or (isinstance(source, str) and source.startswith("data:audio/"))


def _audio(source: Any, sampling_rate: int = 16000, audio_format: str = "wav") -> dict[str, Any]:
    if isinstance(source, dict) and "data" in source and "audio_format" in source:
        return source
    if isinstance(source, Audio):
        return {"data": source.data, "audio_format": source.audio_format}
    if isinstance(source, bytes):
        return {"data": media_sources.encoded(source), "audio_format": audio_format}
    if hasattr(source, "shape"):
        return {"data": _sampled(source, sampling_rate, audio_format), "audio_format": audio_format}
    if not isinstance(source, str):
        raise ValueError(f"Unsupported type for encode_audio: {type(source)}")
    if not source.startswith("data:audio/"):
        raise ValueError(
            "String audio inputs must be data URIs. "
            "Load local files with Audio.from_path() and remote resources with Audio.from_url()."
        )
    head, comma, data = source.partition(",")
    kind = head.removeprefix("data:").split(";", 1)[0].partition("/")[2]
    if not comma or not kind:
        raise ValueError("Malformed audio data URI")
    return {"data": data, "audio_format": kind.removeprefix("x-")}


def _audio_format(mime_type: str | None) -> str:
    if not mime_type or not mime_type.startswith("audio/"):
        raise ValueError(f"Unsupported MIME type for audio: {mime_type}")
    return mime_type.split("/")[1].removeprefix("x-")


def _sampled(array: Any, sampling_rate: int, audio_format: str) -> str:
    try:
        return media_sources.sampled(array, sampling_rate, audio_format)
    except ImportError as error:
        raise ValueError(f"Unsupported type for encode_audio: {type(array)}; {error}") from None
