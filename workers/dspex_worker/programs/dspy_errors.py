"""Translate DSPy's errors and the wire's failures one to one (RULES I3).

`failure_of` turns what DSPy raises into a `Failure` that the parent rebuilds as its own class; `error_of` turns a
failed callback into what DSPy expects from an LM. Runs in whichever thread runs the call. Errors that are not
DSPy's are left alone: the runtime reports them as they are, with their traceback.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import json_repair
from dspy.adapters import utils as adapter_utils
from dspy.adapters.utils import get_annotation_name
from dspy.utils import exceptions as dspy_errors

from ..failure import Failure
from ..wire.error_codec import without
from .dspy_parts import lm_error_kinds

_NOT_IN_3_3 = ("LMStreamAssemblyError", "LMLockTimeoutError", "LMCollectionLimitError")
LM_ERRORS: dict[str, type[dspy_errors.LMError]] = {
    "LMError": dspy_errors.LMError,
    "LMTransportError": dspy_errors.LMTransportError,
    "LMConfigurationError": dspy_errors.LMConfigurationError,
    "LMNotConfiguredError": dspy_errors.LMNotConfiguredError,
    "LMUnsupportedFeatureError": dspy_errors.LMUnsupportedFeatureError,
    "LMUnexpectedError": dspy_errors.LMUnexpectedError,
    "LMProviderError": dspy_errors.LMProviderError,
    "LMAuthError": dspy_errors.LMAuthError,
    "LMBillingError": dspy_errors.LMBillingError,
    "LMRateLimitError": dspy_errors.LMRateLimitError,
    "LMInvalidRequestError": dspy_errors.LMInvalidRequestError,
    "LMContextWindowExceededError": dspy_errors.ContextWindowExceededError,
    "LMUnsupportedModelError": dspy_errors.LMUnsupportedModelError,
    "LMTimeoutError": dspy_errors.LMTimeoutError,
    "LMServerError": dspy_errors.LMServerError,
    **{kind.__name__: kind for kind in lm_error_kinds(*_NOT_IN_3_3)},
}
"""The parent's class name for each of DSPy's LM error classes."""
_MORE_PRECISE: dict[str, type[dspy_errors.LMError]] = {
    **dict.fromkeys(("LMCertificateError", "LMProxyError", "LMLocalLimitError"), dspy_errors.LMTransportError),
    "LMEmptyStreamError": LM_ERRORS.get("LMStreamAssemblyError", dspy_errors.LMServerError),
}  # classes of the parent that DSPy has none of its own for

_KINDS = {cls: kind for kind, cls in LM_ERRORS.items()}
_FAILED_FIELD = re.compile(r"Failed to parse field (\w+)")  # how DSPy's adapters begin
_NO_LM = "No LM is loaded"  # how DSPy's ValueError begins (predict/predict.py)
_NOT_UNICODE = "messages contains text that is not valid Unicode"  # how another begins
_TOO_DEEP = "Input nesting exceeds"  # how json_repair's begins
_FACTS = ("code", "model", "provider", "provider_code", "status", "request_id", "retry_after")


WORDS = "provider_message"  # the fact with a provider's own words
PARENTS_KIND = "parents_kind"  # the parent's class, where DSPy has none so precise


class ParentRefused(dspy_errors.LMError):  # type: ignore[misc]
    """The parent refused an LM request for a reason DSPy has no class for (a budget, a record it does not know)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@contextmanager
def translated(secrets: Iterable[str] = ()) -> Generator[None]:
    """Let DSPy's errors leave the block as the failures the parent knows, without `secrets` in their text."""
    try:
        yield
    except (dspy_errors.LMError, dspy_errors.AdapterParseError) as error:
        if is_out_of_memory(error):
            raise MemoryError("the worker ran out of memory during an LM call") from error
        raise failure_of(error, secrets) from error
    except TypeError as error:
        if _is_raised_in(error, "_format_blob"):
            raise invalid_input("A list for a text field has items that are no text.") from error
        if not _is_raised_in(error, "parse_value"):
            raise
        raise _unparsed(error) from error
    except RecursionError as error:
        if not _is_raised_by_adapters(error):
            raise
        raise _unparsed(error) from error
    except (AssertionError, AttributeError, LookupError) as error:
        if not (_is_raised_by_adapters(error) and _is_of_json_repair(error)):
            raise
        raise _unparsed(error) from error
    except ValueError as error:
        is_unreadable = isinstance(error, UnicodeEncodeError) or str(error).startswith(_TOO_DEEP)
        if is_unreadable and _is_raised_by_adapters(error):
            raise _unparsed(error) from error
        if str(error).startswith(_NOT_UNICODE):
            raise invalid_input("A text holds half a surrogate pair, which no provider can receive.") from error
        if not is_lm_missing(error):
            raise
        raise Failure("SettingsError", "This call needs an LM, and none came with it.", key="lm") from None


@contextmanager
def unspeakable_refused(model: str) -> Generator[None]:
    """Let what lm15 cannot word leave the block as DSPy's own class for it, as with an engine of DSPy's."""
    try:
        yield
    except (TypeError, ValueError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if str(error).startswith(_NOT_UNICODE) or not any(frame.name == "_canonical" for frame in frames):
            raise
        raise dspy_errors.LMUnsupportedFeatureError(str(error), model=model) from error


def is_lm_missing(error: BaseException) -> bool:
    """Whether it is how DSPy says that no LM is configured."""
    return isinstance(error, ValueError) and str(error).startswith(_NO_LM)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether a MemoryError is behind it; DSPy makes LMUnexpectedError of one during an LM call."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def failure_of(error: BaseException, secrets: Iterable[str] = ()) -> Failure:
    """Return the failure that tells the parent what `error` was; its message holds no prompt and none of `secrets`."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ParentRefused):
        return error.failure
    if isinstance(error, dspy_errors.AdapterParseError):
        return _parse_failure(error)
    if isinstance(error, dspy_errors.LMError):
        return _lm_failure(error, secrets)
    return Failure(type(error).__name__, without(str(error), secrets))


def error_of(failure: Failure) -> dspy_errors.LMError:
    """Return what a failed LM request of the parent is to DSPy: the same class, or `ParentRefused`."""
    cls = LM_ERRORS.get(failure.kind) or _MORE_PRECISE.get(failure.kind)
    if cls is None:
        return ParentRefused(failure)
    facts = {name: failure.facts[name] for name in _FACTS if failure.facts.get(name) is not None}
    made = cls(message=failure.message, **facts)
    if failure.kind in _MORE_PRECISE:
        setattr(made, PARENTS_KIND, failure.kind)
    setattr(made, WORDS, failure.facts.get(WORDS))  # what may quote the prompt stays out of the message
    return made


def unknown_name(what: str, name: str, known: Iterable[str], where: str = "") -> Failure:
    """Return the failure for a name that the worker does not know; the parent's error lists the near ones."""
    listed = sorted(known)
    return Failure(
        "UnknownName", f"There is no {what} {name!r} in the worker.", what=what, name=name, known=listed, where=where
    )


def invalid_input(message: str, field: str | None = None) -> Failure:
    """Return the failure for an argument that does not fit; `field` names it."""
    return Failure("InvalidInput", message, field=field)


def _lm_failure(error: dspy_errors.LMError, secrets: Iterable[str]) -> Failure:
    kind = getattr(error, PARENTS_KIND, None) or next(_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS)
    facts = {name: value for name in _FACTS if (value := _plain(getattr(error, name, None))) is not None}
    message = without(str(error.message), secrets)
    if hasattr(error, WORDS):
        facts[WORDS] = getattr(error, WORDS)
    elif isinstance(error, dspy_errors.LMProviderError):
        # Of a provider that this process asked itself (direct=True): its words may quote the prompt.
        facts[WORDS] = message
        told = f" (HTTP {error.status})" if error.status else ""
        message = f"The provider refused the request{told}; its words are in the error's `provider_message`."
    return Failure(kind, message, **facts)


def _parse_failure(error: dspy_errors.AdapterParseError) -> Failure:
    # DSPy's own message quotes the whole response; here it travels as a fact, so that str(error) holds no model text.
    expected = list(error.signature.output_fields)  # pyright: ignore[reportAttributeAccessIssue] - it is a class
    parsed = error.parsed_result if isinstance(error.parsed_result, dict) else {}
    return Failure(
        "AdapterParseError",
        f"The model's answer of {len(str(error.lm_response))} characters cannot be read by {error.adapter_name}: "
        f"{_unread(error, parsed)}.",
        adapter=str(error.adapter_name),
        expected=expected,
        parsed={str(name): str(value) for name, value in parsed.items()},
        lm_response=str(error.lm_response),
    )


def _is_raised_in(error: BaseException, name: str) -> bool:
    """Whether a function of DSPy's adapters raised it: it lets out what Python says of a list in an enum's place."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name == name and frame.filename == adapter_utils.__file__ for frame in frames)


def _is_raised_by_adapters(error: BaseException) -> bool:
    """Whether one of DSPy's adapters was reading an answer when it was raised."""
    folder = str(Path(adapter_utils.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name in ("parse", "parse_value") and frame.filename.startswith(folder) for frame in frames)


def _is_of_json_repair(error: BaseException) -> bool:
    """Whether it is an accident of the library by which DSPy's adapters read damaged JSON."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return Path(last.filename).parent.name == json_repair.__name__


def _unparsed(error: BaseException) -> Failure:
    message = f"The model's answer cannot be read: a value does not fit its field's type ({type(error).__name__})."
    return Failure("AdapterParseError", message, adapter="DSPy", expected=[], parsed={}, lm_response="")


def _unread(error: dspy_errors.AdapterParseError, parsed: Mapping[str, Any]) -> str:
    """Return what is wrong with an answer, of which DSPy's message says it only beside the answer itself."""
    fields: Mapping[str, Any] = error.signature.output_fields  # pyright: ignore[reportAttributeAccessIssue] - as above
    if (failed := _FAILED_FIELD.match(str(error))) and failed[1] in fields:
        name = failed[1]
        return f"the field {name!r} does not fit its type, {get_annotation_name(fields[name].annotation)}"
    if not str(error.lm_response).strip():
        return "it is empty"
    if missing := [name for name in fields if name not in parsed]:
        found = f"; it has {', '.join(map(repr, parsed))}" if parsed else ""
        return f"it lacks {', '.join(map(repr, missing))}{found}"
    return "it has another form than was asked for"


def _plain(value: object) -> str | int | float | None:
    if value is None or type(value) in (str, int, float):
        return value  # type: ignore[return-value]
    return str(value)
