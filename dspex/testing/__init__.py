"""Test applications that use DSPex: a deterministic language model, and a pytest plugin (`plugin`).

Importing this costs nothing: names are loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fake_lm import FakeLM
    from .script import FakeReply, FakeRequest

__all__ = ["FakeLM", "FakeReply", "FakeRequest"]


def __getattr__(name: str) -> Any:
    if name == "FakeLM":
        from .fake_lm import FakeLM

        return FakeLM
    if name in ("FakeReply", "FakeRequest"):
        from . import script

        return getattr(script, name)
    raise AttributeError(f"module 'dspex.testing' has no attribute {name!r}")
