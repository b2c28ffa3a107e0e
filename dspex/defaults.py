"""Keep the process-wide defaults: one LM, one LM client, one supervisor, made at first need.

This is the only state that DSPex keeps for a whole process. A forked child starts a supervisor of its own at its first
need. Any thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .errors import InvalidInput, NotConfigured, SettingsError, UnknownName
from .lm.observing import Observing

if TYPE_CHECKING:
    from .config import Config
    from .lm.call_history import HistoryEntry
    from .lm.lm_client import LMClient
    from .lm.record import LM
    from .pools.supervisor import Supervisor
    from .usage_stats import UsageStats


class HasLM(Protocol):
    """An object with a language model, such as a FakeLM."""

    @property
    def lm(self) -> LM: ...


if TYPE_CHECKING:
    LMLike = LM | str | Mapping[str, Any] | HasLM  # a record, a model's name, a table of settings

LM_VARIABLE = "DSPEX_LM"
CONFIG_VARIABLE = "DSPEX_CONFIG"


class Defaults:
    """The defaults of calls that name no LM and no supervisor."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lm: LM | None = None
        self._found_lm: LM | None = None  # of the surroundings: a variable or the settings in force
        self._source: str | os.PathLike[str] | Config | None = None
        self._supervisor: Supervisor | None = None
        self._is_given = False  # the supervisor is the user's own
        self._client: LMClient | None = None
        self.observing = Observing()

    def configure(
        self,
        *,
        lm: LMLike | None = None,
        config: str | os.PathLike[str] | Config | None = None,
        supervisor: Supervisor | None = None,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        history: bool | int | None = None,
        callbacks: Iterable[Any] | None = None,
    ) -> None:
        """See `dspex.configure`."""
        with self._lock:
            self.observing.configure(history=history, callbacks=callbacks)
            if budget_usd is not None or budget_tokens is not None:
                self.client().usage.total.set_budget(usd=budget_usd, tokens=budget_tokens)
            if lm is not None:
                self._lm = as_lm(lm)
            if config is not None or supervisor is not None:
                self._require_idle()
                self._source = config
                self._found_lm = None
                self._supervisor = supervisor
                self._is_given = supervisor is not None

    def lm(self) -> LM:
        """Return the default LM.

        Raises:
            NotConfigured: there is none.
        """
        with self._lock:
            if self._lm is not None:
                return self._lm
            if self._found_lm is None:
                self._found_lm = self._lm_from_surroundings()
            return self._found_lm

    def client(self) -> LMClient:
        """Return the process's LM client; it survives a fork of the host by itself."""
        if self._client is None:
            from .lm.lm_client import LMClient
            from .lm.usage import set_process_budget

            with self._lock:
                if self._client is None:
                    made = LMClient()
                    if self._source or os.environ.get(CONFIG_VARIABLE):
                        set_process_budget(made.usage, self._settings().tables)
                    self._client = made
        return self._client

    def supervisor(self) -> Supervisor:
        """Return the default supervisor, started.

        Raises:
            ForkedSupervisor: it is one that the user gave and that was started before this process was forked.
        """
        with self._lock:
            if self._supervisor is None or (self._supervisor.is_forked and not self._is_given):
                from .pools.supervisor import Supervisor

                self._supervisor = Supervisor(self._settings())
                self._is_given = False
            return self._supervisor.start()

    def running_supervisor(self) -> Supervisor | None:
        """Return the default supervisor if there is one already."""
        supervisor = self._supervisor
        return supervisor if supervisor is not None and supervisor.is_running else None

    def stop(self) -> None:
        """Stop the default supervisor; the next need starts another."""
        with self._lock:
            supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.stop()

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where the thread that held it is gone."""
        self._lock = threading.RLock()
        self.observing.history.renew_lock()

    def _settings(self) -> Config:
        from .config import Config, load

        source = self._source or os.environ.get(CONFIG_VARIABLE) or None
        return source if isinstance(source, Config) else load(source)

    def _tables(self) -> Mapping[str, Any]:
        own = self._supervisor.config.tables if self._is_given and self._supervisor is not None else {}
        return own or self._settings().tables

    def _lm_from_surroundings(self) -> LM:
        name = os.environ.get(LM_VARIABLE)
        if name:
            return as_lm(name)
        table = self._tables().get("lm")
        if table is None:
            raise NotConfigured(
                "No language model is configured. Say which one: dspex.configure(lm=dspex.LM('openai/gpt-4o-mini')), "
                "lm= in the call, the environment variable DSPEX_LM, or an [lm] table in the settings file. "
                "'local/smollm2' is a small model that runs here without a key.",
                key="lm",
            )
        return _lm_of_table(table)

    def _require_idle(self) -> None:
        if self.running_supervisor() is not None:
            raise SettingsError(
                "The default supervisor runs already with other settings: call dspex.configure(config=...) before "
                "the first call, or use a Supervisor of your own."
            )


_defaults = Defaults()
os.register_at_fork(after_in_child=_defaults.renew_lock)


def configure(
    *,
    lm: LMLike | None = None,
    config: str | os.PathLike[str] | Config | None = None,
    supervisor: Supervisor | None = None,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    history: bool | int | None = None,
    callbacks: Iterable[Any] | None = None,
) -> None:
    """Set the process-wide defaults: the LM (a record or a name), and the default supervisor's settings.

    `config` is a TOML file's path or a `Config`; `supervisor` a Supervisor of your own, which you start and stop. A
    budget bounds what the whole process uses of language models: requests after it raise BudgetExceeded (math.inf
    ends that). `history=True` keeps the last 1,000 requests to language models and their answers, a number so many,
    False none (what is kept stays): see `dspex.history`. `callbacks` are called at the steps of every program's call:
    see `dspex.BaseCallback`; an empty list ends that.

    Raises:
        SettingsError: the default supervisor runs already, or a value cannot be.
    """
    if config is not None and not (isinstance(config, str | os.PathLike) or hasattr(config, "pools")):
        raise SettingsError(f"config is {config!r}; it is a TOML file's path or a dspex.Config.", key="config")
    if supervisor is not None and not callable(getattr(supervisor, "pool", None)):
        raise SettingsError(f"supervisor is {supervisor!r}; it is a dspex.Supervisor.", key="supervisor")
    _defaults.configure(
        lm=lm,
        config=config,
        supervisor=supervisor,
        budget_usd=budget_usd,
        budget_tokens=budget_tokens,
        history=history,
        callbacks=callbacks,
    )


def configured_lm() -> LM:
    """Return the default LM.

    Raises:
        NotConfigured: there is none.
    """
    return _defaults.lm()


def default_supervisor() -> Supervisor:
    """Return the process-wide supervisor; it is started at first need and ends with the process."""
    return _defaults.supervisor()


def running_supervisor() -> Supervisor | None:
    """Return the process-wide supervisor if it runs already."""
    return _defaults.running_supervisor()


def stop_default_supervisor() -> None:
    """Stop the process-wide supervisor; the next need starts a new one."""
    _defaults.stop()


def client() -> LMClient:
    """Return the process's LM client."""
    return _defaults.client()


def observing() -> Observing:
    """Return what this process wants to see of its calls."""
    return _defaults.observing


def history() -> tuple[HistoryEntry, ...]:
    """Return the requests to language models that were kept, with their answers, the oldest first.

    They are kept for programs with `using(history=True)`, and for all after `dspex.configure(history=True)`: at most
    1,000 (or as many as were asked for), and 64 MiB of text.
    """
    return _defaults.observing.history.entries()


def inspect_history(n: int = 1, file: TextIO | None = None) -> str:
    """Print the last n entries of `history()` as `dspy.inspect_history` does, to stdout or `file`; return the text.

    Raises:
        InvalidInput: n is no whole number, or less than 1.
    """
    from .lm.history_text import text_of

    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InvalidInput(f"n is {n!r}; it is a whole number, 1 or more.", field="n")
    shown = history()[-n:]
    out = sys.stdout if file is None else file
    if out is not None:
        print(text_of(shown, colors=file is None and out.isatty()), file=out, end="")
    return text_of(shown)


def usage() -> UsageStats:
    """Return what this process asked of language models, on both routes, since it began."""
    return _defaults.client().usage.total.stats()


def as_lm(lm: Any) -> LM:
    """Return the LM for an LM, a model's name, a table of its settings, or what holds an LM.

    Raises:
        SettingsError: it is none of these.
    """
    from .lm.record import LM

    if isinstance(lm, LM):
        return lm
    if isinstance(lm, str):
        return LM(lm)
    if isinstance(lm, dict):
        return _lm_of_table(lm)
    inner = getattr(lm, "lm", None)  # a FakeLM
    if isinstance(inner, LM):
        return inner
    raise SettingsError(f"An LM is a dspex.LM or a model's name, not {type(lm).__name__}.", key="lm")


def _lm_of_table(table: Any) -> LM:
    from .lm.record import LM

    if not isinstance(table, dict) or "model" not in table:
        raise SettingsError("The [lm] table needs a model, such as model = 'openai/gpt-4o-mini'.", key="lm.model")
    try:
        return LM(table["model"], **{key: value for key, value in table.items() if key != "model"})
    except UnknownName as error:
        raise SettingsError(f"[lm]: {error}", key=f"lm.{error.name}") from None
