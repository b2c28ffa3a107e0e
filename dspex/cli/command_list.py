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
    "To begin": (
        ListedCommand("init", "write a commented dspex.toml"),
        ListedCommand("new", "write a bridge, or a web service with its tests"),
        ListedCommand("doctor", "check this machine and its settings, with a remedy for each fault"),
    ),
    "Programs": (
        ListedCommand("run", "run a program once and print what it returns"),
        ListedCommand("evaluate", "score a program on the rows of a file"),
        ListedCommand("optimize", "optimize a program on the rows of a file, and save what is best"),
        ListedCommand("jobs", "list optimizations: of a running service, and of the folder of journals"),
        ListedCommand("job", "show, follow or cancel one optimization, or write its report"),
        ListedCommand("serve", "answer HTTP requests, or an MCP client's, with programs"),
    ),
    "The service": (
        ListedCommand("start", "run a supervisor until it is told to stop"),
        ListedCommand("ls", "list this user's supervisors"),
        ListedCommand("stop", "stop a supervisor and wait until it is gone"),
        ListedCommand("restart", "finish the calls of a service, and begin it anew as it was started"),
        ListedCommand("status", "show what a live supervisor is doing"),
        ListedCommand("top", "show pools, workers, memory and queues, live"),
        ListedCommand("health", "say whether each pool can take a call now"),
        ListedCommand("dashboard", "show a live supervisor in a browser"),
        ListedCommand("events", "print the last events, and with --follow the coming ones"),
        ListedCommand("logs", "print the last lines of the log, and with --follow the coming ones"),
        ListedCommand("clients", "show who is connected to a live supervisor"),
    ),
    "Pools and calls": (
        ListedCommand("call", "run a command on a worker and print its result as JSON"),
        ListedCommand("calls", "show the calls that run or wait"),
        ListedCommand("cancel", "end one call, whoever waits for it"),
        ListedCommand("stacks", "show where a worker's threads are, also of one that hangs"),
        ListedCommand("sessions", "show the sessions that pools keep"),
        ListedCommand("resize", "change how many workers a pool has"),
        ListedCommand("recycle", "replace a pool's workers, one at a time, and wait"),
        ListedCommand("drain", "let a pool take no new calls, and wait until the others have ended"),
        ListedCommand("resume", "have a drained pool take calls again"),
        ListedCommand("forgive", "end the quarantine of a call that killed its workers"),
    ),
    "Settings and this machine": (
        ListedCommand("config", "check the settings, or show where each value comes from"),
        ListedCommand("setup", "make the virtualenvs of pools that name their requirements"),
        ListedCommand("hardware", "show cores, memory and GPUs, and what a pool of which size would take"),
        ListedCommand("bench", "measure the call path on this machine, or what faults do"),
        ListedCommand("cache", "show or clear a cache file of language models' answers"),
        ListedCommand("completion", "print the script with which a shell completes commands and names"),
    ),
}

LISTED = {listed.name: listed for section in SECTIONS.values() for listed in section}
