"""Run a program in a worker: its spec, the call, the answer."""
