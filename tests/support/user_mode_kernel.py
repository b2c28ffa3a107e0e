"""Run tests in a user-mode Linux kernel, for what this machine's own kernel or container does not offer.

    python -m tests.support.user_mode_kernel tests/process/memory/test_memory_cgroup.py

The kernel (`linux.uml`, Debian's package user-mode-linux; or name one in UML) is an ordinary process whose root file
system is this machine's. Its init mounts what a system has, cgroup v2 with the memory controller among it, runs pytest
with the given arguments, and halts. The exit code is pytest's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.paths import ROOT

MEMORY = "1500M"
PATIENCE = 900.0  # seconds; such a kernel is several times slower

INIT = """#!/bin/sh
exec >{folder}/out 2>&1
export PATH={path}:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mount -t cgroup2 none /sys/fs/cgroup
cd {root}
{python} -m pytest -p no:cacheprovider {arguments}
echo $? >{folder}/code
exec {python} -c "import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)"
"""


def main(arguments: list[str]) -> int:
    """Give pytest's exit code; 2 if there is no such kernel, or it ended by itself."""
    kernel = os.environ.get("UML") or shutil.which("linux.uml")
    if kernel is None:
        print("no linux.uml on the PATH: apt install user-mode-linux, or name one in UML", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        init = Path(folder, "init")
        python = Path(sys.executable)
        facts = {"folder": folder, "path": python.parent, "root": ROOT, "python": python}
        init.write_text(INIT.format(arguments=" ".join(arguments), **facts))
        init.chmod(0o700)
        command = [kernel, f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}"]
        with Path(folder, "console").open("w") as console:
            subprocess.run(
                [*command, "con=null", "con0=null,fd:1", "quiet"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                timeout=PATIENCE,
                check=False,
            )
        out, code = Path(folder, "out"), Path(folder, "code")
        print(out.read_text() if out.exists() else Path(folder, "console").read_text(), end="")
        return int(code.read_text()) if code.exists() else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
