"""Process: calls that go well, and calls whose code or values do not; the worker lives on in every case."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from dspex.config import PoolConfig
from dspex.errors import EncodeError, FrameTooLarge, InvalidInput, LMAuthError, RemoteError, UnknownName
from dspex.pools.supervisor import Supervisor
from dspex_worker import starting
from tests.support.supervisors import Supervise
from tests.support.waiting import all_ready, eventually, pids

LIMIT = 16 * 1024 * 1024


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """The supervisor is shared by the module: it is checked for leaks as a whole, by `sup`."""


@pytest.fixture(scope="module")
def sup() -> Iterator[Supervisor]:
    from dspex.testing.plugin import _holdings, _leaks

    before = _holdings()
    with Supervisor(pools=[PoolConfig("f", bridge="faults", size=1, concurrency=4)]) as sup:
        sup.wait_ready()
        yield sup
    eventually(lambda: not _leaks(before), what="nothing left behind")


@pytest.fixture(autouse=True)
def _worker_survives(sup: Supervisor) -> Iterator[None]:
    """Nothing in this module costs a worker."""
    before = pids(sup)
    yield
    assert sup.call("f", "echo", {"still": "there"}, timeout=20) == {"still": "there"}
    assert pids(sup) == before


def test_ping_names_its_worker(sup: Supervisor) -> None:
    """Process (DESIGN §5): ping gives pid, generation, worker, uptime and memory."""
    answer = sup.call("f", "ping")
    assert set(answer) == {"pid", "generation", "worker", "uptime_s", "rss_bytes"}
    assert answer["worker"] == "f/0"
    assert answer["pid"] == pids(sup)[0]


VALUES = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    math.inf,
    "é\x00\U0001f600",
    b"\x00\xff",
    [],
    {},
    [[1, [2, {"a": None}]]],
    {"": {"k": [1.0, "x", b"y"]}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_went(sup: Supervisor, value: Any) -> None:
    """Process (DESIGN §7): what is accepted always decodes, with the same types."""
    answer = sup.call("f", "echo", {"value": value})
    assert answer == {"value": value}
    assert type(answer["value"]) is type(value)


def test_nan_comes_back_as_nan(sup: Supervisor) -> None:
    """Process: NaN is a float like any other."""
    assert math.isnan(sup.call("f", "echo", {"value": math.nan})["value"])


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ((1, 2), "arguments['v']", "tuple"),
        ({1, 2}, "arguments['v']", "set"),
        ([1, {"a": object()}], "arguments['v'][1]['a']", "object"),
        ({1: 2}, "arguments['v'] key 1", "int"),
        (2**64, "arguments['v']", "int"),
        ("\ud800", "arguments['v']", "str"),
        (True.__class__, "arguments['v']", "type"),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_an_argument_without_an_exact_form_is_refused(sup: Supervisor, value: Any, path: str, kind: str) -> None:
    """Process (C1): EncodeError with path and type, before anything is written or counted."""
    before = sup.stats()["f"]["counts"]["submitted"]
    with pytest.raises(EncodeError) as caught:
        sup.call("f", "echo", {"v": value})
    assert (caught.value.path, caught.value.type) == (path, kind)
    assert sup.stats()["f"]["counts"]["submitted"] == before


def test_a_cycle_is_refused(sup: Supervisor) -> None:
    """Process (C1): a value that holds itself is over the limits, not an endless loop."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(FrameTooLarge):
        sup.call("f", "echo", {"v": cycle})


def test_a_result_without_an_exact_form_is_an_error_of_its_call(sup: Supervisor) -> None:
    """Process (DESIGN §6): the worker's side raises EncodeError too; its stream stays intact."""
    with pytest.raises(EncodeError) as caught:
        sup.call("f", "unsendable", {"kind": "set"})
    assert caught.value.type == "set"


def test_a_cyclic_result_is_an_error_of_its_call(sup: Supervisor) -> None:
    """Process: a worker's value that holds itself ends its call, not its worker."""
    with pytest.raises(FrameTooLarge) as caught:
        sup.call("f", "unsendable", {"kind": "cycle"})
    assert caught.value.side == "worker"


def test_arguments_over_the_frame_limit_are_refused_by_the_sender(sup: Supervisor) -> None:
    """Process (DESIGN §6): 100 MB of input is FrameTooLarge with limit and actual, and nothing is written."""
    with pytest.raises(FrameTooLarge) as caught:
        sup.call("f", "echo", {"data": b"x" * 100_000_000})
    assert caught.value.side == "parent"
    assert caught.value.limit == LIMIT
    assert caught.value.actual > 100_000_000


def test_a_result_over_the_frame_limit_is_refused_by_the_worker(sup: Supervisor) -> None:
    """Process (DESIGN §6): the worker checks before it writes."""
    with pytest.raises(FrameTooLarge) as caught:
        sup.call("f", "payload", {"bytes": LIMIT + 1})
    assert caught.value.side == "worker"


def test_frames_just_under_the_limit_pass_both_ways(sup: Supervisor) -> None:
    """Process: the limit is no smaller than it says."""
    data = bytes(LIMIT - 1024)
    assert sup.call("f", "echo", {"data": data}, timeout=60)["data"] == data


@pytest.mark.parametrize(
    "kind",
    [
        "ValueError",
        "SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "StopIteration",
        "StopAsyncIteration",
        "RecursionError",
        "AssertionError",
        "BrokenPipeError",
        "EOFError",
        "BaseException",
    ],
)
def test_whatever_user_code_raises_is_an_answer(sup: Supervisor, kind: str) -> None:
    """Process (DESIGN §6): RemoteError with type, message and traceback."""
    with pytest.raises(RemoteError) as caught:
        sup.call("f", "raise_error", {"type": kind, "message": "on purpose"})
    assert caught.value.type == kind
    assert "on purpose" in caught.value.message
    assert "raise_error" in caught.value.traceback
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("text", ["raises", "exits", "surrogates", "endless"])
def test_an_exception_with_a_broken_text_is_an_answer(sup: Supervisor, text: str) -> None:
    """Process (T65): __str__ that raises, exits, gives no valid Unicode, or millions of characters."""
    with pytest.raises(RemoteError) as caught:
        sup.call("f", "raise_broken", {"text": text})
    assert "Broken" in caught.value.type
    assert len(caught.value.message) < 10_000


def test_real_runaway_recursion_is_an_answer(sup: Supervisor) -> None:
    """Process (DESIGN §6): a stack that overflows is RecursionError, not a crash."""
    with pytest.raises(RemoteError) as caught:
        sup.call("f", "recurse")
    assert caught.value.type == "RecursionError"


def test_a_failure_of_dspex_kinds_keeps_its_class_and_facts(sup: Supervisor) -> None:
    """Process (I3): a Failure named as one of DSPex's classes is raised as that class."""
    with pytest.raises(LMAuthError):
        sup.call("f", "raise_error", {"type": "LMAuthError", "message": "401"})


def test_an_unknown_command_lists_near_names(sup: Supervisor) -> None:
    """Process (DESIGN §6): UnknownName, and nothing is sent."""
    with pytest.raises(UnknownName) as caught:
        sup.call("f", "slep")
    assert "sleep" in caught.value.near


def test_an_unknown_pool_lists_the_pools(sup: Supervisor) -> None:
    """Process (DESIGN §6): there is no default pool to fall back to."""
    with pytest.raises(UnknownName):
        sup.call("g", "ping")


def test_wrong_arguments_are_said_as_such(sup: Supervisor) -> None:
    """Process: a command called with arguments that it does not take is InvalidInput, with the names."""
    with pytest.raises(InvalidInput, match="second"):
        sup.call("f", "sleep", {"second": 1})


@pytest.mark.parametrize("command", ["print", "write_fd1"])
def test_printing_does_not_disturb_the_protocol(sup: Supervisor, command: str) -> None:
    """Process (T04): stdout belongs to user code; frames travel elsewhere."""
    for _ in range(20):
        sup.call("f", command, {"text": "\x00\x00\x00\x05hello" * 50})


def test_a_child_of_the_worker_may_print(sup: Supervisor) -> None:
    """Process: what a subprocess of user code writes to stdout lands beside the protocol too."""
    assert sup.call("f", "shell", {"command": "echo hello; echo world >&2"}) == 0


def test_flooding_stderr_blocks_nothing(sup: Supervisor) -> None:
    """Process: 20 MB on stderr are drained, whoever else calls meanwhile; only the end is kept."""
    assert sup.call("f", "flood_stderr", {"bytes": 20_000_000}, timeout=60) == 20_000_000


def test_the_workers_environment_is_an_allow_list(sup: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process (X3): no key of the host reaches a worker."""
    environment = sup.call("f", "environment")
    assert environment["MALLOC_ARENA_MAX"] == "2"
    assert not [name for name in environment if "API_KEY" in name or name.startswith("OPENAI")]


def test_in_a_keys_place_stands_what_means_it(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process (X3): so that code which reads a provider's variable goes on; other variables are not there at all."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MY_API_KEY"):
        monkeypatch.setenv(name, "sk-of-the-host-alone")
    environment = supervise(size=1, env={"ANTHROPIC_API_KEY": "sk-of-the-pool"}).call("f", "environment")
    assert "sk-of-the-host-alone" not in environment.values() and "MY_API_KEY" not in environment
    assert (environment["OPENAI_API_KEY"], environment["ANTHROPIC_API_KEY"]) == (starting.HELD_KEY, "sk-of-the-pool")


def test_the_host_starts_with_all_workers_ready_or_starting(sup: Supervisor) -> None:
    """Process: stats say what there is."""
    all_ready(sup, 1)
    stats = sup.stats()["f"]
    assert stats["state"] == "ready"
    assert stats["queued"] == 0
    assert stats["counts"]["deaths"] == 0
    assert sup.health()["f"]["is_ready"]


def test_an_unknown_option_is_named_with_the_near_one(supervise: Supervise) -> None:
    """Process: of every verb, at once; a session's calls have no `session`, streams are never repeated."""
    sup = supervise(size=1)
    pool, session = sup.pool("f"), sup.session("f")
    on_pool: tuple[Any, ...] = (pool.call, pool.stream, session.call, session.stream)
    for verb, words in ((sup.call, ("f", "echo")), (sup.stream, ("f", "count")), *((v, ("echo",)) for v in on_pool)):
        with pytest.raises(UnknownName, match=r"'timeuot'.*Did you mean 'timeout'"):
            verb(*words, timeuot=1.0)
    for verb, option in ((session.call, {"session": "other"}), (pool.stream, {"idempotent": True})):
        with pytest.raises(UnknownName):
            verb("echo", **option)  # type: ignore[operator]
    assert sup.call("f", "echo", {"n": 1}, timeout=5.0, idempotent=True) == {"n": 1}
