"""Errors keep their class across DSPy (RULES I3)."""

from __future__ import annotations

from typing import Any

from dspy.utils import exceptions as dspy_errors

import dspex_worker.programs.dspy_errors as errors
from dspex_worker.bridge import Failure
from tests.support.worker_cases.parent import RECORD, fails_with, parent, programs, spec


def _raised(answer: Any, kind: str) -> Failure:
    call = parent(lambda body: answer)
    with fails_with(kind) as caught:
        call.call(programs().run, call, spec(), {"question": "q"}, RECORD)
    assert len(call.requests) == 1, "the worker must not retry"
    return caught[0]


def test_every_lm_error_class_of_dspy_has_one_kind() -> None:
    """unit: the table covers DSPy's tree, both ways."""

    def tree(cls: type) -> set[type]:
        return {cls}.union(*map(tree, cls.__subclasses__()))

    public = {cls for cls in tree(dspy_errors.LMError) if cls.__module__ == dspy_errors.__name__}
    assert public == set(errors.LM_ERRORS.values())
    for kind, cls in errors.LM_ERRORS.items():
        made = errors.error_of(Failure(kind, "m", model="x", status=418, retry_after=2.5))
        assert type(made) is cls and (made.message, made.model, made.status) == ("m", "x", 418)
        back = errors.failure_of(made)
        assert (back.kind, back.message, back.facts["status"]) == (kind, "m", 418)


def test_http_statuses_become_their_classes() -> None:
    """unit: the final HTTP answer is read by lm15, as in plain DSPy."""
    error = {"error": {"message": "no", "type": "t", "code": None}}
    expected = {
        401: "LMAuthError",
        403: "LMAuthError",
        402: "LMBillingError",
        404: "LMInvalidRequestError",
        400: "LMInvalidRequestError",
        408: "LMTimeoutError",
        500: "LMServerError",
        503: "LMServerError",
        529: "LMServerError",
    }
    for status, kind in expected.items():
        failure = _raised((status, error, [["x-request-id", "req-1"]]), kind)
        assert failure.facts["status"] == status and failure.facts["model"] == "openai/gpt-test", status
        assert failure.facts["request_id"] == "req-1"


def test_rate_limit_keeps_the_providers_wish() -> None:
    """unit: Retry-After arrives as a fact."""
    failure = _raised((429, {"error": {"message": "slow"}}, [["retry-after", "7"]]), "LMRateLimitError")
    assert failure.facts["retry_after"] == 7.0


def test_no_answer_and_timeout_keep_their_class() -> None:
    """unit: what the parent raises for no answer at all."""
    assert _raised(Failure("LMTransportError", "refused"), "LMTransportError").message == "refused"
    assert _raised(Failure("LMTimeoutError", "slow", status=None), "LMTimeoutError").message == "slow"
    assert _raised(Failure("LMConfigurationError", "outside"), "LMConfigurationError").message == "outside"


def test_context_window_error_is_dspys_own_class_inside() -> None:
    """unit: ReAct shortens its trajectory on it, so it must be DSPy's class and not only the parent's."""
    body = {"error": {"message": "too long", "code": "context_length_exceeded", "type": "invalid_request_error"}}
    assert _raised((400, body, []), "LMContextWindowExceededError").facts["status"] == 400


def test_parse_failure_holds_the_text_as_a_fact_only() -> None:
    """unit: the message names fields; prompt and model text stay out of it."""
    call = parent("no fields here, secret text")
    with fails_with("AdapterParseError") as caught:
        call.call(programs().run, call, spec(), {"question": "q"}, RECORD, "json")
    failure = caught[0]
    assert "secret text" not in failure.message and "answer" in failure.message
    assert failure.facts["lm_response"] == "no fields here, secret text"
    assert failure.facts["adapter"] == "JSONAdapter" and failure.facts["expected"] == ["answer"]


def test_chat_adapter_falls_back_to_json_once() -> None:
    """unit: DSPy's own second request survives the transport."""
    call = parent("nonsense")
    with fails_with("AdapterParseError"):
        call.call(programs().run, call, spec(), {"question": "q"}, RECORD, "chat")
    assert len(call.requests) == 2


def test_key_of_a_direct_record_is_not_in_its_errors() -> None:
    """unit: providers echo keys in their refusals."""
    failure = errors.failure_of(dspy_errors.LMAuthError("bad key sk-secret", status=401), ["sk-secret"])
    assert "sk-secret" not in failure.message and failure.kind == "LMAuthError"
