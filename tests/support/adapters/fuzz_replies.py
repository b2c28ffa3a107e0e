"""Random hostile replies, grown: `python -m tests.support.adapters.fuzz_replies --seconds 60 [--seed N]`.

Reads each by the chat, json, xml and baml adapters, whole and streamed in random cuts, and reports the worst CPU time
and memory for a KB. Exits with 1 when a reply goes past the bounds below, with the seed and number that make it again.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dspex.adapters import CompiledSignature, compile_signature
from dspex.adapters.streaming import ChatFields, JsonFields
from dspex.errors import AdapterParseError, SignatureError
from dspex.signatures.signature import Signature
from dspex_worker.types.xml_fields import XMLFields
from tests.support.adapters.hostile_replies import ATOMS, PREFIXES, XML_ATOMS, colliding, grown, nested, signatures

# Several times what was measured, since machines differ: 0.6 s, and 250 bytes for each character.
SECONDS_MOST = 4.0
SECONDS_PER_KB = 0.2  # 32 steps for each character, of 1 us and more
SECONDS_LEAST = 0.1
BYTES_PER_CHAR = 1000
BYTES_LEAST = 16 * 1024 * 1024
_STREAMS: dict[str, Any] = {"chat": ChatFields, "json": JsonFields, "xml": XMLFields}
SIZES = (1, 50, 1000, 4000, 20_000, 100_000, 500_000, 1_000_000, 2_000_000)
HANG_S = 120


@dataclass
class Worst:
    """The worst of one measure so far."""

    unit: str
    per_kb: float = 0.0
    whole: float = 0.0
    what: str = ""
    failures: list[str] = field(default_factory=list)

    def add(self, spent: float, chars: int, most: float, what: str) -> None:
        if chars >= 1024:
            self.per_kb = max(self.per_kb, spent / (chars / 1024))
        if spent > self.whole:
            self.whole, self.what = spent, what
        if spent > most:
            self.failures.append(f"{spent:,.3f} {self.unit} is over {most:,.3f}: {what}")

    def __str__(self) -> str:
        return f"worst {self.whole:,.3f} {self.unit} ({self.what}), {self.per_kb:,.6f} for a KB"


class Fuzz:
    """Reads random replies and keeps the worst."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.time, self.memory = Worst("s"), Worst("bytes")
        self.count = 0
        self._readers = [
            compile_signature(sig, adapter)
            for sig in signatures()
            for adapter in ("chat", "json", "xml", "baml")
            if _shows(sig, adapter)
        ]

    def one(self) -> None:
        """Make one reply and read it."""
        self.count += 1
        source = random.Random(f"{self.seed}/{self.count}")
        text, what = self._reply(source)
        compiled = source.choice(self._readers)
        read = source.choice((_parsed, _parsed, _streamed))
        what = (
            f"seed {self.seed} number {self.count}: {what} by {read.__name__} {compiled.adapter} {compiled.signature}"
        )
        self._measured(read, compiled, text, source, what)

    def _reply(self, source: random.Random) -> tuple[str, str]:
        size = source.choice(SIZES)
        if source.random() < 0.1:
            deep, many = source.randint(1, 400), source.randint(1, 20_000)
            text = source.choice((nested(deep), "[" * deep + "]" * deep, colliding(many)))
            return f"[[ ## a ## ]]\n{text}" if source.random() < 0.5 else f'{{"a": {text}}}', f"deep {deep} {many}"
        every = ATOMS | XML_ATOMS
        names = source.choices(list(every), k=source.choice((1, 1, 1, 2, 3)))
        atom = "".join(every[name] for name in names)
        prefix = source.choice(PREFIXES)
        text = grown(atom, size, prefix)
        if source.random() < 0.3:
            text += source.choice(("]", "}", '"}', "\n[[ ## completed ## ]]", "\n```", "</a>"))
        return text, f"{names} after {prefix!r}, {len(text):,} characters"

    def _measured(
        self,
        read: Callable[[CompiledSignature, str, random.Random], None],
        compiled: CompiledSignature,
        text: str,
        source: random.Random,
        what: str,
    ) -> None:
        weighs = self.count % 8 == 0  # which takes several times as long: never in one run with the clock
        if weighs:
            tracemalloc.start()
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        begun = time.thread_time()
        try:
            read(compiled, text, source)
        except AdapterParseError:
            pass
        finally:
            spent = time.thread_time() - begun
            faulthandler.cancel_dump_traceback_later()
            peak = tracemalloc.get_traced_memory()[1] if weighs else 0
            tracemalloc.stop()
        if weighs:
            self.memory.add(peak, len(text), BYTES_LEAST + BYTES_PER_CHAR * len(text), what)
        else:
            most = min(SECONDS_LEAST + SECONDS_PER_KB * len(text) / 1024, SECONDS_MOST)
            self.time.add(spent, len(text), most, what)


def _shows(sig: Signature, adapter: str) -> bool:
    try:
        return not compile_signature(sig, adapter).unsupported
    except SignatureError:  # a model that BAML cannot show
        return False


def _parsed(compiled: CompiledSignature, text: str, source: random.Random) -> None:
    compiled.parse(text)


def _streamed(compiled: CompiledSignature, text: str, source: random.Random) -> None:
    fields = _STREAMS.get(compiled.adapter, JsonFields)(compiled.signature.output_fields)
    cut = source.choice((1, 7, 1000, len(text) or 1))
    text = text[: 200_000 * cut]
    for at in range(0, len(text), cut):
        for _ in fields.feed(text[at : at + cut]):
            pass
    for _ in fields.finish():
        pass


def main() -> int:
    """Fuzz for a while; the exit status."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = options.parse_args()
    fuzz = Fuzz(given.seed)
    ends = time.monotonic() + given.seconds
    while time.monotonic() < ends:
        fuzz.one()
    failures = fuzz.time.failures + fuzz.memory.failures
    print(f"{fuzz.count:,} replies of seed {given.seed}", fuzz.time, fuzz.memory, *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
