"""`HoldsSecrets`: what of an LM's record no report may show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .http.network import Network


class HoldsSecrets:
    """What of a record is no field: loggers and encoders write down all fields of a dataclass."""

    __slots__ = ("api_key", "direct_options", "extra_body", "headers", "network", "proxy", "ssl_certificate")

    api_key: str | None
    direct_options: Mapping[str, Any]
    extra_body: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...]
    network: Network
    proxy: str | None
    ssl_certificate: tuple[str, str | None, str | None] | None
