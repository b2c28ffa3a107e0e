"""What the research assistant decides without a model: what to look for, which finds are best, which answer wins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypedDict

PASSAGES = 3  # that are asked for an answer each

# Words that every question here has, and that say nothing of what is looked for.
ASKING = frozenset(
    """a an and any are can could do does for good how i in is it library me my of on or package python should that
    the there to tool use what which with would""".split()
)


class Plan(TypedDict):
    """What to look for."""

    topic: str
    queries: list[str]


class Gathered(TypedDict):
    """What the search came to: the best passages, how much each of them counts (together 1), and their sources."""

    passages: list[str]
    weights: list[float]
    sources: list[dict[str, str]]


class Voted(TypedDict):
    """What the passages' answers came to."""

    answer: str
    votes: dict[str, float]


def plan(question: str, refined_queries: list[str]) -> Plan:
    """Look for the question's own words first: a small model may refine the sense away."""
    words = re.findall(r"[\w-]+", question)
    topic = " ".join(word for word in words if word.lower() not in ASKING) or question
    return {"topic": topic, "queries": list(dict.fromkeys([topic, *refined_queries]))[:2]}


def gather(evidence: list[Any]) -> Gathered:
    """Put what the three branches found together, by reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009).

    Their constant is 60, for lists of a thousand; these have three entries. The model's query counts a quarter, so
    that what both searches have first for the question's own words stays first.
    """
    native, colbert, web = evidence
    scores: Counter[str] = Counter()
    sources: dict[str, dict[str, str]] = {}
    for lists in (native, [[_as_source(passage) for passage in colbert]], web):
        for number, found in enumerate(lists, start=1):
            for rank, passage in enumerate(found, start=1):
                scores[passage["title"]] += 1 / (number**2 * (1 + rank))
                sources.setdefault(passage["title"], passage)
    best = scores.most_common(PASSAGES)
    total = sum(score for _, score in best)
    return {
        "passages": [passage_of(title, sources[title]["text"]) for title, _ in best],
        "weights": [score / total for _, score in best],
        "sources": [sources[title] for title, _ in best],
    }


def vote(answers: list[dict[str, str]], weights: list[float], sources: list[dict[str, str]]) -> Voted:
    """Take the answer that has the most of the passages' weights (as RAG-Sequence does; Lewis et al., 2020).

    An answer that names none of the sources has no vote, unless no answer names one.
    """
    titles = [source["title"] for source in sources]
    votes: Counter[str] = Counter()
    strays: Counter[str] = Counter()
    for answer, weight in zip(answers, weights, strict=True):
        said = str(answer["answer"]).strip()
        title = named(said, titles)
        if title is None:
            strays[said] += weight
        else:
            votes[title] += weight
    votes = votes or strays
    return {"answer": votes.most_common(1)[0][0] if votes else "", "votes": dict(votes)}


def named(answer: str, titles: list[str]) -> str | None:
    """The title that an answer is, or begins with: small models go on after a name."""
    fitting = [title for title in titles if re.match(rf"{re.escape(title)}(?![\w-])", answer, re.IGNORECASE)]
    return max(fitting, key=len, default=None)


def passage_of(title: str, text: str) -> str:
    """A package in a few words: a small model loses its thread in more."""
    return f"{title}: {text.partition('. ')[0][:60]}"


def _as_source(passage: Mapping[str, Any]) -> dict[str, str]:
    title, _, text = passage["text"].partition(" | ")
    return {"title": title, "text": text, "url": f"pip show {title}"}
