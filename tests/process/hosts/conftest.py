"""Hosts for the tests of this folder; what each of them leaves behind is a failure of its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts.host import Host, python

Hosts = Callable[..., Host]
Scripts = Callable[..., Host]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """A maker of hosts. After the test nothing of them may be left: no process, no listener, no file."""
    made: list[Host] = []

    def make(command: list[str], **options: Any) -> Host:
        made.append(Host(command, tmp_path / f"host{len(made)}", **options))
        return made[-1]

    yield make
    left = [pid for host in made for pid in host.members()]
    logs = [host.log() for host in made]
    files = [host.files() for host in made]
    for host in made:
        host.close()
    assert not left, f"processes are left: {left}\n" + "\n".join(logs)
    assert not any(files), f"files are left: {files}"


@pytest.fixture
def script(hosts: Hosts) -> Scripts:
    """A maker of hosts that run a piece of Python after the prelude of `host.py`."""

    def make(code: str, *flags: str, within: Sequence[str] = (), **options: Any) -> Host:
        return hosts([*within, *python(code, *flags)], **options)

    return make
