"""Two HTTP services on loopback that the research assistant asks, over the same real collection.

`GET /colbert?query=&k=` speaks ColBERTv2's HTTP API. It scores by late interaction, as ColBERT does: for each word of
the query the most similar word of the document, summed; words are compared by their character trigrams instead of by a
neural encoder. `GET /search?q=&n=` is a web search: JSON with title, url and snippet.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from collection import Document

Vector = dict[str, float]
_STOP = frozenset(
    """a an and are as at be by can do does for from how i in is it of on or should that the this to use what which
    with""".split()
)


@contextmanager
def serving(papers: Sequence[Document], pages: Sequence[Document]) -> Iterator[str]:
    """Serve both on a free port of 127.0.0.1 and give the base URL."""
    handler = type("Handler", (_Handler,), {"papers": LateInteraction(papers), "pages": LateInteraction(pages)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class LateInteraction:
    """Documents scored by MaxSim over word vectors."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = list(documents)
        self._words = [_words(f"{document.title} {document.text}") for document in self._documents]
        self._vectors: dict[str, Vector] = {word: _vector(word) for words in self._words for word in words}
        self._rarity = self._inverse_frequencies()

    def search(self, query: str, k: int) -> list[tuple[float, Document]]:
        asked = [(word, _vector(word)) for word in _words(query)]
        scores = [
            (sum(self._rarity.get(word, self._most_rare) * self._best(vector, words) for word, vector in asked), index)
            for index, words in enumerate(self._words)
        ]
        scores.sort(key=lambda pair: (-pair[0], pair[1]))
        return [(score, self._documents[index]) for score, index in scores[:k] if score > 0]

    def _best(self, vector: Vector, words: list[str]) -> float:
        return max((_cosine(vector, self._vectors[word]) for word in words), default=0.0) ** 3

    def _inverse_frequencies(self) -> dict[str, float]:
        counts: dict[str, int] = {}
        for words in self._words:
            for word in words:
                counts[word] = counts.get(word, 0) + 1
        total = len(self._words)
        self._most_rare = math.log(1 + total)
        return {word: math.log(1 + total / count) for word, count in counts.items()}


class _Handler(BaseHTTPRequestHandler):
    papers: ClassVar[LateInteraction]
    pages: ClassVar[LateInteraction]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        given = {key: values[0] for key, values in parse_qs(target.query).items()}
        if target.path == "/colbert":
            self._answer(self._colbert(given.get("query", ""), int(given.get("k", "3"))))
        elif target.path == "/search":
            self._answer(self._search(given.get("q", ""), int(given.get("n", "3"))))
        else:
            self._answer({"error": True, "message": f"nothing at {target.path}"}, 404)

    def _colbert(self, query: str, k: int) -> dict[str, Any]:
        found = self.papers.search(query, k)
        total = sum(score for score, _ in found) or 1.0
        return {
            "query": query,
            "topk": [
                {"text": f"{d.title} | {d.text}", "pid": d.id, "rank": rank, "score": score, "prob": score / total}
                for rank, (score, d) in enumerate(found, start=1)
            ],
        }

    def _search(self, query: str, n: int) -> dict[str, Any]:
        found = self.pages.search(query, n)
        return {"results": [{"title": d.title, "url": d.url, "snippet": d.text, "score": score} for score, d in found]}

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The demo shows its own progress."""


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOP))[:80]


def _vector(word: str) -> Vector:
    padded = f"^{word}$"
    parts = [padded[i : i + 3] for i in range(max(1, len(padded) - 2))]
    weight = 1 / math.sqrt(len(parts))
    return dict.fromkeys(parts, weight)


def _cosine(a: Vector, b: Vector) -> float:
    return sum(weight * b.get(part, 0.0) for part, weight in a.items())
