"""Process: the applications of examples/web under their servers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.testing import FakeLM
from dspex_worker.memory.procfs import descendants
from tests.process.hosts.conftest import Hosts
from tests.support.hosts.host import Host, gone
from tests.support.paths import ROOT
from tests.support.waiting import eventually

WEB = ROOT / "examples" / "web"
POOLS = "[pools.dspy]\nsize = 1\n"


@pytest.fixture
def model(tmp_path: Path) -> Iterator[dict[str, str | None]]:
    """The environment that names a language model which always answers "Paris"; and the default supervisor's pools."""
    config = tmp_path / "dspex.toml"
    config.write_text(POOLS)
    with FakeLM({"": {"reasoning": "none", "answer": "Paris"}}, cycle=True) as lm:
        yield {
            "DSPEX_LM": "openai/fake",
            "DSPEX_CONFIG": str(config),
            "OPENAI_BASE_URL": lm.api_base,
            "OPENAI_API_KEY": lm.api_key,
        }


SERVERS = {
    "uvicorn": ["--fd", "{fd}", "--app-dir", str(WEB), "asgi:app"],
    "gunicorn": ["--bind", "fd://{fd}", "--workers", "1", "--no-control-socket", "--chdir", str(WEB),
                 "--config", str(WEB / "gunicorn.conf.py"), "wsgi:application"],
}  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_the_web_examples(hosts: Hosts, model: dict[str, str | None], server: str) -> None:
    """Process: under their servers, with DSPy itself; SIGTERM ends everything."""
    pytest.importorskip(server)
    host = hosts([sys.executable, "-m", server, *SERVERS[server]], listen=True, env=model)
    answer = _first_answer(host)
    assert (answer["answer"], answer["route"][:12]) == ("Paris", "python:dspy/")
    below = descendants(host.process.pid)
    assert len(below) >= 3
    host.signal(signal.SIGTERM)
    host.finish(code=None)
    gone(below)


def _first_answer(host: Host) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        assert host.process.poll() is None, host.log()
        return host.try_get("/", question="Capital of France?")

    answer: dict[str, Any] = eventually(found, within=60.0, what="an answer")
    return answer
