"""The memory that a plan announces, against what was measured."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cohort.algorithms import objectives
from cohort.policy.policy import PolicyFacts
from cohort.recipe import Recipe
from cohort.views.plan import memory_gb

SMOLLM2 = SimpleNamespace(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3
)
GENERIC: dict[str, Any] = {"bloom": ({}, 0.708)}  # peaks above the interpreter, in GB
WEIGHTS, ADAPTER = 538e6, 19.5e6  # bytes


def planned(trained: float, preset: str = "dr_grpo", changed: dict[str, Any] | None = None, **tables: Any) -> float:
    facts = PolicyFacts(
        dequantised="",
        name="LlamaForCausalLM", tokenizer=None, eos_ids=(2,), turn_end=None, unheard_end="",
        context=8192, vocabulary=49152, config=SMOLLM2, adapter="",
        parameters=int(WEIGHTS / 4), trained=int(trained / 4), weight_bytes=int(WEIGHTS), trained_bytes=int(trained),
        compute="float32", device="cpu", path="compiled kernels",
    )  # fmt: skip
    facts = replace(facts, **(changed or {}))
    policy = {"model": "SmolLM2-135M-Instruct", **({"lora": {"rank": 16}} if trained < WEIGHTS else {})}
    task = {"source": "rows.jsonl", "prompt": "question"} | ({"max_prompt_tokens": 128} if changed else {})
    recipe = Recipe(policy=policy, task=task, reward=["exact_number"], objective={"preset": preset}, **tables)
    return memory_gb(recipe.stages[0], objectives.preset(preset), facts)


def test_an_adapter_on_a_small_step_is_not_planned_as_a_full_micro_batch():
    """2 x 2 completions of 16 tokens: 2.0 GB were measured."""
    assert planned(ADAPTER, rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 16}) == pytest.approx(
        2.0, rel=0.2
    )


def test_a_plan_grows_with_the_step_up_to_a_full_micro_batch():
    steps = [{"prompts_per_step": n, "group_size": 4, "max_tokens": 64} for n in (1, 2, 4, 8, 64, 128)]
    memory = [planned(ADAPTER, rollout=step) for step in steps]
    assert memory == sorted(memory)
    assert memory[0] < memory[3] == memory[4]
    assert planned(WEIGHTS, "grpo", rollout=steps[0]) > planned(ADAPTER, rollout=steps[0]) + 3 * WEIGHTS / 1e9


@pytest.mark.parametrize(("config", "measured"), GENERIC.values(), ids=GENERIC)
def test_the_generic_path_reads_a_prompt_for_every_row(config, measured):
    """4 x 8 completions of up to 64 tokens behind prompts of 128, random models of 3M parameters, whole training."""
    generic: dict[str, Any] = {
        "config": SimpleNamespace(hidden_size=256, num_hidden_layers=4, num_attention_heads=8, **config),
        "path": "generic path (measured)", "vocabulary": 304, "weight_bytes": 13_000_000, "trained_bytes": 13_000_000,
    }  # fmt: skip
    rollout = {"prompts_per_step": 4, "group_size": 8, "max_tokens": 64}
    assert planned(WEIGHTS, changed=generic, rollout=rollout) == pytest.approx(0.6 + measured, rel=0.15)
    packed = planned(WEIGHTS, changed={**generic, "path": "plain path (measured)"}, rollout=rollout)
    assert packed < 0.6 + 0.7 * measured
