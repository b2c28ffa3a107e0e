"""Look up what a model can do and what it costs, in the table that the installed DSPy carries.

Both routes thus decide alike (DSPy's JSON adapter asks this table whether to send a schema), and dspy itself is not
imported: its file is opened as data, once for each model that is asked about (15 ms), and nothing of it is kept but
the answers. Where DSPy is not installed every answer is "unknown", which DSPy treats as "no". Any thread.
"""

from __future__ import annotations

import functools
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

from .installed_dspy import dspy_folder
from .providers import Provider

_FILE = "clients/model_metadata/snapshot.json.gz"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`price` is USD per token (input, output), None when unknown; `cached_price` for input read from a cache."""

    response_schema: bool = False
    function_calling: bool = False
    reasoning: bool = False
    price: tuple[float, float] | None = None
    cached_price: float | None = None


@functools.lru_cache(maxsize=1024)
def model_facts(provider: Provider, name: str) -> ModelFacts:
    """Return the table's facts about a provider's model (DSPy 3.4.1, clients/model_metadata: same look-up order)."""
    if not provider.namespaces or (provider.placeholder_key is not None and provider.prefix == "local"):
        return ModelFacts()
    table = _table()
    own = _object(table.get(name))
    if own.get("litellm_provider") not in provider.namespaces:
        own = {}
    spaced = (table.get(f"{space}/{name}") for space in provider.namespaces)
    found = next((_object(entry) for entry in spaced if entry is not None), own)
    entry = _with_rules(table, name, found, {**own, **{k: v for k, v in found.items() if v is not None}})
    return ModelFacts(
        response_schema=entry.get("supports_response_schema") is True,
        function_calling=entry.get("supports_function_calling") is True,
        reasoning=entry.get("supports_reasoning") is True,
        price=_price(found),
        cached_price=_rate(found, "cache_read_input_token_cost"),
    )


def _with_rules(table: _Entries, name: str, found: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Family rules fill the capabilities (never the prices) that the entry does not state."""
    for rule in (table.get("fallback_generalizations") or {}).get("rules") or ():
        only = rule.get("fill_missing_for_providers")
        if found and only is not None and found.get("litellm_provider") not in only:
            continue
        if re.search(rule["pattern"], name):
            for key, value in (rule.get("model_info") or {}).items():
                if key.startswith("supports_") and entry.get(key) is None:
                    entry[key] = value
    return entry


def _price(entry: dict[str, Any]) -> tuple[float, float] | None:
    per_input, per_output = _rate(entry, "input_cost_per_token"), _rate(entry, "output_cost_per_token")
    return None if per_input is None or per_output is None else (per_input, per_output)


def _rate(entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


class _Table:
    """The table's text; entries are taken out of it one by one.

    All of it would be 40 ms of parsing and 20 MB of objects, for the one or two models that a process asks about.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def get(self, key: str) -> Any:
        """Return the entry of that name at the top level; None where there is none."""
        mark = f"\n{_INDENT}{json.dumps(key)}: "
        at = self._text.find(mark)
        return None if at < 0 else _DECODER.raw_decode(self._text, at + len(mark))[0]


def _table() -> _Entries:
    folder = dspy_folder()
    try:
        text = zlib.decompress((folder / _FILE).read_bytes(), wbits=_GZIP).decode() if folder else "{}"
        return _Table(text) if text.startswith(f'{{\n{_INDENT}"') else _object(json.loads(text))
    except (OSError, ValueError, zlib.error):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


_Entries = _Table | dict[str, Any]
_INDENT = "    "  # what one level is in the file; written in another way, it is read as a whole
_GZIP = 31
_DECODER = json.JSONDecoder()
