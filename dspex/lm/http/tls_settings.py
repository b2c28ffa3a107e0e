"""`TlsSettings`: whom a client trusts and how it shows itself, and the TLS contexts that are made of them.

A context is made at the first need and again when a file of it has changed: certificates of an hour's life are renewed
under the same name. Any thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SettingsError

if TYPE_CHECKING:
    import ssl

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What TLS is made with. `authorities` is a file or folder, None for the system's; `named` says who named it."""

    verify: bool = True
    authorities: str | None = None
    named: str = "ssl_verify"
    system: tuple[str | None, ...] = (None, None)  # SSL_CERT_FILE and SSL_CERT_DIR, which OpenSSL reads itself
    certificate: str | None = None
    key: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_usual(self) -> bool:
        """Whether nothing of it was chosen."""
        return self == USUAL_TLS


USUAL_TLS = TlsSettings()
_contexts: dict[TlsSettings, tuple[tuple[int, ...], ssl.SSLContext]] = {}


def tls_settings(
    verify: bool | str | None, certificate: tuple[str, str | None, str | None] | None = None
) -> TlsSettings:
    """Return the settings of an LM's options; `verify` None means the environment's authorities, else the system's."""
    cert, key, password = certificate or (None, None, None)
    if verify is False:
        return TlsSettings(verify=False, certificate=cert, key=key, password=password)
    authorities, named = (verify, "ssl_verify") if isinstance(verify, str) else (None, "ssl_verify")
    if authorities is None:
        named = next((name for name in _BUNDLES if os.environ.get(name)), named)
        authorities = os.environ.get(named)
    system = (None, None) if authorities else tuple(os.environ.get(name) or None for name in _SYSTEM)
    return TlsSettings(True, authorities, named, system, cert, key, password)


def require_usable(settings: TlsSettings) -> None:
    """Make the context once, where something of it was chosen.

    Raises:
        SettingsError: a file is missing, is no PEM, or does not fit the others.
    """
    if not settings.is_usual:
        tls_context(settings)


def tls_context(settings: TlsSettings = USUAL_TLS) -> ssl.SSLContext:
    """Return the TLS context of these settings.

    Raises:
        SettingsError: as in `require_usable`.
    """
    kept = _contexts.get(settings)
    stamps = _stamps(settings)
    if kept is not None and kept[0] == stamps:
        return kept[1]
    try:
        context = _made(settings)
    except SettingsError:
        if kept is None:
            raise
        return kept[1]  # a file is just being replaced, or is gone: what was loaded from it still counts
    _contexts[settings] = (stamps, context)
    return context


def _made(settings: TlsSettings) -> ssl.SSLContext:
    import ssl  # 30 ms, for https only

    context = _trusting(settings)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a bundle may hold an intermediate authority alone
    if settings.certificate is not None:
        _load_certificate(context, settings)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trusting(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context that trusts whom the settings name."""
    import ssl

    if not settings.verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    # OpenSSL itself reads SSL_CERT_FILE, and says nothing of a file that is not there.
    path, named = settings.authorities or settings.system[0], settings.named
    if path is None:
        return ssl.create_default_context()
    if settings.authorities is None:
        named = "SSL_CERT_FILE"
    _require_path(path, named)
    try:
        if settings.authorities is None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
            return ssl.create_default_context()
        is_folder = Path(path).is_dir()
        return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"{named} is {path!r}, which holds no certificates in PEM ({_reason(error)}).", key=named
        ) from None


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    import ssl

    path, key = settings.certificate, settings.key
    assert path is not None
    for each in (path, *((key,) if key else ())):
        _require_path(each, "ssl_certificate")
    try:
        # With a function OpenSSL never asks at the terminal.
        context.load_cert_chain(path, key, password=lambda: settings.password or "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(_why_not(settings, error), key="ssl_certificate") from None


def _why_not(settings: TlsSettings, error: Exception) -> str:
    where = f"ssl_certificate is {settings.certificate!r}" + (f" with the key {settings.key!r}" if settings.key else "")
    if _is_encrypted(settings.key or settings.certificate):
        if settings.password is None:
            return f"{where}: the key is encrypted. Give (certificate, key, password)."
        return f"{where}: the password does not open the key."
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"{where}: the key is not that of the certificate."
    return f"{where}: no certificate and key in PEM were found ({_reason(error)}). Give (certificate, key)."


def _is_encrypted(path: str | None) -> bool:
    try:
        return path is not None and b"ENCRYPTED" in Path(path).read_bytes()
    except OSError:
        return False


def _require_path(path: str, named: str) -> None:
    try:
        if Path(path).is_dir():
            return
        with Path(path).open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise SettingsError(f"{named} is {path!r}, which cannot be read: {_reason(error)}.", key=named) from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__


def _stamps(settings: TlsSettings) -> tuple[int, ...]:
    found: list[int] = []
    for path in (settings.authorities, settings.system[0], settings.certificate, settings.key):
        if path is not None:
            try:
                state = Path(path).stat()
            except (OSError, ValueError):
                found.append(-1)
            else:
                found += (state.st_mtime_ns, state.st_size, state.st_ino)
    return tuple(found)
