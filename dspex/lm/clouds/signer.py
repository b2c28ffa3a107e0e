"""`Signer`: what gives a request its credentials as it is sent, where a key that never changes would not do."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from ...errors import LMAuthError, LMNotConfiguredError
from .sigv4 import AwsKeys, signed_headers


@dataclass(frozen=True, slots=True)
class Unsigned:
    """What of a request is signed."""

    url: str
    host: str  # the Host header
    content_type: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedWith:
    """The headers that sign a request, and what of them no message may show."""

    headers: Sequence[tuple[str, str]] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def is_jwt(text: str) -> bool:
    """Whether it is a JSON Web Token: what Azure's identity service gives is one, and no key is (lm15, access.py)."""
    parts = text.split(".")
    if len(parts) != 3 or not all(parts):
        return False
    try:
        head = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except ValueError:
        return False
    return isinstance(head, dict) and "alg" in head


class Signer(Protocol):
    """Signs requests. Any thread."""

    @property
    def is_ready(self) -> bool:
        """Whether it signs without waiting for anything."""
        ...

    def sign(self, unsigned: Unsigned) -> SignedWith:
        """Return what signs the request; may ask an identity service first.

        Raises:
            LMNotConfiguredError, LMAuthError: there are no credentials, or they are refused.
        """
        ...


@dataclass(frozen=True, slots=True)
class AwsSigner:
    """Signs with AWS keys; `keys` finds them, None where they are known."""

    region: str
    service: str
    known: AwsKeys | None
    found: Callable[[], AwsKeys] = field(repr=False)

    @property
    def is_ready(self) -> bool:
        return self.known is not None

    def sign(self, unsigned: Unsigned) -> SignedWith:
        keys = self.known or self.found()
        headers = [("host", unsigned.host), ("content-type", unsigned.content_type)]
        added = signed_headers(
            keys,
            unsigned.url,
            headers,
            unsigned.body,
            region=self.region,
            service=self.service,
            now=datetime.now(UTC),
        )
        secrets = [keys.secret_access_key, keys.session_token, added[-1][1].rpartition("Signature=")[2]]
        return SignedWith(added, tuple(secret for secret in secrets if secret))


class TokenSigner:
    """Signs with the token that a function returns: that of the user's, or of an identity library."""

    def __init__(self, token: Callable[[], str], *, is_ready: Callable[[], bool] = lambda: False) -> None:
        self._token = token
        self._is_ready = is_ready
        self._lock = threading.Lock()  # one refresh at a time

    @property
    def is_ready(self) -> bool:
        return self._is_ready()

    def sign(self, unsigned: Unsigned) -> SignedWith:
        with self._lock:
            token = self._token_now()
        return SignedWith([("authorization", f"Bearer {token}")], (token,))

    def _token_now(self) -> str:
        token, fault = None, ""
        try:
            token = self._token()
        except (LMAuthError, LMNotConfiguredError):
            raise
        except Exception as error:  # any, of a function that is not ours
            fault = type(error).__name__
        if fault:  # raised here: the error's text and frames may hold what it was given
            raise LMAuthError(f"No access token: {fault} in what provides it.")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise LMAuthError("What provides the access token returned none.")
        return token
