"""Unit: what importing and using the native side loads."""

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
from dspex import templates
from dspex.programs.native import native_route
from dspex.adapters.compiled_signature import compile_signature
compiled = compile_signature("question, context: list[str] -> answer")
assert compiled.messages({"question": "x"})
compiled.parse("[[ ## answer ## ]]\\nx")
compile_signature("q -> a", "json").parse('{"a": "x"}')
"""
    assert _loaded_after(code) == []


def test_types_load_pydantic_and_nothing_else() -> None:
    """unit: when the first typed value is read."""
    code = """
from dspex.adapters.compiled_signature import compile_signature
compile_signature("q -> a: list[int]").parse("[[ ## a ## ]]\\n[1]")
"""
    assert _loaded_after(code) == ["pydantic"]


def test_a_native_prediction_loads_what_it_needs() -> None:
    """unit: no pools, no event loop and no package metadata from the interpreter's start to the first prediction."""
    names = (
        "dspex.pools.supervisor",
        "dspex.config",
        "asyncio",
        "importlib.metadata",
        "pydantic",
        "ssl",
        "email",
        "subprocess",
    )
    code = f"""
import sys, dspex
from dspex.errors import LMTransportError
lm = dspex.LM("openai/any", api_base="http://127.0.0.1:9/v1", api_key="k", cache=False, retries=0)
try:
    dspex.predict("question -> answer", {{"question": "x"}}, lm=lm, implementation="native")
except LMTransportError:
    print(*[name for name in {names!r} if name in sys.modules], "asked")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["asked"]
