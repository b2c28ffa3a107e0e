"""Answer from documents: search here, ask in a worker, check here; and see where each step ran.

Run it: python examples/pipeline.py
"""

from __future__ import annotations

import os

import dspex

DOCUMENTS = [
    {"title": "Owls", "text": "Owls hunt at night. They turn their heads by up to 270 degrees."},
    {"title": "Bees", "text": "A honey bee visits up to 100 flowers on one trip."},
    {"title": "Whales", "text": "The blue whale is the largest animal; its heart weighs about 180 kg."},
]
INDEX = dspex.BM25Index(DOCUMENTS)
FACT = "An elephant weighs up to 6 tons."
DEMO = {
    "question": "How heavy is an elephant?",
    "context": [FACT],
    "reasoning": f"It says: {FACT}",
    "answer": "Up to 6 tons",
}


def search(question: str) -> dict[str, list[str]]:
    """Native: the best passages. A function reads the state by its parameters' names and writes what it returns."""
    return {"context": [passage["text"] for passage in INDEX.search(question, k=1)]}


def cite(answer: str, context: list[str]) -> dict[str, str]:
    """Native: the answer with what it rests on."""
    return {"report": f"{answer}\n  source: {'; '.join(context)}"}


both = dspex.parallel(
    [
        dspex.python("dspy.ChainOfThought", signature="question, context: list[str] -> answer", demos=[DEMO]),
        dspex.native("question -> topic: Literal['birds', 'insects', 'mammals']", name="topic"),
    ]
)
assistant = dspex.pipeline([search, both, cite])


def main() -> None:
    dspex.configure(lm=dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=200, temperature=0.0))
    result = assistant.run({"question": "How far can owls turn their heads?"})
    print(result["report"])
    print(f"  topic: {result['topic']}\n")
    for record in result.steps.flat():
        print(f"{record.name:<22} {record.seconds:6.2f} s   {record.route}")


if __name__ == "__main__":
    main()
