"""Where the tests find the repository, and the bridges that they give to workers."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BRIDGES = ROOT / "tests" / "support" / "pools"
HOSTILE_BRIDGE = str(BRIDGES / "hostile_bridge.py")
MEMORY_BRIDGE = str(BRIDGES / "memory_bridge.py")
ODD_BRIDGE = str(BRIDGES / "odd_bridge.py")
