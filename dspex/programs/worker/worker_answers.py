"""Check the answers of the shipped bridges before they are used: a worker may send anything that can be encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_worker.types import nested_values

from ...adapters.output_decoder import KnownClasses, UnreadableForm, value_of
from ...errors import ProtocolError
from ...types.chunk import Chunk
from ...types.prediction import Prediction
from ..files.saved_file import checked_state

if TYPE_CHECKING:
    from ...pools.supervising import MadeCall

_Rule = Callable[[Any], bool]


def prediction(value: Any, worker: str) -> dict[str, Any]:
    """Return the answer to a `run`: its outputs, completions and usage.

    Raises:
        ProtocolError: it is none; so for the others here.
    """
    is_value = _is_map(value) and "value" in value
    rules: dict[str, _Rule] = {
        "outputs": lambda given: _is_map(given) or (is_value and given is None),
        "completions": lambda given: given is None or (isinstance(given, list) and all(map(_is_map, given))),
        "usage": lambda given: given is None or (_is_map(given) and all(map(_is_map, given.values()))),
        "finish_reason": lambda given: given is None or _is_text(given),
        "truncated": lambda given: given is None or isinstance(given, int),
        "trace": lambda given: given is None or (isinstance(given, list) and all(map(_is_step, given))),
        "exact": lambda given: given is None or (isinstance(given, list) and all(map(_is_map, given))),
        "logprobs": lambda given: given is None or (isinstance(given, list) and all(map(_is_map, given))),
    }
    found = _checked("run", value, worker, rules)
    count = 1 + len(found.get("completions") or ())
    exact = found.get("exact") or [{}] * count
    if len(exact) != count:
        raise ProtocolError(f"Worker {worker} answered 'run' with {len(exact)} 'exact' for {count} sets of outputs.")
    return found | {"exact": exact}


def returned(reply: dict[str, Any], worker: str, packages: Collection[str] = ()) -> Any:
    """Return what an open program returned that is no prediction: text, numbers, lists, tuples, dicts, predictions.

    Objects of the `packages` that are loaded here come as what they are.
    """
    known = KnownClasses(None, packages)

    def prediction_of(outputs: dict[str, Any]) -> Prediction:
        return Prediction(outputs, route=f"python:{worker}")

    try:
        return nested_values.read(reply["value"], prediction_of, lambda form: value_of(form, known))
    except (nested_values.UnreadableValue, UnreadableForm) as error:
        raise ProtocolError(f"Worker {worker} answered 'run' with an impossible 'value': {error}.") from error


@dataclass(frozen=True, slots=True)
class SavedState:
    """A program's state as DSPy saves it, and the versions of what saved it."""

    state: dict[str, Any]
    versions: dict[str, Any]


def state(value: Any, worker: str) -> SavedState:
    """Return the answer to a `state_of`, checked by the rules of files."""
    found = _checked("state_of", value, worker, {"state": _is_map, "versions": _is_map})
    return SavedState(checked_state(found["state"]), found["versions"])


def describes(value: Any, worker: str) -> dict[str, Any]:
    """Return the answer to a `describe_program`: the names of its inputs and predictors."""

    def are_texts(given: Any) -> bool:
        return isinstance(given, list) and all(map(_is_text, given))

    rules: dict[str, _Rule] = {
        **dict.fromkeys(("inputs", "required", "texts", "predictors", "positional"), are_texts),
        "takes_any": lambda given: isinstance(given, bool),
        "rest": lambda given: given is None or _is_text(given),
    }
    return _checked("describe_program", value, worker, rules)


def chunk(value: Any, worker: str) -> Chunk:
    """Return a piece of a `run_stream`; a text that no message can hold (half a surrogate pair) comes as bytes."""
    rules: dict[str, _Rule] = {
        "field": _is_text,
        "text": lambda given: isinstance(given, str | bytes),
        "predictor": lambda given: given is None or _is_text(given),
    }
    found = _checked("run_stream", value, worker, rules)
    text = found["text"]
    try:
        text = text if isinstance(text, str) else text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"Worker {worker} answered 'run_stream' with a text that is none: {error}.") from error
    return Chunk(found["field"], text, found.get("predictor") or "")


def messages(call: MadeCall) -> list[dict[str, Any]]:
    """Return the messages that answer a `render`."""
    answer = _checked(
        "render",
        call.result(),
        call.worker_name,
        {"messages": lambda given: isinstance(given, list) and all(map(_is_map, given))},
    )
    found: list[dict[str, Any]] = answer["messages"]
    return found


def passages(call: MadeCall) -> list[dict[str, Any]]:
    """Return the passages that answer a `retrieve`."""

    def is_passage(given: Any) -> bool:
        return (
            _is_map(given) and _is_text(given.get("text")) and (given.get("score") is None or _is_score(given["score"]))
        )

    def are_passages(given: Any) -> bool:
        return isinstance(given, list) and all(map(is_passage, given))

    answer = _checked("retrieve", call.result(), call.worker_name, {"passages": are_passages})
    found: list[dict[str, Any]] = answer["passages"]
    return found


def optimized(value: Any, worker: str) -> dict[str, Any]:
    """Return the answer to an `optimize`."""
    rules: dict[str, _Rule] = {
        "state": _is_map,
        "score": lambda given: given is None or _is_score(given),
        "baseline_score": lambda given: given is None or _is_score(given),
        "trials": lambda given: given is None or isinstance(given, list),
        "versions": lambda given: given is None or _is_map(given),
        "errors": lambda given: given is None or _is_map(given),
        "details": lambda given: given is None or _is_map(given),
    }
    return _checked("optimize", value, worker, rules)


def _checked(command: str, value: Any, worker: str, rules: dict[str, _Rule]) -> dict[str, Any]:
    if not _is_map(value):
        raise ProtocolError(f"Worker {worker} answered {command!r} with {type(value).__name__}, not with a map.")
    for name, is_right in rules.items():
        if not is_right(value.get(name)):
            given = type(value.get(name)).__name__
            raise ProtocolError(f"Worker {worker} answered {command!r} with an impossible {name!r} ({given}).")
    found: dict[str, Any] = value
    return found


def _is_step(value: Any) -> bool:
    """Whether it is a step of a trace."""
    if not _is_map(value) or not isinstance(value.get("seconds"), float):
        return False
    texts, maps = ("predictor", "finish_reason"), ("inputs", "outputs", "usage")
    return all(_is_text(value.get(name)) for name in texts) and all(_is_map(value.get(name)) for name in maps)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float)
