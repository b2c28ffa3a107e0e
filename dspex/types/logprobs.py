"""`Logprobs`: the log probabilities of an answer's tokens, as DSPy gives them; and how a provider's are read. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TOKENS_MOST = 1_000_000  # of one answer: beyond, an endpoint is not to be believed


class Logprobs(dict[str, Any]):
    """{"content": [{"token", "logprob", "bytes", "top_logprobs"}, ...]}; each member is an attribute too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"There is no {name!r} among {', '.join(map(repr, self))}.") from None


def logprobs_of(content: Any) -> Logprobs:
    """Return the log probabilities in a provider's list of tokens; what is malformed is left out, as by DSPy."""
    entries = content if isinstance(content, list) else []
    return Logprobs(content=[token for entry in entries[:TOKENS_MOST] if (token := _token(entry, "top_logprobs"))])


def logprobs_told(told: Sequence[Mapping[str, Any]]) -> list[Logprobs]:
    """Return those of each answer as a worker tells them: of several, the first comes twice, as the prediction's."""
    read = [logprobs_of(one.get("content")) for one in told]
    return read[1:] if len(read) > 1 else read


def _token(entry: Any, alternatives: str = "") -> Logprobs | None:
    if not isinstance(entry, dict) or "token" not in entry:
        return None
    chance = entry.get("logprob")
    if not isinstance(chance, int | float) or isinstance(chance, bool) or math.isnan(chance):
        return None
    given = entry.get("bytes")
    found = Logprobs(
        token=str(entry["token"]), logprob=float(chance), bytes=list(given) if isinstance(given, list) else None
    )
    if alternatives:
        others = entry.get(alternatives)
        found[alternatives] = [one for each in (others if isinstance(others, list) else ()) if (one := _token(each))]
    return found
