"""A scripted model that plays its part in `program.py`: it answers in sentences until it is told to give the number."""

from __future__ import annotations

import re
from typing import Any

TOLD = "Answer with the number alone."


def reply(messages: list[dict[str, Any]]) -> Any:
    """The answer to any predictor of the program, and to an optimizer that improves their instructions."""
    system, asked = str(messages[0]["content"]), str(messages[-1]["content"])
    if "`proposed_instruction` (str)" in system or "`new_instruction` (str)" in system:  # MIPROv2, or GEPA
        return {"proposed_instruction": TOLD, "new_instruction": TOLD}
    if "1. `query` (str)" in system:
        designer = _first(r"\. (\D+?) designed it", asked)
        return {"query": f"{designer} born" if designer else _first(r"of the (.+?) when", asked)}
    if "`next_tool_name`" in system:
        return _step(asked)
    if "`trajectory` (str)" in system:
        return {"reasoning": "The tool says so.", "years": _first(r"observation_0 ## \]\]\s+(-?\d+)", asked) or "0"}
    years = _first(r"years ## \]\]\s+(-?\d+)", asked)
    return {"reasoning": "I was told the years.", "answer": years if TOLD in system else f"{years} years old."}


def _step(asked: str) -> dict[str, Any]:
    if "observation_0" in asked:
        return {"next_thought": "That is it.", "next_tool_name": "finish", "next_tool_args": {}}
    years = {"first": int(_first(r"born in \D+(\d+)", asked) or 0), "last": int(_first(r"opened in (\d+)", asked) or 0)}
    return {"next_thought": "I count.", "next_tool_name": "years_between", "next_tool_args": years}


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
