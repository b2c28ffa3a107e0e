"""Ask a language model for typed answers: in this process, and in a worker that runs DSPy.

Run it: python examples/quickstart.py

Without more it runs on a small model on this machine. DSPEX_LM=openai/gpt-4o-mini, with a key in OPENAI_API_KEY, or any
other provider's model, runs it on that one.
"""

from __future__ import annotations

import os

import dspex

# Small models imitate better than they obey. A large one needs no examples.
CAPITALS = [{"question": "What is the capital of Italy?", "answer": "Rome"}]
BIRTHS = [{"sentence": "Marie Curie was born in Warsaw in 1867.", "person": "Marie Curie", "born": 1867}]
REASONS = [
    {
        "question": "What is the capital of Italy?",
        "reasoning": "Italy is a country in Europe. Its largest city is Rome, where its government is.",
        "answer": "Rome",
    }
]


def main() -> None:
    dspex.configure(lm=dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=200, temperature=0.0))

    # Text in, text out. This process makes the prompt and sends it; DSPy is not even imported.
    out = dspex.predict("question -> answer", {"question": "What is the capital of France?"}, demos=CAPITALS)
    print(f"answer: {out.answer} ({out.route})")

    # Outputs have types, and come back as Python values.
    read = dspex.predictor("predict", "sentence -> person, born: int", demos=BIRTHS)
    out = read(sentence="It was in 1912 that Alan Turing was born, in London.")
    print(f"person: {out.person}, 30 years old in {out.born + 30} ({out.route})")

    # dspy.ChainOfThought, in a worker; the first call starts it.
    think = dspex.chain_of_thought("question -> answer", demos=REASONS, implementation="python")
    out = think(question="What is the capital of Japan?")
    print(f"reasoning: {out.reasoning}\nanswer: {out.answer} ({out.route})")

    used = dspex.usage()
    print(f"used: {used['requests']} requests, {used['prompt_tokens']} tokens in, {used['completion_tokens']} out")


if __name__ == "__main__":
    main()
