"""Security: the keys in tables of settings and in tables that code gives are in no frame, repr, asdict or pickle."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import io
import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest._io.saferepr import saferepr

import dspex
from dspex.config import load
from dspex.errors import DspexError
from dspex.testing import FakeLM, FakeReply

KEY = "canary-4242424242xyz"
LM = f'[lm]\nmodel = "openai/x"\napi_key = "{KEY}"\n'
TABLE: dict[str, Any] = {"model": "openai/x", "api_key": KEY}


def shown(error: BaseException) -> list[str]:
    """Where the key stands in what a reporter shows: each variable of each frame but this file's, and every error."""
    found, waiting = [], [error]
    while waiting:
        one = waiting.pop()
        waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
        for frame, line in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename != __file__:
                values = frame.f_locals.items()
                found += [f"{frame.f_code.co_name}:{line} {name}" for name, value in values if _shows(value)]
        found += [type(one).__name__] if KEY in f"{one} {vars(one)}" else []
    return found


def _shows(value: Any) -> bool:
    """Whether a reporter shows it: by its repr, or as Sentry's walks through a dict without a method of its own."""
    if isinstance(value, dict) and not hasattr(value, "__sentry_repr__"):
        return any(map(_shows, value.values()))
    return KEY in saferepr(value, maxsize=None)  # what is half made has no repr


FILES = {
    "a pool that cannot be": LM + "[pools.dspy]\nsize = 0\n",
    "no such table": LM + "[nosuch]\nx = 1\n",
    "no TOML after the key": LM + "[nosuch\n",
    "no TOML at the key": f'[lm]\nmodel = "openai/x"\napi_key = "{KEY}\n',
    "no UTF-8": LM + "\udcff",
    "twice": LM + f'api_key = "{KEY}"\n',
    "too deep": LM + "x = " + "[" * 3000,
    "a variable for workers": f'[pools.dspy]\nsize = 0\nenv = {{TOKEN = "{KEY}"}}\n',
    "variables that cannot be": f'[pools.dspy]\nenv = {{TOKEN = "{KEY}", B = 5}}\n',
    "an option of a bridge": f'[pools.dspy]\nnosuch = 1\noptions = {{token = "{KEY}"}}\n',
    "a range": LM + "temperature = 99\n",
    "another LM's range": LM.replace("[lm]", "[lms.a]") + '[lms.b]\nmodel = "openai/y"\ntemperature = 99\n',
    "no provider": LM.replace("openai", "opnai"),
    "no model": f'[lm]\napi_key = "{KEY}"\n',
    "a key as table": f'lm = "{KEY}"\n',
    "a key as tables": f'lms = "{KEY}"\n',
    "a key as LM": f'[lms]\na = "{KEY}"\n',
    "a name": LM.replace("[lm]", '[lms."a/b"]'),
    "headers": f'[lm]\nmodel = "openai/x"\nheaders = ["{KEY}"]\n',
    "fallbacks": f'[lm]\nmodel = "openai/x"\nfallbacks = [{{model = "openai/y", api_key = "{KEY}"}}]\n',
}


@pytest.fixture
def settings(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "dspex.toml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        path.chmod(0o600)
        return path

    return write


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_settings_that_are_refused_show_no_key(
    text: str, settings: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: nor does the environment, where keys are too."""
    monkeypatch.setenv("SOME_API_KEY", KEY)
    with pytest.raises(DspexError) as caught:
        dspex.Supervisor(settings(text))
    assert shown(caught.value) == []


def test_settings_that_are_used_show_no_key(settings: Callable[[str], Path]) -> None:
    """unit: as text, as plain data, in a copy; and the LMs have it."""
    text = (
        LM + LM.replace("[lm]", "[lms.a]") + f'[pools.dspy]\nenv = {{T = "{KEY}"}}\noptions = {{a = {{b = "{KEY}"}}}}\n'
    )
    config = load(settings(text))
    supervisor = dspex.Supervisor(config)
    for value in (config, config.tables, config.pools, vars(supervisor), vars(supervisor.pool("dspy"))):
        assert not _shows(value)
    lone = load(settings(LM))
    assert KEY not in json.dumps(dataclasses.asdict(lone))
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError) as caught:
            take(lone)
        assert shown(caught.value) == []
    assert supervisor.lms.default is not None and supervisor.lms.default.api_key == KEY
    assert supervisor.lms.by_name["a"].api_key == KEY and config.pools[0].env == {"T": KEY}
    assert load(settings(text)) == config != lone


def bad(**changes: Any) -> dict[str, Any]:
    return {**TABLE, **changes}


def _entered(**options: Any) -> None:
    with dspex.context(**options):
        pass


GIVEN: dict[str, Callable[[], Any]] = {
    "supervisor": lambda: dspex.Supervisor(lm=bad(temperature=99)),
    "supervisor's other": lambda: dspex.Supervisor(lm=bad(), cache=5),  # type: ignore[arg-type]
    "supervisor's named": lambda: dspex.Supervisor(lms={"a": bad(), "b": bad(retries=-1)}),
    "configure": lambda: dspex.configure(lm=bad(nosuch=1)),
    "configure's other": lambda: dspex.configure(lm=bad(), lms={"a": bad()}, history="x"),  # type: ignore[arg-type]
    "context": lambda: _entered(lm=bad(temperature=99)),
    "context's other": lambda: _entered(lms={"a": bad()}, adapter="bad"),
    "predictor": lambda: dspex.predictor("predict", "q -> a", lm=bad(temperature=99)),
    "predictor's signature": lambda: dspex.predictor("predict", "1q -> a", lm=bad()),
    "predictor's place": lambda: dspex.predictor("q -> a", lm=bad()),  # type: ignore[call-arg,arg-type]
    "predictor's parts": lambda: dspex.predictor("predict", "q -> a", lms={"self": bad(timeout=0)}),
    "react": lambda: dspex.react("q -> a", tools=[5], lm=bad()),  # type: ignore[list-item]
    "predict": lambda: dspex.predict("q -> a", {"q": "x"}, lm=bad(temperature=99)),
    "predict's input": lambda: dspex.predict("q -> a", {"nosuch": "x"}, lm=bad()),
    "using": lambda: dspex.predictor("predict", "q -> a").using(lm=bad(temperature=99)),
    "using's other": lambda: dspex.predictor("predict", "q -> a").using(lm=bad(), nosuch=1),  # type: ignore[call-arg]
    "module": lambda: dspex.module("no.such:Thing", lm=bad(temperature=99)),
    "optimize": lambda: dspex.optimize("q -> a", [], lm=bad(), prompt_lm=bad(temperature=99)),
    "resume": lambda: dspex.resume("/no/such/file", lm=bad()),
    "load": lambda: dspex.load("/no/such/file", lm=bad()),
    "pipeline": lambda: dspex.pipeline([lambda q: q]).run({"q": 1}, lm=bad(), nosuch=1),  # type: ignore[call-arg]
    "step": lambda: dspex.python("dspy.Predict", signature="1q -> a", lm=bad()),
    "adapter": lambda: dspex.adapter("two_step", extraction_model=bad(temperature=99)),
    "adapter's class": lambda: dspex.TwoStepAdapter(bad(temperature=99)),
    "adapter's class by name": lambda: dspex.TwoStepAdapter(extraction_model=bad(temperature=99)),
    "pool": lambda: dspex.PoolConfig("dspy", env={"TOKEN": KEY}, size=0),
    "pool's other": lambda: dspex.PoolConfig("dspy", options={"token": KEY}, bridge="no/such"),
    "pools": lambda: dspex.Supervisor(pools=[dspex.PoolConfig("dspy", env={"TOKEN": KEY})] * 2),
    "fallbacks": lambda: dspex.LM("openai/x", fallbacks=[bad()]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN)
def test_tables_that_code_gives_are_in_no_frame(give: Callable[[], Any]) -> None:
    """unit: whatever is refused, the table or what is given with it."""
    with pytest.raises(DspexError) as caught:
        give()
    assert shown(caught.value) == []


@pytest.fixture(scope="module")
def refusing() -> Iterator[FakeLM]:
    with FakeLM(lambda _: FakeReply(status=401, error="no")) as lm:
        yield lm


def test_table_of_a_call_that_fails_is_in_no_frame(refusing: FakeLM) -> None:
    """collaboration: the endpoint refuses, on every way to ask it."""
    table = bad(api_base=refusing.lm.api_base, retries=0)
    with pytest.raises(DspexError) as plain:
        dspex.predict("q -> a", {"q": "x"}, lm=table)
    with pytest.raises(DspexError) as awaited:
        asyncio.run(dspex.apredict("q -> a", {"q": "x"}, lm=table))  # type: ignore[arg-type]
    with pytest.raises(DspexError) as streamed:
        list(dspex.predict_stream("q -> a", {"q": "x"}, lm=table))
    assert [shown(caught.value) for caught in (plain, awaited, streamed)] == [[], [], []]
    assert refusing.requests


def test_reporters_show_no_table(settings: Callable[[str], Path]) -> None:
    """unit: rich's traceback with locals, as typer prints it, of a frame that holds settings."""
    console = pytest.importorskip("rich.console")
    reporter = pytest.importorskip("rich.traceback").Traceback

    def use(path: Path) -> None:
        config = load(path)
        tables = config.tables
        raise ValueError(len(tables) + len(config.pools))

    with pytest.raises(ValueError) as caught:
        use(settings(LM))
    out = io.StringIO()
    made = reporter.from_exception(ValueError, caught.value, caught.value.__traceback__, show_locals=True)
    console.Console(file=out, width=200).print(made)
    assert "tables" in out.getvalue() and KEY not in out.getvalue()
