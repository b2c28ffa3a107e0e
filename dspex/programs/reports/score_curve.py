"""The curve of a report: scores by trial and the best so far, as an SVG element of plain shapes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from .trial_history import Trial, best_so_far

WIDTH, HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 34
_STEPS = 5  # of the axis of scores
LABELS_MOST = 12  # of the axis of trials


def score_curve(trials: Sequence[Trial]) -> str:
    """Return the SVG; nothing of the trials but numbers and known kinds is in it."""
    if not trials:
        return ""
    scores = [float(trial["score"]) if isfinite(trial["score"]) else 0.0 for trial in trials]
    low, high = min(0.0, *scores), max(100.0, *scores)
    xs = [_LEFT + (WIDTH - _LEFT - _RIGHT) * at / max(1, len(trials) - 1) for at in range(len(trials))]

    def y(score: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - score) / (high - low)

    steps = [low + (high - low) * step / _STEPS for step in range(_STEPS + 1)]
    lines = [_grid(score, y(score)) for score in steps]
    lines += [_label(x, at) for at, x in enumerate(xs) if at % (1 + (len(trials) - 1) // LABELS_MOST) == 0]
    told = zip(xs, best_so_far(trials), strict=True)
    best = [(x, y(score)) for x, score in told if score is not None and isfinite(score)]
    if best:
        lines.append(f'<path class="best" d="{_stairs(best)}"/>')
    lines += [_dot(x, y(score), score, trial) for x, score, trial in zip(xs, scores, trials, strict=True)]
    text = f"Scores of {len(trials)} trials in percent, and the best so far"
    inner = "".join(lines)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text}"><title>{text}</title>{inner}</svg>'


def _grid(score: float, at: float) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
    return f'{line}<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{score:g}</text>'


def _label(x: float, number: int) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{number}</text>'


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    return f"M{x:.1f} {y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)


def _dot(x: float, y: float, score: float, trial: Trial) -> str:
    kind = trial["kind"] if trial["kind"] in ("baseline", "full", "minibatch", "result") else "full"
    about = f"<title>trial {int(trial['trial'])}, {kind}: {score:g}</title>"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{3 if kind == "minibatch" else 5}">{about}</circle>'
