"""Process: the pytest plugin in runs of its own: what `no_leaks` finds, and what it must not blame a test for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs import pages
from tests.support.paths import ROOT

GETTING_STARTED = [page for page in pages.user_pages() if page.startswith("getting-started/")]


def run_pytest(folder: Path, *words: str, **variables: str) -> str:
    """The output of a pytest run in the folder, with this tree's plugin."""
    plugins = ["-p", "no:dspex", "-p", "dspex.testing.plugin", "-p", "no:cacheprovider"]
    if "no:asyncio" not in words:
        plugins += ["-o", "asyncio_default_fixture_loop_scope=function"]  # unset, pytest-asyncio warns
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *words, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), *(one for one in sys.path if one)])},
        cwd=folder,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


def test_importing_the_plugin_is_cheap() -> None:
    """contract: it is loaded in every pytest run; no asyncio, no client, no server."""
    code = (
        "import pytest, sys; before = set(sys.modules); import dspex.testing.plugin; "
        "print([m for m in set(sys.modules) - before "
        "if m.startswith(('dspex.lm', 'dspex.signatures', 'dspex.adapters')) or m in ('ssl', 'sqlite3')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert said.strip() == "[]"


LEAKS = """
import asyncio, os, socket, subprocess, threading
import dspex, pytest
import dspex.testing.plugin
from dspex.testing import FakeLM

dspex.testing.plugin._PATIENCE_S = 0.05
kept = []

def test_descriptor(no_leaks):
    kept.append(os.pipe())

def test_thread(no_leaks):
    event = threading.Event()
    kept.append(event)
    threading.Thread(target=event.wait, daemon=True, name="left-behind").start()

def test_child(no_leaks):
    kept.append(subprocess.Popen(["sleep", "60"]))

def test_socket(no_leaks):
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_fake(no_leaks):
    kept.append(FakeLM("x"))

def test_client(no_leaks):
    from dspex.lm.lm_client import LMClient
    client = LMClient()
    kept.append((client, FakeLM("x")))
    client.complete(kept[-1][1], [{"role": "user", "content": "?"}])

def test_loop(no_leaks):
    kept.append(asyncio.new_event_loop())

def test_supervisor(no_leaks):
    kept.append(dspex.Supervisor(pools=[dspex.PoolConfig("f", bridge="faults", size=1)]).start())

def teardown_module():
    kept[1].set()
    kept[2].kill()
    kept[2].wait()
    kept[3].close()
    kept[4].close()
    kept[5][0].close()
    kept[5][1].close()
    kept[6].close()
    kept[7].stop()
"""
FOUND = {
    "descriptor": "descriptor",
    "thread": "thread left-behind",
    "child": "child process",
    "socket": r"descriptor \d+ \(socket:",
    "fake": "thread dspex-fake-lm",
    "client": r"descriptor \d+ \(socket:",
    "loop": r"descriptor \d+ \(anon_inode:\[eventpoll\]\)",
    "supervisor": r"child process \d+",
}


def test_no_leaks_finds_what_is_left_behind(tmp_path: Path) -> None:
    """process: each of these fails the test that left it."""
    (tmp_path / "test_leaks.py").write_text(LEAKS)
    said = run_pytest(tmp_path, "-q")
    for name, what in FOUND.items():
        assert re.search(rf"teardown of test_{name} _+\nThe test left behind: .*{what}", said), said
    assert f"{len(FOUND)} errors" in said


CLEAN = """
import asyncio
import dspex, pytest
from dspex.testing import FakeLM

SAY = {"question": "Capital of France?"}

def test_named_first(no_leaks, fake_lm):
    assert dspex.predict("question -> answer", SAY, lm=fake_lm([{"answer": "Paris"}])).answer == "Paris"

def test_named_last(fake_lm, no_leaks):
    assert dspex.predict("question -> answer", SAY, lm=fake_lm([{"answer": "Paris"}])).answer == "Paris"

@pytest.fixture
def supervisor():
    with dspex.Supervisor(pools=[dspex.PoolConfig("f", bridge="faults", size=1)]) as made:
        yield made

def test_with_a_fixture_of_ones_own(supervisor, no_leaks):
    assert supervisor.call("f", "echo", {"text": "hi"}) == {"text": "hi"}

@pytest.fixture(scope="module")
def endpoint():
    with FakeLM(by_field={"answer": "Paris"}) as lm:
        yield lm

def test_whose_endpoint_goes_on(endpoint, no_leaks):
    assert dspex.predict("question -> answer", SAY, lm=endpoint).answer == "Paris"

def test_in_a_loop(fake_lm, no_leaks, endpoint):
    async def body():
        for lm in (endpoint, fake_lm(by_field={"answer": "Paris"})):
            assert (await dspex.apredict("question -> answer", SAY, lm=lm)).answer == "Paris"
            assert dspex.predict("question -> answer", SAY, lm=lm).answer == "Paris"
        async with FakeLM(by_field={"answer": "Paris"}) as lm:
            assert (await dspex.apredict("question -> answer", SAY, lm=lm)).answer == "Paris"
    asyncio.run(body())

@pytest.mark.usefixtures("no_leaks")
def test_of_the_default_supervisor():
    assert dspex.default_supervisor().call("dspy", "echo", {"text": "hi"}) == {"text": "hi"}
    kept.append(dspex.default_supervisor())

kept = []

def test_which_is_stopped_by_now():
    assert not kept[0].is_running

@pytest.fixture(scope="module")
def default():
    dspex.default_supervisor().call("dspy", "echo", {})
    yield dspex.default_supervisor()

def test_of_a_default_supervisor_that_ran_before(default, no_leaks):
    assert dspex.default_supervisor() is default
    kept.append(open("/dev/null"))

def test_which_still_runs(default):
    assert default.is_running
    kept.pop().close()
    dspex.defaults.stop_default_supervisor()
"""


def test_no_leaks_does_not_blame_a_test_for_what_the_process_keeps(tmp_path: Path) -> None:
    """process: connections for later, the default supervisor, other fixtures in any order; and tests in event loops."""
    (tmp_path / "test_clean.py").write_text(CLEAN)
    (tmp_path / "dspex.toml").write_text('[pools.dspy]\nbridge = "faults"\nsize = 1\n')
    said = run_pytest(tmp_path, "-q", "-W", "error", DSPEX_CONFIG="dspex.toml")
    left = re.findall(r"teardown of (\w+)", said)
    assert left == ["test_of_a_default_supervisor_that_ran_before"], said  # the file that it left open
    assert "9 passed, 1 error" in said, said


SNIPPETS = """
import asyncio, runpy, sys
from pathlib import Path
import pytest
from tests.support.docs import pages, run_page, scripted_model
from dspex.testing import FakeLM

BLOCKS = [block for page in {pages!r} for block in pages.runnable(page) if not block.title.startswith("test_")]
TESTS = [block for page in {pages!r} for block in pages.runnable(page) if block.title.startswith("test_")]

@pytest.fixture(scope="session", autouse=True)
def surroundings():
    with FakeLM(scripted_model.answer) as lm, pytest.MonkeyPatch.context() as patch:
        Path("hidden.toml").write_text("[pools.dspy]\\nsize = 1\\n[pools.mipro]\\nsize = 1\\n")
        patch.syspath_prepend(str(Path.cwd()))
        patch.setenv("DSPEX_CONFIG", "hidden.toml")
        patch.setenv("OPENAI_BASE_URL", lm.api_base)
        patch.setenv("OPENAI_API_KEY", lm.api_key)
        patch.setenv("DSPEX_LM", "openai/gpt-4o-mini")
        for page in {pages!r}:
            for block in pages.blocks(page):
                if block.is_file:
                    Path(block.title).write_text(block.text)
        yield

@pytest.mark.parametrize("block", BLOCKS, ids=[block.id for block in BLOCKS])
def test_block(block, no_leaks):
    run_page.run(block)

def test_there_are_some():
    assert len(BLOCKS) > 5
    assert TESTS
"""


def test_no_leaks_passes_the_documentations_own_snippets(tmp_path: Path) -> None:
    """process: every block of Getting started, and the test file that it shows with all its tests under no_leaks."""
    (tmp_path / "test_blocks.py").write_text(SNIPPETS.format(pages=GETTING_STARTED))
    shown = [block for page in GETTING_STARTED for block in pages.runnable(page) if block.title.startswith("test_")]
    (tmp_path / "pytest.ini").write_text("[pytest]\ndspex_leak_check = true\n")
    for block in shown:
        (tmp_path / block.title).write_text(block.text)
    said = run_pytest(tmp_path, "-q")
    assert re.search(r"^\d+ passed in", said, re.MULTILINE), said


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_tests_that_are_coroutines(tmp_path: Path, plugin: str) -> None:
    """process: under pytest-asyncio and anyio, where they are installed."""
    pytest.importorskip({"asyncio": "pytest_asyncio"}.get(plugin, plugin))
    body = f"""
import dspex, pytest, os
from dspex.testing import FakeLM

pytestmark = pytest.mark.{plugin}

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_clean(fake_lm, no_leaks):
    lm = fake_lm(by_field={{"answer": "Paris"}})
    assert (await dspex.apredict("question -> answer", {{"question": "q"}}, lm=lm)).answer == "Paris"
    async with FakeLM(by_field={{"answer": "Rome"}}) as lm:
        assert (await dspex.apredict("question -> answer", {{"question": "q"}}, lm=lm)).answer == "Rome"

async def test_leaky(no_leaks):
    kept.append(os.pipe())

kept = []
"""
    (tmp_path / "test_coroutines.py").write_text(body)
    if plugin == "asyncio":
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    said = run_pytest(tmp_path, "-q", "-W", "error", *([] if plugin == "asyncio" else ["-p", "no:asyncio"]))
    assert re.findall(r"teardown of (\w+)", said) == ["test_leaky"], said
    assert "2 passed, 1 error" in said, said


def test_leak_check_can_be_switched_on_for_all(tmp_path: Path) -> None:
    """process: by pytest's settings."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ndspex_leak_check = true\n")
    body = LEAKS.split("def test_thread")[0].replace("(no_leaks)", "()")
    (tmp_path / "test_leaks.py").write_text(body)
    assert "The test left behind: descriptor" in run_pytest(tmp_path, "-q")
