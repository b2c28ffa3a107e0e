"""`Lm15Dialect`: a dialect whose requests DSPy's own provider library writes; answers are read by the dialect's module.

What the library would leave out of a request in silence is refused. Its clients get no key and no connection.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ...errors import InvalidInput, LMError, LMUnsupportedFeatureError, LMUnsupportedModelError
from ..clouds.cloud_urls import without_key
from ..dspy_lm15 import DROPPABLE, lm15
from ..sent_options import LOCAL, MARKS
from . import request_options
from .answer import Answer
from .cache_marks import marked
from .dialect import Dialect, Message
from .json_body import encode
from .media_blocks import blocks_of, with_blocks
from .media_stand_ins import with_stand_ins
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

_NO_KEY = "no-key"
_NOT_UNICODE = "messages contains text that is not valid Unicode"  # how lm15 begins
_NESTED = ("generationConfig", "metadata")  # objects of which the library has written some
_CLIENTS = 256


class Lm15Dialect:
    """The API of one family of endpoints, written by lm15 and read by `base`."""

    def __init__(self, base: Dialect) -> None:
        self._base = base

    def endpoint(self, lm: LM) -> str:
        """Return the URL of a completion."""
        return self._url(lm, lm.api_base)

    def owns(self, lm: LM, url: str) -> bool:
        """Return whether the URL is a completion of the LM's model, as a worker writes it."""
        whole = self._url(lm, lm.worker_base)
        return without_key(url) in (whole, streamed(whole))

    def streams(self, url: str, asked: Mapping[str, Any]) -> bool:
        """Return whether a request asks for a stream."""
        return ":stream" in url or self._base.streams(url, asked)

    def names_another(self, lm: LM, asked: Mapping[str, Any]) -> bool:
        """Return whether a request's body names another model than the record; the URL names it where it can."""
        if lm.provider.path:
            return asked.get("model") is not None
        return self._base.names_another(lm, asked)

    def reporting(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's request, asking for what it uses to be reported."""
        return self._base.reporting(asked)

    def body(self, lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
        """Return the request's body.

        Raises:
            InvalidInput: messages or options that are malformed.
            LMUnsupportedFeatureError: a content block or option that this provider cannot carry.
        """
        members = request_options.members(lm, given)
        options = {name: value for name, value in given.items() if value is not None and name not in LOCAL}
        for name in members or ():
            options.pop(name, None)
        options.pop("extra_body", None)
        marks = options.pop(MARKS, None)
        messages, media = with_stand_ins(lm.provider.dialect, messages)
        body = bytes(_written(lm, messages, options, stream=stream))
        if not (members or marks or media or lm.renames):
            return body
        asked = with_renamed(lm, json.loads(body))
        if media:
            asked = with_blocks(asked, blocks_of(lm, media))
        for name in _NESTED:
            if members and isinstance(members.get(name), Mapping) and isinstance(asked.get(name), Mapping):
                members[name] = {**asked[name], **members[name]}
        asked |= members or {}
        return encode(marked(asked, marks) if marks else asked)

    def answer(self, lm: LM, body: bytes) -> Answer:
        """Return a 2xx response's body, read.

        Raises:
            LMError: the body is no answer.
        """
        return self._base.answer(lm, body)

    def repaired(self, lm: LM, body: bytes) -> bytes:
        """Return the body with tool arguments that are no objects kept where a worker's reader would empty them."""
        return self._base.repaired(lm, body)

    def usage_in(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counters that a response or an event holds."""
        return self._base.usage_in(data)

    def reader(self, lm: LM) -> StreamReader:
        """Return a reader for a streamed response."""
        return self._base.reader(lm)

    def failure(self, lm: LM, status: int, body: bytes) -> LMError:
        """Return the error that a response of 300 and more stands for."""
        return self._base.failure(lm, status, body)

    def _url(self, lm: LM, base: str) -> str:
        if lm.provider.path:
            return base + lm.provider.path.format(model=quote(lm.name, safe=":@"))
        return base + self._base.endpoint(lm)[len(lm.api_base) :]


def streamed(url: str) -> str:
    """Return the URL of a streamed completion, where it is another."""
    if url.endswith(":generateContent"):
        return url.removesuffix("generateContent") + "streamGenerateContent?alt=sse"
    return url.removesuffix("rawPredict") + "streamRawPredict" if url.endswith(":rawPredict") else url


def with_renamed(lm: LM, asked: dict[str, Any]) -> dict[str, Any]:
    """Return a body whose members have the names that the endpoint takes."""
    renames = lm.renames
    return {renames.get(name, name): value for name, value in asked.items()} if renames else asked


def _written(lm: LM, messages: Sequence[Message], options: Mapping[str, Any], *, stream: bool) -> Any:
    client = _client(lm.provider.id, lm.worker_base, tuple(sorted(lm.host_settings.items())))
    given = {"model": lm.name, "messages": [dict(message) for message in messages], **options}
    try:
        request = _canonical(lm, given)
        made, adapted = client._build(replace(request, model=lm.name), stream)
    except lm15("errors").UnsupportedModelError as error:
        raise LMUnsupportedModelError(str(error), model=lm.model, provider=lm.provider.id) from None
    except lm15("errors").UnsupportedFeatureError as error:
        raise LMUnsupportedFeatureError(str(error), model=lm.model, provider=lm.provider.id) from None
    except (ValueError, TypeError, KeyError, AttributeError, lm15("errors").LM15Error) as error:
        raise InvalidInput(f"{lm.provider.prefix} cannot be asked so: {error}") from None
    for each in adapted:
        if each.action == "dropped" and each.field not in DROPPABLE:
            raise LMUnsupportedFeatureError(
                f"{each.field.removeprefix('config.')} would not be sent: {each.reason}.",
                model=lm.model,
                provider=lm.provider.id,
            )
    return made.body


def _canonical(lm: LM, given: Mapping[str, Any]) -> Any:
    """Return lm15's own form of a request; what has none in it is refused as by DSPy."""
    try:
        return lm15("providers.openai_chat").request_from_openai_chat(given, compat=_compat(lm.provider.id))
    except (ValueError, TypeError) as error:
        if str(error).startswith(_NOT_UNICODE):
            raise InvalidInput("A text holds half a surrogate pair, which no provider can receive.") from None
        raise LMUnsupportedFeatureError(str(error), model=lm.model, provider=lm.provider.id) from None


@functools.lru_cache(maxsize=_CLIENTS)
def _client(id: str, base_url: str, settings: tuple[tuple[str, str], ...]) -> Any:
    """Return lm15's client for an endpoint, as its router makes it."""
    definition = lm15("registry").PROVIDERS[id]
    options: dict[str, Any] = {"api_key": _NO_KEY, "base_url": base_url, "transport": _NoTransport()}
    if definition.bound:
        options["access"] = definition.access
        if definition.hosted:
            options["settings"] = dict(settings)
        if definition.compat is not None:
            options["compat"] = definition.compat
    return definition.adapter(**options)


@functools.cache
def _compat(id: str) -> Any:
    definition = lm15("registry").PROVIDERS[id]
    return definition.compat if definition.bound else None


class _NoTransport:
    """What lm15's clients would connect by."""

    def stream(self, request: object) -> object:
        raise RuntimeError("a request is written here, and sent by DSPex's own client")
