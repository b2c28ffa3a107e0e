"""`context`: other defaults for the calls that are made inside a block, per task and thread.

    with dspex.context(lm="cheap", adapter="json"):
        qa(question="...")

Blocks nest: an inner one keeps what it does not name. A stream, or a `map`, has the blocks that are open where it is
made, not where it is read. A thread that a program starts by itself has no block open, unless it runs in a copy of the
context (`contextvars.copy_context`); `asyncio.to_thread`, tasks, pipelines and `map` do. Any thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .adapters.adapter_names import ADAPTERS
from .errors import SettingsError
from .lm.given_lms import takes_lms
from .lm.named_lms import is_name, lm_from, named
from .lm.observing import checked_callbacks
from .lm.strict_schemas import with_plain_format

if TYPE_CHECKING:
    from .adapters.given_adapter import Adapter, AdapterLike
    from .lm.named_lms import LMLike
    from .lm.record import LM

T = TypeVar("T")
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ScopedDefaults:
    """The defaults of the open blocks."""

    lm: LM | str | None = None  # a name is looked up when a call is made
    adapter: Adapter | None = None
    lms: Mapping[str, LM] = field(default_factory=lambda: NOTHING)
    config: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    history: bool | None = None  # whether requests and answers are kept in the process's history
    trace: bool = False
    callbacks: tuple[Any, ...] = ()

    @property
    def sees(self) -> bool:
        """Whether it says something of what is seen of calls."""
        return self.history is not None or self.trace or bool(self.callbacks)

    @property
    def is_of_lms(self) -> bool:
        """Whether it says something of language models."""
        return self.lm is not None or bool(self.lms)

    @property
    def identity(self) -> str:
        """What tells these defaults from others, for caches of what is made under them; empty for none."""
        if not (self.adapter or self.lms or self.config):
            return ""  # the LM is told apart by whoever asks it
        names = sorted((name, lm.ref) for name, lm in self.lms.items())
        return repr((self.adapter, names, sorted(self.config.items(), key=lambda option: option[0])))


NO_SCOPE = ScopedDefaults()
_scope: ContextVar[ScopedDefaults] = ContextVar("dspex_scope", default=NO_SCOPE)

scoped: Callable[[], ScopedDefaults] = _scope.get  # returns the defaults of the blocks that are open here


@takes_lms
@contextlib.contextmanager
def context(
    *,
    lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    lms: Mapping[str, LMLike] | None = None,
    config: Mapping[str, Any] | None = None,
    history: bool | None = None,
    trace: bool | None = None,
    callbacks: Iterable[Any] | None = None,
) -> Generator[None]:
    """Set defaults for the calls of this block, on both routes; what a program or a call names itself goes before them.

    `lm` is an LM, a model's name or a configured name; `lms` gives LMs names inside the block; `config` is options of
    LM calls, as in `Program.using`. `history`, `trace` and `callbacks` say what is seen of the calls of the block:
    whether they are kept in `dspex.history()`, have a trace, and whom else they call back.

    Raises:
        SettingsError, UnknownName: a value that cannot be.
    """
    outer = scoped()
    made = ScopedDefaults(
        lm=outer.lm if lm is None else str(lm) if is_name(lm) else lm_from(lm),
        adapter=outer.adapter if adapter is None else _checked_adapter(adapter),
        lms=outer.lms if lms is None else MappingProxyType({**outer.lms, **named(lms)}),
        config=outer.config if config is None else MappingProxyType({**outer.config, **_checked_config(config)}),
        history=outer.history if history is None else _checked_switch("history", history),
        trace=outer.trace if trace is None else _checked_switch("trace", trace),
        callbacks=(*outer.callbacks, *checked_callbacks(callbacks or ())),
    )
    token = _scope.set(made)
    try:
        yield
    finally:
        _scope.reset(token)


def kept_open(items: Iterator[T]) -> Iterator[T]:
    """Yield a generator's items, made while the blocks are open that are open now, wherever they are read."""
    return _each(cast("Generator[T]", items), scoped())


def akept_open(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """`kept_open`, for `async for`."""
    return _aeach(cast("AsyncGenerator[T]", items), scoped())


def _each(items: Generator[T], scope: ScopedDefaults) -> Generator[T]:
    try:
        while True:
            token = _scope.set(scope)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                _scope.reset(token)
            yield item
    finally:
        items.close()


async def _aeach(items: AsyncGenerator[T], scope: ScopedDefaults) -> AsyncGenerator[T]:
    try:
        while True:
            token = _scope.set(scope)
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            finally:
                _scope.reset(token)
            yield item
    finally:
        await items.aclose()


def _checked_adapter(adapter: Any) -> Adapter:
    if isinstance(adapter, str) and adapter in ADAPTERS:
        return adapter
    from .adapters.given_adapter import adapter_from  # at first need: most blocks name one

    return adapter_from(adapter, where="dspex.context()")


def _checked_switch(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{key} is {value!r}; it is True or False here.", key=key)
    return value


def _checked_config(config: Any) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):
        raise SettingsError(
            f"config is {config!r}; it is a mapping of LM options, such as {{'temperature': 0.2}}.", key="config"
        )
    return with_plain_format(config)
