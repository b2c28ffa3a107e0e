"""Cut what a provider quotes of a request out of its error's text (RULES X3). Pure; runs only when a request failed.

A message is shown up to the first place that repeats the prompt: some words in a row, a name, a quoted word, an odd
word, and each of these escaped or encoded. All that the provider said stays in the error's `provider_message`. Of a
request that is too long to be searched within a moment, only what consists of common words is shown.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from ..errors import LMError

SEARCHED_MOST = 512 * 1024  # bytes of a request's body; some 40 ms
SHORT_PROMPT = 2_000  # words; in a longer one any three common words stand in a row somewhere
_COMMON = frozenset(
    """a above actual allowed amount an and api are at available be been body but by bytes can cannot characters content
    context error exceed exceeded exceeds for from given greater has have however http in increase input invalid is it
    its kb larger length less limit long longer max maximum may mb message messages model most must new no not of on
    only or output over please prompt reduce request requested requests resulted s set should shorten size smaller
    supports text than that the this to token tokens too total try up use used using was which window with you your
    completion entity payload bad large upstream gateway server service unavailable timeout code failed""".split()
)
_NUMBER_MOST = 8  # digits
_PROMPTS = ("messages", "system", "prompt", "input", "instructions", "contents", "systemInstruction", "tools")
_NO_PROMPT = frozenset(("role", "type", "model", "id", "name", "tool_call_id", "mime_type", "media_type", "required"))
_HIDDEN = "…; the rest quotes the request: see `provider_message`"
_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"""(["'`“‘«])(?=\w)(.{1,500}?)["'`”’»]""", re.DOTALL)
_CODED = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|([nrt\"'/\\]))")
_ODD_LEAST, _QUOTED_LEAST, _LONG_LEAST = 6, 4, 12  # characters of words that are taken for the prompt's when alone
_RUN_LEAST = 10  # characters of words in a row


def without_quotes(error: LMError, body: bytes) -> LMError:
    """Cut what the error quotes of a request's body out of its text, in place."""
    if error.provider_message is None:
        return error
    at = _first_quote(error.message, body)
    if at is not None:
        status = f" (HTTP {error.status})" if error.status is not None else ""
        shown = error.message[:at].rstrip(" \"'`“‘«([{<:,\\")
        error.message = f"{shown or 'The provider refused the request'} {_HIDDEN}{status}"
        error.args = (f"[{error.model}] {error.message}" if error.model else error.message,)
    return error


def _first_quote(message: str, body: bytes) -> int | None:
    if len(body) > SEARCHED_MOST:
        return None if all(map(_is_common, _WORD.findall(message.lower()))) else 0
    prompt = _Prompt(body)
    found = list(prompt.quotes(message))
    if found:
        return min(found)
    plain = _unescaped(message)
    others = ([plain] if plain != message else []) + list(_decoded(message))
    return 0 if any(next(prompt.quotes(other), None) is not None for other in others) else None


class _Prompt:
    """The words of a request's texts, in a form in which quotes of them are found."""

    def __init__(self, body: bytes) -> None:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = {}
        texts = [text for name in _PROMPTS for text in _texts(asked.get(name), 0)] if isinstance(asked, dict) else []
        words = [_WORD.findall(text.lower()) for text in texts]
        self._whole = "\n".join(f" {' '.join(each)} " for each in words)
        self._unspaced = "".join("".join(each) for each in words if not "".join(each).isascii())
        count = sum(map(len, words))
        self._run = 3 if count < SHORT_PROMPT else 4
        self._short = [" ".join(each) for each in words if 0 < len(each) < self._run]

    def quotes(self, message: str) -> Iterator[int]:
        """Yield the places where a message quotes the prompt, of each kind the first."""
        found = list(_WORD.finditer(message))
        words = [word[0].lower() for word in found]
        for at, match in enumerate(found):
            run = " ".join(words[at : at + self._run])
            if (len(run) >= _RUN_LEAST and at + self._run <= len(words) and self._has(run)) or self._is_odd(match[0]):
                yield match.start()
                break
            if self._is_name(found[at : at + 2], message):
                yield match.start()
                break
        whole = f" {' '.join(words)} "
        for text in self._short:
            if len(text) >= _QUOTED_LEAST and f" {text} " in whole:
                first = text.split(" ", 1)[0]
                yield found[words.index(first)].start()
                break
        for quoted in _QUOTED.finditer(message):
            inner = " ".join(_WORD.findall(quoted[2].lower()))
            if len(inner) >= _QUOTED_LEAST and self._has(inner):
                yield quoted.start()
                break

    def _has(self, run: str) -> bool:
        return f" {run} " in self._whole

    def _is_odd(self, word: str) -> bool:
        """Whether a word of the prompt is too particular to be there by chance."""
        lower = word.lower()
        if not word.isascii():
            return len(word) >= _QUOTED_LEAST and lower in self._unspaced
        is_odd = len(word) >= _ODD_LEAST and any(map(str.isdigit, word)) and "_" not in word
        return (is_odd or (len(word) >= _LONG_LEAST and "_" not in word)) and self._has(lower)

    def _is_name(self, pair: list[re.Match[str]], message: str) -> bool:
        if len(pair) < 2 or not all(word[0][0].isupper() and word[0][1:].islower() for word in pair):
            return False
        return pair[1].start() == pair[0].end() + 1 and self._has(message[pair[0].start() : pair[1].end()].lower())


def _is_common(word: str) -> bool:
    return word in _COMMON or (word.isdecimal() and len(word) <= _NUMBER_MOST)


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < 20 and isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif depth < 20 and isinstance(value, dict):
        for name, item in value.items():
            if name not in _NO_PROMPT:
                yield from _texts(item, depth + 1)


def _unescaped(message: str) -> str:
    plain = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else " ", message)
    return unquote_plus(html.unescape(plain))


def _decoded(message: str) -> Iterator[str]:
    """Yield what words of a message are when they are base64 or hexadecimal digits."""
    for coded in _CODED.findall(message):
        for decode in (bytes.fromhex, _base64):
            try:
                yield decode(coded).decode()
            except (ValueError, binascii.Error):
                continue


def _base64(text: str) -> bytes:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare[: len(bare) // 4 * 4])
