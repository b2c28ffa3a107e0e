"""Adapters of a user's own, as DSPy's documentation would have them: nothing of DSPex, and in nobody's `imports`."""

from __future__ import annotations

from typing import Any

import dspy


class Polite(dspy.ChatAdapter):
    """Says please, as often as it was made to."""

    def __init__(self, times: int = 1, second: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.times = times
        self.second = second

    def user_message_output_requirements(self, signature: Any) -> str:
        return f"{super().user_message_output_requirements(signature)} {'Please. ' * self.times}".strip()


class Shouting(dspy.Adapter):
    """Has a format of its own, and reads it."""

    def format(self, signature: Any, demos: Any, inputs: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": f"SHOUT {sorted(signature.output_fields)} {sorted(inputs.items())}"}]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        if not completion.isupper():
            raise ValueError("that was no shout")
        return dict.fromkeys(signature.output_fields, completion)


def polite(times: int = 1) -> dspy.Adapter:
    """A factory."""
    return Polite(times)


made = Polite(4)


def no_adapter() -> str:
    """Gives something else."""
    return "x"
