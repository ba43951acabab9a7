"""Runs that sample from a policy whose products are in bytes."""

from __future__ import annotations

import pytest
from recorded import holds

from cohort.record.metrics import read_metrics
from cohort.types import UserError

CORRECTS = {"correction": "token_truncate", "correction_max": 2}


def test_a_run_samples_so_and_is_learnt_again_bit_for_bit(run):
    whole = run(
        rollout={"precision": "int8"},
        objective=CORRECTS,
        run={"save_every": 1, "keep_checkpoints": 10},
    )
    gaps = [line["policy/mismatch"] for line in read_metrics(whole.directory / "metrics.jsonl") if line["step"]]
    assert all(1e-4 < gap < 0.1 for gap in gaps)
    assert any("log-probs of version" in name for name in holds(whole.directory))


@pytest.mark.parametrize(
    ("rollout", "objective", "said"),
    [
        ({}, {}, "samples from a rounded policy, uncorrected"),
        (
            {"sampler": "vllm", "vllm": {}},
            CORRECTS,
            "of the engine of this process",
        ),
    ],
)
def test_what_it_does_not_go_with_is_said(run, rollout, objective, said):
    with pytest.raises(UserError, match=said):
        run(rollout={"precision": "int8"} | rollout, objective=objective)
