"""The report of an optimization: one HTML page that needs nothing beside itself, no script and no network.

All that came of a model or a user is escaped, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .escaped_text import escaped
from .job_facts import shown_options
from .report_source import ReportSource
from .report_style import STYLE
from .report_tables import candidates_table, examples_table, held_out_table
from .score_curve import score_curve
from .word_diff import word_diff

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def report_page(source: ReportSource) -> str:
    """Return the page."""
    title = escaped(f"Optimization of {source.title}", 200)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{''.join(_sections(source, title))}</body></html>\n"
    )


def _sections(source: ReportSource, title: str) -> Iterator[str]:
    facts = source.facts
    about = [f"by {source.optimizer}" if source.optimizer else "", f"metric {facts.metric}" if facts.metric else ""]
    about += [facts.state, facts.id]
    yield f'<h1>{title}</h1><p class="dim">{escaped(", ".join(filter(None, about)))}</p>'
    yield f'<p class="{"bad" if source.is_worse else "good"}">{escaped(source.verdict)}</p>'
    yield _tiles(source)
    if source.test is not None:
        yield f"<h2>Held-out examples</h2><p>{escaped(source.test.sentence)}</p>"
    if source.trials:
        yield (
            '<h2>Scores</h2><p class="dim">Each dot is a trial: the baseline red, scored in full blue, on a minibatch '
            "small and gray, the result green. The line is the best so far on every example.</p>"
        )
        yield score_curve(source.trials)
    yield from _prompts(source)
    if source.trials:
        yield f"<h2>Candidates</h2>{candidates_table(source.trials)}"
    yield examples_table(source)
    if source.test is not None:
        yield held_out_table(source.test)
    yield _loading(source)
    yield _options(source)


def _tiles(source: ReportSource) -> str:
    facts = source.facts
    tiles: list[tuple[str, str]] = [
        ("baseline", _percent(source.baseline_score)),
        ("found", _percent(source.found_score)),
        ("trials", f"{len(source.trials):,}"),
    ]
    if facts.id or facts.requests or facts.cached_requests:  # of a loaded program they are not known
        tiles += [
            ("requests", f"{facts.requests:,}"),
            ("from a cache", f"{facts.cached_requests:,}"),
            ("tokens", f"{facts.tokens:,}"),
            ("cost", "not known" if facts.cost_usd is None else f"{facts.cost_usd:.4f} USD"),
            ("seconds", f"{facts.seconds:,.1f}"),
        ]
    return f'<ul class="tiles">{"".join(f"<li>{name}<b>{value}</b></li>" for name, value in tiles)}</ul>'


def _prompts(source: ReportSource) -> Iterator[str]:
    """Yield each predictor's instructions before and after, and its demonstrations."""
    if source.found is None:
        return
    before: Mapping[str, Any] = source.baseline or {}
    after = source.found
    yield (
        '<h2>Prompts before and after</h2><p class="dim">Words that were put in are <ins>marked so</ins>, those that '
        "were taken out <del>so</del>.</p>"
    )
    for name, text in (after.get("instructions") or {}).items():
        old = (before.get("instructions") or {}).get(name, "")
        shown = "The program" if name == "self" else f"Predictor {escaped(name, 200)}"
        yield f'<h3>{shown}: instructions</h3><div class="text">{word_diff(str(old), str(text))}</div>'
        prefixes = _prefixes(before, name), _prefixes(after, name)
        if prefixes[0] and prefixes[0] != prefixes[1]:
            yield f'<h3>{shown}: fields</h3><div class="text">{word_diff(*prefixes)}</div>'
        yield _demos((before.get("demos") or {}).get(name), (after.get("demos") or {}).get(name))


def _prefixes(trial: Mapping[str, Any], name: str) -> str:
    fields = (trial.get("fields") or {}).get(name) or ()
    return "\n".join(f"{field.get('prefix', '')} {field.get('description', '')}" for field in fields)


def _demos(before: Any, after: Any) -> str:
    if after is None:
        return ""
    had, items = len(before or ()), "".join(f'<div class="text">{_demo(demo)}</div>' for demo in after)
    title = f"{len(after)} demonstrations, {had} before"
    return f"<details><summary>{title}</summary>{items}</details>" if items else f'<p class="dim">{title}</p>'


def _demo(demo: Any) -> str:
    fields = demo.items() if isinstance(demo, Mapping) else [("", demo)]
    return "\n".join(f"<b>{escaped(name, 200)}</b> {escaped(value, 2000)}" for name, value in fields)


def _loading(source: ReportSource) -> str:
    given = "".join(f", {each}" for each in source.needs)
    code = f'best.save("best.json")\n\nimport dspex\n\nprogram = dspex.load("best.json"{given})\nprogram(...)'
    return f'<h2>Load the result</h2><pre>{escaped(code)}</pre><p class="dim">DSPy\'s own load reads the file too.</p>'


def _options(source: ReportSource) -> str:
    told = {**shown_options(source.facts.options), **{f"{name} (version)": of for name, of in source.versions.items()}}
    if not told:
        return ""
    lines = "\n".join(f"{name}: {value}" for name, value in told.items())
    return f"<details><summary>Options and versions</summary><pre>{escaped(lines)}</pre></details>"


def _percent(score: float | None) -> str:
    return "not scored" if score is None else f"{score:g} %"
