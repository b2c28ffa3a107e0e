"""Security: a settings file that holds a key and that others may read gets a warning, which shows no key."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dspex import config
from dspex.settings_exposure import secret_names

KEY = "canary-4242424242-canary"


def _written(folder: Path, text: str, mode: int) -> Path:
    path = folder / "dspex.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f'[lm]\nmodel = "openai/m"\napi_key = "{KEY}"', "lm.api_key"),
        (f'[lm]\nmodel = "openai/m"\nheaders = {{ "X-Api-Key" = "{KEY}" }}', "lm.headers.X-Api-Key"),
        (f'[lm]\nmodel = "openai/m"\nproxy = "http://user:{KEY}@proxy:80"', "lm.proxy"),
        (
            f'[lm]\nmodel = "openai/m"\nfallbacks = [{{ model = "openai/n", api_key = "{KEY}" }}]',
            "lm.fallbacks.api_key",
        ),
    ],
)
def test_shared_file_with_a_key_is_warned_of(
    text: str, name: str, mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """contract: the warning names the file, its mode, the setting and the remedy."""
    path = _written(tmp_path, text, mode)
    with caplog.at_level(logging.WARNING, logger="dspex"):
        config.load(path, environ={})
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelno == logging.WARNING and "dspex.settings.exposed" in said
    assert name in said and f"chmod 600 {path}" in said and f"{mode:04o}" in said
    assert KEY not in said and KEY not in str(vars(record))


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (f'[lm]\nmodel = "openai/m"\napi_key = "{KEY}"', 0o600),
        ('[lm]\nmodel = "openai/m"\nmax_tokens = 5\nprompt_cache_key = ""', 0o644),
        ('[lm]\nmodel = "openai/m"\nproxy = "http://proxy:80"', 0o644),
        ("[pools.dspy]\nsize = 1", 0o644),
    ],
)
def test_file_that_shows_nothing_is_not_warned_of(
    text: str, mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """contract: one of its owner's alone, or without a key."""
    with caplog.at_level(logging.WARNING, logger="dspex"):
        config.load(_written(tmp_path, text, mode), environ={})
    assert not caplog.records


def test_file_that_is_gone_is_not_looked_at(tmp_path: Path) -> None:
    """unit: a file that was renamed between reading and looking."""
    from dspex.settings_exposure import warn_if_exposed

    warn_if_exposed(tmp_path / "gone", {"lm": {"api_key": KEY}})
    assert list(secret_names({"lm": {"api_key": KEY, "model": "m"}})) == ["lm.api_key"]
