"""Parity: clouds, and servers with dialects of their own, are asked as DSPy asks them, by both routes."""

from __future__ import annotations

import base64
import datetime
import json
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

import dspex
from dspex import LM, errors
from dspex.lm.lm_client import LMClient
from dspex.types.logprobs import logprobs_of
from tests.support.lm.cloud_cases import AWS, CLOUD_CASES, KEY, NAMES, CloudCase
from tests.support.lm.cloud_endpoint import CloudEndpoint, Received, answer
from tests.support.lm.requests import Probe
from tests.support.parity.oracle import plain_logprobs
from tests.support.paths import ROOT

pytestmark = pytest.mark.parity

PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look it up.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "Out",
        "schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]},
    },
}
ASK = [{"role": "system", "content": "Be “brief”."}, {"role": "user", "content": "Capital?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": "é"}'}}
TALKS: list[list[dict[str, Any]]] = [
    ASK,
    [*ASK, {"role": "assistant", "content": "Paris"}, {"role": "user", "content": "Sure?"}],
    [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ],
    [
        {
            "role": "user",
            "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        }
    ],
]
CONFIGS: list[dict[str, Any]] = [
    {"max_tokens": 100},
    {"temperature": 0.5, "stop": ["a", "b"]},
    {"top_p": 0.9},
    {"tools": [TOOL], "tool_choice": "auto"},
    {"reasoning_effort": "low"},
    {"response_format": SCHEMA},
]
OWN = "tests.support.own_modules.cloud_module"
each_case = pytest.mark.parametrize("case", CLOUD_CASES, ids=NAMES)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[CloudEndpoint]:
    made = CloudEndpoint()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def empty(endpoint: CloudEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of an earlier test is left, and nothing of the machine's own accounts."""
    endpoint.taken()
    endpoint.answers.clear()
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "VERTEX", "ANTHROPIC_", "META_")):
            monkeypatch.delenv(name)


@pytest.fixture
def lm_of(endpoint: CloudEndpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LM]:
    def make(case: CloudCase, **options: Any) -> LM:
        for name, value in case.environment_at(endpoint.url).items():
            monkeypatch.setenv(name, value)
        return LM(case.model, cache=False, retries=0, **case.options_at(endpoint.url), **options)

    return make


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("dspy", size=1, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'workers'}"})
    with dspex.Supervisor(pools=[pool]) as made:
        made.wait_ready()
        yield made


JOBS = [(talk, {}) for talk in TALKS] + [(ASK, config) for config in CONFIGS]


@pytest.fixture(scope="module")
def of_dspy(endpoint: CloudEndpoint, dspy_probe: Probe) -> dict[CloudCase, tuple[list[Any], list[Received]]]:
    """What DSPy's own client answers to each job of each case, and what it sent."""
    found: dict[CloudCase, tuple[list[Any], list[Received]]] = {}
    is_open = [case for case in CLOUD_CASES if "AWS_BEARER_TOKEN_BEDROCK" not in case.environment]
    for group in (is_open, [case for case in CLOUD_CASES if case not in is_open]):
        environment: dict[str, str] = {}
        for case in group:
            environment |= case.environment_at(endpoint.url)
        settings = [{"model": case.model, **case.options_at(endpoint.url)} for case in group]
        probed = dspy_probe(
            [{"lm": lm, "messages": talk, "config": config} for lm in settings for talk, config in JOBS], environment
        )
        sent = endpoint.taken()
        for at, case in enumerate(group):
            told = probed[at * len(JOBS) : (at + 1) * len(JOBS)]
            count = sum("error" not in each for each in told)
            found[case] = told, [sent.pop(0) for _ in range(count)]
        assert sent == []
    return found


@each_case
def test_requests_are_dspys_byte_for_byte(
    case: CloudCase,
    lm_of: Callable[..., LM],
    endpoint: CloudEndpoint,
    client: LMClient,
    of_dspy: dict[CloudCase, tuple[list[Any], list[Received]]],
) -> None:
    """parity: path, body, answers, usage; what DSPy's client refuses is refused, and what it would drop is too."""
    lm = lm_of(case)
    probed, theirs = of_dspy[case][0], list(of_dspy[case][1])
    assert len(theirs) >= 7
    for (talk, config), told in zip(JOBS, probed, strict=True):
        try:
            made = client.complete(lm, talk, config=config)
        except errors.LMUnsupportedFeatureError as error:
            if "error" not in told:  # DSPy leaves it out in silence
                assert "would not be sent" in str(error)
                theirs.pop(0)
            assert endpoint.taken() == []
            continue
        (ours,) = endpoint.taken()
        their = theirs.pop(0)
        assert ours.body == their.body
        assert ours.path == their.path.replace(f"?key={KEY}", "")  # the key is sent as a header
        output = told["outputs"][0]
        assert made.text == (output["text"] if isinstance(output, dict) else output)
        assert made.usage["total_tokens"] == told["usage"]["total_tokens"] == 12
    assert theirs == []


@each_case
def test_both_routes_send_the_same_with_the_credential(
    case: CloudCase, lm_of: Callable[..., LM], endpoint: CloudEndpoint, sup: dspex.Supervisor
) -> None:
    """parity: path, body and credential; a worker's requests get them here."""
    lm, sent = lm_of(case, max_tokens=50), []
    for route in ("native", "python"):
        program = dspex.predictor("predict", "question -> answer", implementation=route, supervisor=sup, lm=lm)
        assert program(question="Capital?").answer == "Paris"
        sent += endpoint.taken()
    native, worker = sent
    assert (native.path, native.body) == (worker.path, worker.body) == (case.path, native.body)
    for each in sent:
        assert {name: each.headers.get(name) for name in case.credential} == case.credential
        assert each.headers.get("content-type") == "application/json"
        if case.service:
            require_signature(each, endpoint.url, case.service)


@each_case
def test_both_routes_stream(
    case: CloudCase, lm_of: Callable[..., LM], endpoint: CloudEndpoint, sup: dspex.Supervisor
) -> None:
    """parity: the same request, and the answer's text as it arrives."""
    lm, sent = lm_of(case, max_tokens=50), []
    for route in ("native", "python"):
        program = dspex.predictor("predict", "question -> answer", implementation=route, supervisor=sup, lm=lm)
        *chunks, last = list(program.stream(question="Capital?"))
        assert "".join(chunk.text for chunk in chunks) == "Paris" and last.answer == "Paris"
        sent += endpoint.taken()
    native, worker = sent
    assert (native.path, native.body) == (worker.path, worker.body)
    assert (
        native.path != case.path if "enerateContent" in case.path or "rawP" in case.path else native.path == case.path
    )
    assert all({name: each.headers.get(name) for name in case.credential} == case.credential for each in sent)
    if case.service:
        require_signature(native, endpoint.url, case.service)


@each_case
def test_errors_are_of_one_class_on_both_routes(
    case: CloudCase, lm_of: Callable[..., LM], endpoint: CloudEndpoint, sup: dspex.Supervisor
) -> None:
    """parity: as the provider words them; what quotes the credential shows it to nobody."""
    lm = lm_of(case)
    secrets = [*case.environment_at("").values(), KEY]
    for status, kind in ((401, errors.LMAuthError), (429, errors.LMRateLimitError), (503, errors.LMServerError)):
        seen = []
        for route in ("native", "python"):
            endpoint.answers.append((status, refusal))
            program = dspex.predictor("predict", "question -> answer", implementation=route, supervisor=sup, lm=lm)
            with pytest.raises(kind) as caught:
                program(question="Capital?")
            seen.append(type(caught.value))
            told = f"{caught.value} {caught.value!r} {caught.value.__dict__}"
            assert not any(len(secret) > 12 and secret in told for secret in secrets)
            (asked,) = endpoint.taken()
            signature = asked.headers.get("authorization", "").partition("Signature=")[2]
            assert not signature or signature not in told
        assert seen == [kind, kind]


def refusal(asked: Received) -> dict[str, Any]:
    """A refusal that quotes the request's head."""
    return {"error": {"message": f"refused {json.dumps(asked.headers)}", "type": "x", "status": "X"}}


@pytest.mark.parametrize("model", ["gemini/g", "vertex:g"])
def test_geminis_tools_and_thoughts_are_read_as_by_dspy(
    model: str, endpoint: CloudEndpoint, client: LMClient, dspy_probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """parity: calls with their arguments, thoughts apart from the text, the reason of the end."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    parts: list[list[dict[str, Any]]] = [
        [{"text": "hm", "thought": True}, {"text": "Par"}, {"text": "is", "thoughtSignature": "x"}],
        [{"functionCall": {"name": "look", "args": {"q": "é"}}}, {"functionCall": {"name": "look", "id": "f2"}}],
        [{"text": "I look."}, {"functionCall": {"name": "look", "args": {"n": 1}}}],
        [{"text": ""}],
        [],
    ]
    replies = [
        {
            **answer("generateContent"),
            "candidates": [{"content": {"role": "model", "parts": each}, "finishReason": reason}],
        }
        for each in parts
        for reason in ("STOP", "MAX_TOKENS")
    ]
    options = {"api_base": endpoint.url, "api_key": KEY}
    endpoint.answers += [(200, reply) for reply in replies]
    case = {"lm": {"model": model, **options}, "messages": ASK, "config": {"tools": [TOOL]}}
    probed = dspy_probe([case] * len(replies))
    lm = LM(model, cache=False, retries=0, **options)
    for reply, told in zip(replies, probed, strict=True):
        endpoint.answers.append((200, reply))
        made = client.complete(lm, ASK, config={"tools": [TOOL]})
        output = told["outputs"][0]
        expected = output if isinstance(output, dict) else {"text": output}
        assert (made.text or "") == (expected.get("text") or "")
        assert made.reasoning == [expected.get("reasoning_content")]
        calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made.tool_calls[0]]
        theirs = expected.get("tool_calls") or []
        assert calls == [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in theirs]


@pytest.mark.parametrize("model", ["gemini/g", "vertex:g"])
def test_geminis_log_probabilities_and_reasons_are_read_as_by_dspy(
    model: str, endpoint: CloudEndpoint, client: LMClient, dspy_probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """parity: tokens with their alternatives; an answer that DSPy takes for none is none, whatever stands in it."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    tokens = [{"token": "Par", "tokenId": 1, "logProbability": -0.5}, {"token": "is"}]
    told: list[dict[str, Any]] = [
        {"logprobsResult": {"chosenCandidates": tokens, "topCandidates": [{"candidates": tokens}]}},
        {"logprobsResult": {"chosenCandidates": tokens}},
        {"logprobsResult": {}},
        *({"finishReason": reason} for reason in ("SAFETY", "IMAGE_SAFETY", "MALFORMED_FUNCTION_CALL", "LANGUAGE")),
        {"finishReason": "NO_IMAGE", "finishMessage": "There is none."},
        {"finishReason": "OTHER"},
    ]
    content = {"role": "model", "parts": [{"text": "Paris"}]}
    replies = [
        {**answer("generateContent"), "candidates": [{"content": content, "finishReason": "STOP", **each}]}
        for each in told
    ]
    options, config = {"api_base": endpoint.url, "api_key": KEY}, {"logprobs": True, "top_logprobs": 2}
    endpoint.answers += [(200, reply) for reply in replies]
    probed = dspy_probe([{"lm": {"model": model, **options}, "messages": ASK, "config": config}] * len(replies))
    lm = LM(model, cache=False, retries=0, **options)
    classes: list[Any] = []
    for reply, theirs in zip(replies, probed, strict=True):
        endpoint.answers.append((200, reply))
        try:
            made = client.complete(lm, ASK, config=config)
        except errors.LMError as error:
            classes.append((theirs["error"], type(error)))
            continue
        found = logprobs_of(made.logprobs[0] if made.logprobs else None)
        assert plain_logprobs(found) == plain_logprobs(theirs["outputs"][0]["logprobs"])
    filtered = ("LMInvalidRequestError", errors.LMRefusedError)
    wrong = ("LMInvalidRequestError", errors.LMInvalidRequestError)
    assert classes == [filtered, filtered, wrong, wrong, wrong]


AZURES = [(m, v) for m in ("azure/my-deployment", "azure/gpt-5-mini") for v in ("2024-06-01", None, "v1")]


def _azure(model: str, version: str | None, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    options: dict[str, Any] = {"api_base": url, "api_key": KEY, **({"api_version": version} if version else {})}
    wide = {"max_tokens": 20000} if "gpt-5" in model else {"max_tokens": 50, "temperature": 0.5, "stop": ["a"]}
    return options, wide


@pytest.fixture(scope="module")
def of_litellm(endpoint: CloudEndpoint, dspy_probe: Probe) -> list[Received]:
    """What litellm sends for the deployments, when DSPy leaves them to it."""
    pytest.importorskip("litellm")
    endpoint.taken()
    settings = [(model, *_azure(model, version, endpoint.url)) for model, version in AZURES]
    told = dspy_probe(
        [
            {"lm": {"model": model, **options}, "messages": ASK, "config": config, "engine": "auto"}
            for model, options, config in settings
        ]
    )
    assert not any("error" in each for each in told)
    return endpoint.taken()


@pytest.mark.parametrize(("model", "version"), AZURES)
def test_azures_deployments_are_asked_as_by_litellm(
    version: str | None,
    model: str,
    endpoint: CloudEndpoint,
    sup: dspex.Supervisor,
    client: LMClient,
    of_litellm: list[Received],
) -> None:
    """parity: DSPy leaves `api_base` and `api_version` to litellm, whose path, query, members and key these are."""
    theirs = of_litellm[AZURES.index((model, version))]
    options, config = _azure(model, version, endpoint.url)
    lm = LM(model, cache=False, retries=0, **options)
    client.complete(lm, ASK, config=config)
    (ours,) = endpoint.taken()
    assert ours.path == theirs.path and ours.headers["api-key"] == KEY
    if version == "v1":  # whose API knows the newer name
        theirs_of_v1 = {name.replace("max_tokens", "max_completion_tokens"): v for name, v in theirs.data.items()}
        assert ours.data == theirs_of_v1
    else:
        assert ours.data == theirs.data
    program = dspex.predictor(
        "predict", "question -> answer", implementation="python", supervisor=sup, lm=lm, config=config
    )
    assert program(question="Capital?").answer == "Paris"
    (worker,) = endpoint.taken()
    assert (worker.path, worker.headers["api-key"]) == (ours.path, KEY)
    assert worker.data.keys() == ours.data.keys()


def require_signature(asked: Received, url: str, service: str) -> None:
    """Check a request's signature by making it again with botocore."""
    auth = pytest.importorskip("botocore.auth")
    awsrequest, credentials = pytest.importorskip("botocore.awsrequest"), pytest.importorskip("botocore.credentials")
    given = asked.headers["authorization"]
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "content-type", "x-amz-date", "x-amz-security-token"} == set(names)
    assert asked.headers["host"] == urlsplit(url).netloc
    keys = credentials.Credentials(AWS["AWS_ACCESS_KEY_ID"], AWS["AWS_SECRET_ACCESS_KEY"], AWS["AWS_SESSION_TOKEN"])
    signer = auth.SigV4Auth(keys, service, "us-east-1")
    headers = {name: asked.headers[name] for name in names}
    request = awsrequest.AWSRequest("POST", url + asked.path, data=asked.body, headers=headers)
    request.context["timestamp"] = asked.headers["x-amz-date"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert given.endswith(f"Signature={signer.signature(text, request)}")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.strptime(
        asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"
    ).replace(tzinfo=datetime.UTC)
    assert abs(age.total_seconds()) < 300


@pytest.mark.parametrize("model", ["openai/m", "anthropic/claude-x", "gemini/g", "hosted_vllm/m"])
def test_an_endpoints_query_goes_with_every_request(
    model: str, endpoint: CloudEndpoint, sup: dspex.Supervisor, client: LMClient
) -> None:
    """parity: behind the path on both routes, in streams too; workers do not see it."""
    lm = LM(model, api_base=f"{endpoint.url}/v1/?api-version=1&code=canary", api_key=KEY, cache=False, retries=0)
    plain, streamed = [], []
    for route in ("native", "python"):
        program = dspex.predictor("predict", "question -> answer", implementation=route, supervisor=sup, lm=lm)
        assert program(question="Capital?").answer == "Paris"
        plain += [each.path for each in endpoint.taken()]
        assert list(program.stream(question="Capital?"))
        streamed += [each.path for each in endpoint.taken()]
    assert len(set(plain)) == len(set(streamed)) == 1 and len(plain) == len(streamed) == 2
    assert plain[0].endswith("?api-version=1&code=canary") and plain[0].count("?") == 1
    assert streamed[0].endswith("api-version=1&code=canary") and streamed[0].count("?") == 1
    assert "canary" not in json.dumps(lm.to_wire())


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ("moonshotai-anthropic:kimi-k3", {"temperature": 0.5}),
        ("moonshotai-anthropic:kimi-k3", {"top_p": 0.5}),
    ],
)
def test_what_dspys_library_would_leave_out_is_refused(
    model: str, option: dict[str, Any], endpoint: CloudEndpoint, sup: dspex.Supervisor
) -> None:
    """parity: on both routes, before anything is sent."""
    lm = LM(model, api_base=endpoint.url, api_key=KEY, cache=False, retries=0, **option)
    told = []
    for route in ("native", "python"):
        program = dspex.predictor("predict", "question -> answer", implementation=route, supervisor=sup, lm=lm)
        with pytest.raises(errors.LMUnsupportedFeatureError, match="would not be sent") as caught:
            program(question="Capital?")
        told.append(next(iter(option)) in str(caught.value))
    assert told == [True, True] and endpoint.taken() == []


def test_users_code_reaches_azures_deployments(endpoint: CloudEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """parity: `dspy.LM("azure/...", api_version=...)` in a module of the user's, with the host's key."""
    monkeypatch.setenv("AZURE_API_BASE", endpoint.url)
    monkeypatch.setenv("AZURE_API_KEY", KEY)
    pool = dspex.PoolConfig("dspy", size=1, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'workers'}"}, imports=[OWN])
    with dspex.Supervisor(pools=[pool]) as sup:
        program = dspex.module(f"{OWN}:AsksAzure", supervisor=sup)
        assert program(question="Capital?").answer == "Paris"
    (asked,) = endpoint.taken()
    assert asked.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-06-01"
    assert asked.headers["api-key"] == KEY


SOUND = base64.b64encode(b"RIFF-sound").decode()
PDF = f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1.7').decode()}"


@pytest.mark.parametrize("model", ["gemini/g", "vertex-anthropic/claude-x", "azure/d", "zai/glm", "bedrock-chat/m"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("it: dspy.Image -> answer", dspex.Image(url=PIXEL)),
        ("it: dspy.Image -> answer", dspex.Image(url="https://example.org/a.png")),
        ("it: dspy.Audio -> answer", dspex.Audio(data=SOUND, audio_format="wav")),
        ("it: dspy.File -> answer", dspex.File(file_data=PDF)),
        ("it: dspy.File -> answer", dspex.File(file_data=PDF, filename="a.pdf")),
    ],
    ids=["image", "address", "sound", "file", "named file"],
)
def test_media_are_sent_alike_by_both_routes(
    model: str, text: str, value: Any, endpoint: CloudEndpoint, sup: dspex.Supervisor
) -> None:
    """parity: the same bytes, or the same refusal."""
    account = {"vertex_project": "p"} if "vertex" in model else {"aws_region_name": "r"} if "bedrock" in model else {}
    lm = LM(model, api_base=endpoint.url, api_key=KEY, cache=False, retries=0, **account)
    seen: list[Any] = []
    for route in ("native", "python"):
        try:
            dspex.predict(text, {"it": value}, lm=lm, implementation=route, supervisor=sup)
            seen.append(endpoint.taken()[0].body)
        except errors.LMUnsupportedFeatureError as error:
            seen.append(type(error))
            assert endpoint.taken() == []
    assert seen[0] == seen[1]
    assert isinstance(seen[0], bytes) or "Audio" in text or "named" in text or "filename" in str(value)
