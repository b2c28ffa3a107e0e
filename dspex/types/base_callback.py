"""`BaseCallback`: the methods that DSPex calls at the beginning and end of modules, models, tools and adapters."""

from __future__ import annotations

from typing import Any, Final

from .component import Component

HOOKS: Final = tuple(
    f"on_{kind}_{when}"
    for kind in ("module", "lm", "tool", "adapter_format", "adapter_parse")
    for when in ("start", "end")
)


class BaseCallback:
    """Derive from it and override what you want to see; the methods are those of `dspy.BaseCallback`.

    An object of a class derived from `dspy.BaseCallback` does as well. `instance` says what the method is called for,
    and `inputs` and `outputs` are plain data where it ran in a worker. A method may be called from any thread, for
    several calls at once; what it raises is logged, once for each class and method, and changes nothing. The call waits
    for it.
    """

    def on_module_start(self, call_id: str, instance: Component, inputs: dict[str, Any]) -> None:
        """A module begins; `inputs` are its arguments by name."""

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It has ended."""

    def on_lm_start(self, call_id: str, instance: Component, inputs: dict[str, Any]) -> None:
        """A language model is asked; `inputs` holds the `messages`, and the options as `kwargs`."""

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It has answered; `outputs` is a list of texts, or of mappings with `text` and more."""

    def on_tool_start(self, call_id: str, instance: Component, inputs: dict[str, Any]) -> None:
        """A tool is called."""

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It has ended."""

    def on_adapter_format_start(self, call_id: str, instance: Component, inputs: dict[str, Any]) -> None:
        """A prompt is made, of `signature`, `demos` and `inputs`."""

    def on_adapter_format_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It is made; `outputs` are the messages."""

    def on_adapter_parse_start(self, call_id: str, instance: Component, inputs: dict[str, Any]) -> None:
        """An answer is read: the `completion`."""

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It is read; `outputs` are the output fields."""
