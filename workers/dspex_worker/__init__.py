"""The worker side of DSPex: what runs inside a pool's subprocesses. Needs msgpack only, and never imports `dspex`."""

__version__ = "0.1.0"
