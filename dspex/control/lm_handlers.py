"""Ask the service's language models for its clients' native programs: with its key, cache, limits and budgets.

A client sends messages and options as its own LM client would take them; the request is made here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from ..errors import InvalidInput
from ..lm.completion import Completion
from ..lm.embedding_plan import EmbeddingPlan, require_embeddings
from ..lm.record import LM
from ..lm.sent_options import CONNECTION, DECIDING, EXTRA, HEADERS
from ..pools.supervisor import Supervisor
from ..services.served_lms import lm_of_ref
from ..services.services import services_of
from . import request_fields
from .request_fields import Fields

_NEVER = frozenset(CONNECTION) | HEADERS | frozenset(DECIDING)  # where a request goes, and by which key


async def complete(supervisor: Supervisor, fields: Fields) -> dict[str, Any]:
    """Return the answer of an LM to `messages`."""
    lm, messages, options = _asked(supervisor, fields)
    return _told(await services_of(supervisor).client.acomplete(lm, messages, **options))


async def stream(supervisor: Supervisor, fields: Fields) -> AsyncGenerator[tuple[bool, Any], None]:
    """Yield the text of an answer as it comes, then the answer."""
    lm, messages, options = _asked(supervisor, fields)
    async with aclosing(services_of(supervisor).client.astream(lm, messages, **options)) as texts:
        async for text in texts:
            yield isinstance(text, Completion), _told(text) if isinstance(text, Completion) else text


async def embed(supervisor: Supervisor, fields: Fields) -> list[bytes]:
    """Return the vectors of `texts`, as bytes of 32-bit floats."""
    lm = lm_of_ref(request_fields.text(fields, "lm"), supervisor)
    require_embeddings(lm)
    texts, members = fields.get("texts"), _mapping(fields, "members")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("texts must be a list of texts.", field="texts")
    _require_options(members)
    plan = EmbeddingPlan(
        texts,
        fields.get("dimensions") if isinstance(fields.get("dimensions"), int) else None,
        request_fields.text(fields, "encoding_format"),
        request_fields.flag(fields, "cache"),
        _deadline(fields),
        members,
    )
    vectors = await services_of(supervisor).client.aembed(lm, plan)
    return [vector.tobytes() for vector in vectors]


def _told(completion: Completion) -> dict[str, Any]:
    return {**asdict(completion), "logprobs": list(completion.logprobs)}


def _asked(supervisor: Supervisor, fields: Fields) -> tuple[LM, list[dict[str, Any]], dict[str, Any]]:
    """Return the LM, the messages and the options of a request.

    Raises:
        InvalidInput: they are none, or say where the request goes.
        LMConfigurationError, NotConfigured: the service has no such LM.
    """
    lm = lm_of_ref(request_fields.text(fields, "lm"), supervisor)
    messages, given = fields.get("messages"), _mapping(fields, "options")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise InvalidInput("messages must be a list of messages.", field="messages")
    config = _mapping(given, "config")
    _require_options(config)
    lm.require_sendable(config)
    tools, rollout = given.get("tools"), given.get("rollout_id")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(each, dict) for each in tools)):
        raise InvalidInput("tools must be a list of objects.", field="tools")
    if rollout is not None and (isinstance(rollout, bool) or not isinstance(rollout, int)):
        raise InvalidInput("rollout_id must be a whole number.", field="rollout_id")
    options: dict[str, Any] = {
        "config": config or None,
        "response_format": _mapping(given, "response_format") or None,
        "tools": tools or None,
        "rollout_id": rollout,
        "deadline": _deadline(fields),
    }
    return lm, messages, options


def _require_options(given: Mapping[str, Any]) -> None:
    within = given.get(EXTRA)
    names = {*given, *(within if isinstance(within, Mapping) else ())}
    for name in sorted(names & _NEVER):
        raise InvalidInput(
            f"{name!r} says where or as whom the service asks, which is not a client's to say.", field=name
        )


def _deadline(fields: Fields) -> float | None:
    timeout = request_fields.seconds(fields, "timeout")
    return None if timeout is None else time.monotonic() + timeout


def _mapping(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object.", field=name)
    return value
