"""What a client says of itself in its hello, and what it may spend. Pure, but for the accounts.

`[clients]` in the settings bounds what each client may use of language models while the service lives, and
`[clients.<name>]` one of them; a client may bound itself further, never wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput, SettingsError

NAME_MOST = 100  # characters
_BUDGETS = ("budget_usd", "budget_tokens")


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """A client, as it calls itself."""

    name: str = ""
    budget_usd: float | None = None
    budget_tokens: float | None = None

    @classmethod
    def of(cls, hello: Mapping[str, Any]) -> ClientFacts:
        """Return the facts of a hello.

        Raises:
            InvalidInput: a name or a budget that cannot be.
        """
        name = hello.get("name") or ""
        if not isinstance(name, str) or len(name) > NAME_MOST or "/" in name or not (name.isprintable() or not name):
            raise InvalidInput(
                f"A client's name is text of at most {NAME_MOST} characters on one line, without a slash.", field="name"
            )
        return cls(name, *(_bound(hello, key) for key in _BUDGETS))

    def within(self, tables: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """Return its budgets, in USD and in tokens: the least of what the settings and it say.

        Raises:
            SettingsError: the [clients] table holds something else.
        """
        whole = tables.get("clients") or {}
        own = {} if not self.name or self.name in _BUDGETS else _table(whole).get(self.name)
        limits = {**_table(whole), **_table(own or {})}
        return tuple(_least(_number(limits, key), getattr(self, key)) for key in _BUDGETS)  # type: ignore[return-value]


def _table(given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise SettingsError(
            "The [clients] table takes budget_usd, budget_tokens, and tables of single clients by their names.",
            key="clients",
        )
    return given


def _number(table: Mapping[str, Any], key: str) -> float | None:
    value = table.get(key)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
        return value
    raise SettingsError(f"clients.{key} is {value!r}: it is a number of 0 or more.", key=f"clients.{key}")


def _bound(hello: Mapping[str, Any], key: str) -> float | None:
    value = hello.get(key)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
        return value
    raise InvalidInput(f"{key} is a number of 0 or more.", field=key)


def _least(one: float | None, other: float | None) -> float | None:
    given = [each for each in (one, other) if each is not None]
    return min(given) if given else None
