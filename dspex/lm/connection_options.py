"""Check the options that say how an LM is connected to, and resolve them with what the environment has. No connection.

The names are those that others use: `ssl_verify` and `ssl_certificate` of LiteLLM (`verify` and `cert` of requests and
httpx are taken too), `proxy` and `max_connections` of httpx.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import LMUnsupportedFeatureError, SettingsError
from .http.endpoint import target_of
from .http.network import Network, network_of
from .http.proxies import parsed_proxy
from .http.tls_settings import USUAL_TLS, require_usable, tls_settings
from .record_checks import whole

Certificate = tuple[str, str | None, str | None]  # the paths of certificate and key, and the key's password
OPTIONS = ("proxy", "ssl_verify", "ssl_certificate", "max_connections")
_FORMS = "a path, (certificate, key) or (certificate, key, password)"


def connection_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a connection out of an LM's, and return each in its one form; None is what is not given.

    Raises:
        SettingsError: a value of another kind.
        LMConfigurationError: a proxy that is none.
    """
    is_proxied = "proxy" in options
    most = options.pop("max_connections", None)
    return {
        "proxy": _proxy(options.pop("proxy")) if is_proxied else None,
        "ssl_verify": _verify(options.pop("ssl_verify", None)),
        "ssl_certificate": _certificate(options.pop("ssl_certificate", None)),
        "max_connections": None if most is None else whole("max_connections", most, 1),
    }


def network_for(model: str, base: str, given: Mapping[str, Any], *, is_direct: bool) -> Network:
    """Return how an LM at `base` is connected to; files are read now, so that what is wrong is said now.

    Raises:
        SettingsError: a certificate's file is missing, or is none.
        LMConfigurationError, MissingDependency: a proxy, or a socket, that cannot be used.
        LMUnsupportedFeatureError: workers connect by themselves, and would not heed an option.
    """
    if is_direct:
        _require_none(model, base, given)
        return Network()
    network = network_of(given["proxy"], USUAL_TLS, given["max_connections"])
    chosen = given["ssl_verify"] not in (None, True) or given["ssl_certificate"] is not None
    if base and (chosen or _is_secure(base, network)):
        tls = tls_settings(given["ssl_verify"], given["ssl_certificate"])
        require_usable(tls)
        network = Network(network.proxies, tls, network.max_connections)
    if base:
        target_of(base, network=network)
    return network


def _is_secure(base: str, network: Network) -> bool:
    """Return whether TLS is spoken, to the endpoint or to its proxy."""
    target = target_of(base, network=network)
    return target.server_name is not None or (target.proxy is not None and target.proxy.scheme == "https")


def _require_none(model: str, base: str, given: Mapping[str, Any]) -> None:
    option = next((name for name in OPTIONS if given[name] is not None), None)
    if option is not None or base.startswith("http+unix:"):
        raise LMUnsupportedFeatureError(
            f"{'api_base with a socket' if option is None else option} is not for direct=True: the worker connects by "
            f"itself, as its environment says (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE in the pool's env).",
            model=model,
        )


def _proxy(given: Any) -> str:
    if given is None:
        return ""
    if not isinstance(given, str):
        raise SettingsError('proxy must be a URL; "" or None for no proxy; left out, the environment\'s.', key="proxy")
    if given:
        parsed_proxy(given)
    return given


def _verify(given: Any) -> bool | str | None:
    if given is None or isinstance(given, bool):
        return given
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise SettingsError(
            "ssl_verify must be True, False or the path of certificates in PEM (a file or a folder), not "
            f"{type(given).__name__}.",
            key="ssl_verify",
        )
    return _path(given)


def _certificate(given: Any) -> Certificate | None:
    if given is None:
        return None
    parts = list(given) if isinstance(given, list | tuple) else [given]
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], str | os.PathLike):
        raise SettingsError(f"ssl_certificate must be {_FORMS}.", key="ssl_certificate")
    path, key, password = (*parts, None, None)[:3]
    if not isinstance(key, str | os.PathLike | None) or not isinstance(password, str | None):
        raise SettingsError(f"ssl_certificate must be {_FORMS}.", key="ssl_certificate")
    return _path(path), None if key is None else _path(key), password


def _path(given: Any) -> str:
    return str(Path(cast("str | os.PathLike[str]", given)).expanduser())
