"""Process: the examples of docs/embedding.md and examples/web run as they stand there."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.testing import FakeLM
from dspex_worker.memory import descendants

from ..pools.waiting import eventually
from .conftest import Hosts
from .host import ROOT, Host, gone

PAGE = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
WEB = ROOT / "examples" / "web"
POOLS = "[pools.dspy]\nsize = 1\n"
CELLS = """
import ast, asyncio, inspect, os, signal, sys, dspex

names = {"dspex": dspex}

async def kernel(cells):
    for cell in cells:
        made = eval(compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.iscoroutine(made):
            await made

cells = [open(path).read() for path in sys.argv[1:]]
asyncio.run(kernel(cells))
"""


def section(title: str) -> list[str]:
    """The Python of one section of the page."""
    text = PAGE.partition(f"\n## {title}")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


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


def test_the_pages_pieces_of_the_web_examples_are_theirs() -> None:
    """Contract: what the page shows is what the files hold."""
    files = "".join(path.read_text() for path in sorted(WEB.glob("*.py")))
    shown = section("ASGI") + section("WSGI")
    assert len(shown) == 3
    assert all(block in files for block in shown)
    for name in re.findall(r"\]\(\.\./(examples/[^)]+)\)", PAGE):
        assert (ROOT / name).is_file(), name


def test_the_script_and_its_children(hosts: Hosts, model: dict[str, str | None], tmp_path: Path) -> None:
    """Process: the two scripts, pasted one after the other."""
    (first,), (second,) = section("Scripts"), section("Children")
    path = tmp_path / "script.py"
    path.write_text(first + second)
    host = hosts([sys.executable, str(path)], env=model)
    host.finish(within=60)
    assert host.log().split() == ["Paris"] * 3


def test_the_notebooks_cells(hosts: Hosts, model: dict[str, str | None], tmp_path: Path) -> None:
    """Process: cells that run inside a loop, as a notebook's kernel compiles and runs them."""
    cells = section("Notebooks")
    assert len(cells) == 2
    paths = [tmp_path / f"cell{number}.py" for number in range(2)]
    for path, cell in zip(paths, cells, strict=True):
        path.write_text(cell)
    host = hosts([sys.executable, "-c", CELLS, *map(str, paths)], env=model)
    host.finish(within=60)
    assert host.log().split() == ["Paris"] * 3


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
