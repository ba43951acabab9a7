"""The memory that a plan announces, against what was measured."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cohort.algorithms import objectives
from cohort.policy.policy import PolicyFacts
from cohort.preflight.memory import fitted, fitting_words, memory
from cohort.recipe import Recipe
from cohort.settings import Stage
from cohort.types import UserError


def shape(hidden, layers, inner, heads, kv_heads, size):
    return SimpleNamespace(
        hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inner, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=size,
    )  # fmt: skip


SHAPES = {  # with their vocabulary and parameters
    "0.4M": (shape(96, 3, 256, 3, 1, 32), 768, 443_232),
    "0.8M": (shape(128, 4, 384, 4, 2, 32), 64, 804_000),
    "9M": (shape(256, 6, 768, 8, 4, 32), 4096, 6_819_456),
    "29M": (shape(512, 8, 1536, 16, 8, 32), 8080, 33_448_960),
    "135M": (shape(576, 30, 1536, 8, 4, 64), 49152, 134_518_848),
    "SmolLM2": (shape(576, 30, 1536, 9, 3, 64), 49152, 134_500_000),
}
# Rows, completions and prompts in tokens; the peak in GB, as `python bench/memory.py` and docs/real_model.md have it.
SMALL, MIDDLE, LARGE = (16, 16, 48, 48), (8, 8, 64, 64), (4, 8, 32, 256)
REAL, STEP = (4, 4, 32, 64), (8, 8, 32, 64)
MEASURED: dict[str, tuple[str, tuple[int, int, int, int], dict[str, Any], float]] = {
    "0.4M": ("0.4M", SMALL, {}, 0.71),
    "9M": ("9M", MIDDLE, {}, 1.12),
    "9M, bfloat16": ("9M", MIDDLE, {"compute": "bfloat16"}, 1.00),
    "9M, KL": ("9M", MIDDLE, {"preset": "grpo"}, 1.16),
    "9M, PPO": ("9M", MIDDLE, {"preset": "ppo"}, 1.25),
    "9M, fewer tokens": ("9M", MIDDLE, {"tokens": 1024}, 0.86),
    "29M": ("29M", LARGE, {}, 1.69),
    "135M": ("135M", REAL, {}, 3.64),
    "135M, bfloat16": ("135M", REAL, {"compute": "bfloat16"}, 3.55),
    "135M, 8 x 8": ("135M", STEP, {}, 5.27),
    "135M, 8 x 8, fewer tokens": ("135M", STEP, {"tokens": 1024}, 4.41),
    "135M, 8 x 8, fewer tokens, 8 bits": ("135M", STEP, {"tokens": 1024, "state": "8bit"}, 3.64),
    "SmolLM2, LoRA": ("SmolLM2", (2, 2, 16, 64), {"adapter": 4_900_000}, 2.0),
}


def planned(
    of: str,
    work: tuple[int, int, int, int],
    preset="dr_grpo",
    compute="float32",
    adapter=0,
    tokens=4096,
    state="float32",
    **policy: Any,
) -> tuple[Stage, Any, PolicyFacts]:
    config, vocabulary, parameters = SHAPES[of]
    trained = adapter or parameters
    facts = PolicyFacts(
        dequantised="", name="LlamaForCausalLM", tokenizer=None, eos_ids=(2,), turn_end=None, unheard_end="",
        context=8192, vocabulary=vocabulary, config=config, adapter="", parameters=parameters + adapter,
        trained=trained, weight_bytes=4 * (parameters + adapter), trained_bytes=4 * trained, compute=compute,
        device="cpu", path="compiled kernels",
    )  # fmt: skip
    policy |= {"model": "any", "compute": compute, **({"lora": {"rank": 16}} if adapter else {})}
    recipe = Recipe(
        policy=policy,
        task={"source": "rows.jsonl", "prompt": "question", "max_prompt_tokens": work[3]},
        rollout={"prompts_per_step": work[0], "group_size": work[1], "max_tokens": work[2]},
        reward=["exact_number"],
        objective={"preset": preset},
        optimizer={"tokens_per_micro_batch": tokens, "state": state},
        evaluate={"problems": 0},
    )
    return recipe.stages[0], objectives.preset(preset), facts


@pytest.mark.parametrize(("of", "work", "how", "measured"), MEASURED.values(), ids=MEASURED)
def test_a_plan_is_within_15_percent_of_the_peak(of, work, how, measured):
    assert memory(*planned(of, work, **how)).gb == pytest.approx(measured, rel=0.15)


def test_a_plan_grows_with_the_step_up_to_a_full_micro_batch():
    steps = [memory(*planned("135M", (n, 4, 64, 64), adapter=4_900_000)) for n in (1, 2, 4, 8, 64, 128)]
    needs = [one.gb for one in steps]
    assert needs == sorted(needs)
    assert needs[0] < needs[3] < needs[4] == needs[5]
    whole = memory(*planned("135M", (1, 4, 64, 64), preset="grpo"))
    assert whole.held + whole.learning > 4 * 5 * 134.5e6  # weights, gradients, averages and a reference


def test_the_generic_path_reads_a_prompt_for_every_row():
    """BLOOM: 4 x 8 completions of up to 64 tokens behind prompts of 128, a random model of 3M parameters."""
    stage, objective, facts = planned("0.8M", (4, 8, 64, 128))
    config = SimpleNamespace(hidden_size=256, num_hidden_layers=4, num_attention_heads=8)
    size: dict[str, Any] = {
        "weight_bytes": 13_000_000,
        "trained_bytes": 13_000_000,
        "vocabulary": 304,
        "config": config,
    }
    generic = replace(facts, path="generic path (measured)", **size)
    assert memory(stage, objective, generic).gb == pytest.approx(0.6 + 0.708, rel=0.15)
    packed = memory(stage, objective, replace(generic, path="plain path (measured)")).gb
    assert packed < 0.6 + 0.7 * 0.708


def test_a_limit_gives_settings_that_fit_and_says_them():
    def fit(limit):
        stage, objective, facts = planned("135M", (16, 8, 128, 128), memory_gb=limit)
        fits = fitted(stage, objective, facts)
        return fits, memory(fits, objective, facts).gb, fitting_words(stage, fits)

    assert fit(20.0)[2] == ""
    fewer, gb, said = fit(5.5)
    assert gb <= 5.5
    assert fewer.optimizer.tokens_per_micro_batch == 2048
    assert said == "; to fit, 2,048 tokens at once"
    again, gb, said = fit(4.0)
    assert gb <= 4.0
    assert again.policy.checkpointing == "on"
    assert "activations computed again" in said
    with pytest.raises(UserError, match=r"needs about .* GB, also with 256 tokens at once, and policy.memory_gb = 2"):
        fit(2.0)
    stage, objective, facts = planned("135M", (16, 8, 128, 128), memory_gb=1.0)
    assert fitted(stage, objective, replace(facts, device="cuda:0")) is stage


def test_a_stage_that_draws_nothing_has_no_rows_to_give_up():
    stage, objective, facts = planned("135M", (16, 8, 128, 128), memory_gb=1.0)
    examples = stage.model_copy(update={"kind": "sft"})
    assert memory(examples, objective, facts).sampling < memory(stage, objective, facts).sampling / 10
    with pytest.raises(UserError, match=r"policy.memory_gb = 1: .*, or shorten the examples$"):
        fitted(examples, objective, facts)
