"""`NamedLMs`: the default LM and the LMs with names, of settings, of a supervisor or of this process; and `lm_from`.

A name has no slash; a model's name has one (`openai/gpt-4o-mini`). Pure but for the environment, which is read for keys
when a record is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import LMConfigurationError, LMUnsupportedFeatureError, SettingsError, UnknownName
from ..unshown_values import without_frames
from .dspy_lms import is_dspy_lm, lm_of_dspy
from .record import LM

NAME_MOST = 200  # characters


class HasLM(Protocol):
    """An object with a language model, such as a FakeLM."""

    @property
    def lm(self) -> LM: ...


LMLike = LM | str | Mapping[str, Any] | HasLM  # a record, a model's or a configured name, settings


@dataclass(frozen=True, slots=True)
class NamedLMs:
    """An LM that is the default, or None, and others by their names."""

    default: LM | None = None
    by_name: Mapping[str, LM] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of_tables(cls, tables: Mapping[str, Any]) -> NamedLMs:
        """Return the LMs of the `[lm]` table and the `[lms.<name>]` tables.

        Raises:
            SettingsError: a table that makes no LM; `key` says which setting.
        """
        default = tables.get("lm")
        try:
            return cls(None if default is None else lm_of_table(default), named(tables.get("lms")))
        except SettingsError as error:  # a key may stand where a table should be
            refusal = without_frames(error)
        del default
        raise refusal

    def over(self, other: NamedLMs) -> NamedLMs:
        """Return these, and of the other what is not among them."""
        return NamedLMs(self.default or other.default, MappingProxyType({**other.by_name, **self.by_name}))

    def of_model(self, model: str) -> LM | None:
        """Return the first of them that is of this model (`provider/name`)."""
        known = (*(() if self.default is None else (self.default,)), *self.by_name.values())
        return next((lm for lm in known if lm.model == model), None)


NO_LMS = NamedLMs()


def is_name(given: Any) -> bool:
    """Whether this text is an LM's name, and not a model's."""
    return isinstance(given, str) and "/" not in given


def named(given: Any) -> Mapping[str, LM]:
    """Return LMs by name, as settings or code give them: {"cheap": "openai/gpt-4o-mini", ...}.

    Raises:
        SettingsError: it is no mapping from names to LMs; `key` says which.
    """
    if given is None:
        return MappingProxyType({})
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"lms is a {type(given).__name__}; it is a mapping from names to language models.", key="lms"
        )
    return MappingProxyType({_checked_name(name): _member(name, lm) for name, lm in given.items()})


def lm_from(given: Any, key: str = "lm") -> LM:
    """Return the LM for an LM, a `dspy.LM`, a model's name, a table of its settings, or what holds an LM.

    Raises:
        SettingsError: it is none of these.
    """
    if isinstance(given, LM):
        return given
    if is_dspy_lm(given):
        return lm_of_dspy(given, key)
    if isinstance(given, str):
        return LM(given)
    if isinstance(given, dict):
        return lm_of_table(given, key)
    inner = getattr(given, "lm", None)  # a FakeLM
    if isinstance(inner, LM):
        return inner
    raise SettingsError(f"An LM is a dspex.LM or a model's name, not {type(given).__name__}.", key=key)


def lm_of_table(table: Any, key: str = "lm") -> LM:
    """Return the LM of a settings table.

    Raises:
        SettingsError: it has no model, or a setting that cannot be; `key` says which.
    """
    if isinstance(table, LM):
        return table
    if not isinstance(table, dict) or "model" not in table:
        raise SettingsError(
            f"The [{key}] table needs a model, such as model = 'openai/gpt-4o-mini'.", key=f"{key}.model"
        )
    try:
        return LM(table["model"], **{name: value for name, value in table.items() if name != "model"})
    except UnknownName as error:
        where = "model" if error.kind == "LM provider" else error.name
        raise SettingsError(f"[{key}]: {error}", key=f"{key}.{where}") from None
    except SettingsError as error:
        raise SettingsError(f"[{key}]: {error}", key=f"{key}.{error.key}" if error.key else key) from None
    except (LMConfigurationError, LMUnsupportedFeatureError) as error:
        raise SettingsError(f"[{key}]: {error}", key=key) from None


def unknown_lm(name: str, known: Iterable[str]) -> UnknownName:
    """Return the error for a name that no LM has."""
    names = tuple(known)
    error = UnknownName("language model", name, names, where="the configured LMs")
    advice = f" A model is named with its provider, such as 'openai/{name}'."
    if not names:
        advice += " Names are given by dspex.configure(lms={...}), Supervisor(lms={...}) or [lms.<name>] tables."
    error.args = (f"{error.args[0]}{advice}",)
    return error


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MOST or "/" in name or not name.isprintable():
        raise SettingsError(
            f"An LM cannot be named {name!r}: a name is text of 1 to {NAME_MOST} characters without a slash, which "
            f"only models' names have.",
            key="lms",
        )
    return name


def _member(name: str, given: Any) -> LM:
    key = f"lms.{name}"
    if is_name(given):
        raise SettingsError(
            f"{key} is a text without a slash: it is a dspex.LM, or a model's name such as 'openai/gpt-4o-mini'.",
            key=key,
        )
    return lm_from(given, key)
