"""`HoldsSecrets`: what of an LM's record no report of errors may show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .http.network import Network

if TYPE_CHECKING:
    from .clouds.cloud_account import CloudAccount


class HoldsSecrets:
    """What of a record is no field: loggers and encoders write down all fields of a dataclass."""

    __slots__ = (
        "account",
        "api_key",
        "direct_options",
        "extra_body",
        "headers",
        "network",
        "proxy",
        "query",
        "ssl_certificate",
    )

    account: CloudAccount | None  # where a cloud's models are, and who signs
    api_key: str | None
    direct_options: Mapping[str, Any]
    extra_body: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...]
    network: Network
    proxy: str | None
    query: str  # of the endpoint's URL; it may name a subscription
    ssl_certificate: tuple[str, str | None, str | None] | None
