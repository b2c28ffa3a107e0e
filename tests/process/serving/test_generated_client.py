"""Process: a client that a generator makes of the OpenAPI document, used against the server."""

from __future__ import annotations

import enum
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import pydantic
import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.serving.served import Served

pytest.importorskip("openapi_python_client")


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Place(pydantic.BaseModel):
    name: str
    people: int | None = None


class Found(pydantic.BaseModel):
    places: list[Place]
    size: Size


class Search(dspex.Signature):
    """Find places."""

    query: str = dspex.InputField(desc="what to look for")
    near: Place = dspex.InputField()
    kind: Literal["city", "lake"] = dspex.InputField(default="city")
    most: int | None = dspex.InputField()
    found: Found = dspex.OutputField()
    score: float = dspex.OutputField()


ANSWER = {"found": {"places": [{"name": "Rome", "people": 3}], "size": "large"}, "score": 0.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Any]]:
    """The server, and the package that was generated of its document."""
    folder = tmp_path_factory.mktemp("client")
    with FakeLM({"": {**ANSWER, "answer": "Paris"}}, cycle=True) as lm:
        programs = {
            "search": dspex.predictor("predict", Search, lm=lm),
            "qa": dspex.predictor("predict", "q -> answer", lm=lm),
        }
        with Served(dspex.asgi(programs, token="t0ken", title="Places")) as served:
            document = served.client.get("/openapi.json", headers={"authorization": "Bearer t0ken"}).json()
            (folder / "openapi.json").write_text(json.dumps(document))
            (folder / "config.yml").write_text("post_hooks: []\npackage_name_override: places_client\n")
            command = [
                "generate",
                "--path",
                "openapi.json",
                "--config",
                "config.yml",
                "--output-path",
                "made",
                "--meta",
                "none",
            ]
            done = subprocess.run(
                [sys.executable, "-m", "openapi_python_client", *command],
                cwd=folder, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            assert "WARNING" not in done.stdout + done.stderr
            (folder / "made").rename(folder / "places_client")
            sys.path.insert(0, str(folder))
            yield served, importlib.import_module("places_client")
            sys.path.remove(str(folder))
            for name in [name for name in sys.modules if name.partition(".")[0] == "places_client"]:
                del sys.modules[name]


def client_of(served: Served, package: Any) -> Any:
    return package.AuthenticatedClient(base_url=served.url, token="t0ken")


def test_it_asks_and_reads_typed_answers(made: tuple[Served, Any]) -> None:
    """process: models, enums and optional fields, both ways."""
    served, package = made
    models = importlib.import_module("places_client.models")
    search = importlib.import_module("places_client.api.search.search")
    given = models.SearchInputs(query="old", near=models.Place(name="Italy"), kind=models.SearchInputsKind.LAKE)
    with client_of(served, package) as client:
        found = search.sync(client=client, body=given)
    assert found.to_dict() == ANSWER
    assert found.found.places[0].name == "Rome"
    assert found.found.size is models.Size.LARGE


def test_it_reads_batches_and_problems(made: tuple[Served, Any]) -> None:
    """process: a wrong token, and a row of a batch that is wrong, are problems of its type."""
    served, package = made
    models = importlib.import_module("places_client.models")
    batch = importlib.import_module("places_client.api.qa.qa_batch")
    with client_of(served, package) as client:
        rows = batch.sync(client=client, body=[models.QaInputs(q="?"), models.QaInputs(q="")])
    assert [row.prediction.answer for row in rows] == ["Paris", "Paris"]
    assert rows[0].usage.tokens > 0
    with package.AuthenticatedClient(base_url=served.url, token="wrong") as stranger:
        problem = importlib.import_module("places_client.api.qa.qa").sync(client=stranger, body=models.QaInputs(q="?"))
    assert (problem.status, problem.retryable) == (401, models.ProblemRetryable.NO)
