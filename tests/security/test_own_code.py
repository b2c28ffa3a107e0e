"""Security: what this process may have its workers import or load, no client of its control socket may."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

import dspex
from dspex import errors
from dspex.control import Client, Service
from dspex.services.code import CodeStore, SentCode, import_path_of
from dspex.testing import FakeLM
from dspex_worker.wire import FRAME_LIMIT
from tests.support.programs import own_programs

OWN = "tests.support.programs.own_programs"
EFFECTS = "tests.support.programs.effects"
ADD = f"{OWN}:add"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("dspy", size=1, imports=[EFFECTS])
    with dspex.Supervisor(pools=[pool]) as running:
        yield running


@pytest.fixture
def client(sup: dspex.Supervisor, folder: Path) -> Iterator[Client]:
    with Service(sup), dspex.connect() as connected:
        yield connected


def _run(client: Client, spec: dict[str, Any], **more: Any) -> Any:
    return client.call("dspy", "run", {"spec": {"signature": None, **spec}, "inputs": {"left": 1}, **more})


@pytest.mark.parametrize("is_used_by_the_host", [False, True])
def test_a_client_names_no_module_outside_the_imports(
    client: Client, sup: dspex.Supervisor, is_used_by_the_host: bool
) -> None:
    """security: nor one that the host's own calls have had imported, nor a program that they have had built."""
    if is_used_by_the_host:
        assert dspex.function(ADD, supervisor=sup)(left=1) == {"sum": 3}
        spec = dspex.function(ADD, supervisor=sup).to_wire()
    else:
        spec = {"module": ADD, "function": True}
    for command in ("run", "describe_program"):
        with pytest.raises(errors.UnknownName, match="own_programs"):
            _run(client, spec) if command == "run" else client.call("dspy", command, {"spec": spec})
    for trusted in ({"trusted": True}, {"meta": {"trusted": True}}):
        with pytest.raises(errors.DspexError):
            client.call("dspy", "run", {"spec": spec, "inputs": {"left": 1}, **trusted})


def test_a_client_reaches_only_classes_of_the_imports(client: Client) -> None:
    """security: as ever: no function, no factory, nothing that the module merely imported."""
    for name in (f"{EFFECTS}:rewarding", f"{EFFECTS}:os.system", f"{EFFECTS}:Path", f"{EFFECTS}:_send"):
        with pytest.raises(errors.UsageError):
            _run(client, {"module": name, "function": True})


def test_a_client_loads_no_code_that_the_host_has_sent(client: Client, sup: dspex.Supervisor) -> None:
    """security: not while the host's call runs either, which is when a worker may ask for it."""
    entered, left = threading.Event(), threading.Event()

    def wait() -> str:
        """Wait."""
        entered.set()
        left.wait(20)
        return "waited"

    program = dspex.module(lambda tools: own_programs.Searching(tools), tools=[_waiting(wait)], supervisor=sup)
    assert program.code and program.module.startswith("value:")
    thread = threading.Thread(target=lambda: program(query="x"))
    thread.start()
    try:
        assert entered.wait(20)
        stolen = {"module": f"{EFFECTS}:Mailing", "given": program.module}
        for spec in (program.to_wire(), {"module": program.module}, stolen):
            with pytest.raises(errors.DspexError) as caught:
                _run(client, spec)
            assert not isinstance(caught.value, errors.InterruptedCall)
    finally:
        left.set()
        thread.join()


def _waiting(function: Any) -> Any:
    def tool(query: str) -> str:
        """Look something up."""
        return str(function())

    return tool


def test_a_workers_import_path_is_not_a_clients(client: Client, sup: dspex.Supervisor, tmp_path: Path) -> None:
    """security: no field of a call puts a folder on it."""
    (tmp_path / "planted_module.py").write_text("raise SystemExit(3)\n")
    for more in ({"path": [str(tmp_path)]}, {"sys_path": [str(tmp_path)]}):
        for spec in ({"module": "planted_module:QA", **more}, {"module": "planted_module:QA"}):
            with pytest.raises(errors.DspexError):
                _run(client, spec, **(more if len(spec) == 1 else {}))
    path = dspex.function(lambda: __import__("sys").path, supervisor=sup)()
    assert str(tmp_path) not in path


def test_bytes_of_code_are_answered_to_calls_of_the_host_only() -> None:
    """security: a worker that runs a client's call gets none, and no path."""
    store, code = CodeStore(), SentCode.of(lambda: 1, "f")

    config, outer = SimpleNamespace(interpreter=sys.executable), SimpleNamespace(is_trusted=False)
    arguments = {"digest": code.name.removeprefix("value:")}
    request: Any = SimpleNamespace(
        outer=outer, pool=SimpleNamespace(config=config), arguments=arguments, require=lambda **kinds: None
    )
    with store.registered([code]):
        with pytest.raises(errors.UnknownName):
            store.get(request)
        assert store.path(request) == []
        outer.is_trusted = True
        assert store.get(request) == code.data and store.path(request)
        config.interpreter = "/usr/bin/another"
        assert store.path(request) == []
    with pytest.raises(errors.UnknownName):
        store.get(request)


def test_a_key_does_not_travel_with_a_live_module(sup: dspex.Supervisor) -> None:
    """security: the model in it does not either; its requests come back here."""
    with FakeLM(lambda messages: {"answer": "Paris"}) as lm:
        held = lm.lm
        key = str(held.api_key)
        code = SentCode.of({"lm": held, "models": [held]}, "x")
        assert key.encode() not in code.data and code.lms == (held, held)
        ask = dspex.function(lambda: _asked(held), supervisor=sup)
        assert key not in str(ask.to_wire())
        assert ask() == "Paris" and lm.requests


def test_an_lm_of_dspys_that_a_live_module_holds_asks_from_here(sup: dspex.Supervisor) -> None:
    """security: as a DSPy user sets it; the key stays in this process."""
    import dspy

    with FakeLM(lambda messages: {"reasoning": "r", "query": "q", "answer": "Paris"}) as lm:
        key = str(lm.lm.api_key)
        program = own_programs.MultiHop(hops=1)
        program.set_lm(dspy.LM("openai/fake", api_base=lm.lm.api_base, api_key=key))
        sent = dspex.module(program, supervisor=sup)
        assert all(key.encode() not in code.data for code in sent.code) and key not in str(sent.to_wire())
        assert sent(question="capital?").answer == "Paris" and len(lm.requests) == 2


def _asked(lm: Any) -> str:
    import dspy

    with dspy.context(lm=lm):
        return str(dspy.Predict("question -> answer")(question="capital?").answer)


def test_a_file_names_code_and_nothing_is_loaded(tmp_path: Path, sup: dspex.Supervisor) -> None:
    """security: a saved program cannot hold code by value."""
    data = cloudpickle.dumps(lambda: 1)
    with pytest.raises(errors.DspexError):
        dspex.predictor(f"value:{hashlib.sha256(data).hexdigest()}", "question -> answer", supervisor=sup)(question="q")


def test_only_what_workers_find_goes_by_name() -> None:
    """unit: functions within functions and classes of `__main__` do not."""

    def inner() -> None: ...

    assert import_path_of(own_programs.MultiHop) == f"{OWN}:MultiHop"
    assert import_path_of(inner) is None and import_path_of(own_programs.ready) is None


def test_code_that_no_message_can_hold_is_refused_with_its_size() -> None:
    """security: before anything is sent."""
    held = b"x" * (FRAME_LIMIT + 1)
    with pytest.raises(errors.FrameTooLarge) as caught:
        SentCode.of(lambda: held, "big")
    assert caught.value.actual > caught.value.limit and "big" in str(caught.value)
