"""Let a model use functions of this process: as an agent in a worker, and by hand.

Run it: python examples/tools.py
"""

from __future__ import annotations

import os

import dspex

WEATHER = {"Oslo": "snow, -4 degrees", "Rome": "sunny, 24 degrees", "Cairo": "dry, 35 degrees"}
CITIES = [
    {"question": "Is it warm in Cairo?", "city": "Cairo"},
    {"question": "Do I need boots in Oslo?", "city": "Oslo"},
]
ANSWERS = [{"question": "Is it warm in Cairo?", "weather": "dry, 35 degrees", "answer": "Yes, it has 35 degrees."}]


def weather(city: str) -> str:
    """The weather in a city now."""
    print(f"  weather({city!r}) is called")
    return WEATHER.get(city, f"unknown; known are {', '.join(WEATHER)}")


def with_an_agent(question: str) -> None:
    """dspy.ReAct runs in a worker; its tools run here, with the caller's context."""
    agent = dspex.react("question -> answer", tools=[weather], max_iters=4)
    try:
        out = agent(question=question)
    except dspex.AdapterParseError as error:
        print(f"  This model cannot follow an agent's format: {error}")
    else:
        print(f"  {out.answer} ({out.route})")


def by_hand(question: str) -> None:
    """A small model can fill in an argument, and put the outcome into words; the plan is yours."""
    city = dspex.predict("question -> city", {"question": question}, demos=CITIES).city
    out = dspex.predict("question, weather -> answer", {"question": question, "weather": weather(city)}, demos=ANSWERS)
    print(f"  {out.answer} ({out.route})")


def main() -> None:
    dspex.configure(lm=dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=200, temperature=0.0))
    question = "What is the weather in Rome?"
    print("With an agent:")
    with_an_agent(question)
    print("By hand:")
    by_hand(question)


if __name__ == "__main__":
    main()
