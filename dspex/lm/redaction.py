"""Remove secrets from an endpoint's bytes, and from texts that a user may read (RULES X3). Pure.

`Redactor` knows an LM's secrets and finds them as they are and in the encodings that services quote them in: JSON and
URL escapes, HTML entities, hexadecimal digits, base64 at any offset, UTF-16. `redact` also takes out what only looks
like a secret, which fits error messages but not answers. Not covered: a secret that is spread over several events, or
encrypted.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterator

_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), r"\1 ***"),
    (
        re.compile(r"(?i)\b(authorization|x-api-key|x-goog-api-key|api[-_]?key)(\"?\s*[:=]\s*\"?)[^\s\",;]+"),
        r"\1\2***",
    ),
    (re.compile(r"\b(?:sk|pk|rk|gsk|xai|AIza)[-_][\w*.-]{4,}|\bAIza[\w-]{20,}"), "***"),
    (re.compile(r"(https?://)[^\s/@\"']+@"), r"\1***@"),
)
_URL = re.compile(r"https?://[^\s\"'<>]+")  # whole, so that no search begins again inside it
ANSWER_LEAST = 8  # shorter "keys" of local servers ("none", "test") are words that answers contain
_SHOWN = b"***"
# An escaped printable character; of "\\n" and "\\u00e9", which answers are full of, no secret is made.
_ESCAPED = re.compile(rb"\\u00[2-7]|%[2-7]|&(?:#|quot;|amp;|lt;|gt;|apos;)")
_ENTITIES = {34: b"quot", 38: b"amp", 39: b"apos", 60: b"lt", 62: b"gt"}
_DEEPEST = 8  # backslashes before a character; a bound, so that a body of backslashes takes no quadratic time
_CUT = re.compile(rb"(?:\\{1,8}(?:u0{0,2}[2-7]?)?|%(?:25){0,3}[2-7]?|&(?:#(?:[xX]?[2-7]?|0?\d{0,3})|[a-z]{0,4}))\Z")
_AT_ONCE = 1024 * 1024  # bytes: a search of these is 10 ms, and lets no other thread run meanwhile
_WIDEST = 12  # bytes that an escaped character takes at most, about


def redact(text: str, *secrets: str | None) -> str:
    """Return the text without the given secrets and without anything that looks like one."""
    for secret in secrets:
        if secret and len(secret) >= 4:
            text = text.replace(secret, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return _URL.sub(_without_query, text)


def _without_query(url: re.Match[str]) -> str:
    address, mark, query = url[0].partition("?")
    _, closing, rest = query.partition(")")
    return f"{address}?***{closing}{rest}" if mark else address


@functools.lru_cache(maxsize=256)
def redactor_of(secrets: tuple[str, ...]) -> Redactor:
    """Return the redactor for these secrets, made once."""
    return Redactor(secrets)


class Redactor:
    """Takes an LM's secrets out of bytes: `whole` of what is complete, `stream` of what comes in parts."""

    __slots__ = ("_escaped", "_forms", "_secrets", "_wide")

    def __init__(self, secrets: tuple[str, ...]) -> None:
        long_enough = [secret for secret in secrets if len(secret) >= ANSWER_LEAST]
        self._secrets = [secret.encode() for secret in long_enough]
        forms = {form for secret in self._secrets for form in _literal_forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)  # the longest first: one may hold another
        self._wide = [
            secret.encode(coding) for secret in long_enough for coding in ("utf-16-le", "utf-16-be", "utf-32-le")
        ]
        self._escaped: re.Pattern[bytes] | None = None

    def may_be_in(self, head: str, body: bytes) -> bool:
        """Return whether a secret may be in a reply: one look at both, since nearly no reply holds any."""
        if not self._forms:
            return False
        if len(body) > _AT_ONCE:
            return True
        data = head.encode("latin-1", "replace") + body
        for form in self._forms:
            if form in data:
                return True
        return b"\0" in data or _is_escaped(data)

    def whole(self, data: bytes) -> bytes:
        """Return all of the data, without the secrets."""
        if len(data) <= _AT_ONCE:
            return self.piece(data) if self._forms else data
        stream = self.stream()
        pieces = [stream.feed(data[at : at + _AT_ONCE]) for at in range(0, len(data), _AT_ONCE)]
        shown = b"".join((*pieces, stream.end()))
        return self._without_wide(shown) if b"\0" in shown else shown

    def piece(self, data: bytes) -> bytes:
        """Return all of some data that is not long, without the secrets."""
        for form in self._forms:
            if form in data:
                data = data.replace(form, _SHOWN)
        if self._forms and _is_escaped(data):
            data = self._pattern().sub(_SHOWN, data)
        return self._without_wide(data) if b"\0" in data else data

    def _without_wide(self, data: bytes) -> bytes:
        for form in self._wide:
            data = data.replace(form, b"")
        return data

    def text(self, text: str) -> str:
        """Return a head's text (Latin-1), without the secrets."""
        if not self._forms:
            return text
        data = text.encode("latin-1", "replace")
        shown = self.whole(data)
        return text if shown is data else shown.decode("latin-1")

    def stream(self) -> Redaction:
        """Return a redaction of data that comes in parts."""
        return Redaction(self)

    def unfinished(self, data: bytes) -> int:
        """Return how many bytes at the data's end may be the beginning of a secret: all that has to wait for more."""
        tail = data[data.rfind(b"\n") + 1 :]  # no form holds a line end, so whole events never wait
        if not tail or not self._forms:
            return 0
        plain = max(_overlap(tail, form) for form in self._forms)
        if b"\\" not in tail and b"%" not in tail and b"&" not in tail:
            return plain
        return max(plain, *(_escaped_overlap(tail, secret) for secret in self._secrets))

    def _pattern(self) -> re.Pattern[bytes]:
        if self._escaped is None:  # most LMs never need it
            self._escaped = re.compile(b"|".join(b"".join(map(_any_form, secret)) for secret in self._secrets))
        return self._escaped


class Redaction:
    """One stream's redaction: `feed` returns what may be shown, `end` what was held back."""

    __slots__ = ("_held", "_redactor")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, part: bytes) -> bytes:
        """Return what of the data so far may be shown."""
        data = self._redactor.piece(self._held + part if self._held else part)
        waiting = self._redactor.unfinished(data)
        if not waiting:
            self._held = b""
            return data
        self._held = data[-waiting:]
        return data[:-waiting]

    def end(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        return rest


def _is_escaped(data: bytes) -> bool:
    """Return whether a printable character may be escaped in it; three look-ups first, a tenth of the search's cost."""
    marked = b"\\u00" in data or b"%" in data or b"&" in data
    return marked and _ESCAPED.search(data) is not None


def _literal_forms(secret: bytes) -> Iterator[bytes]:
    """Yield the secret as it is, in JSON, in hexadecimal digits, and in base64."""
    quoted = secret
    for _ in range(3):  # JSON within JSON within JSON
        yield quoted
        yield quoted.replace(b"/", rb"\/")
        quoted = quoted.replace(b"\\", rb"\\").replace(b'"', rb"\"")
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for offset in range(3):  # behind 0, 1 or 2 other bytes, without the letters that those decide with it
        coded = base64.b64encode(b"\0" * offset + secret)[(0, 2, 3)[offset] : (len(secret) + offset) * 8 // 6]
        yield coded
        yield coded.replace(b"+", b"-").replace(b"/", b"_")


def _any_form(byte: int) -> bytes:
    """Return a pattern for one byte of a secret, as it is or escaped."""
    return b"(?:" + b"|".join([rb"\\{0,%d}%b" % (_DEEPEST, re.escape(bytes((byte,)))), *_escapes(byte)]) + b")"


def _escapes(byte: int) -> list[bytes]:
    """Return patterns for the escapes of a byte: JSON's, a URL's, HTML's."""
    digits = b"".join(b"[%c%c]" % (digit, digit ^ 32) if digit > 57 else b"%c" % digit for digit in b"%02x" % byte)
    named = b"|" + _ENTITIES[byte] if byte in _ENTITIES else b""
    return [
        rb"\\{1,%d}u00%b" % (_DEEPEST, digits),
        rb"%%(?:25){0,3}%b" % digits,
        rb"&(?:#(?:0?%d|[xX]%b)%b);" % (byte, digits, named),
    ]


@functools.lru_cache(maxsize=256)
def _escapes_of(byte: int) -> re.Pattern[bytes]:
    return re.compile(b"|".join(_escapes(byte)))


def _overlap(tail: bytes, form: bytes) -> int:
    """Return the length of the longest end of `tail` that begins `form`."""
    at = max(0, len(tail) - len(form) + 1)
    while (at := tail.find(form[:1], at)) >= 0:
        if form.startswith(tail[at:]):
            return len(tail) - at
        at += 1
    return 0


def _escaped_overlap(tail: bytes, secret: bytes) -> int:
    """`_overlap` where characters may be escaped, and the last escape cut."""
    first = max(0, len(tail) - _WIDEST * len(secret))
    return next((len(tail) - at for at in range(first, len(tail)) if _begins(tail, at, secret)), 0)


def _begins(tail: bytes, at: int, secret: bytes) -> bool:
    """Return whether the tail from there on is a beginning of the secret, to its very end."""
    places = {at}
    for byte in secret:
        if any(place == len(tail) or _CUT.match(tail, place) for place in places):
            return True
        places = {end for place in places for end in _ends(tail, place, byte)}
        if not places:
            return False
    return False


def _ends(tail: bytes, at: int, byte: int) -> Iterator[int]:
    """Return where the byte that begins there may end: its escapes may be characters of the secret themselves."""
    if escape := _escapes_of(byte).match(tail, at):
        yield escape.end()
    for place in range(at, min(at + _DEEPEST + 1, len(tail))):
        if tail[place] == byte:
            yield place + 1
        if tail[place] != 92:
            return
