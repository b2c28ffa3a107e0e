"""A notebook's kernel of its own: cells in, what they printed out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.paths import ROOT


class Kernel:
    """One running kernel; `run` executes a cell as a notebook does."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, cell: str, within: float = 60.0) -> str:
        """What the cell prints, and its last value.

        Raises:
            AssertionError: the cell failed; the message is its traceback.
        """
        told: list[str] = []

        def hear(message: Mapping[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                told.append(content["text"])
            elif kind == "execute_result":
                told.append(content["data"]["text/plain"])

        reply = self._client.execute_interactive(cell, timeout=within, allow_stdin=False, output_hook=hear)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback") or [str(content)])
        return "".join(told).strip()


@contextlib.contextmanager
def kernel(folder: Any, env: Mapping[str, str]) -> Iterator[Kernel]:
    """A kernel in that folder; it ends with the block."""
    from jupyter_client.manager import KernelManager

    paths = f"{ROOT}{os.pathsep}{ROOT / 'workers'}"
    manager = KernelManager()  # the kernel of this very interpreter, if no other is installed
    manager.start_kernel(
        cwd=str(folder), env={**os.environ, "HOME": str(folder), "IPYTHONDIR": str(folder), "PYTHONPATH": paths, **env}
    )
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
        manager.context.destroy()
