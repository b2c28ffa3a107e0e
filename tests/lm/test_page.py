"""The page on language models: its code runs as it stands, with a fake model in the place of the real ones."""

from __future__ import annotations

import re
from pathlib import Path

import dspex
from dspex.testing import FakeLM

PAGE = Path(__file__).parent.parent.parent / "docs" / "language-models.md"


def test_the_pages_examples_run() -> None:
    """contract: every block, in order; the accounts say what the page says."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    exec(compile(blocks[0], str(PAGE), "exec"), names)
    declared = names["lm"]
    assert isinstance(declared, dspex.LM) and declared.price == (0.15, 0.6) and len(declared.fallbacks) == 1
    with FakeLM(lambda messages: {"answer": "a framework"}, price=declared.price) as fake:
        names["lm"] = fake
        for block in blocks[1:]:
            exec(compile(block, str(PAGE), "exec"), names)
        account = names["account"]
        assert isinstance(account, dspex.Account)
        assert account.requests == 1 and account.cost_usd > 0
        assert len(fake.requests) == 3
