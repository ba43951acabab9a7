"""Real short runs that go wrong from a step on: detectors say it by its name within their window, and not before."""

from __future__ import annotations

import pytest
from scorers import formal, last_number
from scripted import EVALUATED, START

from cohort.monitor.watcher import read_incidents
from cohort.record.verify import verify

WINDOW = 6
RUNS = {
    "loops": {
        *("constant_reward", "truncation", "repetition", "similar_samples", "constant_answer", "reward_collapse"),
        "entropy_collapse",
    },
    "form": {
        *("reward_conflict", "reward_dominance", "best_of_bad", "format_only", "length_reward", "wrong_longer"),
    },
    "bare": {
        *("no_working", "test_aware", "verifier_contradiction", "entropy_explosion", "proxy_gap", "held_out_drift"),
    },
    "alike": {"no_signal", "verifier_errors"},
    "sparse": {"sparse_reward", "gradient_spike"},
}
# The script is no policy, so its log-probs are none of the learner's, from the first step on.
ALWAYS = {"sampler_mismatch"}


def script(name, **changes):
    return {
        "monitor": {"window": WINDOW},
        "name": name,
        "rollout": {
            "sampler": f"scripted:open_{name}", "prompts_per_step": 8, "group_size": 8, "max_tokens": 60,
            "resample_cap": 2, "max_mismatch": 1e9,  # it makes its log-probs up
        },
        "reward": [{"use": last_number, "weight": 0.1 if name == "form" else 1.0}, {"use": formal, "weight": 1.0}],
        "optimizer": {"learning_rate": 1e-4},
        "evaluate": {
            "problems": 6, "samples": 1, "greedy": False, "temperature": EVALUATED, "reward": "last_number",
        },
        "run": {
            "steps": START + WINDOW, "evaluate_every": 2 if name == "bare" else 0, "save_every": 0, "gate": "off",
            "show_group_every": 0, "retries": 0, "failure_budget": 1.0,
        },
        **changes,
    }  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_what_goes_wrong_in_a_run_is_said_by_its_name_within_the_window(run, name):
    done = run(**script(name))
    first: dict[str, int] = {}
    for one in read_incidents(done.directory):
        first.setdefault(one.detector, one.step)
    assert first.keys() >= RUNS[name]
    assert all(START <= first[detector] < START + WINDOW for detector in RUNS[name]), first
    assert {detector for detector, step in first.items() if step < START} <= ALWAYS
    assert first.keys() >= ALWAYS
    assert verify(done.directory).holds


def test_a_rate_that_is_too_high_is_said_by_how_far_and_how_often_it_moves_the_policy(run):
    table, rate = {"window": WINDOW, "clipped": 0.2}, {"learning_rate": 0.05, "epochs": 6}
    changes = script("loops", monitor=table, optimizer=rate, run={"steps": WINDOW, "gate": "off"})
    done = run(**changes, objective={"preset": "grpo", "kl_coef": 0.05})
    assert {one.detector for one in read_incidents(done.directory)} >= {"kl_blow_up", "clip_fraction"}


def test_a_spike_goes_back_behind_the_first_one(run):
    changes = script("sparse", monitor={"window": WINDOW, "actions": {"gradient_spike": "roll_back"}})
    changes["run"] |= {"save_every": 2, "keep_checkpoints": 1}
    done = run(**changes)
    found = next(one for one in read_incidents(done.directory) if one.detector == "gradient_spike")
    assert (found.step, dict(found.did)) == (START + 2, {"roll_back": START - 2})
    assert verify(done.directory).holds
