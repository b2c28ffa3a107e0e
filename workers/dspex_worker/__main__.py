"""Run an exec'd worker, with its frames on stdin and stdout: `python -m dspex_worker --lifeline FD`."""

from __future__ import annotations

import argparse

from .startup import run_worker

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="dspex_worker", description=__doc__)
    parser.add_argument("--lifeline", type=int, required=True, help="the read end of the worker's lifeline pipe")
    run_worker(parser.parse_args().lifeline)
