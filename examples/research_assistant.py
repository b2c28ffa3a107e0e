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
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from collection import Document, distributions, standard_library, summary_of
from deciding import gather, passage_of, plan, vote
from display import Display, show_steps, where
from loopback_services import serving

import dspex

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


class VectorSearch:
    """Native retrieval: BM25 over the installed distributions."""

    def __init__(self, index: dspex.BM25Index) -> None:
        self._index = index

    def run(self, state: Mapping[str, Any], k: int = 3) -> list[list[dict[str, str]]]:
        return [
            [
                {"title": p["title"], "text": p["text"], "url": p["metadata"]["url"]}
                for p in self._index.search(query, k)
            ]
            for query in state["queries"]
        ]


class WebSearch:
    """Native step: asks a search service over HTTP."""

    def __init__(self, base: str) -> None:
        self._base = base

    def run(self, state: Mapping[str, Any], n: int = 2) -> list[list[dict[str, str]]]:
        return [self._ask(query, n) for query in state["queries"]]

    def _ask(self, query: str, n: int) -> list[dict[str, str]]:
        address = f"{self._base}/search?{urllib.parse.urlencode({'q': query, 'n': n})}"
        with urllib.request.urlopen(address, timeout=10) as reply:
            results = json.load(reply)["results"]
        return [{"title": r["title"], "text": r["snippet"], "url": r["url"]} for r in results]


class ResponseFormatter:
    """Native step: the answer as Markdown, with its sources."""

    @staticmethod
    def run(state: Mapping[str, Any], format: str = "markdown") -> dict[str, str]:
        sources = [f"{i}. **{s['title']}** (`{s['url']}`)" for i, s in enumerate(state["sources"], start=1)]
        lines = [f"## {state['question']}", "", str(state["answer"]), "", "### Sources", "", *sources]
        return {"report": "\n".join(lines) if format == "markdown" else str(state["answer"])}


def pipeline_of(index: dspex.BM25Index, base: str, examples: Sequence[Mapping[str, Any]], seed: int) -> dspex.Pipeline:
    """Queries, three searches side by side, an answer from each of the best passages, and their vote."""
    return dspex.pipeline(
        [
            dspex.native(dspex.signature("question -> search_queries: list[str]"), demos=QUERY_DEMOS, name="queries"),
            dspex.python(
                "dspy.ChainOfThought",
                signature="question, search_queries: list[str] -> refined_queries: list[str]",
                demos=REFINE_DEMOS,
                name="refine",
            ),
            dspex.native(plan),
            dspex.parallel(
                [
                    dspex.native(VectorSearch(index), k=3, into="documents", name="bm25"),
                    dspex.python(
                        "dspy.ColBERTv2", url=f"{base}/colbert", query="topic", k=3, into="papers", name="colbert"
                    ),
                    dspex.native(WebSearch(base), n=2, into="pages", name="web"),
                ],
                into="evidence",
                name="search",
            ),
            dspex.native(gather),
            dspex.map_each("passages", answering(examples, seed), item="passage", into="answers", name="answers"),
            dspex.native(vote),
            dspex.native(ResponseFormatter, format="markdown"),
        ],
        name="research_assistant",
    )


def answering(examples: Sequence[Mapping[str, Any]], seed: int) -> dspex.Step:
    """The step that MIPROv2 optimizes, once, on questions about the collection itself."""
    return dspex.python(
        "dspy.MIPROv2",
        signature=dspex.signature(
            "question, passage -> answer", "Answer with the name of the package that the passage describes."
        ),
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
        seed=seed,
    )


def names_the_source(example: Any, prediction: Any, trace: Any = None) -> float:
    """1 for exactly the name that is sought, half for an answer that begins with it and goes on."""
    answer, wanted = str(prediction["answer"]).strip().lower(), example["answer"].lower()
    if answer == wanted:
        return 1.0
    return 0.5 if answer.startswith(wanted) else 0.0


def examples_from(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Questions with known answers, made from the collection."""
    described = [d for d in documents if 20 < len(summary_of(d)) < 80 and d.title.lower() not in summary_of(d).lower()]
    count = EXAMPLES + JUDGED_BY
    step = max(1, len(described) // count)
    return [
        {
            "question": f"Which package should I use for this: {summary_of(document)}?",
            "passage": passage_of(document.title, document.text),
            "answer": document.title,
        }
        for document in described[::step][:count]
    ]


def model_of(name: str, seed: int) -> dspex.LM:
    """The model, as repeatable as it can be: temperature 0, and for the embedded one a seed too."""
    options = {"seed": seed} if name.startswith("local/") else {}
    return dspex.LM(name, max_tokens=120, temperature=0.0, **options)


def run(assistant: dspex.Pipeline, question: str, supervisor: dspex.Supervisor, display: Display) -> dspex.Result:
    """Run it, and show each step as it ends."""
    for event in assistant.stream({"question": question}, supervisor=supervisor):
        if event.kind == "step_progressed":
            display.progress(event.step.partition("[")[0], event.facts)
        elif event.kind == "step_finished" and event.record is not None:
            display.say(f"{event.step}: {where(event.record)}")
        elif event.kind == "run_finished" and event.result is not None:
            return event.result
    raise AssertionError("a stream that did not raise ends with its result")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--question", default=QUESTION, help="what to ask (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=9, help="of the optimizer and the model (default: %(default)s)")
    given = parser.parse_args()
    display = Display()

    packages, modules = distributions(), standard_library()
    display.say(f"The collection: {len(packages)} installed distributions, {len(modules)} modules of the library.")
    index = dspex.BM25Index([document.as_dict() for document in packages])
    model = os.environ.get("DSPEX_LM", "local/smollm2")
    dspex.configure(lm=model_of(model, given.seed))
    with serving(packages, modules) as base, dspex.Supervisor() as supervisor:
        supervisor.wait_ready()
        health = supervisor.stats()
        workers = ", ".join(f"{len(pool['workers'])} in {name!r}" for name, pool in health.items())
        cap = health["mipro"]["memory"]
        display.say(f"Workers are ready: {workers}; model {model}; two services on {base}.")
        display.say(
            f"The cap of 'mipro' is {cap['cap_bytes'] / 2**20:.0f} MiB, enforced by: {', '.join(cap['layers'])}."
        )
        display.say(f"Question: {given.question}")
        found = {passage["title"] for passage in index.search(given.question, 10)}  # not to be learned from
        examples = examples_from([document for document in packages if document.title not in found])
        assistant = pipeline_of(index, base, examples, given.seed)
        result = run(assistant, given.question, supervisor, display)
    show_steps(result)
    made = result.steps["answers"].children[0].optimized
    print(
        f"\nScore of the answering step: {made.baseline_score:.1f} % before its optimization, {made.score:.1f} % after."
    )
    for name in ("search_queries", "refined_queries", "queries", "passages", "answers", "votes", "answer"):
        print(f"\n{name}: {textwrap.shorten(str(result[name]), 160)}")
    print(f"\n{result['report']}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the workers have been stopped.")
