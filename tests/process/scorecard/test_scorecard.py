"""Collaboration and process: the scorecard sees what pools do, and says it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dspex.cli import main
from dspex.scorecard.card import Scorecard
from dspex.scorecard.cases import CASES
from dspex.scorecard.peers import PEERS, Need, Peer, peer_class
from dspex.scorecard.report import block, noise, summary
from dspex.scorecard.scoring import Cell, Mark, score, span
from tests.support.scorecard import bad_peers


def cell_of(name: str, case: str, *, limit: float = 60.0) -> Cell:
    """The cell of one of the bad peers, or of one of the real ones, after one trial."""
    target = PEERS.get(name, f"{bad_peers.__name__}:{name}")
    [(_, [cell])] = Scorecard({name: target}, (case,), repeats=1, limit=limit).rows()
    return cell


def leaked() -> list[int]:
    """Processes that a bad peer started and nothing ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            is_one = bad_peers.LEAKED in path.read_text()
        except OSError:
            continue
        if is_one:
            found.append(int(path.parent.name))
    return found


# -- whole trials: a fault that is there is seen --


def test_a_pool_that_holds_has_held() -> None:
    """process"""
    cell = cell_of("dspex", "kill-busy")
    assert cell.mark is Mark.HELD, cell
    assert cell.figures["lost"] == 0 and cell.figures["innocents"] == 21 and cell.figures["error"] == "WorkerDied"
    assert 0 < cell.figures["told_s"] <= cell.figures["capacity_s"]


def test_a_pool_that_a_death_breaks_has_failed() -> None:
    """process: the standard library's, whose documentation says so"""
    cell = cell_of("ProcessPoolExecutor", "kill-busy")
    assert cell.mark is Mark.FAILED, cell
    assert cell.figures["lost"] == 21 and cell.figures["error"] == "BrokenProcessPool"
    assert "21 of 21 innocent calls lost" in cell.text and "pool unusable" in cell.text


def test_calls_that_fail_without_a_fault_are_counted() -> None:
    """process"""
    cell = cell_of("Losing", "calm")
    assert (cell.mark, cell.figures["lost"], cell.figures["innocents"]) == (Mark.FAILED, 2, 21), cell


def test_an_answer_of_another_call_is_a_lost_call() -> None:
    """process"""
    cell = cell_of("Confusing", "kill-idle")
    assert (cell.mark, cell.figures["lost"]) == (Mark.FAILED, 19), cell


def test_work_that_goes_on_past_its_deadline_is_seen() -> None:
    """process"""
    cell = cell_of("Pretending", "deadline-sleep")
    assert cell.mark is Mark.FAILED, cell
    assert cell.figures["error"] == "TimeoutError" and "late_s" in cell.figures
    assert "work goes on" in cell.text and "workers never back" in cell.text


def test_cancelled_calls_that_run_and_calls_out_of_order_are_counted() -> None:
    """process"""
    cell = cell_of("Swapping", "cancel-queued")
    assert cell.mark is Mark.FAILED, cell
    assert cell.figures["ran_anyway"] > 0 and cell.figures["misplaced"] > 0


def test_processes_that_a_killed_host_leaves_are_counted_and_then_ended() -> None:
    """process"""
    cell = cell_of("Leaking", "host-killed")
    assert (cell.mark, cell.figures["left"]) == (Mark.FAILED, 1), cell
    assert leaked() == []


def test_a_host_that_does_not_exit_is_seen() -> None:
    """process"""
    cell = cell_of("Staying", "host-exits")
    assert cell.mark is Mark.FAILED and "does not exit" in cell.text, cell


def test_a_host_that_hangs_is_killed_with_what_it_started() -> None:
    """process"""
    cell = cell_of("Hanging", "calm", limit=2.0)
    assert cell.mark is Mark.FAILED and "hung" in cell.text, cell
    assert leaked() == []


def test_a_host_that_ends_in_the_middle_says_nothing_of_the_pool() -> None:
    """process"""
    cell = cell_of("Ending", "calm")
    assert cell.mark is Mark.UNMEASURED and "status 7" in cell.text, cell


# -- what is not run --


def test_a_case_that_needs_what_a_pool_lacks_is_not_run() -> None:
    """unit"""
    cell = cell_of("Lacking", "deadline-sleep")
    assert (cell.mark, cell.text, cell.trials) == (Mark.LACKS, "no deadline", ())


def test_a_pool_that_is_not_installed_comes_with_its_pip_line() -> None:
    """unit"""
    cell = cell_of("Absent", "calm")
    assert (cell.mark, cell.text) == (Mark.ABSENT, "not installed: pip install no-such-distribution-of-anybody")


@pytest.mark.parametrize("target", PEERS.values(), ids=PEERS)
def test_every_adapter_loads_without_its_library(target: str) -> None:
    """contract"""
    adapter = peer_class(target)
    assert issubclass(adapter, Peer) and set(adapter.lacks) <= set(Need)


# -- scoring --


def facts(**given: Any) -> dict[str, Any]:
    return {"facts": {"lost": 0, "innocents": 21, "capacity_s": 0.1, "is_usable": True, **given}}


def test_good_facts_are_held() -> None:
    """unit"""
    cell = score("p", "c", [facts(told_s=0.004), facts(told_s=0.006), facts(told_s=0.1)])
    assert (cell.mark, cell.text) == (Mark.HELD, "told 6.0 ms, all serve 100 ms")
    assert cell.spread == pytest.approx((0.1 - 0.004) / 0.006)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"lost": 3}, "3 of 21 innocent calls lost"),
        ({"capacity_s": None}, "workers never back"),
        ({"is_usable": False}, "pool unusable"),
        ({"told_s": None, "error": "nothing"}, "no error, never told"),
        ({"error": "a value"}, "no error"),
        ({"left": 2}, "2 processes left over"),
        ({"ran_anyway": 1}, "1 ran although cancelled or expired"),
    ],
)
def test_one_bad_fact_is_a_failure(bad: dict[str, Any], said: str) -> None:
    """unit"""
    cell = score("p", "c", [facts(**bad)])
    assert cell.mark is Mark.FAILED and cell.text.startswith(said), cell


def test_one_bad_trial_is_a_failure_that_says_how_often() -> None:
    """unit"""
    cell = score("p", "c", [facts(), facts(lost=2), facts(lost=5)])
    assert cell.mark is Mark.FAILED
    assert cell.text == "5 of 21 innocent calls lost (2 of 3 runs), all serve 100 ms"


def test_a_time_that_never_came_is_no_part_of_a_median() -> None:
    """unit"""
    cell = score("p", "c", [facts(capacity_s=None), facts(capacity_s=0.2), facts(capacity_s=0.4)])
    assert cell.figures["capacity_s"] == pytest.approx(0.3)
    assert cell.text == "workers never back (1 of 3 runs), all serve 300 ms"


def test_a_hung_host_is_the_pools_failure_and_a_broken_trial_is_nobodys() -> None:
    """unit"""
    assert score("p", "c", [facts(), {"hung": 60.0}]).mark is Mark.FAILED
    assert score("p", "c", [facts(), {"broken": "why"}]) == Cell(
        "p", "c", Mark.UNMEASURED, "why", trials=[facts(), {"broken": "why"}]
    )


def test_spans_have_two_digits() -> None:
    """unit"""
    assert [span(0.0042), span(0.042), span(0.42), span(4.2)] == ["4.2 ms", "42 ms", "420 ms", "4.2 s"]


# -- the command --

Out = pytest.CaptureFixture[str]


def test_the_command_prints_each_case_and_a_summary(capsys: Out) -> None:
    """process"""
    assert main(["bench", "--chaos", "--quick", "--cases", "calm", "--peers", "dspex,ProcessPoolExecutor"]) == 0
    text = capsys.readouterr().out
    assert f"{CASES['calm'].title} [calm]" in text and text.count(" held    all serve ") == 2
    assert "The machine's load was" in text


def test_the_command_prints_json_with_every_trial(capsys: Out) -> None:
    """process"""
    assert main(["bench", "--chaos", "--repeats", "2", "--cases", "poison", "--peers", "dspex", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    [cell] = found["cells"]
    assert len(cell["trials"]) == 2 and all(trial["facts"]["workers_killed"] >= 2 for trial in cell["trials"])
    assert found["repeats"] == 2 and found["versions"] == {"dspex": ""}


def test_an_unknown_case_is_a_wrong_command_line(capsys: Out) -> None:
    """unit"""
    assert main(["bench", "--chaos", "--cases", "kill-bussy"]) == 2
    assert "Did you mean 'kill-busy'" in capsys.readouterr().err


def test_the_report_counts_marks_and_says_what_is_missing() -> None:
    """unit"""
    cells = [
        Cell("ours", "calm", Mark.HELD, "all serve 1 ms", spread=0.5),
        Cell("theirs", "calm", Mark.ABSENT, "not installed: pip install theirs"),
    ]
    assert block(CASES["calm"], cells).splitlines()[1:] == [
        "  ours    held    all serve 1 ms",
        "  theirs  absent  not installed: pip install theirs",
    ]
    assert summary(cells).splitlines()[1:] == [
        "ours         1       0       0       0",
        "theirs  not installed: pip install theirs",
    ]
    assert "up to 0.5 times its median apart" in noise(Scorecard(repeats=3), cells, (1.0, 2.0))
