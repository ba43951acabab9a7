"""The glossary knows every number that a run writes, and has none that no run writes."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from talking import Talks
from vowels import share_of_vowels

from cohort.monitor.energy import EnergyMeter
from cohort.monitor.metrics import merge_reports
from cohort.monitor.names import METRICS, metric
from cohort.recipe import Recipe
from cohort.rewards import Scored
from cohort.settings import SCORERS
from cohort.train import train
from cohort.types import InfrastructureError, StepReport
from cohort.views.console import Console

ROOT = Path(__file__).parent.parent
SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


def labelled(completion):
    return Scored(float(len(completion) % 2), "odd" if len(completion) % 2 else "even")


def steps(steps):
    return [float(len(step) % 3) for step in steps]


def lost_at_times(completion, prompt):
    if zlib.crc32(prompt.encode()) % 3 == 0:
        raise InfrastructureError("the server is down")
    return float(len(completion) % 2)


def by_coin(completion):
    return float(random.SystemRandom().random() < 0.5)


@pytest.fixture
def rows(tmp_path):
    """Rows for every kind of stage."""
    file = tmp_path / "rows.jsonl"
    made = [
        {
            "prompt": f"What is {i} plus {i + 1}?",
            "answer": str(2 * i + 1),
            "level": i % 2 + 1,
            "completion": f"It is {2 * i + 1}.",
            "chosen": f"{2 * i + 1} please",
            "rejected": "no",
            "completions": [f"{i} and {i + 1}", "no"],
            "labels": [True, False],
        }
        for i in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return str(file)


@pytest.fixture
def written(tmp_path, rows):
    """Train tiny stages that between them use all that writes a number; the names of all numbers by run."""

    def names(name, **tables):
        common = {
            "policy": {"scratch": SCRATCH},
            "task": {"source": rows},
            "rollout": {"prompts_per_step": 4, "group_size": 3, "max_tokens": 8},
            "optimizer": {"learning_rate": 1e-3},
            "evaluate": {"problems": 4, "samples": 2},
        }
        run = {"steps": 2, "threads": 1, "directory": str(tmp_path / "runs"), "gate": "off", "show_group_every": 0}
        run |= {"retries": 0, "failure_budget": 1.0}
        merged = {k: {**common.get(k, {}), **v} if isinstance(v, dict) else v for k, v in tables.items()}
        if "kind" in tables:
            del common["rollout"]
        if tables.get("kind") in SCORERS:
            del common["evaluate"]["samples"]
        done = train(Recipe(**{**common, **merged, "name": name, "run": run}), console=Console(quiet=True))
        return {key for line in done.metrics for key in line} - {"step"}

    return names


RUNS: dict[str, dict[str, Any]] = {
    "a KL, several updates, labels, a gate": {
        "task": {"held_out": 0.3},
        "reward": [
            {"use": share_of_vowels, "name": "vowels"},
            {"use": labelled, "gate": "vowels", "gate_at": 0.1},
        ],
        "evaluate": {"problems": 4, "samples": 4, "reward": "exact_number", "traces": 2},
        "objective": {"preset": "grpo", "kl_coef": 0.01},
        "optimizer": {"updates_per_batch": 2, "learning_rate": 1e-3},
    },
    "a critic": {
        "reward": [{"use": share_of_vowels}],
        "objective": {"preset": "ppo"},
        "critic": {"warmup_steps": 1},
    },
    "steps": {"reward": [{"use": steps, "split": "lines"}], "objective": {"preset": "grpo"}},
    "turns and tools": {
        "environment": {"tools": ["calculator"], "format": "tags"},
        "reward": [{"use": share_of_vowels}],
    },
    "an environment": {
        "environment": {"use": Talks, "max_turns": 2},
        "rollout": {"max_tokens": 24, "stop": ["e", "a", " "], "prompts_per_step": 4, "group_size": 3},
        "reward": [{"use": share_of_vowels}],
    },
    "a curriculum": {"task": {"source": "word_problems", "curriculum": {"window": 4}}, "reward": "exact_number"},
    "a mixture": {
        "task": {
            "source": "mixture",
            "mixture": {
                "words": {"source": "word_problems", "curriculum": {"window": 4}},
                "few": {"source": "arithmetic", "limit": 8, "adaptive": {}},
            },
        },
        "reward": "exact_number",
    },
    "adaptive sampling": {"task": {"adaptive": {}}, "reward": "exact_number"},
    "failures": {
        "task": {"held_out": 0.4},
        "reward": [{"use": lost_at_times, "name": "lost"}],
        "evaluate": {"problems": 24, "samples": 1, "reward": lost_at_times},
    },
    "what detectors do": {
        "reward": [{"use": by_coin}],
        "monitor": {
            "rescore": 0.4,  # so that some groups are left to learn from
            "actions": {"not_finite": "roll_back", "verifier_contradiction": "quarantine"},
        },
    },
    "supervised": {"kind": "sft", "supervised": {"examples_per_step": 4}},
    "pairs without a reward model": {"kind": "dpo", "task": {"held_out": 0.3}, "preferences": {"pairs_per_step": 4}},
    "samples that are kept": {
        "kind": "rft",
        "rollout": {"prompts_per_step": 4, "group_size": 3, "max_tokens": 8},
        "reward": [{"use": share_of_vowels, "name": "vowels"}],
        "reject": {"least": {"vowels": 0.0}, "truncated": True},
    },
    "a reward model": {
        "kind": "reward_model",
        "task": {"held_out": 0.3},
        "preferences": {"pairs_per_step": 4},
    },
    "labels of steps": {"kind": "process_model", "task": {"held_out": 0.3}, "preferences": {"pairs_per_step": 4}},
}


@pytest.mark.slow
def test_the_glossary_is_what_runs_write(written, monkeypatch, tmp_path):
    counter = tmp_path / "powercap" / "intel-rapl:0" / "energy_uj"  # a processor that counts its energy
    counter.parent.mkdir(parents=True)
    counter.write_text("1000")
    monkeypatch.setattr("cohort.train.loop.open_meter", partial(EnergyMeter, tmp_path / "powercap"))
    known = set()
    for name, tables in RUNS.items():
        for key in written(name.replace(" ", "-").replace(",", ""), **tables):
            assert metric(key) is not None, (
                f"the run with {name} writes {key}, which cohort.monitor.names does not know"
            )
            known.add(metric(key).name)
    elsewhere = {"router/busiest", "router/evenness"}  # of mixtures of experts: tests/learn/test_routing.py
    # Of objectives that have such: tests/train/test_training_with_presets.py
    elsewhere |= {"policy/masked", "policy/filtered", "policy/entropy_coef"}
    # tests/train/test_beside_the_draws.py
    elsewhere |= {"groups/replayed", "tokens/replayed", "tokens/malformed", "completions/cut", "completions/cut_tokens"}
    elsewhere |= {"eval/{}/{}", "energy/estimated_j"}  # of suites: tests/train/test_suites.py; of an extra
    elsewhere |= {name for name in METRICS if "eval/trace" in name} - {"eval/traced"}  # tests/evaluate/test_traces.py
    elsewhere |= {name for name in METRICS if "teacher" in name}  # of teachers: tests/train/test_distill.py
    elsewhere |= {"memory/tokens_at_once"}  # where memory runs out: tests/train/test_memory_runs_out.py
    elsewhere |= {"groups/repeats"}  # of beams: tests/train/test_not_drawn.py
    assert set(METRICS) - known == elsewhere, "no run writes these"


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "tools" / "metrics_page.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    page = program.PAGE.read_text()
    assert page == program.metrics_page(page), "run: python tools/metrics_page.py"


def test_entries_are_whole():
    for name, entry in METRICS.items():
        assert metric(name) is entry
        assert entry.meaning.endswith(".")
        assert entry.form.format(0.5)
    assert metric("reward/exact_number/no_answer").name == "reward/{}/{}"
    assert metric("reward/exact_number/mean").name == "reward/{}/mean"
    assert metric("task/pass_rate_3").better == ""
    assert metric("of my own") is None


def test_reports_merge_as_the_glossary_says():
    def report(tokens, entropy, largest, loss):
        numbers = {"policy/entropy": entropy, "policy/ratio_max": largest, "loss": loss, "tokens/trained": tokens}
        return StepReport({**numbers, "mine/policy": loss})

    merged = merge_reports([report(10.0, 1.0, 1.5, 4.0), report(30.0, 2.0, math.nan, 2.0)])
    assert merged == {
        "policy/entropy": 1.75,
        "policy/ratio_max": 1.5,
        "loss": 3.0,
        "tokens/trained": 40.0,
        "mine/policy": 3.0,
    }
    nothing = merge_reports([report(0.0, math.nan, math.nan, 0.0)])
    assert math.isnan(nothing["policy/entropy"])
    assert math.isnan(nothing["policy/ratio_max"])


def test_advice_is_about_numbers_that_there_are():
    page = (ROOT / "docs" / "metrics.md").read_text()
    advice = page[page.index("## What a healthy run shows") : page.index("## Rewards")]
    named = re.findall(r"^\| `([^`]+)` \|", advice, re.MULTILINE)
    assert len(named) > 15
    assert set(named) <= set(METRICS)
