"""Security: no byte of a cloud's credentials in a worker: not in its environment, its memory or what it is sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import LMConfigurationError
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.cloud_cases import CLOUD_CASES, NAMES, CloudCase
from tests.support.lm.cloud_endpoint import CloudEndpoint, Received
from tests.support.paths import ROOT

CANARY = re.compile(rb"canary-(?:key|secret|session|token)[\w-]*")


@pytest.fixture
def endpoint() -> Iterator[CloudEndpoint]:
    made = CloudEndpoint()
    yield made
    made.close()


def _in_memory(pid: int) -> set[bytes]:
    """The canaries in a process's memory and environment."""
    found: set[bytes] = set()
    proc = Path(f"/proc/{pid}")
    with (proc / "mem").open("rb", 0) as memory:
        for line in (proc / "maps").read_text().splitlines():
            span, permissions, *_ = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in span.split("-"))
            if not permissions.startswith("r") or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            try:
                memory.seek(start)
                found.update(CANARY.findall(memory.read(end - start)))
            except (OSError, OverflowError, ValueError):
                continue
    return found | set(CANARY.findall((proc / "environ").read_bytes()))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc here")
def test_no_worker_holds_a_clouds_credentials(endpoint: CloudEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: of every provider, by a call, a stream, and a refusal that quotes the request's whole head."""
    pool = dspex.PoolConfig("dspy", size=1, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'workers'}"})
    with dspex.Supervisor(pools=[pool]) as sup:
        sup.wait_ready()
        for case in CLOUD_CASES:
            with monkeypatch.context() as patch:
                for name, value in case.environment_at(endpoint.url).items():
                    patch.setenv(name, value)
                lm = LM(case.model, cache=False, retries=0, **case.options_at(endpoint.url))
            program = dspex.predictor("predict", "question -> answer", lm=lm, implementation="python", supervisor=sup)
            assert program(question="Capital?").answer == "Paris"
            assert list(program.stream(question="Capital?"))
            endpoint.answers.append((403, _quoting))
            with pytest.raises(dspex.LMError):
                program(question="Capital?")
        stats = sup.stats()["dspy"]
        pids = [worker["pid"] for worker in stats["workers"]]
        assert pids and b"canary-key" in b" ".join(_in_memory(os.getpid()))  # the search finds what is there
        for pid in pids:
            assert _in_memory(pid) == set()


def _quoting(asked: Received) -> dict[str, Any]:
    return {"error": {"message": f"forbidden: {json.dumps(asked.headers)}", "code": 403, "status": "PERMISSION_DENIED"}}


@pytest.mark.parametrize("case", CLOUD_CASES, ids=NAMES)
@pytest.mark.parametrize(
    "url",
    [
        "{base}/../../elsewhere",
        "http://evil.example/v1/chat/completions",
        "{base}@evil.example/messages",
        "{base}/chat/completions/..",
        "{base}/models/another:generateContent",
        "{base}/publishers/anthropic/models/another:rawPredict",
        "{base}/files",
    ],
)
def test_a_worker_gets_no_credential_sent_elsewhere(
    case: CloudCase, url: str, endpoint: CloudEndpoint, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: nothing but the model's own completions is signed."""
    for name, value in case.environment_at(endpoint.url).items():
        monkeypatch.setenv(name, value)
    lm = LM(case.model, cache=False, retries=0, **case.options_at(endpoint.url))
    client.register(lm)
    asked = {
        "lm": lm.ref,
        "url": url.format(base=lm.worker_base),
        "headers": [["x-amz-date", "20200101T000000Z"]],
        "body": json.dumps({"model": lm.name, "messages": []}).encode(),
    }
    with pytest.raises(LMConfigurationError, match="own endpoint"):
        list(client.forward(asked))
    assert endpoint.taken() == []


def test_a_workers_headers_cannot_take_part_in_a_signature(endpoint: CloudEndpoint, client: LMClient) -> None:
    """collaboration: nor can its members bring an identity."""
    lm = LM(
        "bedrock-chat/m",
        aws_region_name="us-east-1",
        aws_access_key_id="AKID",
        aws_secret_access_key="canary-secret-4242",
        api_base=endpoint.url,
        cache=False,
        retries=0,
    )
    client.register(lm)
    asked: dict[str, Any] = {
        "lm": lm.ref,
        "url": f"{lm.worker_base}/chat/completions",
        "headers": [["X-Amz-Date", "20200101T000000Z"], ["X-Amz-Security-Token", "t"], ["Authorization", "x"]],
        "body": json.dumps({"model": "m", "messages": []}).encode(),
    }
    list(client.forward(asked))
    (sent,) = endpoint.taken()
    assert not sent.headers["x-amz-date"].startswith("2020") and "x-amz-security-token" not in sent.headers
    assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    with pytest.raises(LMConfigurationError, match="aws_secret_access_key"):
        list(client.forward({**asked, "members": {"extra_body": {"aws_secret_access_key": "mine"}}}))
    assert endpoint.taken() == []
