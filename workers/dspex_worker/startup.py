"""From a bare process to a running worker: claim stdio, arm the lifeline, greet, load the bridge, set up, be ready."""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import os
import platform
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn

from . import __version__, lifeline, signals, starting, stdio
from .bridge import Bridge, Settings
from .error_report import describe
from .memory import rlimits
from .runtime import Identity, Runtime, leave
from .vigil import Hold
from .wire import FRAME_LIMIT, MAGIC, PROTOCOL, FrameBuffer, Malformed, messages
from .wire.messages import Kind

EXIT_BOOT = 70  # EX_SOFTWARE of <sysexits.h>: the worker could not start, and its stderr says why


def run_worker(lifeline_fd: int, bridge: Bridge | None = None) -> NoReturn:
    """Be a worker on descriptors 0, 1, 2 until the process ends; `bridge` is given if the template loaded it."""
    incoming, outgoing = stdio.claim()
    hold = Hold(lifeline_fd)
    lifeline.become_subreaper()  # its orphans stay below it, so that its end is theirs and its memory includes theirs
    signals.leave_to_supervisor()
    faulthandler.enable(sys.stderr)
    rlimits.prefer_as_oom_victim()
    buffer = FrameBuffer()
    os.write(outgoing, messages.write(Kind.HELLO, MAGIC, *PROTOCOL, _facts(hold)))
    try:
        settings = _read_hello(incoming, buffer)
        bridge = bridge or load_bridge(settings)
        cap = settings.get("memory_cap")
        if cap is not None and not bridge.runs_optimizers:
            rlimits.limit_data(cap, settings["concurrency"])
        for setup in bridge.setups:
            setup(settings)
        if cap is not None:
            rlimits.check_cap(settings["pool"], cap)
    except BaseException as error:  # the supervisor shows it, as text, to whoever waits for the pool
        traceback.print_exc()
        os.write(outgoing, messages.write(Kind.ERROR, 0, describe(error), None))
        leave(EXIT_BOOT)
    starting.end()
    signals.leave_to_supervisor()  # whatever an import or a setup made of them
    os.write(outgoing, messages.write(Kind.READY, {name: c.facts() for name, c in bridge.commands.items()}))
    identity = Identity(settings["pool"], settings["worker"], settings["generation"])
    Runtime(
        bridge,
        incoming=incoming,
        outgoing=outgoing,
        lifeline=lifeline_fd,
        identity=identity,
        concurrency=settings["concurrency"],
        limit=settings.get("frame_limit", FRAME_LIMIT),
    ).run(buffer)


class _FromSource(SourceFileLoader):
    """Reads the script itself: the cache of bytecode takes an edit of equal length within a second for none."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_bridge(settings: Settings) -> Bridge:
    """Import the bridge script and run what it registered to be warm.

    Raises:
        RuntimeError: the script does not bind a `Bridge` to the name `bridge`.
    """
    for entry in reversed(settings.get("path") or []):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    path = Path(settings["bridge"])
    if str(path.parent) not in sys.path:  # last: processes that commands start with multiprocessing import it by name
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=_FromSource(path.stem, str(path)))
    if spec is None or spec.loader is None:
        raise RuntimeError(f"the bridge {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    bridge = getattr(module, "bridge", None)
    if not isinstance(bridge, Bridge):
        raise RuntimeError(f"the bridge script {str(path)!r} binds no dspex_worker.bridge.Bridge to the name 'bridge'")
    for name in settings.get("imports") or []:
        importlib.import_module(name)
    for warm in bridge.warmers:
        warm(settings)
    _add_standard_commands(bridge)
    return bridge


def _add_standard_commands(bridge: Bridge) -> None:
    from .builtin_commands import echo, ping

    for name, function in (("ping", ping), ("echo", echo)):
        if name not in bridge.commands:
            bridge.command(name, cancel_safe=True)(function)


def _read_hello(incoming: int, buffer: FrameBuffer) -> Settings:
    """Give the settings in the supervisor's HELLO.

    Raises:
        Malformed: something else came, or another protocol.
    """
    while True:
        data = os.read(incoming, 4)  # no more than a header at once: what follows the HELLO belongs to the runtime
        if not data:
            leave(0)
        for body in buffer.feed(data):
            message = messages.read(body)
            if message[0] != Kind.HELLO or message[1] != MAGIC or message[2] != PROTOCOL[0]:
                raise Malformed(f"the supervisor greets with {message[:4]}; this worker speaks {MAGIC} {PROTOCOL[0]}")
            settings: Settings = message[4]
            return settings


def _facts(hold: Hold) -> dict[str, Any]:
    return {
        "lifeline": hold.kind,
        "pid": os.getpid(),
        "worker_version": __version__,
        "python": platform.python_version(),
        "path": str(Path(__file__).parent),
    }
