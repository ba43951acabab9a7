"""What a container may have of its machine, by both versions of control groups."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from cohort import machine
from cohort.preflight import memory


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_of_a_control_group_and_those_above_it_counts(tmp_path, monkeypatch, version):
    mount, own, path = tmp_path / "cgroup", tmp_path / "own", "a/b"
    own.write_text("0::/a/b\n" if version == 2 else "4:cpu,cpuacct:/a/b\n9:memory:/a/b\n")

    def write(controller, limits):
        for place, (name, text) in limits:
            file = mount / ("" if version == 2 else controller) / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    if version == 2:
        mount.mkdir()
        (mount / "cgroup.controllers").write_text("cpu memory\n")
        write("memory", [("a", ("memory.max", 3 * 10**8)), (path, ("memory.max", "max"))])
        write("cpu", [("", ("cpu.max", "max 100000")), (path, ("cpu.max", "150000 100000"))])
    else:
        huge = 9223372036854771712  # no limit
        write("memory", [("", ("memory.limit_in_bytes", huge)), ("a", ("memory.limit_in_bytes", 3 * 10**8))])
        for place, quota in (("", -1), (path, 150000)):
            write("cpu", [(place, ("cpu.cfs_quota_us", quota)), (place, ("cpu.cfs_period_us", 100000))])
    found = machine.limits_of_groups
    here = partial(found, mount=mount, own=own)
    monkeypatch.setattr(machine, "limits_of_groups", here)
    monkeypatch.setattr(memory, "limits_of_groups", here)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert memory.machine_gb() == 0.3
    assert machine.threads_of("auto") == 2
    own.unlink()
    assert machine.threads_of("auto") == 64
    assert memory.machine_gb() > 0.3
