"""The soak of bench/soak.py in short: many faults in one run, of all kinds, and what is left of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "bench"))
import soak


@pytest.mark.fault(
    "a trainer, reward workers and sandboxes that are killed, full disks, hangs, flipped bits and jumps of the clock, "
    "one after the other in one run",
    "the same bits, each prompt once, no process or file left; 2,000 steps of it: `make soak`",
)
@pytest.mark.xdist_group("soak")
@pytest.mark.timeout(500)
def test_a_run_under_all_faults_in_turn_is_the_run_without(tmp_path):
    report = soak.Report()
    soak.soak(tmp_path, 16, 0, report, start=8, between=100)
    seen = dict(report.rows)
    assert seen["weights, metrics, rollouts"] == "the same bits", seen
    assert seen["the record with faults"] == "verifies"
    assert seen["prompts"] == "64 of 64, 64 times in all"
    assert seen["temporary files left"] == "none"
    assert seen["processes, mounts, control groups left"] == "none"
    assert int(seen["faults"].partition(",")[0]) >= 3
