"""Print the events of an optimization: a line each, or JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .printing import print_json, print_line


def print_event(event: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one, {"kind", "at", "facts"}."""
    if as_json:
        print_json(event, indent=None)
        return
    at = "" if event.get("at") is None else time.strftime("%H:%M:%S ", time.localtime(event["at"]))
    print_line(f"{at}{event['kind']} {event_text(event)}".rstrip())


def event_text(event: Mapping[str, Any]) -> str:
    """Return what an event says, for people."""
    facts = event["facts"]
    candidate = facts.get("candidate")
    if isinstance(candidate, dict):
        scored = len(candidate["scores"])
        return f"{candidate['number']} ({candidate['kind']}, {scored} examples): {candidate['score']:g}"
    shown = {name: value for name, value in facts.items() if not isinstance(value, dict | list)}
    return " ".join(f"{name}={value}" for name, value in shown.items() if value not in (None, ""))
