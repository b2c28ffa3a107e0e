"""Sign a request for AWS (Signature Version 4). Pure.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html. The host, the content's type and
the headers that begin with x-amz- are signed; the tests compare with botocore's own signer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_SAFE = "-_.~"
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """The keys of an AWS identity; a session's come with its token."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False, default=None)


def signed_headers(
    keys: AwsKeys,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    region: str,
    service: str,
    now: datetime,
) -> list[tuple[str, str]]:
    """Return the headers that sign a POST of `body`, beside the given ones, of which "host" is one; `now` is in UTC."""
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    added = [("x-amz-date", moment)]
    if keys.session_token:
        added.append(("x-amz-security-token", keys.session_token))
    lines = {name.lower(): _BLANKS.sub(" ", value.strip()) for name, value in (*headers, *added)}
    names = sorted(lines)
    parts = urlsplit(url)
    canonical = "\n".join(
        (
            "POST",
            _canonical_path(parts.path),
            _canonical_query(parts.query),
            "".join(f"{name}:{lines[name]}\n" for name in names),
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = ("AWS4" + keys.secret_access_key).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{_ALGORITHM} Credential={keys.access_key_id}/{scope}"
    return [*added, ("authorization", f"{credential}, SignedHeaders={';'.join(names)}, Signature={signature}")]


def _canonical_path(path: str) -> str:
    """Return the path as it is signed: its segments are encoded once more, as they are for all services but S3."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept[-1:] = []
        elif segment not in ("", "."):
            kept.append(quote(segment, safe=_SAFE))
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True) if query else []
    return "&".join(f"{name}={value}" for name, value in sorted((quote(n, _SAFE), quote(v, _SAFE)) for n, v in pairs))
