"""Check a worker's messages beyond the types of their fields, and the order in which they come. Pure.

`messages.read` checks what both sides have in common. Whatever else a supervisor relies on is checked here, once, where
the message is read: names that become keys, numbers that become counts, maps that are looked into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .codec import Malformed
from .messages import Kind, Message

CREDIT_MOST: Final = 1024  # chunks that a worker may have coming to it at once
COMMANDS_MOST: Final = 10_000
NAME_MOST: Final = 500  # characters of a command's, an event's, a logger's or a callback's name
LEVEL_MOST: Final = 100  # of a log line; `logging` remembers every level that it is asked about
PID_MOST: Final = 2**22  # the kernel's own limit
DESCRIPTOR_MOST: Final = 2**30  # the kernel's own limit is NR_OPEN_MAX
RESERVED: Final = frozenset(("name", "pool", "worker", "call", "event"))  # facts that say who sent an event, and what
SESSION_USES: Final = (None, "read", "write")
_HELLO_TEXTS: Final = ("worker_version", "python", "path", "lifeline")
_LAST_ID: Final = 2**63


def require(message: Message) -> None:
    """Check a message that a worker sent.

    Raises:
        Malformed: it is none that a worker sends, or it holds what such a message cannot.
    """
    check = _CHECKS.get(message[0])
    if check is None:
        raise Malformed(f"a worker does not send {Kind(message[0]).name}")
    check(message)


def reserved_in(facts: dict[str, Any]) -> str:
    """Return the facts that an event may not have, separated by commas; empty if there are none."""
    return "" if RESERVED.isdisjoint(facts) else ", ".join(sorted(RESERVED.intersection(facts)))


class MessageOrder:
    """The order of messages in one conversation: HELLO, then READY or an ERROR with id 0, then all the rest."""

    __slots__ = ("_stage",)

    def __init__(self) -> None:
        self._stage = _GREETING

    @property
    def is_open(self) -> bool:
        """Whether the worker has reported READY."""
        return self._stage == _OPEN

    def take(self, message: Message) -> None:
        """Note a message.

        Raises:
            Malformed: it was not its turn.
        """
        kind, stage = message[0], self._stage
        if stage == _OPEN:
            if kind in _OPENING or (kind == Kind.ERROR and message[1] == 0):
                raise Malformed(f"{Kind(kind).name} came from a worker that was ready")
        elif kind == _EXPECTED[stage]:
            self._stage = stage + 1
        elif stage == _GREETING or not (kind in _AT_ANY_TIME or _is_boot_error(message)):
            raise Malformed(f"{Kind(kind).name} came before {_EXPECTED[stage].name}")


_GREETING, _SETTING_UP, _OPEN = range(3)
_EXPECTED: Final = (Kind.HELLO, Kind.READY)
_OPENING: Final = frozenset(_EXPECTED)
_AT_ANY_TIME: Final = frozenset((Kind.LOG, Kind.EVENT))


def _is_boot_error(message: Message) -> bool:
    return bool(message[0] == Kind.ERROR and message[1] == 0)


# --- one check for each kind --------------------------------------------------------------------------------------


def _hello(message: Message) -> None:
    facts = message[4]
    for name in _HELLO_TEXTS:
        _demand(message, name, type(facts.get(name, "")) is str and len(facts.get(name, "")) <= 4096)
    pid = facts.get("pid")
    _demand(message, "pid", pid is None or (type(pid) is int and 0 < pid <= PID_MOST))
    stacks = facts.get("stacks", -1)
    _demand(message, "descriptor of stacks", type(stacks) is int and -1 <= stacks <= DESCRIPTOR_MOST)


def _ready(message: Message) -> None:
    commands = message[1]
    _demand(message, "number of commands", len(commands) <= COMMANDS_MOST)
    for name, declared in commands.items():
        _demand(message, "command's name", 0 < len(name) <= NAME_MOST)
        _demand(message, "command", type(declared) is dict and _is_use(declared.get("session")))


def _is_use(value: object) -> bool:
    return value is None or (type(value) is str and value in SESSION_USES)


def _call(message: Message) -> None:
    _, id, name, _, meta = message
    _own_id(message, id)
    _demand(message, "name", 0 < len(name) <= NAME_MOST)
    _demand(message, "meta 'for'", type(meta.get("for")) is int)
    credit = meta.get("credit")
    _demand(message, "meta 'credit'", credit is None or (type(credit) is int and 0 <= credit <= CREDIT_MOST))


def _answer(message: Message) -> None:
    is_of_call = 0 < message[1] < _LAST_ID and message[1] % 2 == 1
    _demand(message, "id", is_of_call or _is_boot_error(message))
    notes = message[3]
    if notes:
        _notes(message, notes)


def _notes(message: Message, notes: dict[str, Any]) -> None:
    held, retire = notes.get("held"), notes.get("retire")
    _demand(message, "note 'held'", held is None or type(held) is bool)
    _demand(message, "note 'retire'", retire is None or (type(retire) is str and 0 < len(retire) <= NAME_MOST))
    wrote, deleted = notes.get("wrote"), notes.get("deleted")
    _demand(message, "note 'wrote'", wrote is None or type(wrote) is dict)
    is_names = type(deleted) is list and all(type(name) is str for name in deleted)
    _demand(message, "note 'deleted'", deleted is None or is_names)


def _chunk(message: Message) -> None:
    _demand(message, "id", 0 < message[1] < _LAST_ID and message[1] % 2 == 1)


def _cancel(message: Message) -> None:
    _own_id(message, message[1])


def _credit(message: Message) -> None:
    _own_id(message, message[1])
    _demand(message, "count", 0 < message[2] <= CREDIT_MOST)


def _pong(message: Message) -> None:
    _demand(message, "number", 0 <= message[1] < _LAST_ID)


def _log(message: Message) -> None:
    _demand(message, "call", 0 <= message[1] < _LAST_ID)
    _demand(message, "level", 0 <= message[2] <= LEVEL_MOST)
    _demand(message, "logger", len(message[3]) <= NAME_MOST)


def _event(message: Message) -> None:
    _demand(message, "call", 0 <= message[1] < _LAST_ID)
    _demand(message, "name", 0 < len(message[2]) <= NAME_MOST)
    if reserved := reserved_in(message[3]):
        raise Malformed(f"its event's facts hold the reserved names {reserved}")


def _own_id(message: Message, id: int) -> None:
    """Check an id that the worker chose: those are even."""
    _demand(message, "id", 0 < id < _LAST_ID and id % 2 == 0)


def _demand(message: Message, what: str, holds: bool) -> None:
    if not holds:
        raise Malformed(f"its {Kind(message[0]).name} message has an impossible {what}")


_CHECKS: Final[dict[int, Callable[[Message], None]]] = {
    int(Kind.HELLO): _hello,
    int(Kind.READY): _ready,
    int(Kind.CALL): _call,
    int(Kind.RESULT): _answer,
    int(Kind.ERROR): _answer,
    int(Kind.END): _answer,
    int(Kind.CHUNK): _chunk,
    int(Kind.CANCEL): _cancel,
    int(Kind.CREDIT): _credit,
    int(Kind.PONG): _pong,
    int(Kind.LOG): _log,
    int(Kind.EVENT): _event,
}
