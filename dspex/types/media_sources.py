"""Read what images, sound and files are made of: data URIs, local files, URLs, objects of Pillow and soundfile.

Only functions that say so open a file or a connection, in the caller's thread, when the caller asks for it: nothing
that a model wrote leads here. Follows dspy/adapters/types/{image,audio,file}.py of DSPy 3.4.1, errors included.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

Source = str | os.PathLike[str]


def data_uri(data: bytes, mime_type: str) -> str:
    """Return the data as a data URI."""
    return f"data:{mime_type};base64,{encoded(data)}"


def encoded(data: bytes) -> str:
    """Return the data in base64."""
    return base64.b64encode(data).decode("ascii")


def is_url(text: str, schemes: tuple[str, ...] = ("http", "https", "gs")) -> bool:
    """Whether this is a URL of one of these schemes, with a host."""
    try:
        found = urlparse(text)
    except ValueError:
        return False
    return found.scheme in schemes and bool(found.netloc)


def type_of(path: Source) -> str | None:
    """Return the MIME type that a name tells."""
    return mimetypes.guess_type(os.fspath(path))[0]


def read_file(path: Source) -> bytes:
    """Return the content of a local file.

    Raises:
        ValueError: there is no such file.
    """
    found = Path(path)
    if not found.is_file():
        raise ValueError(f"File not found: {os.fspath(path)}")
    return found.read_bytes()


def fetched(url: str, kind: str, *, verify: bool, timeout: float | None) -> tuple[str | None, bytes]:
    """Return the type that the server named, if it named one, and the content.

    Any host that this process reaches is reached, and redirects are followed: a URL from elsewhere is checked first.

    Raises:
        ValueError: it is no HTTP(S) URL.
        OSError: it cannot be fetched.
    """
    if not is_url(url, ("http", "https")):
        raise ValueError(f"{kind}.from_url requires an HTTP(S) URL, received: {url}")
    with _opener(verify).open(url, timeout=timeout) as response:
        named: str | None = response.headers.get("Content-Type")
        return named, response.read()


def _opener(verify: bool) -> Any:
    """Return what opens URLs of HTTP and HTTPS; urllib alone would follow a redirect to FTP."""
    import ssl  # these two are slow to load, and few programs fetch anything
    import urllib.request

    class HTTPAlone(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
            if not is_url(newurl, ("http", "https")):
                raise ValueError(f"{req.full_url} redirects to {newurl}, which is no HTTP(S) URL.")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(HTTPAlone(), urllib.request.HTTPSHandler(context=context))


def is_pillow_image(source: Any) -> bool:
    """Whether this is an image of Pillow's; Pillow is never imported to say no."""
    loaded = sys.modules.get("PIL.Image")
    return loaded is not None and isinstance(source, loaded.Image)


def pillow_uri(source: Any) -> str:
    """Return an image of Pillow's, or the bytes of one, encoded by Pillow as a data URI.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: the bytes are no image.
    """
    image = _opened(source) if isinstance(source, bytes) else source
    file_format = image.format or "PNG"
    buffered = io.BytesIO()
    image.save(buffered, format=file_format)
    mime_type = type_of(f"file.{file_format.lower()}")
    if mime_type is None:
        raise ValueError(f"Could not determine MIME type for image format: {file_format}")
    return data_uri(buffered.getvalue(), mime_type)


def _opened(data: bytes) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportError(
            "Pillow is required to process image bytes; without it, name their type: Image(data, 'image/png')."
        ) from None
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError(f"Bytes could not be identified as an image: {error}") from error


def sampled(array: Any, sampling_rate: int, audio_format: str) -> str:
    """Return samples in base64, written by soundfile as 16-bit sound.

    Raises:
        ImportError: soundfile is not installed.
    """
    try:
        import soundfile  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ImportError("soundfile is required to process audio arrays.") from None
    written = io.BytesIO()
    soundfile.write(written, array, sampling_rate, format=audio_format.upper(), subtype="PCM_16")
    return encoded(written.getvalue())
