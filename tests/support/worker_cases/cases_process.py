"""What a worker's process keeps and does not keep."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dspy

from dspex_worker.programs.code.user_imports import UserImports
from dspex_worker.programs.metrics.metric_calls import metric_from, reward_from
from dspex_worker.programs.retrievers import retrieve
from tests.support.paths import ROOT
from tests.support.worker_cases.parent import RECORD, chat, fails_with, parent, programs, spec


def _fresh(code: str) -> str:
    """What a new interpreter prints after running `code` with the worker's packages on its path."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "workers")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_bridge_scripts_import_neither_dspy_nor_dspex() -> None:
    """process: loading a script is cheap; `warm` imports."""
    for name in ("dspy_bridge", "mipro_bridge"):
        code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("{name}", "{ROOT}/bridge_scripts/{name}.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(sorted(module.bridge.commands), "dspy" in sys.modules, "dspex" in sys.modules)
"""
        commands, *loaded = _fresh(code).rsplit(" ", 2)
        assert loaded == ["False", "False"] and "describe" in commands and "evaluate" in commands


def test_warming_leaves_one_thread_and_no_socket_or_litellm() -> None:
    """process: a fork server forks afterwards; litellm would cost 7 s and 138 MB."""
    code = """
import os, sys
from dspex_worker.programs import dspy_setup as boot
before = set(os.listdir("/proc/self/fd"))
boot.warm({}, optimizers=True)
boot.setup({"imports": []})
print(len(os.listdir("/proc/self/task")), "litellm" in sys.modules, "optuna" in sys.modules)
print(sum("socket" in os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before
          if os.path.exists(f"/proc/self/fd/{fd}")))
"""
    assert _fresh(code).split() == ["1", "False", "True", "0"]


def test_nothing_grows_with_the_number_of_calls() -> None:
    """unit: 500 calls of 20 KB; DSPy's defaults keep 42 KB of each."""
    call = parent(chat(reasoning="r", answer="a"))
    cot = spec("dspy.ChainOfThought")
    inputs = {"question": "x" * 20_000}

    def run(times: int) -> None:
        for _ in range(times):
            call.call(programs().run, call, cot, inputs, RECORD)
            call.requests.clear()

    run(50)
    gc.collect()
    before, objects = _resident(), len(gc.get_objects())
    run(500)
    gc.collect()
    assert len(gc.get_objects()) - objects < 500, "objects are kept per call"
    assert _resident() - before < 8 * 2**20, "memory is kept per call"
    assert dspy.settings.trace is None and not dspy.clients.base_lm.GLOBAL_HISTORY


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_slow_rows_are_not_run_twice() -> None:
    """unit: DSPy's executor keeps its other defaults (dspy#9574)."""
    from dspy.utils.parallelizer import ParallelExecutor

    executor = ParallelExecutor()
    assert (executor.timeout, executor.straggler_limit, executor.num_threads) == (0, 3, 8)
    assert executor.disable_progress_bar is False and executor.compare_results is False


def test_calls_beside_each_other_do_not_mix() -> None:
    """unit: eight threads, each with its own LM record, adapter and rollout, through one shared program."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        call = parent(lambda body: chat(answer=body["messages"][-1]["content"].split("\n")[1]))
        record = RECORD | {"ref": f"r{number}", "temperature": number / 10}
        try:
            for turn in range(20):
                inputs = {"question": f"{number}-{turn}"}
                found = call.call(programs().run, call, spec(), inputs, record, "chat", None, number)
                assert found["outputs"] == {"answer": f"{number}-{turn}"}
            assert {request["lm"] for request in call.requests} == {f"r{number}"}
            assert {request["rollout_id"] for request in call.requests} == {number}
            assert {body["temperature"] for body in call.bodies} == {number / 10}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_colbert_is_asked_every_time_by_get_and_by_post() -> None:
    """unit: nothing is cached, the text has one name, and options are checked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            asked.append(self.path + self.rfile.read(length).decode())
            body = (
                b'{"topk": [{"text": "p1", "pid": 1, "rank": 1, "score": 9.5, "prob": 0.8}, {"text": "p2", "pid": 2}]}'
            )
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        for is_post in (False, True, False):
            options = {"url": f"http://127.0.0.1:{httpd.server_address[1]}/api", "post_requests": is_post}
            found = retrieve(programs().imports, parent(""), "dspy.ColBERTv2", "who?", 1, options)
            assert found == {"passages": [{"text": "p1", "pid": 1, "rank": 1, "score": 9.5, "prob": 0.8}]}
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
    assert [path.partition("?")[0][:4] for path in asked] == ["/api"] * 3 and "who%3F" in asked[0]


def test_what_a_module_merely_imports_is_not_called() -> None:
    """unit: classes, functions, builtins and class methods of other modules: as retriever, metric and reward."""
    imports, call = UserImports.of(["tests.support.user_code"]), parent("")
    for name in (
        "Popen",
        "check_output",
        "system",
        "datetime",
        "datetime.fromtimestamp",
        "Popen.communicate",
        "partial",
    ):
        path = f"tests.support.user_code:{name}"
        for use in (
            lambda path=path: retrieve(imports, call, path, "id", 1, {"args": "id"}),
            lambda path=path: metric_from({"import": path}, imports),
            lambda path=path: reward_from({"import": path}, imports),
        ):
            with fails_with("UnknownName" if name == "partial" else "InvalidInput"):
                use()
    for name in ("same", "made_here", "wrapped", "judge", "keyworded"):
        metric_from({"import": f"tests.support.user_code:{name}"}, imports)
    metric_from({"import": "dspy.evaluate:answer_exact_match"}, UserImports.of(["dspy.evaluate"]))


def test_retrievers_are_named_by_registry() -> None:
    """unit: refusals say why; the user's own come from the imports."""
    imports, call = programs().imports, parent("")
    for name, kind in (("dspy.Embeddings", "InvalidInput"), ("dspy.Retrieve", "InvalidInput"), ("os.x", "UnknownName")):
        with fails_with(kind):
            retrieve(imports, call, name, "q")
    with fails_with("UnknownName"):
        retrieve(imports, call, "dspy.ColBERTv2", "q", 3, {"index": "x"})
    found = retrieve(
        imports, call, "tests.support.user_code:Shelf", "Book", 2, {"books": ["book a", "other", "book b", "book c"]}
    )
    assert found == {"passages": [{"text": "book a"}, {"text": "book b"}]}
