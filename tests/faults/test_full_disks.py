"""A disk that is full, or a quota that is used up, at every kind of write, and files that the system cuts off.

Tried with no space and no quota before each kind of operation of a run (each run of this test draws a third of them),
one after the other in one run; and with files that may have so many bytes and no more, which meets what libraries write
as well: weights, Parquet, tokenizers.
"""

from __future__ import annotations

import errno
import os
import random

import pytest
from tests.faults.injury import Fault, Training, same_runs

from cohort.record.verify import verify

draw = random.Random()  # not seeded on purpose
roads = pytest.mark.parametrize(
    "whole", [pytest.param(road, marks=pytest.mark.xdist_group(road)) for road in ("critic", "dpo")], indirect=True
)


def go_on_later(begun, whole):
    last = Training(begun)
    assert last.run_to_end() == 0, last.said()
    same_runs(whole.where / "runs/r", begun / "runs/r")


@pytest.mark.fault("ENOSPC and EDQUOT at every kind of write", "one sentence; where there is space again it goes on")
@roads
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence_at_every_kind_of_write(whole, begun, number):
    kinds = [kind for kind in dict.fromkeys(whole.operations) if not kind.startswith(("os.remove", "os.rmdir"))]
    for kind in sorted(draw.sample(kinds, len(kinds) // 12), key=kinds.index):
        one = Training(begun, Fault(kind=kind, number=number))
        code, said = one.run_to_end(), one.said()
        assert code in (0, 1), (kind, said)
        assert code == 0 or os.strerror(number) in said, (kind, said)
        if (begun / "runs/r/log/chain.jsonl").exists():
            assert verify(begun / "runs/r").holds, kind
    go_on_later(begun, whole)


@pytest.mark.fault("files that are cut off while they are written", "one sentence, and nothing half at a name")
@roads
def test_a_file_that_is_cut_off_is_a_sentence(whole, begun):
    for largest in sorted(draw.sample(range(2000, 50_000), 2)):
        one = Training(begun, Fault(largest=largest))
        assert one.run_to_end() == 1, (largest, one.said())
        assert "error: cannot write to runs/r" in one.said(), (largest, one.said())
        if (begun / "runs/r/log/chain.jsonl").exists():
            assert verify(begun / "runs/r").holds, largest
    go_on_later(begun, whole)
