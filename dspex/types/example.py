"""`Example`: a row of a data set as a metric of the host gets it, with the methods of DSPy's own."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any


class Example:
    """The fields of a row, as attributes and as items; immutable. A field of any name but the verbs' is an attribute.

    Metrics that were written for `dspy.Example` read it alike: `inputs()`, `labels()`, `toDict()`, `in`, `get`.
    """

    __slots__ = ("_input_keys", "_values")

    _values: Mapping[str, Any]
    _input_keys: frozenset[str] | None

    def __init__(self, values: Mapping[str, Any], input_keys: Iterable[str] | None = None) -> None:
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_input_keys", None if input_keys is None else frozenset(input_keys))

    def inputs(self) -> Example:
        """Return the fields that go into the program.

        Raises:
            ValueError: nothing says which these are (as in DSPy).
        """
        return Example({name: self._values[name] for name in self._values if name in self._keys()}, self._keys())

    def labels(self) -> Example:
        """Return the other fields.

        Raises:
            ValueError: as `inputs`.
        """
        return Example({name: self._values[name] for name in self._values if name not in self._keys()})

    def toDict(self) -> dict[str, Any]:
        """Return a new dict of the fields."""
        return dict(self._values)

    to_dict = toDict

    def keys(self) -> KeysView[str]:
        """Return the fields' names."""
        return self._values.keys()

    def values(self) -> ValuesView[Any]:
        """Return the fields' values."""
        return self._values.values()

    def items(self) -> ItemsView[str, Any]:
        """Return the pairs of both."""
        return self._values.items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field's value, or the default."""
        return self._values.get(name, default)

    def _keys(self) -> frozenset[str]:
        if self._input_keys is None:
            raise ValueError("Nothing says which fields of this example are its inputs.")
        return self._input_keys

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"The example has no {name!r}; it has {', '.join(self._values)}.") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Example) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values may be lists

    def __repr__(self) -> str:
        return f"Example({', '.join(self._values)})"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"An example is immutable; {name!r} cannot be set.")

    def __reduce__(self) -> tuple[Any, ...]:
        return Example, (dict(self._values), self._input_keys)
