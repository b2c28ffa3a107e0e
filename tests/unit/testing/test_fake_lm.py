"""Contract: FakeLM, as users' tests use it, on both routes; and the pytest plugin."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex.errors import LMAuthError, LMInvalidRequestError
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import ASK, Probe
from tests.support.paths import ROOT

Fake = Callable[..., FakeLM]
CHAT_SYSTEM = {"role": "system", "content": "[[ ## question ## ]]\n{question}\n\n[[ ## completed ## ]]"}
CHAT_ASK = {
    "role": "user",
    "content": "[[ ## question ## ]]\nq\n\nRespond with the corresponding output fields, starting with the field "
    "`[[ ## reasoning ## ]]`, then `[[ ## answer ## ]]`, and then ending with the marker for `[[ ## completed ## ]]`.",
}


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_list_is_played_in_order_and_its_end_is_said(fake: Fake, client: LMClient) -> None:
    """contract: no silent repetition unless cycle=True."""
    lm = fake(["one", "two"])
    assert [client.complete(lm, ASK).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(LMInvalidRequestError, match=r"given 2 answer\(s\) and received request number 3"):
        client.complete(lm, ASK)
    cycled = fake(["one", "two"], cycle=True)
    assert [client.complete(cycled, ASK).text for _ in range(3)] == ["one", "two", "one"]


def test_dict_answers_by_substring_or_regex(fake: Fake, client: LMClient) -> None:
    """contract: the last message counts first; nothing that matches is said."""
    lm = fake({"capital": "Paris", re.compile(r"\d\+\d"): "4"})
    assert client.complete(lm, say("the capital?")).text == "Paris"
    assert client.complete(lm, [*say("capital"), *say("2+2")]).text == "4"
    with pytest.raises(LMInvalidRequestError, match=r"None of FakeLM's 2 pattern"):
        client.complete(lm, say("else"))


def test_function_answers_and_its_failure_reaches_the_test(fake: Fake, client: LMClient) -> None:
    """contract: called with the messages."""
    lm = fake(lambda messages: messages[-1]["content"].upper())
    assert client.complete(lm, say("abc")).text == "ABC"
    broken = fake(lambda messages: {}["missing"])
    with pytest.raises(LMInvalidRequestError, match="KeyError"):
        client.complete(broken, ASK)


def test_fields_are_worded_as_the_request_wants_them(fake: Fake, client: LMClient) -> None:
    """contract: chat headers, a JSON object, XML tags; a wanted reasoning is supplied."""
    fields = {"answer": "4", "tags": ["a", "é"]}
    lm = fake([fields], cycle=True)
    chat = client.complete(lm, [CHAT_SYSTEM, CHAT_ASK]).text
    assert chat.startswith("[[ ## reasoning ## ]]\n")
    assert chat.endswith('[[ ## answer ## ]]\n4\n\n[[ ## tags ## ]]\n["a", "é"]\n\n[[ ## completed ## ]]\n')
    assert json.loads(client.complete(lm, ASK, response_format={"type": "json_object"}).text) == fields
    xml = client.complete(lm, [{"role": "system", "content": "<answer>\n{answer}\n</answer>"}, *ASK]).text
    assert xml.startswith("<answer>\n4\n</answer>")


def test_it_is_an_lm_and_needs_its_own_key(fake: Fake, client: LMClient) -> None:
    """contract: usable wherever an LM is; another key is refused."""
    lm = fake("x", temperature=0.5)
    assert isinstance(lm, LM)
    assert (lm.lm, type(lm.lm)) == (lm, LM)
    with pytest.raises(LMAuthError):
        client.complete(lm.replace(api_key="wrong"), ASK)
    assert lm.requests[0].body["temperature"] == 0.5


@pytest.mark.parity
def test_dspy_in_a_worker_reads_the_same_answers(fake: Fake, dspy_probe: Probe) -> None:
    """parity: a real dspy.LM in another process gets what the script says."""
    lm = fake([{"answer": "4"}, FakeReply(status=401)])
    settings = {"model": lm.model, "api_base": lm.api_base, "api_key": lm.api_key}
    first, second = dspy_probe([{"lm": settings, "messages": ASK}] * 2)
    assert json.loads(first["outputs"][0]) == {"answer": "4"}
    assert second["error"] == "LMAuthError"
    assert [request.last for request in lm.requests] == [ASK[0]["content"]] * 2


def test_it_ends_with_its_block_and_with_its_last_reference() -> None:
    """contract: no thread is left."""
    with FakeLM("x") as lm:
        assert any(thread.name == "dspex-fake-lm" for thread in threading.enumerate())
    lm.close()
    del lm
    forgotten = FakeLM("x")
    del forgotten
    gc.collect()
    assert not any(thread.name == "dspex-fake-lm" for thread in threading.enumerate())


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
import os, subprocess, threading
import dspex.testing.plugin

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

def test_clean(no_leaks, fake_lm):
    from dspex.lm.lm_client import LMClient
    with LMClient() as client:
        assert client.complete(fake_lm(["Paris"]), [{"role": "user", "content": "?"}]).text == "Paris"

def teardown_module():
    kept[2].kill()
    kept[2].wait()
    kept[1].set()
"""


def test_no_leaks_finds_what_is_left_behind(tmp_path: Path) -> None:
    """process: descriptors, threads and children each fail the test that left them; a clean test passes."""
    (tmp_path / "test_leaks.py").write_text(LEAKS)
    command = [sys.executable, "-m", "pytest", "-p", "no:dspex", "-p", "dspex.testing.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    done = subprocess.run(
        [*command, "-rA", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    said = done.stdout
    assert "PASSED test_leaks.py::test_clean\n" in said, said
    assert "ERROR test_leaks.py::test_clean" not in said
    for name, what in (("descriptor", "descriptor"), ("thread", "thread left-behind"), ("child", "child process")):
        assert re.search(rf"teardown of test_{name} _+\nThe test left behind: {what}", said), said


def test_leak_check_can_be_switched_on_for_all(tmp_path: Path) -> None:
    """process: by pytest's settings."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ndspex_leak_check = true\n")
    body = LEAKS.split("def test_thread")[0].replace("(no_leaks)", "()")
    (tmp_path / "test_leaks.py").write_text(body)
    command = [sys.executable, "-m", "pytest", "-p", "no:dspex", "-p", "dspex.testing.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    done = subprocess.run(
        [*command, "-q", str(tmp_path)], capture_output=True, env=environment, cwd=tmp_path, check=False
    )
    assert b"The test left behind: descriptor" in done.stdout, done.stdout
