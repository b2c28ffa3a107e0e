"""unit: what importing and using the native side loads."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("dspy", "litellm", "pydantic", "json_repair", "regex", "jinja2", "asyncio", "numpy")
LOADED = "import sys; print(*[name for name in %r if name in sys.modules])"


def _loaded_after(code: str) -> list[str]:
    """The heavy modules that a fresh interpreter holds after this code."""
    text = f"{code}\n{LOADED % (HEAVY,)}"
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_predictor_loads_nothing_heavy() -> None:
    """unit: nor does predicting text."""
    code = """
from dspex.inprocess import assertions, attempts, predictor, rewards, templates, votes
from dspex.inprocess.adapters import compile_signature
compiled = compile_signature("question, context: list[str] -> answer")
assert compiled.messages({"question": "x"})
compiled.parse("[[ ## answer ## ]]\\nx")
compile_signature("q -> a", "json").parse('{"a": "x"}')
"""
    assert _loaded_after(code) == []


def test_types_load_pydantic_and_nothing_else() -> None:
    """unit: when the first typed value is read."""
    code = """
from dspex.inprocess.adapters import compile_signature
compile_signature("q -> a: list[int]").parse("[[ ## a ## ]]\\n[1]")
"""
    assert _loaded_after(code) == ["pydantic"]
