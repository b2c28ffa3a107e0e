"""Describe the programs of an application as OpenAPI 3.1. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from .call_limits import HEADERS, UNITS
from .problems import MEDIA_TYPE

if TYPE_CHECKING:
    from .call_limits import CallLimits
    from .program_endpoint import ProgramEndpoint
    from .program_routes import Bounds
    from .program_shape import ProgramShape

REFS: Final = "#/components/schemas/{model}"
_MEANINGS: Final = {
    400: "The request cannot be read, or asks for more than the server's limits.",
    401: "The token is missing or wrong.",
    402: "The budget of this request, or of the server, is spent.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The inputs do not fit.",
    500: "The program failed.",
    502: "The call was interrupted, or the language model failed.",
    503: "The server cannot take the request now; Retry-After says when to try again.",
    504: "The call passed its deadline.",
}
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "error", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "A URI of the kind of error."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "error": {"type": "string", "description": "The name of DSPex's error class."},
        "retryable": {
            "type": "string",
            "enum": ["now", "if_idempotent", "no"],
            "description": "Whether to try again: nothing ran; it may have run; in vain.",
        },
        "request_id": {"type": "string", "description": "Under which the server's log says more."},
        "detail": {"type": "string"},
        "retry_after": {"type": "number", "description": "Seconds."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Event",
    "description": "One server-sent event.",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["chunk", "usage", "prediction", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
USAGE: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Usage",
    "description": "What a prediction used.",
    "properties": {
        "tokens": {"type": "integer"},
        "cost_usd": {"type": ["number", "null"], "description": "Null where a price is unknown."},
        "cached": {"type": "boolean"},
        "finish_reason": {"type": "string"},
    },
}


def openapi(
    endpoints: Sequence[ProgramEndpoint],
    shapes: Sequence[ProgramShape],
    bounds: Bounds,
    *,
    title: str,
    version: str,
    has_token: bool,
) -> dict[str, Any]:
    """Return the document."""
    adapters: list[tuple[Any, Any, TypeAdapter[Any]]] = [
        *((shape.name, "validation", shape.inputs) for shape in shapes),
        *((shape.name, "serialization", shape.outputs) for shape in shapes),
    ]
    found, definitions = TypeAdapter.json_schemas(adapters, ref_template=REFS)
    schemas: dict[str, Any] = dict(definitions.get("$defs", {}))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        name = endpoint.name
        takes = _settled(schemas, f"{name}Inputs", found[name, "validation"])
        gives = _settled(schemas, f"{name}Outputs", found[name, "serialization"])
        row: dict[str, Any] = {
            "type": "object",
            "title": f"{name}Row",
            "description": "What became of one row of a batch: a prediction, or a problem.",
            "properties": {"prediction": gives, "usage": _ref("Usage"), "problem": _ref("Problem")},
        }
        schemas[f"{name}Row"] = row
        paths |= _paths(endpoint, takes, gives, bounds)
    schemas |= {"Problem": PROBLEM, "Usage": USAGE, "Event": EVENT}
    components: dict[str, Any] = {
        "schemas": schemas,
        "responses": {f"Problem{status}": _problem(text) for status, text in _MEANINGS.items()},
        "parameters": {name: _parameter(name, bounds.calls) for name in HEADERS},
    }
    if has_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": {**paths, **_probes()},
        "components": components,
        **({"security": [{"token": []}]} if has_token else {}),
    }


def tool_schema(adapter: TypeAdapter[Any], mode: Any) -> dict[str, Any]:
    """Return a schema that stands alone, for a tool."""
    return adapter.json_schema(mode=mode)


def _settled(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to the schema of a program's inputs or outputs."""
    if "$ref" in schema:
        return schema
    schemas[name] = schema
    return _ref(name)


def _paths(endpoint: ProgramEndpoint, takes: Any, gives: Any, bounds: Bounds) -> dict[str, Any]:
    name = endpoint.name
    rows = {"type": "array", "items": takes, "maxItems": bounds.batch_limit}
    headers = {
        "X-DSPex-Tokens": _header("integer", "Tokens that were used."),
        "X-DSPex-Cost-USD": _header("number", "Their price, where it is known."),
        "X-DSPex-Cached": _header("boolean", "Whether no request was sent."),
    }
    events = "Events: `chunk` (predictor, field, text), `usage`, `prediction` (the last), or `error` (a Problem)."
    results = {"type": "array", "items": _ref(f"{name}Row")}
    return {
        f"/{name}": _operation(endpoint, name, name, takes, "application/json", gives, "The outputs.", headers),
        f"/{name}/stream": _operation(
            endpoint, f"{name}_stream", f"{name}, streamed", takes, "text/event-stream", _ref("Event"), events
        ),
        f"/{name}/batch": _operation(
            endpoint, f"{name}_batch", f"{name}, many at once", rows, "application/json", results, "Row by row."
        ),
    }


def _operation(
    endpoint: ProgramEndpoint,
    id: str,
    summary: str,
    takes: Any,
    media_type: str,
    gives: Any,
    meaning: str,
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    done: dict[str, Any] = {"description": meaning, "content": {media_type: {"schema": gives}}}
    if headers:
        done["headers"] = headers
    problems = {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in _MEANINGS}
    operation = {
        "operationId": id,
        "summary": summary,
        "description": endpoint.description,
        "tags": [endpoint.name],
        "parameters": [{"$ref": f"#/components/parameters/{each}"} for each in HEADERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": takes}}},
        "responses": {"200": done, **problems},
    }
    return {"post": operation}


def _parameter(name: str, limits: CallLimits) -> dict[str, Any]:
    limit = getattr(limits, name)
    kind = "integer" if name in ("budget_tokens", "budget_requests") else "number"
    bound = {} if limit is None else {"maximum": limit}
    what = "The time that the request may take" if name == "timeout" else "What the request may spend"
    return {
        "name": HEADERS[name],
        "in": "header",
        "required": False,
        "description": f"{what}, in {UNITS[name]}.",
        "schema": {"type": kind, "exclusiveMinimum": 0, **bound},
    }


def _probes() -> dict[str, Any]:
    def get(id: str, summary: str, *statuses: int) -> dict[str, Any]:
        body = {"application/json": {"schema": {"type": "object"}}}
        answers = {str(status): {"description": summary, "content": body} for status in statuses}
        return {"get": {"operationId": id, "summary": summary, "security": [], "responses": answers}}

    return {
        "/livez": get("livez", "Whether the process answers.", 200),
        "/readyz": get("readyz", "Whether it takes requests.", 200, 503),
    }


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}


def _header(kind: str, text: str) -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
