"""Unit: what a container's limits leave of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.cli.machine_facts import Cores, MachineMemory, cores, gpus, memory

GIB = 2**30


def test_the_quota_of_a_control_group_counts(tmp_path: Path) -> None:
    """unit: version 2; the tightest of those above each other"""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert cores(tmp_path, "0::/a/b\n").quota == 1.5
    assert Cores(8, 4, 1.5).counted == 1.5 and Cores(8, 4, None).counted == 4


def test_the_quota_of_the_older_version_counts(tmp_path: Path) -> None:
    """unit"""
    group = tmp_path / "cpu,cpuacct" / "x"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("50000")
    (group / "cpu.cfs_period_us").write_text("100000")
    assert cores(tmp_path, "4:cpu,cpuacct:/x\n").quota == 0.5
    (group / "cpu.cfs_quota_us").write_text("-1")
    assert cores(tmp_path, "4:cpu,cpuacct:/x\n").quota is None


def test_the_limit_of_memory_counts_less_what_is_held(tmp_path: Path) -> None:
    """unit: the least that is left counts, not the least limit; no limit is none"""
    inner = tmp_path / "a"
    inner.mkdir()
    (inner / "memory.max").write_text(f"{2 * GIB}")
    (inner / "memory.current").write_text("0")
    (tmp_path / "memory.max").write_text(f"{3 * GIB}")
    (tmp_path / "memory.current").write_text(f"{2 * GIB}")
    seen = memory(tmp_path, "0::/a\n")
    assert (seen.cgroup_limit, seen.cgroup_used) == (3 * GIB, 2 * GIB)
    assert MachineMemory(8 * GIB, 4 * GIB, 3 * GIB, 2 * GIB).free == GIB
    assert MachineMemory(8 * GIB, 4 * GIB, None, None).free == 4 * GIB
    (inner / "memory.max").write_text("max")
    (tmp_path / "memory.max").write_text("max")
    assert memory(tmp_path, "0::/a\n").cgroup_limit is None


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: none where it fails, as without a driver, or is not there"""
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA A10, 24G, PCIe, 23028, 512'\necho 'Odd, [N/A], [N/A]'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [(gpu.name, gpu.total, gpu.used) for gpu in gpus()] == [
        ("NVIDIA A10, 24G, PCIe", 23028 * 2**20, 512 * 2**20),
        ("Odd", 0, 0),
    ]
    script.write_text("#!/bin/sh\necho 'has failed'; exit 9\n")
    assert gpus() == ()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert gpus() == ()
