"""The tables of a report: candidates, and examples with the scores before and after. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..scores.program_comparison import ProgramComparison
from .escaped_text import cell, escaped
from .report_source import ReportSource
from .trial_history import Trial, best_so_far

ROWS_MOST = 1000  # of one table
NUMBER, TEXT = "n", "t"
Cell = tuple[str, str]  # its class, its HTML


def candidates_table(trials: Sequence[Trial]) -> str:
    """Return the trials, with the instructions of each behind a line to open."""
    heads = ["trial", "kind", "set", "score", "best", "examples", "seconds", "requests", "USD", "instructions, demos"]
    best = best_so_far(trials)
    rows = [_candidate(trial, so_far) for trial, so_far in zip(trials, best, strict=True)]
    return _table(heads, rows)


def examples_table(source: ReportSource) -> str:
    """Return each example that both the baseline and what was found were scored on."""
    pairs = source.paired_scores
    if not pairs:
        return ""
    better = sum(after > before for _, before, after in pairs)
    worse = sum(after < before for _, before, after in pairs)
    said = f"{better} better, {worse} worse, {len(pairs) - better - worse} equal, of {len(pairs)}."
    heads = ["example", "inputs", "expected", "baseline", "found", ""]
    rows = [_example(source, row, before, after) for row, before, after in pairs]
    return f'<h2>Example by example</h2><p class="dim">{said}</p>{_table(heads, rows)}'


def held_out_table(test: ProgramComparison) -> str:
    """Return the held-out examples with both programs' answers."""
    heads = ["example", "fields", *(cell(f"{name} answers") for name in reversed(test.names))]
    heads += ["baseline", "found", ""]
    rows = [
        [
            (NUMBER, str(row.index)),
            (TEXT, _fields(row.example)),
            (TEXT, cell(row.other_error) or _fields(row.other_prediction)),
            (TEXT, cell(row.error) or _fields(row.prediction)),
            (NUMBER, _score(row.other_score)),
            (NUMBER, _score(row.score)),
            _change(row.other_score, row.score),
        ]
        for row in test.rows
    ]
    return f"<h2>Held-out examples one by one</h2>{_table(heads, rows)}"


def _candidate(trial: Trial, best: float | None) -> list[Cell]:
    numbers = [trial.get("examples"), trial.get("seconds"), trial.get("requests")]
    return [
        (NUMBER, cell(trial.get("trial"))),
        ("", cell(trial.get("kind"))),
        ("", cell(trial.get("set"))),
        (NUMBER, _score(trial.get("score"))),
        (NUMBER, _score(best)),
        *((NUMBER, _score(number)) for number in numbers),
        (NUMBER, f"{trial['cost']:.4f}" if trial.get("cost") else ""),
        (TEXT, _instructions(trial)),
    ]


def _instructions(trial: Trial) -> str:
    demos = trial.get("demos") or {}
    found = []
    for name, text in (trial.get("instructions") or {}).items():
        count = f"{len(demos[name])} demos" if name in demos else "demos not kept"
        title = f"{'' if name == 'self' else escaped(name, 200) + ': '}{escaped(str(text), 60)} ({count})"
        found.append(f"<details><summary>{title}</summary>{escaped(text)}</details>")
    return "".join(found)


def _example(source: ReportSource, row: tuple[str, int], before: float, after: float) -> list[Cell]:
    fields, inputs = source.facts.example(row), source.facts.inputs
    return [
        ("", escaped(f"{row[0]} {row[1]}", 100)),
        (TEXT, _named({name: value for name, value in fields.items() if name in inputs})),
        (TEXT, _named({name: value for name, value in fields.items() if name not in inputs})),
        (NUMBER, _score(before)),
        (NUMBER, _score(after)),
        _change(before, after),
    ]


def _change(before: float, after: float) -> Cell:
    if before == after:
        return "", ""
    return ("good", "better") if after > before else ("bad", "worse")


def _fields(what: Any) -> str:
    """Return the fields of an example or a prediction; of a plain value, that."""
    if what is None:
        return ""
    if hasattr(what, "items"):
        return _named(dict(what.items()))
    if hasattr(what, "keys"):
        return _named({name: what[name] for name in what.keys()})  # noqa: SIM118 - no Mapping
    return cell(what)


def _named(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"<b>{escaped(str(name), 100)}</b> {cell(value)}" for name, value in fields.items())


def _score(score: Any) -> str:
    return f"{score:g}" if isinstance(score, int | float) else ""


def _cell(given: Cell) -> str:
    kind, inner = given
    return f'<td class="{kind}">{inner}</td>' if kind else f"<td>{inner}</td>"


def _table(heads: Iterable[str], rows: Sequence[Sequence[Cell]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:ROWS_MOST]]
    rest = len(rows) - ROWS_MOST
    more = f'<p class="dim">{rest:,} more rows are not shown.</p>' if rest > 0 else ""
    body = "".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'
