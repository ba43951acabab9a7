"""A run on disk without training: two GRPO steps, evaluations before and after, and what the run writes beside them."""

from __future__ import annotations

import json
from pathlib import Path

from cohort.record.metrics import MetricsLog
from cohort.record.rollouts import write_groups
from cohort.types import Group, Prompt, Rollout

RECIPE = """
name = "made"
seed = 3
[policy]
model = "some-org/some-model"
[task]
source = "word_problems"
[rollout]
prompts_per_step = 2
group_size = 2
max_tokens = 8
[[reward]]
use = "exact_number"
[objective]
preset = "dr_grpo"
[run]
steps = 2
"""
STAGES = """
name = "two"
[[stage]]
kind = "reward_model"
name = "taste"
policy.model = "some-org/some-model"
task = {source = "word_problems", held_out = 0.1}
[[stage]]
kind = "reject"
name = "chosen"
policy.model = "some-org/some-model"
task.source = "word_problems"
reward = "exact_number"
"""
ENVIRONMENT = {
    "began": "2026-11-01T10:00:00",
    "threads": 1,
    "recipe_digest": "ab" * 32,
    "packages": {"cohort": "0.1.0", "torch": "2.13.0"},
    "python": "3.11.7",
    "inputs": {},
    "templates": {"grpo": "chat"},
    "probes": {"grpo": "12" * 16},
    "policies": {"grpo": {"name": "Qwen3ForCausalLM", "parameters": 1000, "trained": 1000, "device": "cpu"}},
}


def rollout(text="4", tokens=3, finish="stop"):
    return Rollout((5,) * tokens, (True,) * tokens, (-0.5,) * tokens, version=0, finish=finish, text=text)


def group(ticket, rewards, texts=None, disposition="trained", question="2 + 2 = ?", finish="stop"):
    prompt = Prompt.make(text=question, answer="4")
    prompt = Prompt(prompt.id, text=question, tokens=(1, 2), answer="4")
    mean = sum(rewards) / len(rewards)
    return Group(
        ticket=ticket,
        prompt=prompt,
        rollouts=tuple(rollout(text, finish=finish) for text in (texts or ["4"] * len(rewards))),
        scores={"exact_number": tuple(rewards)},
        rewards=tuple(rewards),
        accuracy=tuple(rewards),
        advantages=tuple(r - mean for r in rewards),
        disposition=disposition,
    )


def make_run(place: Path, recipe: str = RECIPE, texts=("4", "5"), more: str = "") -> Path:
    run = place / "made"
    (run / "log").mkdir(parents=True)
    (run / "recipe.toml").write_text(recipe + more)
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))
    log = MetricsLog(run / "metrics.jsonl")
    log.write(0, {"eval/greedy": 0.0, "eval/greedy_low": 0.0, "eval/greedy_high": 0.5})
    for step in (1, 2):
        groups = [group(2 * step, (1.0, 0.0), list(texts)), group(2 * step + 1, (0.0, 0.0), disposition="zero_std")]
        write_groups(run / f"log/step-{step:06d}.parquet", groups, step)
        line = {"reward/mean": 0.25, "groups/signal": 0.5, "groups/sampled": 2.0, "tokens/sampled": 12.0}
        line |= {"tokens/trained": 6.0, "time/step_s": 2.0, "time/sample_s": 1.0, "time/score_s": 0.2}
        measured = {"eval/greedy": 1.0, "eval/greedy_low": 0.5, "eval/greedy_high": 1.0} if step == 2 else {}
        log.write(step, line | {"time/learn_s": 0.8, "memory/peak_gb": 0.1} | measured)
    for step, right in ((0, 0.0), (2, 1.0)):
        write_groups(run / f"log/eval-{step:06d}-greedy.parquet", [group(i, (right,)) for i in range(2)], step)
    return run
