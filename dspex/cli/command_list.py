"""Every command of `dspex`, in the order and the sections in which the help shows them. Nothing is imported for it.

A command `<name>` is the attribute `<name>` of the module `<name>_command`, which is imported when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListedCommand:
    """A command's name, and what it does: a verb and its object, without a full stop."""

    name: str
    summary: str


SECTIONS: dict[str, tuple[ListedCommand, ...]] = {
    "Programs": (
        ListedCommand("run", "run a program once and print what it returns"),
        ListedCommand("evaluate", "score a program on the rows of a file"),
        ListedCommand("optimize", "optimize a program on the rows of a file, and save what is best"),
        ListedCommand("jobs", "list optimizations: of a running service, and of the folder of journals"),
        ListedCommand("job", "show, follow or cancel one optimization"),
        ListedCommand("serve", "answer HTTP requests, or an MCP client's, with programs"),
    ),
    "The service": (
        ListedCommand("start", "run a supervisor until it is told to stop"),
        ListedCommand("stop", "stop a supervisor and wait until it is gone"),
        ListedCommand("status", "show what a live supervisor is doing"),
        ListedCommand("health", "say whether each pool can take a call now"),
        ListedCommand("dashboard", "show a live supervisor in a browser"),
        ListedCommand("events", "print the last events, and with --follow the coming ones"),
    ),
    "Pools and calls": (
        ListedCommand("call", "run a command on a worker and print its result as JSON"),
        ListedCommand("resize", "change how many workers a pool has"),
        ListedCommand("recycle", "replace a pool's workers, one at a time, and wait"),
        ListedCommand("drain", "let a pool take no new calls, and wait until the others have ended"),
        ListedCommand("forgive", "end the quarantine of a call that killed its workers"),
    ),
    "This machine": (
        ListedCommand("doctor", "check this machine and its settings, with a remedy for each fault"),
        ListedCommand("bench", "measure the call path on this machine, or what faults do"),
        ListedCommand("cache", "show or clear a cache file of language models' answers"),
    ),
}

LISTED = {listed.name: listed for section in SECTIONS.values() for listed in section}
