"""Keys, `Authorization` and URL queries taken out of text that a user may read (RULES X3). Pure."""

from __future__ import annotations

import re

_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), r"\1 ***"),
    (
        re.compile(r"(?i)\b(authorization|x-api-key|x-goog-api-key|api[-_]?key)(\"?\s*[:=]\s*\"?)[^\s\",;]+"),
        r"\1\2***",
    ),
    (re.compile(r"\b(?:sk|pk|rk|gsk|xai|AIza)[-_][\w*.-]{4,}|\bAIza[\w-]{20,}"), "***"),
    (re.compile(r"(https?://)[^\s/@\"']+@"), r"\1***@"),
    (re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>)]*"), r"\1?***"),
)


def redact(text: str, *secrets: str | None) -> str:
    """The text without the given secrets and without anything that looks like one."""
    for secret in secrets:
        if secret and len(secret) >= 4:
            text = text.replace(secret, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
