"""Run `python -m dspex.cli`: the `dspex` command without its script."""

import sys

from . import main

sys.exit(main())
