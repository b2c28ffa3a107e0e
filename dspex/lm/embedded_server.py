"""The embedded model's server process: read settings from stdin, print the address, serve until killed.

It leads its own session and holds a lifeline, so it ends with its host, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from dspex_worker import lifeline, signals

CONTEXT_TOKENS = 8192
SLOTS = 2


def main() -> None:
    """Serve. `argv[1]` is the descriptor of the lifeline's read end."""
    lifeline.arm(int(sys.argv[1]))
    signals.leave_to_supervisor()  # to the host, whose calls may still go on
    out = os.dup(1)
    os.dup2(2, 1)  # llama.cpp may print; what it prints is not the protocol
    settings = json.loads(sys.stdin.buffer.readline())
    import xllamacpp

    params = xllamacpp.CommonParams()  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    params.model.path = settings["path"]
    params.model_alias = {settings["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = max(1, len(os.sched_getaffinity(0)) // 2)
    server = xllamacpp.Server(params)  # pyright: ignore[reportAttributeAccessIssue] - as above
    os.write(out, json.dumps({"api_base": f"{server.listening_address}/v1"}).encode() + b"\n")
    threading.Event().wait()
