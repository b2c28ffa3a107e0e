"""Unit: the [budget] table of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspex import config
from dspex.errors import BudgetExceeded, SettingsError
from dspex.lm.usage import UsageMeter, set_process_budget


def test_table_bounds_the_process(tmp_path: Path) -> None:
    """unit: read with the settings; what was used already counts."""
    path = tmp_path / "dspex.toml"
    path.write_text("[budget]\nusd = 0.5\ntokens = 1000\n")
    usage = UsageMeter()
    set_process_budget(usage, config.load(path).tables)
    usage.check()
    usage.total.add("openai/m", {"total_tokens": 1000}, 0.1)
    with pytest.raises(BudgetExceeded, match="the process"):
        usage.check()


@pytest.mark.parametrize("table", [{"dollars": 1}, 5, {"usd": -1}, {"usd": "much"}, {"tokens": True}])
def test_table_that_cannot_be_is_a_settings_error(table: Any) -> None:
    """unit"""
    with pytest.raises(SettingsError, match="budget"):
        set_process_budget(UsageMeter(), {"budget": table})
    set_process_budget(UsageMeter(), {})
