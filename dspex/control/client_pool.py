"""One pool of a service, as a client has it: the operator's verbs, and the calls that programs make.

Programs call it as they call a pool of this process (`invoke`, `ainvoke`, `stream`, `astream`): what their workers ask
for comes back here, and what was spent counts here too. Nothing is sent by value: the service's `imports` say what its
workers may import for clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

from ..errors import CallCancelled, EncodeError, UnknownName
from ..pools.streams import AsyncStream, Stream
from .call_request import CallRequestOptions, StreamRequestOptions
from .operator_client import MARGIN, PATIENCE
from .protocol import Verb
from .remote_call import RemoteCall
from .request_fields import Fields
from .served_pools import ServedPoolFacts

if TYPE_CHECKING:
    from ..pools.stats import PoolStats

Arguments = dict[str, Any]
Cancel = Callable[[Callable[[], None]], Callable[[], None]]
ANSWERS = ["tool.call", "metric.call", "call.seen"]


class PoolCallOptions(TypedDict, total=False):
    """The options of a program's call: `session` is the key by which a pool of this process would know it."""

    session: str | None
    timeout: float | None
    idempotent: bool


class PoolRequester(Protocol):
    """The requests that a pool makes through its client."""

    def ask(self, verb: str, fields: Fields, *, what: str, wait: float = PATIENCE) -> Any: ...
    def call(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any: ...
    async def acall(
        self, pool: str, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any: ...
    def stats(self) -> dict[str, PoolStats]: ...
    def make(self, fields: Fields, cancel: Cancel | None = None) -> RemoteCall: ...
    async def amake(self, fields: Fields) -> RemoteCall: ...
    def begin_stream(self, fields: Fields) -> Stream: ...
    def abegin_stream(self, fields: Fields) -> AsyncStream: ...
    def send_only(self, verb: str, fields: Fields) -> None: ...


class ClientPool:
    """One pool of a supervisor in another process."""

    def __init__(self, client: PoolRequester, facts: ServedPoolFacts) -> None:
        self.name = facts.name
        self.config = facts
        self._client = client

    # -- commands ------------------------------------------------------------------------------------------------

    def call(self, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]) -> Any:
        """`Client.call` in this pool."""
        return self._client.call(self.name, command, arguments, **options)

    async def acall(
        self, command: str, arguments: Arguments | None = None, **options: Unpack[CallRequestOptions]
    ) -> Any:
        """`Client.acall` in this pool."""
        return await self._client.acall(self.name, command, arguments, **options)

    # -- as `Pool`, for programs ---------------------------------------------------------------------------------

    def invoke(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        cancel: Cancel | None = None,
        is_trusted: bool = True,
        **options: Unpack[PoolCallOptions],
    ) -> RemoteCall:
        """`Pool.invoke` over there; its errors are raised here. No call of a client is trusted.

        Raises:
            EncodeError: the arguments hold Python objects, which do not cross the socket.
        """
        return self._client.make(self._fields(command, arguments, options), cancel)

    async def ainvoke(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        is_trusted: bool = True,
        **options: Unpack[PoolCallOptions],
    ) -> RemoteCall:
        """`invoke`, awaited. Cancelling the task cancels the call."""
        return await self._client.amake(self._fields(command, arguments, options))

    def stream(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        is_trusted: bool = True,
        **options: Unpack[StreamRequestOptions],
    ) -> Stream:
        """`Pool.stream` over there."""
        return self._client.begin_stream(self._fields(command, arguments, options))

    def astream(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        is_trusted: bool = True,
        **options: Unpack[StreamRequestOptions],
    ) -> AsyncStream:
        """`Pool.astream` over there."""
        return self._client.abegin_stream(self._fields(command, arguments, options))

    def learn(self, module: str, version: str) -> None:
        """Note nothing: what the service's workers import beforehand is its own to say."""

    def close_session(self, key: str) -> None:
        """End a session of this client; its worker drops the state."""
        self._client.send_only(Verb.CLOSE_SESSION, {"pool": self.name, "id": key.partition("/")[2]})

    # -- the operator --------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Aim at `size` workers."""
        self._ask(Verb.RESIZE, {"size": size})

    def recycle(self, *, reload: bool = False, timeout: float | None = None) -> None:
        """Replace every worker, one at a time; blocks until all are. `reload` imports the code anew.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; it goes on nevertheless.
        """
        self._ask(Verb.RECYCLE, {"reload": reload, "timeout": timeout}, wait=_patience(timeout))

    def drain(self, timeout: float | None = None) -> None:
        """Take no new calls and wait until all that were taken have ended.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; the pool takes no calls nevertheless.
        """
        self._ask(Verb.DRAIN, {"timeout": timeout}, wait=_patience(timeout))

    def forgive(self, digest: str) -> bool:
        """End a poison call's quarantine; False if there is none."""
        return bool(self._ask(Verb.FORGIVE, {"digest": digest}))

    def stats(self) -> PoolStats:
        """Return what the pool is doing now."""
        return self._client.stats()[self.name]

    # ============================================================================================================

    def _ask(self, verb: str, fields: Fields, *, wait: float = PATIENCE) -> Any:
        what = f"{verb} of pool {self.name!r}"
        return self._client.ask(verb, {"pool": self.name, **fields}, what=what, wait=wait)

    def _fields(self, command: str, arguments: Arguments | None, options: Mapping[str, Any]) -> Fields:
        """Return the fields of a program's call."""
        given = arguments or {}
        _require_plain(given)
        fields: Fields = {
            "pool": self.name,
            "command": command,
            "arguments": given,
            "callbacks": ANSWERS,
            "notes": True,
        }
        key = options.get("session")
        more = {
            "session": None if key is None else key.partition("/")[2],
            "timeout": options.get("timeout"),
            "idempotent": options.get("idempotent") or None,
        }
        return fields | {name: value for name, value in more.items() if value is not None}


def _require_plain(arguments: Mapping[str, Any]) -> None:
    """Check that nothing in them is a Python object that workers would unpickle.

    Raises:
        EncodeError: something is.
    """
    spec = arguments.get("spec")
    is_carried = arguments.get("carried") is not None or (isinstance(spec, Mapping) and "carried_demos" in spec)
    if is_carried:
        raise EncodeError(
            "the inputs, demonstrations or options of the program",
            "object",
            "a service takes plain data, and values of types that its workers import; no pickle crosses its socket",
        )


def cancelled(fields: Fields) -> CallCancelled:
    """Return the error of a call that another thread of its caller gave up."""
    return CallCancelled(
        f"The call {fields['command']!r} in pool {fields['pool']!r} was cancelled by another thread of its caller."
    )


def find_pool(client: PoolRequester, pools: Mapping[str, ServedPoolFacts], name: str) -> ClientPool:
    """Return a pool by name.

    Raises:
        UnknownName: there is none; it lists the near names.
    """
    if name not in pools:
        raise UnknownName("pool", name, pools)
    return ClientPool(client, pools[name])


def _patience(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout + MARGIN
