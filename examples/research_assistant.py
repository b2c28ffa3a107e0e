"""The research assistant: one pipeline of native, DSPy and parallel steps, on a real model and real text.

    make demo
    make demo ARGS='--question "How do I send HTTP requests asynchronously?"'

It runs on the embedded model, without a key and without a network. To use another one, set DSPEX_LM (and, as its
provider wants, OPENAI_API_KEY, OPENAI_BASE_URL, ...):

    DSPEX_LM=openai/gpt-4o-mini OPENAI_API_KEY=... make demo
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from collection import Document, distributions, standard_library, summary_of
from loopback_services import serving

import dspex
from dspex.inprocess.retrieval import BM25Index

QUESTION = "Which package should I use to validate data with type hints?"
EXAMPLES = 6  # to learn from
JUDGED_BY = 5

# Small models imitate better than they obey: a few examples say what a search query looks like.
EXAMPLE_QUERIES = {
    "Which package should I use to send HTTP requests?": "send HTTP requests",
    "What can parse command line arguments?": "parse command line arguments",
    "How do I read a YAML file?": "read a YAML file",
    "Which library compresses files?": "library compresses files",
}
QUERY_DEMOS = [{"question": question, "search_queries": [query]} for question, query in EXAMPLE_QUERIES.items()]
REFINE_DEMOS = [
    {
        "question": question,
        "search_queries": [query],
        "reasoning": "The words of the question are the words to look for.",
        "refined_queries": [query, f"{query} python"],
    }
    for question, query in EXAMPLE_QUERIES.items()
]


class Gathered(TypedDict):
    """What the gathering step writes."""

    context: list[str]
    sources: list[dict[str, str]]


class VectorSearch:
    """Native retrieval: BM25 over the installed distributions."""

    def __init__(self, index: BM25Index) -> None:
        self._index = index

    def run(self, state: Mapping[str, Any], k: int = 3) -> list[dict[str, str]]:
        found = [p for query in queries_of(state) for p in self._index.search(query, k)]
        return [{"title": p["title"], "text": p["text"], "url": p["metadata"]["url"]} for p in found]


class WebSearch:
    """Native step: asks a search service over HTTP."""

    def __init__(self, base: str) -> None:
        self._base = base

    def run(self, state: Mapping[str, Any], n: int = 2) -> list[dict[str, str]]:
        pages: list[dict[str, str]] = []
        for query in queries_of(state):
            address = f"{self._base}/search?{urllib.parse.urlencode({'q': query, 'n': n})}"
            with urllib.request.urlopen(address, timeout=10) as reply:
                results = json.load(reply)["results"]
            pages += [{"title": r["title"], "text": r["snippet"], "url": r["url"]} for r in results]
        return pages


class ResponseFormatter:
    """Native step: the answer as Markdown, with its sources."""

    @staticmethod
    def run(state: Mapping[str, Any], format: str = "markdown") -> dict[str, str]:
        sources = [f"{i}. **{s['title']}** (`{s['url']}`)" for i, s in enumerate(state["sources"], start=1)]
        lines = [f"## {state['question']}", "", str(state["answer"]), "", "### Sources", "", *sources]
        return {"report": "\n".join(lines) if format == "markdown" else str(state["answer"])}


def queries_of(state: Mapping[str, Any]) -> list[str]:
    """The question itself and the first refined queries: a small model may refine the sense away."""
    refined = list(dict.fromkeys(state["refined_queries"]))
    return [state["question"], *refined[:2]]


def gather(question: str, evidence: list[Any]) -> Gathered:
    """Put the three branches' finds together: those first that were found more often."""
    native, colbert, web = evidence
    passages = [*native, *map(_as_source, colbert), *web]
    votes = Counter(passage["title"] for passage in passages)
    by_title = {passage["title"]: passage for passage in reversed(passages)}  # of equals the first found stays
    best = [by_title[title] for title, _ in votes.most_common(3)]
    return {"context": [context_line(p["title"], p["text"]) for p in best], "sources": best}


def pipeline_of(index: BM25Index, base: str, examples: Sequence[Mapping[str, Any]]) -> dspex.Pipeline:
    """The seed's pipeline, in Python."""
    return dspex.pipeline(
        [
            dspex.native(dspex.signature("question -> search_queries: list[str]"), demos=QUERY_DEMOS, name="queries"),
            dspex.python(
                "dspy.ChainOfThought",
                signature="question, search_queries: list[str] -> refined_queries: list[str]",
                demos=REFINE_DEMOS,
                name="refine",
            ),
            dspex.parallel(
                [
                    dspex.native(VectorSearch(index), k=3, into="documents", name="bm25"),
                    dspex.python(
                        "dspy.ColBERTv2", url=f"{base}/colbert", query="question", k=3, into="papers", name="colbert"
                    ),
                    dspex.native(WebSearch(base), n=2, into="pages", name="web"),
                ],
                into="evidence",
                name="search",
            ),
            dspex.native(gather),
            dspex.python(
                "dspy.MIPROv2",
                signature=ANSWERING,
                trainset=examples[:EXAMPLES],
                valset=examples[EXAMPLES:],
                metric=names_the_source,
                name="synthesize_answer",
                max_examples=EXAMPLES,
                auto=None,
                num_candidates=3,
                num_trials=4,
                minibatch=False,
                max_bootstrapped_demos=1,
                max_labeled_demos=3,
                program_aware_proposer=False,
                data_aware_proposer=False,
                num_threads=2,
            ),
            dspex.native(ResponseFormatter, format="markdown"),
        ],
        name="research_assistant",
    )


ANSWERING = dspex.signature(
    "question, context: list[str] -> answer",
    "Answer with the name of the package in the context that fits the question.",
)


def names_the_source(example: Any, prediction: Any, trace: Any = None) -> float:
    """1 for exactly the name that is sought, half for an answer that begins with it and goes on."""
    answer, wanted = str(prediction["answer"]).strip().lower(), example["answer"].lower()
    if answer == wanted:
        return 1.0
    return 0.5 if answer.startswith(wanted) else 0.0


def examples_from(documents: Sequence[Document], index: BM25Index) -> list[dict[str, Any]]:
    """Questions with known answers, made from the collection: which of three found packages is it?"""
    described = [d for d in documents if 20 < len(summary_of(d)) < 80 and d.title.lower() not in summary_of(d).lower()]
    count = EXAMPLES + JUDGED_BY
    step = max(1, len(described) // count)
    return [
        {
            "question": f"Which package should I use for this: {summary_of(document)}?",
            "context": [context_line(p["title"], p["text"]) for p in index.search(summary_of(document), 3)],
            "answer": document.title,
        }
        for document in described[::step][:count]
    ]


def context_line(title: str, text: str) -> str:
    """A package in a few words: a small model loses its thread in more."""
    return f"{title}: {text.partition('. ')[0][:60]}"


def _as_source(passage: Mapping[str, Any]) -> dict[str, str]:
    title, _, text = passage["text"].partition(" | ")
    return {"title": title, "text": text, "url": f"pip show {title}"}


# --- showing it ---------------------------------------------------------------------------------------------------


class Display:
    """What the run looks like on a terminal, or in a log."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._began = time.monotonic()
        self._last = ""

    def say(self, text: str) -> None:
        self._clear()
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def progress(self, label: str, report: Mapping[str, Any]) -> None:
        """The optimiser's report as a bar."""
        trial, trials = report.get("trial") or 0, report.get("trials")
        stage, best = report.get("stage", ""), report.get("best")
        filled = round(20 * min(trial / trials, 1.0)) if trials else 0
        bar = "#" * filled + "." * (20 - filled)
        score = f", best so far {best:.0f} %" if best is not None else ""
        count = f"trial {trial} of {trials}" if trials else f"{report.get('examples', 0)} examples run"
        self._bar(f"    {label} |{bar}| {stage}: {count}{score}")

    def _bar(self, line: str) -> None:
        if line == self._last:
            return
        self._last = line
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="", flush=True)
        else:
            print(line, flush=True)

    def _clear(self) -> None:
        if self._is_terminal and self._last:
            print("\r\x1b[K", end="")
        self._last = ""


def show_steps(result: Any) -> None:
    print("\nWhat ran where:")
    for record in result.steps:
        _show_step(record, "  ")


def _show_step(record: Any, indent: str) -> None:
    facts = [record.route or "native"]
    if record.generation is not None:
        facts.append(f"generation {record.generation}")
    if record.attempts > 1:
        facts.append(f"{record.attempts} attempts: {record.reason}")
    print(f"{indent}{record.name:<20} {record.seconds:6.2f} s   {', '.join(facts)}")
    for child in record.children:
        _show_step(child, f"{indent}  ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--question", default=QUESTION, help="what to ask (default: %(default)s)")
    question = parser.parse_args().question
    display = Display()

    packages, modules = distributions(), standard_library()
    display.say(f"The collection: {len(packages)} installed distributions, {len(modules)} modules of the library.")
    index = BM25Index([document.as_dict() for document in packages])
    examples = examples_from(packages, index)

    model = os.environ.get("DSPEX_LM", "local/smollm2")
    dspex.configure(lm=dspex.LM(model, max_tokens=120, temperature=0.0))
    with serving(packages, modules) as base, dspex.Supervisor() as supervisor:
        supervisor.wait_ready()
        health = supervisor.stats()
        workers = ", ".join(f"{len(pool['workers'])} in {name!r}" for name, pool in health.items())
        cap = health["mipro"]["memory"]
        display.say(f"Workers are ready: {workers}; model {model}; two services on {base}.")
        display.say(
            f"The cap of 'mipro' is {cap['cap_bytes'] / 2**20:.0f} MiB, enforced by: {', '.join(cap['layers'])}."
        )
        assistant = pipeline_of(index, base, examples)
        display.say(f"Question: {question}")
        result = None
        for event in assistant.stream({"question": question}, supervisor=supervisor):
            if event.kind == "step_progressed":
                display.progress(event.step, event.facts)
            elif event.kind == "step_finished":
                display.say(f"{event.step}: {event.record.route or 'native'}")
            elif event.kind == "run_finished":
                result = event.result
        if result is None:
            return 1
        found = result.steps["synthesize_answer"].extra
        display.say(f"Score before the optimisation: {found['baseline_score']:.1f} %, after: {found['score']:.1f} %.")
    show_steps(result)
    for name in ("search_queries", "refined_queries", "answer"):
        print(f"\n{name}: {textwrap.shorten(str(result[name]), 160)}")
    print(f"\n{result['report']}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the workers have been stopped.")
