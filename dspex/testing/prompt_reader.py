"""Read from a request what DSPy's adapters wrote into it: the fields, their values, the format of the answer. Pure."""

from __future__ import annotations

import re

_FIELD = re.compile(r"^\d+\. `(\w+)` \(", re.MULTILINE)
_ASKED = re.compile(r"`(?:\[\[ ## (\w+) ## \]\]|<(\w+)>|(\w+))`")
_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]\n?", re.MULTILINE)
_INPUTS, _OUTPUTS, _STRUCTURE = "Your input fields are:\n", "Your output fields are:\n", "\nAll interactions will be"
_ASK = "Respond with "


def input_names(text: str) -> list[str]:
    """Return the input fields that the system prompt lists."""
    return _FIELD.findall(text.partition(_INPUTS)[2].partition(_OUTPUTS)[0])


def output_names(text: str, asked: str) -> list[str]:
    """Return the output fields that the system prompt lists, or else those that the message asks for."""
    listed = _FIELD.findall(text.partition(_OUTPUTS)[2].partition(_STRUCTURE)[0])
    return listed or asked_for(asked)


def asked_for(message: str) -> list[str]:
    """Return the output fields in the reminder at a message's end."""
    ask = _reminder(message)
    names = [first or second or third for first, second, third in _ASKED.findall(ask)]
    return [name for name in dict.fromkeys(names) if name != "completed"]


def input_values(message: str, names: list[str]) -> dict[str, str]:
    """Return the inputs' texts in a user's message, by field."""
    body = message.rpartition(_ASK)[0] or message
    if style_of_reminder(message) == "xml":
        found = ((name, re.search(rf"<{name}>\n?(.*?)\n?</{name}>", body, re.DOTALL)) for name in names)
        return {name: match[1].strip() for name, match in found if match is not None}
    parts = _HEADER.split(body)
    values = {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {name: value for name, value in values.items() if name in names or not names}


def style_of_reminder(message: str) -> str | None:
    """Return the format that the reminder at a message's end asks for: "chat", "xml" or "json"; None without one."""
    ask = _reminder(message)
    if not ask:
        return None
    if ask.startswith("a JSON object"):
        return "json"
    if "wrapped in XML tags" in ask:
        return "xml"
    return "chat" if "[[ ## completed ## ]]" in ask else None


def style_of_system(text: str) -> str:
    """Return the format that the system prompt describes; "json" where it describes none."""
    if "Outputs will be a JSON object" in text:
        return "json"
    if "[[ ## completed ## ]]" in text:
        return "chat"
    return "xml" if re.search(r"<(\w+)>\n\{\1\}", text) else "json"


def _reminder(message: str) -> str:
    return message.rpartition(_ASK)[2] if _ASK in message else ""
