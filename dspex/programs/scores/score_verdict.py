"""Say how a program did against its baseline. Pure."""

from __future__ import annotations


def score_verdict(found: float | None, baseline: float | None, *, kept_baseline: bool, is_over: bool = True) -> str:
    """Return how it did, in a sentence; the scores are in percent."""
    if found is None or baseline is None:
        return "There is no score of both the baseline and what was found."
    said = f"{found:g} % against {baseline:g} % before, on the validation examples"
    if found >= baseline or not is_over:
        return f"{said}." if found > baseline else f"{said}: no better than the baseline."
    kept = "so the baseline was kept" if kept_baseline else "and it was returned nevertheless"
    return f"{said}: worse than the baseline, {kept}."
