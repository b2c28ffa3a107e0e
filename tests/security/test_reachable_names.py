"""Security: of a pool's `imports` a client calls and makes what these modules define, not what they import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.control import Client, Service
from dspex.errors import InvalidInput, UnknownName, UsageError
from dspex.testing import FakeLM
from dspex_worker.failure import Failure
from dspex_worker.programs.code.user_imports import UserImports
from tests.support.paths import ROOT

CARELESS = "tests.support.victims.careless"
IMPORTED = (
    *("Popen", "run", "system", "Path", "remove", "Popen.communicate", "Path.unlink", "mailer", "mailer.send"),
    *("deliver", "handler", "seeded", "mix", "passed_on", "passed_on.send", "Agent"),
)
OWN = ("own", "scored", "halved", "wrapped", "Own", "own.__call__", "USED.count")


@pytest.mark.parametrize("name", IMPORTED)
def test_what_a_module_imported_is_not_its_own(name: str) -> None:
    """security: classes, functions, and what only its module's import statements tell: instances, closures, methods."""
    with pytest.raises(Failure) as refused:
        UserImports.of([CARELESS]).resolve_own(f"{CARELESS}:{name}", "metric")
    assert refused.value.kind in ("InvalidInput", "UnknownName")
    if name in ("mailer", "deliver", "handler", "seeded"):
        own = UserImports.of([CARELESS, "tests.support.victims"]).resolve_own(f"{CARELESS}:{name}", "metric")
        assert own is not None  # a package in the imports covers what its modules hold


@pytest.mark.parametrize("name", [name for name in OWN if "__" not in name])
def test_what_a_module_made_is_its_own(name: str) -> None:
    """security: whatever class it is of, and whoever defines that."""
    assert UserImports.of([CARELESS]).resolve_own(f"{CARELESS}:{name}", "metric") is not None


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, imports=[CARELESS], env=env)]) as running:
        yield running


@pytest.fixture
def client(sup: dspex.Supervisor, folder: Path) -> Iterator[Client]:
    with Service(sup), dspex.connect() as connected:
        yield connected


@pytest.mark.parametrize("name", ["Popen", "mailer", "mailer.send", "handler", "passed_on", "Agent"])
def test_no_command_of_a_client_reaches_them(client: Client, sup: dspex.Supervisor, name: str) -> None:
    """security: as a retriever, a metric of an evaluation, a reward, a module, and what is described."""
    path = f"{CARELESS}:{name}"
    signature = dspex.predictor("predict", "q -> a").to_wire()["signature"]
    spec: dict[str, Any] = {"module": "dspy.Predict", "signature": signature}
    rewarded = {"module": "dspy.BestOfN", "signature": signature, "options": {"reward_fn": {"import": path}, "N": 1}}
    evaluated = {"spec": spec, "devset": [{"q": "a", "a": "b"}], "metric": {"import": path}}
    with FakeLM("[[ ## a ## ]]\nx") as lm:
        record = dspex.services.services.services_of(sup).lm_record(lm)
        attempts: list[tuple[str, dict[str, Any]]] = [
            ("retrieve", {"retriever": path, "query": "q"}),
            ("evaluate", {**evaluated, "lm": record}),
            ("run", {"spec": rewarded, "inputs": {"q": "a"}, "lm": record}),
            ("run", {"spec": {"module": path, "signature": signature}, "inputs": {"q": "a"}, "lm": record}),
            ("describe_program", {"spec": {"module": path, "signature": signature}}),
        ]
        for command, arguments in attempts:
            with pytest.raises((InvalidInput, UnknownName, UsageError)) as refused:
                client.call("dspy", command, arguments, timeout=30)
            told = str(refused.value)
            assert "imports" in told or "dspy.Module" in told, (command, told)
        assert not lm.requests
