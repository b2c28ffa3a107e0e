"""Show an answer while the model writes it, and stop it early.

Run it: python examples/stream.py
"""

from __future__ import annotations

import os
import time

import dspex

EXPLAIN = dspex.predictor(
    "predict",
    dspex.signature("topic -> explanation", "Explain the topic to a child in a few sentences."),
    demos=[
        {
            "topic": "volcano",
            "explanation": "A volcano is a mountain that is open at the top. Deep below it, rock is so hot that it "
            "melts. When too much of it presses upwards, the volcano throws it out as lava, ash and smoke.",
        }
    ],
)


def main() -> None:
    dspex.configure(lm=dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=150, temperature=0.7))

    began, first = time.monotonic(), None
    for item in EXPLAIN.stream(topic="the moon"):
        if isinstance(item, dspex.Chunk):  # a piece of one output field: item.field, item.text
            first = first or time.monotonic() - began
            print(item.text, end="", flush=True)
        else:  # the last item is the prediction, as a call gives it
            words = len(item.explanation.split())
            print(f"\n({item.route}: {words} words in {time.monotonic() - began:.1f} s, the first after {first:.1f} s)")

    print("\nOnce more, and only its beginning:")
    print(beginning("rain", 40), "...")


def beginning(topic: str, length: int) -> str:
    """The first words; leaving the loop hangs up, and the model stops writing."""
    text = ""
    for item in EXPLAIN.stream(topic=topic):
        text += item.text if isinstance(item, dspex.Chunk) else ""
        if len(text) >= length:
            break
    return text


if __name__ == "__main__":
    main()
