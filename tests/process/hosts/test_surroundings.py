"""Process: hosts in odd surroundings: closed descriptors, poor environments, ignored and blocked signals."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.process.hosts.conftest import Scripts
from tests.support.hosts.host import Host
from tests.support.waiting import eventually

# What every host here does: serve, be interrupted, stream, lose a worker and get another, stop.
SERVE = """
with Supervisor(pools=[POOL]) as sup:
    sup.wait_ready()
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
    assert list(sup.stream("f", "count", {"n": 5})) == [0, 1, 2, 3, 4]
    try:
        sup.call("f", "sleep", {"seconds": 600}, timeout=0.1)
    except dspex.CallTimeout:
        pass
    try:
        sup.call("f", "kill")
    except dspex.WorkerDied as error:
        assert (error.cause, error.signal) == ("killed", signal.SIGKILL), (error.cause, error.signal, error.exit_code)
    until(lambda: [w["phase"] for w in sup.stats()["f"]["workers"]].count("ready") == 2)
    assert sup.call("f", "echo", {"n": 2}) == {"n": 2}
    assert sup.stats()["f"]["reaper"].startswith("fork server"), sup.stats()["f"]["reaper"]
tell(served=True)
"""


def finish(host: Host, code: int | None = 0) -> None:
    host.finish(code=code)
    assert [line for line in host.said() if "served" in line], host.log()


def test_a_poor_environment(script: Scripts) -> None:
    """Process: nothing of HOME, PATH and TMPDIR, the C locale, and no asserts."""
    poor: dict[str, str | None] = {"HOME": None, "PATH": None, "TMPDIR": "/nonexistent", "LC_ALL": "C"}
    finish(script(SERVE, env={**poor, "PYTHONCOERCECLOCALE": "0", "PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "2"}))


def test_every_warning_is_an_error(script: Scripts) -> None:
    """Process: nothing is printed but the log's line about the worker that was killed."""
    host = script(SERVE, "-X", "dev", "-W", "error")
    finish(host)
    assert [line.split()[0] for line in host.log().splitlines()] == ["event=dspex.worker.died"], host.log()


def test_an_isolated_interpreter_has_isolated_workers(script: Scripts, tmp_path: Path) -> None:
    """Process: a PYTHONPATH that the host was told to ignore is not heeded by its workers."""
    (tmp_path / "msgpack.py").write_text("raise SystemExit('the wrong one')")
    finish(script(SERVE, "-I", "-O", env={"PYTHONPATH": str(tmp_path)}))


SIGNALS = {
    "ignored": """
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
""",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "a reaper of any child": """
def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.001)
threading.Thread(target=reap, daemon=True).start()
""",
}


@pytest.mark.parametrize("before", SIGNALS.values(), ids=SIGNALS.keys())
def test_hosts_with_signals_of_their_own(script: Scripts, before: str) -> None:
    """Process: what a host does with its signals and children is neither needed nor handed down."""
    finish(script(before + SERVE))


CLOSED = {
    "stdout": "os.close(1)",
    "all three": "os.closerange(0, 3)",
    "daemon": "os.closerange(0, 3)\nif os.fork(): os._exit(0)\nos.setsid(); os.umask(0o77); os.chdir('/')",
}
STRAY = """
    for number in (0, 1, 2):
        try:
            os.write(number, b"stray output")
        except OSError:
            pass
    subprocess.run([sys.executable, "-S", "-c", "import os; os.system('echo stray')"], check=False)
"""


@pytest.mark.parametrize("closing", CLOSED.values(), ids=CLOSED.keys())
def test_hosts_without_standard_streams(script: Scripts, closing: str) -> None:
    """Process: our descriptors never take the numbers 0, 1 and 2, to which other code writes and its children too."""
    first = "    assert sup.call"
    host = script(closing + SERVE.replace(first, STRAY + first, 1))
    host.process.wait(timeout=20)
    eventually(lambda: not host.members(), within=20, what="it has ended, also as a daemon")
    assert [line for line in host.said() if "served" in line], host.log()


def test_a_host_whose_stdout_and_stderr_are_broken_pipes(script: Scripts) -> None:
    """Process: a worker's death is logged to a stderr that nobody reads."""
    reading, writing = os.pipe()
    try:
        host = script("import logging; logging.basicConfig(level=1)\n" + SERVE, stdout=writing, stderr=writing)
        os.close(reading)
    finally:
        os.close(writing)
    finish(host, code=None)  # 120, Python's own, where it cannot flush stdout


def test_a_host_whose_folder_is_deleted(script: Scripts) -> None:
    """Process."""
    finish(script("os.rmdir(os.getcwd())" + SERVE))


def test_a_host_with_a_strict_umask_and_few_descriptors(script: Scripts) -> None:
    """Process: 40 descriptors, of which the host itself has taken some."""
    finish(script("import resource\nos.umask(0o777); resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))" + SERVE))


def test_a_user_without_a_name_or_a_home(script: Scripts) -> None:
    """Process: as containers run with `--user 12345`."""
    become = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if subprocess.run([*become, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("user namespaces are not permitted here")
    finish(script("assert os.getuid() == 12345" + SERVE, within=become, env={"HOME": None}))
