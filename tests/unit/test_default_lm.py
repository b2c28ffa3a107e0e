"""Unit: where the default language model comes from when nobody names one in the call."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.config import Config
from dspex.defaults import Defaults, as_lm
from dspex.errors import SettingsError
from dspex.pools.supervisor import Supervisor


def _config(model: str) -> Config:
    return Config((), {"lm": {"model": model}})


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DSPEX_LM", "DSPEX_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_settings_that_are_configured_anew_bring_their_own_model() -> None:
    """unit: the first settings' model was only found, not given; one that was given stays."""
    defaults = Defaults()
    for name in ("one", "two"):
        defaults.configure(config=_config(f"openai/{name}"))
        assert defaults.lm() == as_lm(f"openai/{name}")
    defaults.configure(lm="openai/given")
    defaults.configure(config=_config("openai/three"))
    assert defaults.lm() == as_lm("openai/given")


def test_a_supervisor_of_the_users_own_brings_the_model_of_its_settings(tmp_path: Path) -> None:
    """unit: its [lm] table is as good as that of a file which `configure` is given."""
    path = tmp_path / "dspex.toml"
    path.write_text("[lm]\nmodel = 'openai/own'\n")
    defaults = Defaults()
    defaults.configure(supervisor=Supervisor(path))
    assert defaults.lm() == as_lm("openai/own")


@pytest.mark.parametrize("table", [{"temperature": 1}, {"model": "openai/m", "temprature": 1}, {"model": 3}])
def test_a_table_that_is_no_model_is_a_settings_error(table: dict[str, object]) -> None:
    """unit: so that a command exits with the code for wrong settings."""
    with pytest.raises(SettingsError):
        as_lm(table)
