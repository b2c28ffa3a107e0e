"""Name a cloud's endpoint: of an account's settings, or of an address that was given. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from ...errors import LMConfigurationError
from .cloud_host import CloudHost

AZURE_API_VERSION = "2025-02-01-preview"  # litellm's, for deployments where none is given
_V1 = frozenset({"v1", "latest", "preview"})  # versions of Azure's API without deployments
_LABEL = re.compile(r"[A-Za-z0-9-]+")  # of a domain name
_LABELS = ("region", "resource", "location")


def require_labels(settings: Mapping[str, str], options: Mapping[str, str]) -> None:
    """Check what becomes a part of a domain name: a setting must not move the request to another host.

    Raises:
        LMConfigurationError: it is no such part.
    """
    for name in _LABELS:
        if name in settings and not _LABEL.fullmatch(settings[name]):
            raise LMConfigurationError(
                f"{options[name]} must be letters, digits and hyphens, not {settings[name]!r}.", model=None
            )


def base_url(host: CloudHost, settings: Mapping[str, str], endpoint: str | None) -> str:
    """Return the base URL of a host's models; behind an `endpoint` its path is added, but for what stands there."""
    values = dict(settings)
    if "project" in values:
        values["project"] = quote(values["project"], safe="")
    if "location" in values:
        values["location_host"] = _location_host(values["location"])
    if endpoint is None:
        return host.base_url.format(**values)
    parts = urlsplit(endpoint)
    given = [part for part in parts.path.split("/") if part]
    door = [part for part in host.path.format(**values).split("/") if part]
    for length in range(min(len(given), len(door)), 0, -1):
        if given[-length:] == door[:length]:
            given = given[:-length]
            break
    return "/".join((f"{parts.scheme}://{parts.netloc}", *given, *door))


def azure_deployment(endpoint: str, deployment: str, version: str | None) -> tuple[str, str] | None:
    """Return a deployment's base URL and query, as litellm asks it; None if the endpoint has Azure's v1 API.

    The portal shows a deployment's whole address, with its version: that is taken as it is.
    """
    root, _, query = endpoint.partition("?")
    root = root.rstrip("/").removesuffix("/chat/completions")
    if version in _V1 or (version is None and not query and root.endswith("/openai/v1")):
        return None
    if "api-version=" not in query or version is not None:
        query = f"api-version={quote(version or AZURE_API_VERSION, safe='')}"
    if "/openai/deployments/" not in root:
        root = f"{root.removesuffix('/openai/v1').removesuffix('/openai')}/openai/deployments/{quote(deployment)}"
    return root, query


def with_query(url: str, query: str) -> str:
    """Return the URL with an endpoint's own query behind it."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def without_key(url: str) -> str:
    """Return the URL that a worker writes without the key's place in it: the host sends the key as a header."""
    base, _, query = url.partition("?")
    kept = [part for part in query.split("&") if part and not part.startswith("key=")]
    return with_query(base, "&".join(kept))


def _location_host(location: str) -> str:
    """Return the host of a location (lm15, cloud/hosts.py)."""
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"
