"""The worker side of DSPex: code that runs in a pool's subprocesses. Needs msgpack only; never imports `dspex`."""

__version__ = "0.1.0"
