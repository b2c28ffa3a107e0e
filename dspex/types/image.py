"""`Image`: what prompts hold as a content block. Making one reads nothing but `from_path` and `from_url`.

Follows dspy/adapters/types/image.py of DSPy 3.4.1: its constructors, errors, name and prompt form.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, ClassVar, Final

import pydantic

from . import media_sources
from .custom_type import DspyType
from .media_sources import Source

_UNSET: Final = object()


class Image(DspyType):
    """An image: `Image("https://...")`, `Image("data:image/png;base64,...")`, `Image(data)`, an image of Pillow's.

    Bytes are identified by Pillow, or by `Image(data, "image/png")` without it. A local file is read by `from_path`, a
    URL that the provider is not to fetch by `from_url`.

    Raises:
        ValueError: a source that is none of these.
        TypeError: two sources at once.
    """

    dspy_name: ClassVar[str] = "dspy.Image"
    model_config = pydantic.ConfigDict(frozen=True, str_strip_whitespace=True, validate_assignment=True, extra="forbid")
    url: str

    def __init__(
        self,
        source: Any = None,
        mime_type: str | None = None,
        /,
        *,
        download: Any = _UNSET,
        verify: Any = _UNSET,
        **values: Any,
    ) -> None:
        is_asked = download is not _UNSET or verify is not _UNSET
        if is_asked:
            _require_source(source)
        if source is not None and "url" in values:
            raise TypeError("Image received both `source` and `url`; provide only one image source")
        if source is not None:
            values["url"] = source["url"] if isinstance(source, dict) and set(source) == {"url"} else source
        given: Any = values.get("url")
        if is_asked and download is not _UNSET and download and _is_remote(given):
            values["url"] = _fetched_image(given, True if verify is _UNSET else verify, 30.0)
        elif "url" in values:
            values["url"] = _image_url(values["url"], mime_type)
        super().__init__(**values)

    @classmethod
    def from_path(cls, file_path: Source) -> Image:
        """Return a local file as a data URI.

        Raises:
            ValueError: there is no such file, or its name does not tell its type.
        """
        data, mime_type = media_sources.read_file(file_path), media_sources.type_of(file_path)
        if mime_type is None:
            raise ValueError(f"Could not determine MIME type for file: {os.fspath(file_path)}")
        return cls(media_sources.data_uri(data, mime_type))

    @classmethod
    def from_url(cls, url: str, verify: bool = True, timeout: float | None = 30.0) -> Image:
        """Fetch a URL, now and in this process, and return what came as a data URI.

        Any host that this process reaches is reached, and redirects are followed: check a URL from elsewhere first.

        Raises:
            ValueError: it is no HTTP(S) URL, or nothing tells the type of what came.
            OSError: it cannot be fetched.
        """
        return cls(_fetched_image(url, verify, timeout))

    @classmethod
    def from_file(cls, file_path: Source) -> Image:
        """`from_path`, by DSPy's older name."""
        _deprecated("Image.from_file", "Image.from_path")
        return cls.from_path(file_path)

    @classmethod
    def from_PIL(cls, pil_image: Any) -> Image:
        """`Image(pil_image)`, by DSPy's older name."""
        _deprecated("Image.from_PIL", "Image(pil_image)")
        return cls(pil_image)

    def format(self) -> list[dict[str, Any]]:
        return [{"type": "image_url", "image_url": {"url": self.url}}]

    def __repr__(self) -> str:
        head, found, data = self.url.partition("base64,")
        if not found:
            return f"Image(url='{self.url}')"
        kind = head.partition(";")[0].rpartition("/")[2]
        return f"Image(url=data:image/{kind};base64,<IMAGE_BASE_64_ENCODED({len(data.partition('base64,')[0])})>)"


def _require_source(source: Any) -> None:
    """Refuse a download without a positional source: what a model wrote must not have anything fetched."""
    if source is None:
        raise TypeError(
            "`download` and `verify` are only valid with a positional image source; "
            "use Image.from_url(url, verify=...) to download a remote image."
        )
    _deprecated("The `download` and `verify` arguments to Image()", "Image.from_url or Image.from_path")


def _deprecated(what: str, instead: str) -> None:
    warnings.warn(f"{what}: deprecated in DSPy; use {instead} instead.", DeprecationWarning, stacklevel=3)


def _is_remote(source: Any) -> bool:
    return isinstance(source, str) and media_sources.is_url(source, ("http", "https"))


def _fetched_image(url: str, verify: bool, timeout: float | None) -> str:
    named, data = media_sources.fetched(url, "Image", verify=verify, timeout=timeout)
    mime_type = named or media_sources.type_of(url)
    if mime_type is None:
        raise ValueError(f"Could not determine MIME type for URL: {url}")
    return media_sources.data_uri(data, mime_type)


def _image_url(source: Any, mime_type: str | None) -> str:
    if isinstance(source, dict) and "url" in source:
        return _image_url(source["url"], mime_type)
    if isinstance(source, Image):
        return source.url
    if isinstance(source, bytes) and mime_type is not None:
        return media_sources.data_uri(source, mime_type)
    if isinstance(source, bytes) or media_sources.is_pillow_image(source):
        return media_sources.pillow_uri(source)
    if not isinstance(source, str):
        raise ValueError(f"Unsupported image type: {type(source)}")
    if source.startswith("data:") or media_sources.is_url(source):
        return source
    raise ValueError(f"Unrecognized image string: {source}. Local files must be loaded with Image.from_path().")
