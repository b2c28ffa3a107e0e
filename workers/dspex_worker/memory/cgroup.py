"""Limit each worker's memory, with all that it starts, by a control group (v2) of its own.

    <delegated group>/dspex.<pid namespace>.<pid>.<start>.<n>/<pool>.<generation>

The supervisor claims a branch for each capped pool (`find`, `claim`); the pool's fork server makes a group in it for
each worker, moves the worker in before it runs user code, and reads afterwards why it ended. A branch's name says whose
it is, so that the next supervisor can remove what a dead one left, and never touches a living one's.

Groups are made only below a group that is ours: delegated to this user, named in DSPEX_CGROUP, or the root of a system
that nobody else manages. DSPEX_CGROUP=off keeps this layer off.
"""

from __future__ import annotations

import contextlib
import os
import time
from itertools import count
from pathlib import Path

from .process_stat import stat_of

VARIABLE = "DSPEX_CGROUP"
PREFIX = "dspex."
HOST = "dspex-host"  # where the processes of a delegated group go, since only one without any may have limited children
REMOVAL_PATIENCE = 1.0  # seconds that killed processes may take to leave a group
SYSTEMD = Path("/run/systemd/system")

_numbers = count()


class CgroupUnusable(Exception):
    """There are no control groups for workers here; the text is the reason."""


class ControlGroup:
    """One worker's group."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, branch: Path, name: str, cap: int) -> ControlGroup:
        """Create a group that holds at most `cap` bytes, and is killed as a whole.

        Raises:
            OSError: it cannot be made; nothing is left of it.
        """
        group = cls(branch / name)
        group.path.mkdir()
        try:
            group._write("memory.max", str(cap))
            group._write("memory.oom.group", "1")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
                group._write("memory.swap.max", "0")
        except OSError:
            group.path.rmdir()
            raise
        return group

    def adopt(self, pid: int) -> None:
        """Move a process in; what it starts from now on is in it too.

        Raises:
            OSError: it cannot be moved.
        """
        self._write("cgroup.procs", str(pid))

    def was_full(self) -> bool:
        """Whether the kernel killed it because it was at its own limit, not at the machine's."""
        events = self._events()
        return events.get("oom_kill", 0) > 0 and events.get("oom", 0) > 0

    def was_sacrificed(self) -> bool:
        """Whether the kernel killed in it because the machine, or a group around it, was out of memory."""
        events = self._events()
        return events.get("oom_kill", 0) > 0 and not events.get("oom", 0)

    def peak(self) -> int:
        """Return the most bytes that were ever in it; 0 if the kernel has no such file (before 5.19)."""
        try:
            return int(self._read("memory.peak"))
        except (OSError, ValueError):
            return 0

    def kill(self) -> bool:
        """Kill all that is in it at once; False where the kernel cannot (before 5.14)."""
        try:
            self._write("cgroup.kill", "1")
        except OSError:
            return False
        return True

    def remove(self, patience: float = REMOVAL_PATIENCE) -> bool:
        """Remove it, once what was killed in it has left; False if something stays."""
        deadline = time.monotonic() + patience
        while not _is_removed(self.path):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def _events(self) -> dict[str, int]:
        try:
            pairs = (line.split() for line in self._read("memory.events").splitlines())
            return {name: int(number) for name, number in pairs}
        except (OSError, ValueError):
            return {}

    def _read(self, name: str) -> str:
        return (self.path / name).read_text()

    def _write(self, name: str, text: str) -> None:
        _write(self.path / name, text)


# -- the supervisor's part --


def find() -> Path:
    """Return the group below which this process may make groups with a memory limit.

    Raises:
        CgroupUnusable: there is none, with the reason.
    """
    named = os.environ.get(VARIABLE, "")
    if named == "off":
        raise CgroupUnusable(f"switched off by {VARIABLE}")
    if named:
        _check(Path(named))
        return Path(named)
    mount, own = _own()
    if own != mount and _is_delegated(own.parent):  # systemd's DelegateSubgroup=, or moved there by `_make_room`
        with contextlib.suppress(CgroupUnusable):
            _check(own.parent)
            return own.parent
    if not _is_delegated(own) and not (own == mount and _is_unmanaged()):
        _check_controller(own)
        raise CgroupUnusable(f"{own} is not delegated to this process (systemd: Delegate=yes)")
    _check(own)
    return own


def claim(parent: Path) -> Path:
    """Return a new branch below `parent` for one pool of this process; removes what dead supervisors left there.

    Raises:
        CgroupUnusable: none can be made.
    """
    sweep(parent)
    branch = parent / f"{PREFIX}{_namespace()}.{os.getpid()}.{_start_of(os.getpid())}.{next(_numbers)}"
    try:
        if "memory" not in _words(parent / "cgroup.subtree_control"):
            _make_room(parent)
            _write(parent / "cgroup.subtree_control", "+memory")
        branch.mkdir()
        _write(branch / "cgroup.subtree_control", "+memory")
    except OSError as error:
        release(branch)
        raise CgroupUnusable(f"no group can be made below {parent}: {error.strerror}") from None
    return branch


def release(branch: Path) -> bool:
    """Kill what is left in a branch and remove it; False if something stays."""
    groups = [ControlGroup(path) for path in _groups_in(branch)]
    for group in groups:
        group.kill()
    left = [group for group in groups if not group.remove()]
    return not left and ControlGroup(branch).remove(patience=0.0)


def sweep(parent: Path) -> None:
    """Remove the branches of supervisors that are dead; others' and the living's stay."""
    for path in _groups_in(parent):
        if path.name.startswith(PREFIX) and _is_of_the_dead(path.name):
            release(path)


def _is_of_the_dead(name: str) -> bool:
    words = name.removeprefix(PREFIX).split(".")
    if len(words) != 4 or not all(word.isdigit() for word in words) or words[0] != _namespace():
        return False  # not named by us, or by one whose pids mean nothing here
    return _start_of(int(words[1])) != words[2]


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_of(pid: int) -> str:
    """Return when a process began, in ticks; "" if there is none."""
    try:
        return str(stat_of(pid).start_time)
    except (OSError, ValueError):
        return ""


def _own() -> tuple[Path, Path]:
    """Return (where the v2 hierarchy is mounted, this process's group)."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError as error:
        raise CgroupUnusable(f"/proc cannot be read: {error.strerror}") from None
    mount = next((line.split()[4] for line in mounts if line.partition(" - ")[2].startswith("cgroup2 ")), None)
    own = next((line.removeprefix("0::") for line in groups if line.startswith("0::")), None)
    if mount is None or own is None:
        raise CgroupUnusable("no cgroup v2 is mounted")
    return Path(mount), Path(mount) / own.lstrip("/")


def _is_delegated(group: Path) -> bool:
    """Whether groups may be made there: it is this user's, or marked so."""
    try:
        owner = group.stat().st_uid
    except OSError:
        return False
    if owner == os.geteuid() != 0:
        return True
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return False


def _is_unmanaged() -> bool:
    """Whether the groups that can be seen are root's, with no systemd to manage them: a container, a bare kernel."""
    return os.geteuid() == 0 and not SYSTEMD.exists()


def _check(group: Path) -> None:
    """Check that limited groups can be made below it.

    Raises:
        CgroupUnusable: they cannot.
    """
    _check_controller(group)
    if not os.access(group, os.W_OK) or not os.access(group / "cgroup.procs", os.W_OK):
        raise CgroupUnusable(f"{group} is not writable")
    if "memory" not in _words(group / "cgroup.subtree_control") and _is_limited_to_leaves(group) and _strangers(group):
        raise CgroupUnusable(f"{group} holds other processes, and only a group without any may have limited ones below")


def _check_controller(group: Path) -> None:
    if "memory" not in _words(group / "cgroup.controllers"):
        raise CgroupUnusable(f"{group} has no memory controller")


def _is_limited_to_leaves(group: Path) -> bool:
    return (group / "cgroup.type").exists()  # the hierarchy's true root, to which the rule does not apply, has none


def _strangers(group: Path) -> set[int]:
    """Return the processes in the group that are neither this one nor its descendants."""
    from .procfs import descendants

    return {int(word) for word in _words(group / "cgroup.procs")} - {os.getpid(), *descendants(os.getpid())}


def _make_room(group: Path) -> None:
    """Move this process and its descendants from the group, if they are in it, into one below."""
    pids = _words(group / "cgroup.procs")
    if not pids or not _is_limited_to_leaves(group):
        return
    (group / HOST).mkdir(exist_ok=True)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            _write(group / HOST / "cgroup.procs", pid)


def _groups_in(group: Path) -> list[Path]:
    try:
        return [path for path in group.iterdir() if path.is_dir()]
    except OSError:
        return []


def _is_removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    """Write into a file that the kernel made; never make one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
