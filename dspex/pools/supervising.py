"""`Supervising`: what programs ask of their supervisor, be it one of this process or a client of another's.

`Supervisor` and its pools are so; so is the client of `dspex.connect()`, whose pools are a service's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..events import Name
    from ..lm.cache import Cache
    from ..lm.named_lms import NamedLMs
    from .budgets import HostServices, PoolBudgets
    from .callbacks import Handler
    from .stats import PoolHealth, PoolStats
    from .streams import AsyncStream, Stream

Cancel = Callable[[Callable[[], None]], Callable[[], None]]


class MadeCall(Protocol):
    """A call that has ended: its value, and where it ran."""

    @property
    def worker_name(self) -> str: ...
    @property
    def generation(self) -> int: ...
    def result(self) -> Any: ...


class KnownSettings(Protocol):
    """The settings of a pool, as far as programs ask for them."""

    @property
    def imports(self) -> Sequence[str]: ...
    @property
    def interpreter(self) -> str: ...
    @property
    def bridge(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def lms(self) -> str | None: ...


class PoolOfPrograms(Protocol):
    """A pool, as programs call it."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> KnownSettings: ...
    def invoke(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        cancel: Cancel | None = None,
        is_trusted: bool = True,
        session: str | None = ...,
        timeout: float | None = ...,
        idempotent: bool = ...,
    ) -> MadeCall: ...
    def ainvoke(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        is_trusted: bool = True,
        session: str | None = ...,
        timeout: float | None = ...,
        idempotent: bool = ...,
    ) -> Coroutine[Any, Any, MadeCall]: ...
    def stream(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        is_trusted: bool = True,
        session: str | None = ...,
        timeout: float | None = ...,
    ) -> Stream: ...
    def astream(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        is_trusted: bool = True,
        session: str | None = ...,
        timeout: float | None = ...,
    ) -> AsyncStream: ...
    def learn(self, module: str, version: str) -> None: ...
    def close_session(self, key: str) -> None: ...
    def stats(self) -> PoolStats: ...


class HasTables(Protocol):
    """Settings with tables of other layers."""

    @property
    def tables(self) -> Mapping[str, Any]: ...


class Supervising(Protocol):
    """A supervisor, as programs see it."""

    @property
    def config(self) -> HasTables: ...
    @property
    def lms(self) -> NamedLMs: ...
    @property
    def cache(self) -> Cache | None: ...
    @property
    def budgets(self) -> PoolBudgets: ...
    @property
    def services(self) -> HostServices | None: ...
    @services.setter
    def services(self, services: HostServices) -> None: ...
    @property
    def pools(self) -> tuple[str, ...]: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def is_forked(self) -> bool: ...
    def start(self) -> Supervising: ...
    def release(self) -> None: ...
    def wait_ready(self, timeout: float | None = None) -> Supervising: ...
    def health(self) -> dict[str, PoolHealth]: ...
    def check_usable(self) -> None: ...
    def pool(self, name: str) -> PoolOfPrograms: ...
    def register(self, name: str, handler: Handler) -> None: ...
    def emit(self, name: Name, /, **facts: Any) -> None: ...
    def call(
        self,
        pool: str,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = ...,
        timeout: float | None = ...,
        idempotent: bool = ...,
    ) -> Any: ...
    def acall(
        self,
        pool: str,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session: str | None = ...,
        timeout: float | None = ...,
        idempotent: bool = ...,
    ) -> Coroutine[Any, Any, Any]: ...
