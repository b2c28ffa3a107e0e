"""Places where a program may have an image, sound or a file."""

from __future__ import annotations

from typing import Any

import pydantic

import dspex

PLACES = ("field", "list", "optional", "model", "dict", "untyped", "demo", "history")
VALUES: dict[str, Any] = {
    "Image": dspex.Image("data:image/png;base64,AAAA"),
    "Audio": dspex.Audio(data="AAAA", audio_format="wav"),
    "File": dspex.File(file_data="data:application/pdf;base64,AAAA", filename="a.pdf"),
}


def signature(kind: str) -> dspex.Signature:
    """A signature with one such input."""
    return _signature({"shown": getattr(dspex, kind)})


def case(kind: str, place: str) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """The signature, inputs and demos of a program that has it in that place."""
    value, media = VALUES[kind], getattr(dspex, kind)
    holder = pydantic.create_model("Holder", name=(str, ...), shown=(media, ...))
    held = holder(name="n", shown=value)
    if place == "demo":
        return _signature({"shown": media}), {"shown": value}, [{"shown": value, "answer": "before"}]
    if place == "history":
        turns = dspex.History(messages=[{"shown": value, "answer": "before"}])
        return _signature({"past": dspex.History, "shown": media}), {"past": turns, "shown": value}, []
    types: dict[str, Any] = {
        "field": media,
        "list": list[media],  # type: ignore[valid-type]
        "optional": media | None,
        "model": holder,
        "dict": dict[str, Any],
        "untyped": Any,
    }
    values: dict[str, Any] = {"list": [value, value], "model": held, "dict": {"a": value}}
    return _signature({"shown": types[place]}), {"shown": values.get(place, value)}, []


def _signature(inputs: dict[str, Any]) -> dspex.Signature:
    fields = {name: (kind, dspex.InputField()) for name, kind in inputs.items()}
    return dspex.signature({**fields, "answer": (str, dspex.OutputField())})
