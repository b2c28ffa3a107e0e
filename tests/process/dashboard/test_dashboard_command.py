"""Process: `dspex dashboard` serves the page of a running service on loopback, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex import PoolConfig, Supervisor
from dspex.control import Service
from tests.process.hosts.conftest import hosts
from tests.support.service import folder
from tests.support.waiting import eventually

__all__ = ["folder", "hosts"]


def pictures(url: str, token: str) -> dict[str, Any]:
    """The first picture that shows a service."""
    with httpx.stream("GET", f"{url}/feed", headers={"authorization": f"Bearer {token}"}, timeout=30.0) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: ") and "pools" in (picture := json.loads(line[6:])):
                return dict(picture)
    raise AssertionError("the feed ended")


def test_it_prints_an_address_of_loopback_and_ends_by_a_signal(
    hosts: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-m", "dspex.cli", "dashboard", "--json", "--no-open"]
    with Supervisor(pools=[PoolConfig("faults", bridge="faults", size=1)]) as supervisor:
        supervisor.wait_ready()
        with Service(supervisor):
            host = hosts(command, env=dict(os.environ))
            lines = eventually(lambda: [one for one in host.log().splitlines() if one.startswith("{")], within=60.0)
            url, _, token = json.loads(lines[0])["address"].partition("/#")
            assert url.startswith("http://127.0.0.1:") and len(token) >= 32
            picture = pictures(url, token)
            assert [pool["pool"] for pool in picture["pools"]] == ["faults"]
            assert picture["may_operate"] is False
            assert [one.stat().st_mode & 0o077 for one in tmp_path.glob("dspex-*.html")] == [0]
            assert token not in Path(f"/proc/{host.process.pid}/cmdline").read_text()
            host.signal(signal.SIGTERM)
            host.finish(within=30.0)
    assert not list(tmp_path.glob("dspex-*.html"))


def test_without_a_service_it_says_so(hosts: Any, folder: Path) -> None:
    host = hosts([sys.executable, "-m", "dspex.cli", "dashboard", "--no-open"], env=dict(os.environ))
    eventually(lambda: host.process.poll() is not None, within=60.0)
    assert "No supervisor" in host.log()
    host.finish(code=host.process.returncode)
    assert host.process.returncode not in (0, 1)
