"""What is known about a model: what it can do and what it costs. Read from the table that the installed DSPy carries.

Both routes thus decide alike (DSPy's JSON adapter asks this table whether to send a schema), and dspy itself is not
imported: its distribution's file is opened as data. The file is read once per process, 35 ms, at the first question;
without the distribution every answer is "unknown", which DSPy treats as "no". Any thread.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import json
import re
from dataclasses import dataclass
from typing import Any

from dspex.inprocess.lm.providers import Provider

_FILE = "dspy/clients/model_metadata/snapshot.json.gz"


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
    """What the table says about a provider's model (DSPy 3.4.1, clients/model_metadata: same look-up order)."""
    if not provider.namespaces or (provider.placeholder_key is not None and provider.prefix == "local"):
        return ModelFacts()
    table = _table()
    bare = table.get(name)
    own = bare if isinstance(bare, dict) and bare.get("litellm_provider") in provider.namespaces else {}
    found = next((table[f"{space}/{name}"] for space in provider.namespaces if f"{space}/{name}" in table), own)
    entry = _with_rules(table, name, found, {**own, **{k: v for k, v in found.items() if v is not None}})
    return ModelFacts(
        response_schema=entry.get("supports_response_schema") is True,
        function_calling=entry.get("supports_function_calling") is True,
        reasoning=entry.get("supports_reasoning") is True,
        price=_price(found),
        cached_price=_rate(found, "cache_read_input_token_cost"),
    )


def _with_rules(table: dict[str, Any], name: str, found: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
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


@functools.lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    try:
        path = importlib.metadata.distribution("dspy").locate_file(_FILE)
        with gzip.open(str(path)) as file:
            table = json.load(file)
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    kept = ("litellm_provider", "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
    for key, entry in table.items():  # 3 MB of text is 20 MB of objects: keep what is asked for
        if key not in ("sample_spec", "fallback_generalizations"):
            table[key] = {k: v for k, v in entry.items() if k in kept or k.startswith("supports_re") or k == _TOOLS}
    return table if isinstance(table, dict) else {}


_TOOLS = "supports_function_calling"
