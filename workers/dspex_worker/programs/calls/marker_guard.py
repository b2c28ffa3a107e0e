"""Refuse text that DSPy would turn into content blocks of a prompt: checked where its adapters format (RULES X2).

DSPy puts an image into a prompt as a marked text, and makes blocks of each marked text in a user message. A tool's
result, a row of a data set, a demonstration, a model's own answer or a text that a module read may hold the marker, and
would have the provider fetch any URL. Only marked texts that this call's own values of DSPy's types gave pass, however
they were quoted since. Any thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import wraps
from types import SimpleNamespace
from typing import Any, Final

import dspy
from dspy.adapters.base import Adapter
from dspy.adapters.types import base_type

from ...failure import Failure

SETTING: Final = "dspex_blocks"  # among DSPy's settings: the digests of the call's own blocks; None lets all pass
START: Final = base_type.CUSTOM_TYPE_START_IDENTIFIER
END: Final = base_type.CUSTOM_TYPE_END_IDENTIFIER
_BLOCK: Final = re.compile(re.escape(START) + "((?:(?!" + re.escape(START) + ").)*?)" + re.escape(END), re.DOTALL)
_DEEPEST: Final = 100  # values in values
_QUOTED_MOST: Final = 4  # times that a text was made JSON


def install() -> None:
    """Check what DSPy's adapters format, in this process from now on."""
    plain = json.dumps

    def noting(value: Any, **options: Any) -> str:
        text = plain(value, **options)
        own = dspy.settings.get(SETTING)
        if own is not None:
            own.add(_digest(text.strip()))
        return text

    base_type.json = SimpleNamespace(**{**vars(json), "dumps": noting})  # which words the blocks, and nothing else
    for cls in _known_adapters(Adapter):  # each has a `format` of its own, for callbacks; later ones wrap these
        if "format" in vars(cls):
            cls.format = _guarding(cls.format)


def _known_adapters(cls: Any) -> Iterator[Any]:
    yield cls
    for below in cls.__subclasses__():
        yield from _known_adapters(below)


def guarded(spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the setting of one call: a set of its own, or None where its program allows markers."""
    return {SETTING: None if spec is not None and spec.get("allow_markers") is True else set()}


def _guarding(plain: Any) -> Any:
    @wraps(plain)
    def format_guarded(self: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        own = dspy.settings.get(SETTING)
        if own is not None:
            _refuse(signature, inputs, own, "input")
            for demo in demos or ():
                fields = signature.input_fields
                _refuse(signature, {name: demo[name] for name in fields if name in demo}, own, "demos' field")
        return plain(self, signature, demos, inputs)

    return format_guarded


def _refuse(signature: Any, values: Mapping[str, Any], own: set[bytes], what: str) -> None:
    for name, value in values.items():
        if any(_is_smuggled(text, own) for text in _texts(value, 0)) and not _is_saved(signature, name, value):
            raise Failure(
                "UnsafeInput",
                f"The {what} {name!r} holds DSPy's custom-type marker, which would become a content block (a URL for "
                f"the provider to fetch, for instance). Remove it, or pass allow_markers=True.",
                field=str(name),
            )


def _is_saved(signature: Any, name: str, value: Any) -> bool:
    """Whether it is a value of a field of DSPy's types, which states of programs hold as marked texts."""
    field = signature.input_fields.get(name)
    if field is None or not base_type.Type.extract_custom_type_from_annotation(field.annotation):
        return False
    parts = value if isinstance(value, list | tuple) else list(value.values()) if isinstance(value, dict) else [value]
    return all(
        not isinstance(part, str) or (part.startswith(START) and part.endswith(END) and part.count(START) == 1)
        for part in parts
    )


def _is_smuggled(text: str, own: set[bytes]) -> bool:
    return START in text and START in _BLOCK.sub(lambda found: "" if _is_own(found[1], own) else found[0], text)


def _is_own(payload: str, own: set[bytes]) -> bool:
    for _ in range(_QUOTED_MOST):
        if _digest(payload.strip()) in own:
            return True
        try:
            payload = json.loads(f'"{payload}"')
        except ValueError:
            return False
    return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Yield every text in a value, as far as a prompt may show it."""
    if isinstance(value, str):
        yield value
        return
    if depth > _DEEPEST:
        return
    for part in _parts(value):
        yield from _texts(part, depth + 1)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, bytes | bytearray):
        with contextlib.suppress(UnicodeDecodeError):
            yield value.decode()
    elif isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif hasattr(type(value), "model_fields") or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        yield from getattr(value, "__dict__", {}).values()
        yield from (getattr(value, "__pydantic_extra__", None) or {}).values()
    elif isinstance(value, dspy.Example):
        yield from value.toDict().values()
