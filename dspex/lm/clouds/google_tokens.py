"""Get access tokens for Google's cloud by google-auth, which is imported at the first request that needs one."""

from __future__ import annotations

import functools
import importlib
import json
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import LMAuthError, LMNotConfiguredError, SettingsError
from .signer import TokenSigner

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
FILE_MOST = 1024 * 1024  # bytes of a credentials file
TIMEOUT_S = 30.0
INSTALL = "pip install dspex[vertex]"


def credentials_info(given: Any) -> dict[str, Any]:
    """Return the content of credentials that were given as a mapping, as JSON, or as the path of a file.

    Raises:
        SettingsError: they are none; or google-auth, which reads them, is not installed.
    """
    info, fault = _tried(lambda: _read(given))
    if not fault and not (isinstance(info, dict) and isinstance(info.get("type"), str)):
        fault = "no type, such as 'service_account'"
    if fault:  # raised here: the error's frames would hold what was read
        del info
        raise SettingsError(
            f"vertex_credentials must be a credentials file of Google's, its content or a mapping: {fault}.",
            key="vertex_credentials",
        )
    if not has_google_auth():
        del info
        raise SettingsError(
            f"vertex_credentials need google-auth, which is not installed ({INSTALL}); an access token can be given as "
            f"api_key= instead.",
            key="vertex_credentials",
        )
    found: dict[str, Any] = info
    return found


def google_signer(info: Mapping[str, Any] | None) -> TokenSigner:
    """Return what signs with these credentials; with None, with those that the machine has."""
    held = _HeldCredentials(info)
    return TokenSigner(held.token, is_ready=held.is_valid)


@functools.cache
def has_google_auth() -> bool:
    """Whether google-auth is installed."""
    try:
        return find_spec("google.auth") is not None
    except ImportError:
        return False


class _HeldCredentials:
    """google-auth's credentials, made at first need."""

    def __init__(self, info: Mapping[str, Any] | None) -> None:
        self._info = info
        self._made: Any = None

    def is_valid(self) -> bool:
        return self._made is not None and bool(self._made.valid)

    def token(self) -> str:
        if self._made is None:
            self._made = self._credentials()
        if not self._made.valid:
            _, fault = _tried(lambda: self._made.refresh(_ask))
            if fault:  # google-auth's own errors quote what they were answered
                raise LMAuthError(f"Google's identity service gave no access token ({fault}).")
        return str(self._made.token)

    def _credentials(self) -> Any:
        if not has_google_auth():
            raise LMNotConfiguredError(
                f"No credentials for Google's cloud: give an access token as api_key=, or install google-auth "
                f"({INSTALL}) and give vertex_credentials=."
            )
        made, fault = _tried(lambda: _of_machine() if self._info is None else _of_file(dict(self._info)))
        if fault:  # DefaultCredentialsError, ValueError of a key that is none
            raise LMNotConfiguredError(
                f"No credentials for Google's cloud ({fault}): give vertex_credentials=, or a token as api_key=."
            )
        return made


def _tried(function: Callable[[], Any]) -> tuple[Any, str]:
    """Return what the function returns, and how it failed, if it did; nothing of an error is kept but its name."""
    try:
        return function(), ""
    except Exception as error:  # of other libraries, and of files
        return None, type(error).__name__


def _of_machine() -> Any:
    return _module("google.auth").default(scopes=[SCOPE], request=_ask)[0]


def _of_file(info: dict[str, Any]) -> Any:
    if info["type"] == "service_account":
        module = _module("google.oauth2.service_account")
        return module.Credentials.from_service_account_info(info, scopes=[SCOPE])
    if info["type"] == "authorized_user":
        return _module("google.oauth2.credentials").Credentials.from_authorized_user_info(info, scopes=[SCOPE])
    with warnings.catch_warnings():  # google-auth warns of files by strangers; this one is the user's own
        warnings.simplefilter("ignore", DeprecationWarning)
        return _module("google.auth").load_credentials_from_dict(info, scopes=[SCOPE], request=_ask)[0]


def _module(name: str) -> Any:
    return importlib.import_module(name)


@dataclass(frozen=True, slots=True)
class _IdentityReply:
    """A response as google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def _ask(url: str, method: str = "GET", body: Any = None, headers: Any = None, **options: Any) -> _IdentityReply:
    """Carry out google-auth's own requests, through the environment's proxies; it needs no HTTP library then."""
    data = body.encode() if isinstance(body, str) else body
    request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=options.get("timeout") or TIMEOUT_S) as reply:
            return _IdentityReply(reply.status, dict(reply.headers), reply.read(FILE_MOST))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return _IdentityReply(refusal.code, dict(refusal.headers), refusal.read(FILE_MOST))
    except (OSError, urllib.error.URLError) as error:
        raise _module("google.auth.exceptions").TransportError(type(error).__name__) from None


def _read(given: Any) -> Any:
    if isinstance(given, Mapping):
        return json.loads(json.dumps(dict(given)))
    if not isinstance(given, str | os.PathLike):
        raise ValueError("neither")
    text = os.fspath(given)
    if isinstance(text, str) and text.lstrip().startswith("{"):
        return json.loads(text)
    with Path(text).open(encoding="utf-8") as file:
        return json.loads(file.read(FILE_MOST))
