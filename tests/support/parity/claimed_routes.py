"""The routes that docs/internals/upstream-cases.md claims, held against those that the named tests really take.

`claimed_route` is a fixture for every test of a folder: where the page names the test, it fails when a call went to a
worker though the row says "native", and when none did though the row says "worker".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pytest

from dspex.adapters.compiled_signature import CompiledSignature
from dspex.pools.pool import Pool
from tests.support.paths import ROOT

PAGE: Final = ROOT / "docs" / "internals" / "upstream-cases.md"
ROW: Final = re.compile(r"^\| `(test_\w+)` \| (native|worker|not applicable) \| (.+) \|$", re.MULTILINE)
_NAMED: Final = re.compile(r"(?:(native|worker), )?`(tests/[\w/]+\.py)::(\w+)(?:\[([^\]]+)\])?`")
_SIGNATURES: Final = "test_upstream_signature.py"  # which makes signatures: most of its tests run nothing
Test = tuple[str, str, str]  # its file, function and case; "" for all cases


def claims() -> dict[Test, set[str]]:
    """The routes that are claimed for each test; a test that is named after "native," or "worker," takes that one."""
    found: dict[Test, set[str]] = defaultdict(set)
    for _, route, why in ROW.findall(PAGE.read_text(encoding="utf-8")):
        for own, path, function, case in _NAMED.findall(why):
            if route != "not applicable":
                found[path, function, case].add(own or route)
    return dict(found)


_CLAIMS: Final = claims()


@pytest.fixture(autouse=True)
def claimed_route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold the routes that the test's calls take against those that the page claims for it."""
    claimed = _claimed(request.node)
    taken: set[str] = set()
    if claimed:
        _record(monkeypatch, Pool, ("invoke", "ainvoke", "stream", "astream"), "worker", taken)
        _record(monkeypatch, CompiledSignature, ("messages", "parse", "prefix", "response_format"), "native", taken)
    yield
    if claimed == {"worker"}:
        is_run = "worker" in taken or _is_refusal(request.node)
        assert is_run, "the page says that this case runs in a worker, and nothing was asked of one"
    elif claimed == {"native"}:
        assert "worker" not in taken, "the page says that this case runs natively, and a worker was asked"
        is_run = "native" in taken or request.node.path.name == _SIGNATURES or _is_refusal(request.node)
        assert is_run, "the page says that this case runs natively, and nothing was rendered or read here"


def _claimed(node: Any) -> set[str]:
    path = node.path.relative_to(ROOT).as_posix()
    parameters = [str(value) for value in node.callspec.params.values()] if hasattr(node, "callspec") else []
    name = node.originalname or node.name
    return set().union(*(_CLAIMS.get((path, name, case), set()) for case in ("", *parameters)))


def _is_refusal(node: Any) -> bool:
    """Whether the test is about something that is refused, or read from a file, before any prompt is made."""
    return any(word in node.name for word in ("refused", "not_taken_over", "overwritten", "prefixes", "named", "said"))


def _record(monkeypatch: pytest.MonkeyPatch, owner: Any, names: tuple[str, ...], route: str, taken: set[str]) -> None:
    for name in names:
        real = getattr(owner, name)

        def recorded(*args: Any, real: Any = real, **options: Any) -> Any:
            taken.add(route)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, recorded)
