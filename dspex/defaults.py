"""Keep the process-wide defaults: one LM, one LM client, one supervisor, made at first need.

This is the only state that DSPex keeps for a whole process. A forked child starts a supervisor of its own at its first
need. Any thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from .errors import InvalidInput, NotConfigured, SettingsError
from .lm.given_lms import takes_lms
from .lm.observing import Observing
from .scoped_defaults import scoped

if TYPE_CHECKING:
    from .adapters.given_adapter import Adapter, AdapterLike
    from .config import Config
    from .lm.cache_settings import CacheLike
    from .lm.call_history import HistoryEntry
    from .lm.lm_client import LMClient
    from .lm.named_lms import LMLike as LMLike
    from .lm.named_lms import NamedLMs
    from .lm.record import LM
    from .pools.supervising import Supervising
    from .usage_stats import UsageStats


LM_VARIABLE = "DSPEX_LM"
CONFIG_VARIABLE = "DSPEX_CONFIG"


class Defaults:
    """The defaults of calls that name no LM and no supervisor."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._given: NamedLMs | None = None  # by `configure`
        self._found: LM | None = None  # of the surroundings: a variable or the settings in force
        self._of_tables: NamedLMs | None = None  # of the settings in force
        self._source: str | os.PathLike[str] | Config | None = None
        self._supervisor: Supervising | None = None
        self._is_given = False  # the supervisor is the user's own
        self._client: LMClient | None = None
        self.observing = Observing()
        self.adapter: Adapter | None = None

    def configure(
        self,
        *,
        lm: LMLike | None = None,
        lms: Mapping[str, LMLike] | None = None,
        config: str | os.PathLike[str] | Config | None = None,
        supervisor: Supervising | None = None,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        history: bool | int | None = None,
        callbacks: Iterable[Any] | None = None,
        cache: CacheLike | None = None,
        adapter: AdapterLike | None = None,
    ) -> None:
        """See `dspex.configure`."""
        with self._lock:
            if adapter is not None:
                from .adapters.given_adapter import adapter_from

                self.adapter = adapter_from(adapter, where="dspex.configure()")
            if cache is not None:
                from .lm.cache_settings import cache_from

                self.client().use_cache(cache_from(cache))
            self.observing.configure(history=history, callbacks=callbacks)
            if budget_usd is not None or budget_tokens is not None:
                self.client().usage.total.set_budget(usd=budget_usd, tokens=budget_tokens)
            if config is not None or supervisor is not None:
                self._require_idle()
                self._source = config
                self._found = self._of_tables = None
                self._supervisor = supervisor
                self._is_given = supervisor is not None
                if config is not None and self._client is not None:
                    self._apply_tables(self._client)
            if lm is not None or lms is not None:
                self._give(lm, lms)

    def lm(self) -> LM:
        """Return the default LM.

        Raises:
            NotConfigured: there is none.
        """
        if self._given is not None and self._given.default is not None:
            return self._given.default
        found = self._found or self._find()
        if found is not None:
            return found
        raise NotConfigured(
            "No language model is configured. Say which one: dspex.configure(lm=dspex.LM('openai/gpt-4o-mini')), "
            "lm= in the call, the environment variable DSPEX_LM, or an [lm] table in the settings file. "
            "'local/smollm2' is a small model that runs here without a key.",
            key="lm",
        )

    def lms(self) -> NamedLMs:
        """Return all that are configured: those that were given, then those that were found."""
        from .lm.named_lms import NO_LMS, NamedLMs

        return (self._given or NO_LMS).over(NamedLMs(self._found or self._find(), self.names()))

    def names(self) -> Mapping[str, LM]:
        """Return the LMs that have names."""
        found = self._of_settings()
        return found.by_name if self._given is None else self._given.over(found).by_name

    def client(self) -> LMClient:
        """Return the process's LM client; it survives a fork of the host by itself."""
        if self._client is None:
            from .lm.lm_client import LMClient

            with self._lock:
                if self._client is None:
                    made = LMClient()
                    if self._source or os.environ.get(CONFIG_VARIABLE):
                        self._apply_tables(made)
                    self._client = made
        return self._client

    def supervisor(self, prepare: Callable[[Supervising], None] | None = None) -> Supervising:
        """Return the default supervisor, started; one that is made for it is given to `prepare` first.

        Raises:
            ForkedSupervisor: it is one that the user gave and that was started before this process was forked.
        """
        with self._lock:
            if self._supervisor is None or (self._supervisor.is_forked and not self._is_given):
                from .pools.supervisor import Supervisor

                self._supervisor = Supervisor(self._settings())
                self._is_given = False
                if prepare is not None:
                    prepare(self._supervisor)
            return self._supervisor.start()

    def running_supervisor(self) -> Supervising | None:
        """Return the default supervisor if there is one already."""
        supervisor = self._supervisor
        return supervisor if supervisor is not None and supervisor.is_running else None

    def stop(self) -> None:
        """Stop the default supervisor; the next need starts another."""
        with self._lock:
            supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.release()

    def release_client(self) -> None:
        """Close what the LM client keeps open, if there is one; it may be used again."""
        if self._client is not None:
            self._client.close()

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where the thread that held it is gone."""
        self._lock = threading.RLock()
        self.observing.history.renew_lock()

    def _apply_tables(self, client: LMClient) -> None:
        """Set what the settings say of the whole process."""
        from .lm.cache_settings import set_process_cache
        from .lm.usage import set_process_budget

        tables = self._settings().tables
        set_process_budget(client.usage, tables)
        set_process_cache(client, None, tables)

    def _settings(self) -> Config:
        from .config import Config, load

        source = self._source or os.environ.get(CONFIG_VARIABLE) or None
        return source if isinstance(source, Config) else load(source)

    def _tables(self) -> Mapping[str, Any]:
        own = self._supervisor.config.tables if self._is_given and self._supervisor is not None else {}
        return own or self._settings().tables

    def _give(self, lm: LMLike | None, lms: Mapping[str, LMLike] | None) -> None:
        from .lm.named_lms import NO_LMS, NamedLMs, is_name, lm_from, named

        before = self._given or NO_LMS
        given = NamedLMs(before.default, before.by_name if lms is None else named(lms))
        if lm is not None:
            known = given.over(self._of_settings()).by_name if is_name(lm) else {}
            given = NamedLMs(_named_among(str(lm), known) if is_name(lm) else lm_from(lm), given.by_name)
        self._given = given

    def _find(self) -> LM | None:
        """Return what a variable or the settings in force say; what was found is kept."""
        from .lm.named_lms import is_name, lm_from

        with self._lock:
            if self._found is None:
                name = os.environ.get(LM_VARIABLE)
                if not name:
                    self._found = self._of_settings().default
                else:
                    self._found = _named_among(name, self.names()) if is_name(name) else lm_from(name)
            return self._found

    def _of_settings(self) -> NamedLMs:
        if self._of_tables is None:
            from .lm.named_lms import NO_LMS, NamedLMs

            with self._lock:
                if self._of_tables is None:
                    own = own_lms(self._supervisor if self._is_given else None)
                    self._of_tables = own if own != NO_LMS else NamedLMs.of_tables(self._tables())
        return self._of_tables

    def _require_idle(self) -> None:
        if self.running_supervisor() is not None:
            raise SettingsError(
                "The default supervisor runs already with other settings: call dspex.configure(config=...) before "
                "the first call, or use a Supervisor of your own."
            )


_defaults = Defaults()
os.register_at_fork(after_in_child=_defaults.renew_lock)


@takes_lms
def configure(
    *,
    lm: LMLike | None = None,
    lms: Mapping[str, LMLike] | None = None,
    config: str | os.PathLike[str] | Config | None = None,
    supervisor: Supervising | None = None,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    history: bool | int | None = None,
    callbacks: Iterable[Any] | None = None,
    cache: CacheLike | None = None,
    adapter: AdapterLike | None = None,
) -> None:
    """Set the process-wide defaults: the LM (a record or a name), LMs by name, and the default supervisor's settings.

    `lms` gives LMs names ({"cheap": "openai/gpt-4o-mini"}) by which `lm=` takes them anywhere; the mapping replaces one
    that was given before. `config` is a TOML file's path or a `Config`; `supervisor` a Supervisor of your own, which
    you start and stop, or a client of one (`dspex.connect`). A budget bounds what the whole process uses of language
    models: requests after it raise BudgetExceeded (math.inf ends that). `history=True` keeps the last 1,000 requests to
    language models and their answers, a number so many, False none (what is kept stays): see `dspex.history`.
    `callbacks` are called at the steps of every program's call: see `dspex.BaseCallback`; an empty list ends that.
    `cache`, a `dspex.Cache` or a file's path, keeps the answers of language models from now on. `adapter` is that of
    calls that name none: see `dspex.adapter`.

    Raises:
        SettingsError: the default supervisor runs already, or a value cannot be.
        UnknownName: `lm` is a name that no configured LM has.
    """
    if config is not None and not (isinstance(config, str | os.PathLike) or hasattr(config, "pools")):
        raise SettingsError(f"config is {config!r}; it is a TOML file's path or a dspex.Config.", key="config")
    if supervisor is not None and not callable(getattr(supervisor, "pool", None)):
        raise SettingsError(
            f"supervisor is {supervisor!r}; it is a dspex.Supervisor or a client of one.", key="supervisor"
        )
    _defaults.configure(
        lm=lm,
        lms=lms,
        config=config,
        supervisor=supervisor,
        budget_usd=budget_usd,
        budget_tokens=budget_tokens,
        history=history,
        callbacks=callbacks,
        cache=cache,
        adapter=adapter,
    )


def configured_lm(supervisor: Supervising | None = None) -> LM:
    """Return the LM of calls that name none: of the open `dspex.context`, of this supervisor, or the process's default.

    Raises:
        NotConfigured: there is none.
        UnknownName: the block's is a name that no LM has.
    """
    block = scoped().lm
    if block is not None:
        return named_lm(block, supervisor) if isinstance(block, str) else block
    return own_lms(supervisor).default or _defaults.lm()


def named_lm(name: str, supervisor: Supervising | None = None) -> LM:
    """Return the LM of this name: of the open `dspex.context`, of this supervisor, or of the process.

    Raises:
        UnknownName: there is none; it lists the near names.
    """
    named = {**own_lms(supervisor).by_name, **scoped().lms}
    return named.get(name) or _named_among(name, {**_defaults.names(), **named})


def configured_lms(supervisor: Supervising | None = None) -> NamedLMs:
    """Return every LM that is configured: in the open `dspex.context`, for this supervisor, and for the process."""
    from .lm.named_lms import NamedLMs

    block = scoped()
    known = own_lms(supervisor).over(_defaults.lms())
    return NamedLMs(block.lm if not isinstance(block.lm, str) else None, block.lms).over(known)


def own_lms(supervisor: Supervising | None) -> NamedLMs:
    """Return the LMs of this supervisor's own: none for None, and for a stand-in of one that has none."""
    from .lm.named_lms import NO_LMS

    return getattr(supervisor, "lms", NO_LMS)


def default_supervisor() -> Supervising:
    """Return the process-wide supervisor; it is started at first need and ends with the process."""
    return _defaults.supervisor()


def prepared_supervisor(prepare: Callable[[Supervising], None]) -> Supervising:
    """Return the process-wide supervisor; if it is made for this, `prepare` gets it before it is started."""
    return _defaults.supervisor(prepare)


def running_supervisor() -> Supervising | None:
    """Return the process-wide supervisor if it runs already."""
    return _defaults.running_supervisor()


def stop_default_supervisor() -> None:
    """Stop the process-wide supervisor; the next need starts a new one."""
    _defaults.stop()


def client() -> LMClient:
    """Return the process's LM client."""
    return _defaults.client()


def release_client() -> None:
    """Close what the process's LM client keeps open for later requests; it opens anew when used."""
    _defaults.release_client()


def adapter_of_calls() -> Adapter | None:
    """Return the adapter of calls that name none: of the open `dspex.context`, or the process's."""
    return scoped().adapter or _defaults.adapter


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


def as_lm(lm: Any, supervisor: Supervising | None = None) -> LM:
    """Return the LM for an LM, a model's or a configured name, a table of its settings, or what holds an LM.

    Raises:
        SettingsError: it is none of these.
        UnknownName: it is a name that no configured LM has.
    """
    from .lm.named_lms import is_name, lm_from

    return named_lm(lm, supervisor) if is_name(lm) else lm_from(lm)


def as_lm_or_name(lm: Any) -> LM | str:
    """`as_lm`, leaving a name as it is: what it means is known when a call is made.

    Raises:
        SettingsError: it is none of these.
    """
    from .lm.named_lms import is_name, lm_from

    return str(lm) if is_name(lm) else lm_from(lm)


def _named_among(name: str, known: Mapping[str, LM]) -> LM:
    from .lm.named_lms import unknown_lm

    found = known.get(name)
    if found is None:
        raise unknown_lm(name, known)
    return found
