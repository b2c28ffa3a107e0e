"""One case put to both: DSPy in a process beside, and DSPex; what each returned, and what each sent to the model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dspex.errors
from dspex.testing import FakeLM
from tests.support.own_modules.plain_values import plain
from tests.support.paths import ROOT

HERE = "tests.support.own_modules"
_KIND = r"(?: \(must be formatted as a valid Python ([^)]+)\))?"
_WANTED = re.compile(rf"`\[\[ ## (\w+) ## \]\]`{_KIND}|`(\w+)`{_KIND}")
_BY_KIND = {"int": 4, "float": 0.5, "bool": True}
_ARGUMENTS: dict[str, Any] = {
    "invite": {"guest": "Ann", "event": {"name": "Fair", "date": "Friday", "guests": {"Ann": "x"}}},
    "added": {"a": 1, "b": 2},
    "finish": {},
}
_BY_NAME = {
    "next_tool_args": {"city": "Rome"},
    "best": {"name": " a "},
    "tone": "soft",
    "calls": {"tool_calls": [{"name": "weather", "args": {"city": "Rome"}}]},
    "generated_code": "```python\nSUBMIT({'answer': 6 * 7})\n```",
}


def scripted(messages: list[dict[str, Any]]) -> Any:
    """An answer that depends on the request alone: each wanted field is told from the first input."""
    last = str(messages[-1]["content"])
    _, _, ask = last.rpartition("Respond with ")
    first = re.search(r"## \]\]\n(.*)", last)
    about = first[1][:40] if first else last[:40]
    found = [(one or other, kind or kind2) for one, kind, other, kind2 in _WANTED.findall(ask)]
    answer = {name: _value(name, kind, about, last) for name, kind in found if name != "completed"}
    if "next_tool_args" in answer:
        tool = answer["next_tool_name"].removeprefix("slow_")
        answer["next_tool_args"] = _ARGUMENTS.get(tool, {"city": "Rome"})
    return answer


def _value(name: str, kind: str, about: str, last: str) -> Any:
    if kind.startswith("Literal"):  # an agent's tools, one after the other: the last is its end
        names = re.findall(r"'([^']+)'", kind)
        return names[min(last.count("[[ ## observation_"), len(names) - 1)]
    return _BY_NAME.get(name) or _BY_KIND.get(kind, f"{name} of {about}")


@dataclass(frozen=True)
class Seen:
    """What one side made of a case."""

    value: Any = None
    error: str | None = None
    message: str = ""
    sent: tuple[str, ...] = ()

    @property
    def outcome(self) -> Any:
        return {"error": self.error} if self.error else self.value


class Dspy:
    """DSPy in a process of its own."""

    def __init__(self) -> None:
        hidden = ("_API_KEY", "_BASE_URL", "_API_BASE")
        environment = {name: value for name, value in os.environ.items() if not name.endswith(hidden)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.own_modules.dspy_beside"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment | {"LITELLM_LOCAL_MODEL_COST_MAP": "true"},
        )

    def ask(self, lm: FakeLM, what: str, **asked: Any) -> Seen:
        """What DSPy makes of it, and the messages that it sent."""
        assert self._process.stdin is not None and self._process.stdout is not None
        before = len(lm.requests)
        model = {"api_base": lm.api_base, "api_key": lm.api_key}
        print(json.dumps({"what": what, "model": model, **asked}), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        error = answer.get("error") or {}
        return Seen(answer.get("value"), error.get("type"), error.get("message", ""), sent(lm, before))

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.communicate()


def here(
    program: Any, lm: FakeLM, how: str = "call", args: tuple[Any, ...] = (), inputs: Mapping[str, Any] | None = None
) -> Seen:
    """What DSPex makes of it, and the messages that its worker sent."""
    before = len(lm.requests)

    def called() -> Any:
        if how == "acall":
            return asyncio.run(program.acall(*args, **inputs or {}))
        return program(*args, **inputs or {})

    return _seen(called, lm, before)


def _seen(called: Callable[[], Any], lm: FakeLM, before: int) -> Seen:
    try:
        value = called()
    except dspex.errors.RemoteError as error:
        return Seen(None, error.type, error.message, sent(lm, before))
    except dspex.errors.DspexError as error:
        return Seen(None, type(error).__name__, str(error), sent(lm, before))
    return Seen(plain(value), sent=sent(lm, before))


def sent(lm: FakeLM, before: int) -> tuple[str, ...]:
    """The requests since then, their order aside: threads send as they come."""
    kept = ("messages", "temperature", "max_tokens", "n", "response_format", "tools")
    bodies = ({key: request.body.get(key) for key in kept} for request in lm.requests[before:])
    return tuple(sorted(json.dumps(body, sort_keys=True) for body in bodies))
