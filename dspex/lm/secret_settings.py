"""What of an LM's record no report of errors may show: `HoldsSecrets`, its options, and the frames that check them."""

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


class UnshownOptions(dict[str, Any]):
    """Options of an LM. Their repr shows none: reporters of errors show the variables of each frame."""

    def __repr__(self) -> str:
        return f"<{len(self)} options of an LM>"


def without_frames(error: Exception) -> Exception:
    """Return the error without the frames that it passed, and so those behind it: their variables hold the options.

    What was wrong is in its message, and where it was asked for is in the caller's frames.
    """
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
    return error
