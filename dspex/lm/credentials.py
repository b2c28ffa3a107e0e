"""Find the secrets in an LM's settings: its key, its headers' and its proxy's. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

_CREDENTIAL = re.compile(r"auth|key|token|secret|cookie|pass|credential|session|signature|jwt|subscription")
_RANDOM = re.compile(r"(?=\S*[0-9])(?=\S*[A-Za-z])[\w.~+/=:-]{20,}")  # a value that looks drawn, not written
_SEPARATORS = re.compile(r"[\s;,]+")
_PART_LEAST = 8  # shorter parts of a header's value are words such as "Bearer"


def secrets_of(key: str | None, headers: Iterable[tuple[str, str]], proxy: str | None) -> tuple[str, ...]:
    """Return each secret of an LM's settings once: no message, event or worker may see it."""
    found = [key, *_of_headers(headers), *secrets_of_proxy(proxy)]
    return tuple(dict.fromkeys(secret for secret in found if secret))


def credentials_in(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the texts that are named as credentials are, also within mappings and lists, each with its name."""
    for name, value in options.items():
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, Mapping):
                yield from credentials_in(item)
            elif isinstance(item, str) and _CREDENTIAL.search(str(name).lower()):
                yield str(name).lower(), item


def secrets_of_proxy(url: str | None) -> tuple[str, ...]:
    """Return the password of a proxy's URL in each form: as written, decoded, and as the proxy gets it."""
    try:
        parts = urlsplit(url if not url or "://" in url else f"http://{url}")
        written = parts.password
    except ValueError:
        return ()
    if not written:
        return ()
    pair = f"{unquote(str(parts.username or ''))}:{unquote(str(written))}"
    return str(written), unquote(str(written)), base64.b64encode(pair.encode()).decode()


def _of_headers(headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in headers:
        if _CREDENTIAL.search(name):
            yield value
            yield from _parts(value)
        elif _RANDOM.fullmatch(value) and "://" not in value:
            yield value


def _parts(value: str) -> Iterator[str]:
    """Yield what may be quoted alone: the token behind "Bearer", a cookie's value, the password in Basic."""
    for word in _SEPARATORS.split(value):
        for part in (word, word.partition("=")[2]):
            if len(part) >= _PART_LEAST:
                yield part
    scheme, _, coded = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(coded, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return
