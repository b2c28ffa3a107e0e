"""`takes_lms`: public calls that take language models as tables of settings get records of them instead.

A table may hold a key, and reporters of errors show the variables of each frame. So no frame below has one, and where a
table cannot be a language model, the error has passed none of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ..unshown_values import without_frames
from .named_lms import lm_from

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("lm", "prompt_lm", "reflection_lm", "prompt_model", "task_model", "extraction_model")


def takes_lms(call: F) -> F:
    """Return the same call, which is given an `LM` where its caller gives a table: as `lm`, in `lms`, ...

    Raises:
        SettingsError: a table that makes no LM.
    """
    code = inspect.unwrap(call).__code__
    places = [name in NAMES for name in code.co_varnames[: code.co_argcount]]
    is_positional = any(places)

    @functools.wraps(call)
    def given(*arguments: Any, **options: Any) -> Any:
        try:
            options = _with_records(options)
            arguments = _placed(arguments, places) if is_positional else arguments
        except Exception as error:  # any refusal: its frames hold a table
            refusal = without_frames(error)
        else:
            return call(*arguments, **options)
        del arguments, options
        raise refusal

    @functools.wraps(call)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        try:
            options = _with_records(options)
        except Exception as error:  # as above
            refusal = without_frames(error)
        else:
            return await call(*arguments, **options)
        del arguments, options
        raise refusal

    return cast("F", awaited if inspect.iscoroutinefunction(call) else given)


def _with_records(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with records in the place of tables."""
    tables = {name: options[name] for name in NAMES if isinstance(options.get(name), Mapping)}
    made: dict[str, Any] = {name: lm_from(dict(table), name) for name, table in tables.items()}
    lms = options.get("lms")
    if isinstance(lms, Mapping):
        made["lms"] = {
            name: lm_from(dict(lm), f"lms.{name}") if isinstance(lm, Mapping) else lm for name, lm in lms.items()
        }
    return {**options, **made} if made else options


def _placed(arguments: tuple[Any, ...], places: Sequence[bool]) -> tuple[Any, ...]:
    made = [
        lm_from(dict(one)) if is_lm and isinstance(one, Mapping) else one
        for one, is_lm in zip(arguments, places, strict=False)
    ]
    return (*made, *arguments[len(places) :])
