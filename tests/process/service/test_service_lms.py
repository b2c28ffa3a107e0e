"""Process: which language models user code in a service's workers may ask: what its operator configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspex.control import Client
from dspex.errors import LMConfigurationError
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.service import SETTINGS, Starter

OWN = "tests.support.programs.own_lms"
KEY = "sk-of-the-service-alone"


@pytest.mark.parametrize("policy", [None, "any"])
def test_a_service_takes_named_lms_unless_its_settings_say_otherwise(
    policy: str | None, live: Starter, settings: Path
) -> None:
    """process: by name and by model; the refusal names the setting, and no key."""
    with FakeLM(lambda messages: {"answer": "strong"}, model="openai/strong-model") as strong:
        settings.write_text(_settings(strong, policy))
        settings.chmod(0o600)
        one = live(env={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": strong.api_base})
        with Client(one.socket) as client:
            for model in ("strong", "openai/strong-model"):
                assert client.call("dspy", "run", _asking(model))["outputs"] == {"answer": "strong"}
            if policy == "any":
                with pytest.raises(Exception, match="key"):  # the fake one's is another
                    client.call("dspy", "run", _asking("openai/other"))
                assert strong.requests[-1].headers["authorization"] == f"Bearer {KEY}"
                return
            with pytest.raises(LMConfigurationError, match='lms = "any"') as refused:
                client.call("dspy", "run", _asking("openai/other"))
            assert "sk-" not in str(refused.value) and len(strong.requests) == 2
        assert KEY not in one.log.read_text()


def _settings(strong: FakeLM, policy: str | None) -> str:
    return f"""{SETTINGS}
[pools.dspy]
size = 1
imports = ["{OWN}"]
path = ["{ROOT}", "{ROOT}/workers"]
{f'lms = "{policy}"' if policy else ""}
[lms.strong]
model = "openai/strong-model"
api_base = "{strong.api_base}"
api_key = "{strong.api_key}"
"""


def _asking(model: str) -> dict[str, Any]:
    spec = {"module": f"{OWN}:Asking", "signature": None, "options": {"model": model, "cache": False}, "state": None}
    return {"spec": spec, "inputs": {"question": "q"}}
