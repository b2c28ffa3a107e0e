"""A bridge whose commands hold memory in every way that a cap must see. For the tests of this folder."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dspex_worker.bridge import Bridge, Context

bridge = Bridge("memory")
kept: list[Any] = []

PAGE = mmap.PAGESIZE


def _touch(block: Any) -> None:
    for start in range(0, len(block), PAGE):
        block[start : start + 1] = b"x"


@bridge.command()
def at_once(ctx: Context, bytes: int, seconds: float = 0.0) -> int:
    """Ask for one block that large, touch it and hold it."""
    block = bytearray(bytes)
    _touch(block)
    time.sleep(seconds)
    return len(block)


@bridge.command()
def bit_by_bit(ctx: Context, bytes: int, step: int = 4096) -> int:
    """Fill a list until it holds that many bytes; what was reached is lost when memory runs out."""
    found = []
    while len(found) * step < bytes:
        found.append(bytearray(step))
    return len(found) * step


@bridge.command()
def keep_until_it_fails(ctx: Context, step: int) -> int:
    """Take memory in untouched blocks until no more is given, and keep it: the worker has none left."""
    with contextlib.suppress(OSError):
        while True:
            kept.append(mmap.mmap(-1, step, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    with contextlib.suppress(MemoryError):
        while True:
            kept.append(bytearray(64 * 1024))
    return len(kept)


@bridge.command()
def raise_from_exhaustion(ctx: Context) -> None:
    """Raise another error because memory ran out, as libraries do."""
    try:
        bytearray(1 << 50)
    except MemoryError as error:
        raise ValueError("could not be computed") from error


@bridge.command()
def mapped(ctx: Context, bytes: int, shared: bool) -> int:
    """Map anonymous memory directly, without Python's allocator."""
    flags = (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE) | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, bytes, flags=flags) as block:
        _touch(block)
        time.sleep(60)
    return bytes


@bridge.command()
def idle_threads(ctx: Context, count: int) -> int:
    """Start threads that do nothing, wait for all of them, let them go; gives how many ran."""
    end = threading.Event()
    begun = threading.Barrier(count + 1)

    def idle() -> None:
        begun.wait(60)
        end.wait(60)

    threads = [threading.Thread(target=idle) for _ in range(count)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    begun.wait(60)
    end.set()
    for thread in threads:
        thread.join()
    return count


@bridge.command()
def in_file(ctx: Context, bytes: int, where: str) -> int:
    """Write to a file in memory and keep it open, never mapped: a "memfd", or an unlinked one in /dev/shm ("shm")."""
    if where == "memfd":
        descriptor = os.memfd_create("hoard")
    else:
        descriptor, path = tempfile.mkstemp(dir="/dev/shm")
        Path(path).unlink()
    block = b"x" * (1 << 20)
    for _ in range(bytes // len(block)):
        os.write(descriptor, block)
    time.sleep(60)
    return bytes


@bridge.command()
def leave_file(ctx: Context, bytes: int, path: str) -> int:
    """Write to a file in memory and close it: nothing under /proc tells any more who fills it."""
    block = b"x" * (1 << 20)
    with Path(path).open("wb") as file:
        for _ in range(bytes // len(block)):
            file.write(block)
    time.sleep(60)
    return bytes


@bridge.command()
def group_of_setup(ctx: Context) -> str:
    """Give the control group that the worker was in when its bridge was set up."""
    return str(kept[0])


@bridge.setup
def setup(settings: dict[str, Any]) -> None:
    kept.append(Path("/proc/self/cgroup").read_text())


@bridge.command()
def read_mapped(ctx: Context, path: str, until: str) -> int:
    """Map a file on disk and read all of it, again and again until another file is there."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as block:
        while True:
            total = sum(block[start] for start in range(0, len(block), PAGE))
            if Path(until).exists():
                return total
            time.sleep(0.1)


@bridge.command()
def share_with_children(ctx: Context, bytes: int, children: int, seconds: float) -> int:
    """Hold memory and fork children that share it without writing: each page is there once, resident many times."""
    block = bytearray(bytes)
    _touch(block)
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            sum(block[:: PAGE * 16])
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(block)


@bridge.command()
def many_children(ctx: Context, bytes: int, children: int) -> int:
    """Let that many small processes hold the bytes between them, each in a session of its own."""
    each = bytes // children
    code = f"import time; b = bytearray({each}); b[::4096] = b'x' * len(b[::4096]); time.sleep(60)"
    started = [subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True) for _ in range(children)]
    time.sleep(60)
    return len(started)


@bridge.command()
def leave_and_hoard(ctx: Context, bytes: int, path: str) -> int:
    """Daemonize a process that writes its pid to a file and hoards; give its pid, then stay."""
    code = (
        "import os, time\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        f"open({path!r}, 'w').write(str(os.getpid()))\n"
        f"b = bytearray({bytes}); b[::4096] = b'x' * len(b[::4096]); time.sleep(60)\n"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    time.sleep(60)
    return 0


@bridge.command()
def populate(ctx: Context, bytes: int) -> float:
    """Let the kernel fill a block as fast as it can, in huge pages where it may; gives the seconds it took."""
    block = mmap.mmap(-1, bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    began = time.monotonic()
    ctypes.CDLL(None).madvise(ctypes.c_void_p(_address(block)), ctypes.c_size_t(bytes), 23)  # MADV_POPULATE_WRITE
    return time.monotonic() - began


@bridge.command()
def stop_parent(ctx: Context) -> int:
    """Stop the fork server, as a stray signal would."""
    os.kill(os.getppid(), signal.SIGSTOP)
    return os.getppid()


def _address(block: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block))
