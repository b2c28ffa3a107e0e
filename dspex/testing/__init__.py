"""Test applications that use DSPex: a deterministic language model, and a pytest plugin (`plugin`).

Importing this costs nothing: names are loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fake_lm import FakeLM, FakeLMMaker
    from .script import FakeReply, FakeRequest

__all__ = ["FakeLM", "FakeLMMaker", "FakeReply", "FakeRequest"]


def __getattr__(name: str) -> Any:
    if name in ("FakeLM", "FakeLMMaker"):
        from . import fake_lm

        return getattr(fake_lm, name)
    if name in ("FakeReply", "FakeRequest"):
        from . import script

        return getattr(script, name)
    raise AttributeError(f"module 'dspex.testing' has no attribute {name!r}")
