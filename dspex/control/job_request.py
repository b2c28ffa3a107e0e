"""Build the request for an optimization in a service, and read it there. Pure.

A client names code, it sends none: the program and the metric are texts, the examples and options plain data. Options
that name files, code or other language models are not among those that it may give.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, Unpack

from ..errors import InvalidInput, UnknownName
from . import request_fields
from .request_fields import Fields

START_PATIENCE: Final = 120.0  # seconds that a service may take to check a job: it may start workers


class JobRequestOptions(TypedDict, total=False):
    """What else the client that starts a job may choose."""

    options: Mapping[str, Any]  # the optimizer's own, such as {"auto": "light"}
    kind: str  # of a signature: predict, chain_of_thought, ...
    signature: str  # of a module
    init: Mapping[str, Any]  # arguments of its constructor
    inputs: Sequence[str]
    lm: str  # the service's language model of this name or model; "default" for its own
    prompt_lm: str
    timeout: float  # seconds, of the whole job
    budget: Mapping[str, float]  # requests, tokens, usd


JOB_OPTIONS: Final = frozenset(JobRequestOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A client's request, with its types checked."""

    program: str
    trainset: list[dict[str, Any]]
    metric: str | None
    optimizer: str
    valset: list[dict[str, Any]] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    kind: str | None = None
    signature: str | None = None
    init: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] | None = None
    lm: str | None = None
    prompt_lm: str | None = None
    timeout: float | None = None
    budget: dict[str, Any] | None = None


def job_request(
    program: str,
    trainset: Sequence[Mapping[str, Any]],
    *,
    metric: str | None,
    optimizer: str,
    valset: Sequence[Mapping[str, Any]] | None,
    **options: Unpack[JobRequestOptions],
) -> Fields:
    """Return the fields of a request.

    Raises:
        UnknownName: there is no such option.
        InvalidInput: the program or the metric is no text: it cannot be sent.
    """
    for name in options:
        if name not in JOB_OPTIONS:
            raise UnknownName("option", name, JOB_OPTIONS)
    for name, value in (("program", program), ("metric", metric)):
        if not (isinstance(value, str) or (name == "metric" and value is None)):
            raise InvalidInput(
                f"A service runs what its imports name: {name} is text, 'package.module:name', not a "
                f"{type(value).__name__}.",
                field=name,
            )
    rows = {"trainset": _rows(trainset), "valset": None if valset is None else _rows(valset)}
    given = {"program": program, "metric": metric, "optimizer": optimizer, **rows, **options}
    return {name: value for name, value in given.items() if value is not None}


def read_job_request(fields: Fields, optimizer_options: Collection[str]) -> JobRequest:
    """Return a request as the service takes it; `optimizer_options` are those that a client may give.

    Raises:
        InvalidInput: a field has another type, or is missing.
        UnknownName: the optimizer has an option that clients cannot give.
    """
    timeout = request_fields.seconds(fields, "timeout")
    return JobRequest(
        request_fields.text(fields, "program"),
        _examples(fields, "trainset"),
        request_fields.optional_text(fields, "metric"),
        request_fields.text(fields, "optimizer"),
        None if fields.get("valset") is None else _examples(fields, "valset"),
        _optimizer_options(_mapping(fields, "options"), optimizer_options),
        request_fields.optional_text(fields, "kind"),
        request_fields.optional_text(fields, "signature"),
        _mapping(fields, "init"),
        _names(fields),
        request_fields.optional_text(fields, "lm"),
        request_fields.optional_text(fields, "prompt_lm"),
        timeout,
        _mapping(fields, "budget") or None,
    )


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]


def _examples(fields: Fields, name: str) -> list[dict[str, Any]]:
    rows = fields.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput(f"{name} must be a list of objects, field names to values.", field=name)
    return rows


def _mapping(fields: Fields, name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(f"{name} must be a mapping of names to values.", field=name)
    return value


def _names(fields: Fields) -> list[str] | None:
    value = fields.get("inputs")
    if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise InvalidInput("inputs must be a list of names.", field="inputs")
    return value


def _optimizer_options(options: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    for name, value in options.items():
        if name not in known:
            raise UnknownName("option", name, known, where="a client's optimization")
        if value is not None and not isinstance(value, bool | int | float | str):
            raise InvalidInput(f"The option {name!r} must be a number, a word, true or false.", field=name)
    return options
