"""How old was its designer when it opened? Two look-ups, a tool and an answer: a DSPy program that knows only DSPy."""

import dspy
from dspy.utils.exceptions import AdapterParseError

NOTES = [
    "Eiffel Tower: a tower in Paris. Gustave Eiffel designed it. It opened in 1889.",
    "Gustave Eiffel: a French engineer, born in Dijon in 1832.",
    "Golden Gate Bridge: a bridge near San Francisco. Joseph Strauss designed it. It opened in 1937.",
    "Joseph Strauss: an American engineer, born in Cincinnati in 1870.",
    "Harbour Bridge: a bridge in Sydney. John Bradfield designed it. It opened in 1932.",
    "John Bradfield: an Australian engineer, born in Sandgate in 1867.",
    "Opera House: a theatre in Sydney. Jorn Utzon designed it. It opened in 1973.",
    "Jorn Utzon: a Danish architect, born in Copenhagen in 1918.",
    "Empire State Building: a skyscraper in New York. William Lamb designed it. It opened in 1931.",
    "William Lamb: an American architect, born in Brooklyn in 1883.",
    "Guggenheim Museum: a museum in Bilbao. Frank Gehry designed it. It opened in 1997.",
    "Frank Gehry: an architect, born in Toronto in 1929.",
    "Menai Bridge: a bridge in Wales. Thomas Telford designed it. It opened in 1826.",
    "Thomas Telford: a Scottish engineer, born in Glendinning in 1757.",
    "Forth Bridge: a railway bridge in Scotland. Benjamin Baker designed it. It opened in 1890.",
    "Benjamin Baker: an English engineer, born in Keyford in 1840.",
]


def search(query: str) -> str:
    """Find the note that has the most words in common with the query."""
    words = set(query.lower().replace("?", "").split())
    return max(NOTES, key=lambda note: len(words & set(note.lower().replace(":", "").split())))


def years_between(first: int, last: int) -> int:
    """Count the years from the first year to the last."""
    return last - first


class WriteQuery(dspy.Signature):
    """Write a search query for what the notes do not yet say."""

    question: str = dspy.InputField()
    notes: list[str] = dspy.InputField()
    query: str = dspy.OutputField()


class Ages(dspy.Module):
    """Search twice, count with a tool, and answer."""

    def __init__(self, hops: int = 2):
        super().__init__()
        self.hops = hops
        self.write_query = dspy.Predict(WriteQuery)
        self.count = dspy.ReAct("question, notes: list[str] -> years: int", tools=[years_between], max_iters=3)
        self.answer = dspy.ChainOfThought("question, notes: list[str], years: int | None -> answer")

    def forward(self, question: str):
        notes: list[str] = []
        for _ in range(self.hops):
            notes.append(search(self.write_query(question=question, notes=notes).query))
        try:
            years = self.count(question=question, notes=notes).years
        except AdapterParseError:  # some models are too small for an agent
            years = None
        answer = self.answer(question=question, notes=notes, years=years).answer
        return dspy.Prediction(answer=answer, notes=notes)
