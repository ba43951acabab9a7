"""Adapters of every kind are trained, on the compiled path as on the plain one, or the former is left with a word.

Siblings that are tried: the head, alone and beside projections; the embedding; both; tied and untied; whole modules
that are saved beside an adapter (head, embedding, norm); DoRA, rsLoRA, biases of an adapter, rows of the embedding,
adapters of another method; an adapter that is merged; a live model that is called again afterwards.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cohort.algorithms import objectives
from cohort.engine.engine import Engine
from cohort.learn.learner import Learner
from cohort.learn.reference import Reference
from cohort.policy.load import add_lora, load_policy, save_policy
from cohort.policy.policy import Policy
from cohort.settings import Lora, Optimizer
from cohort.train.sft import supervised_batch
from cohort.types import SampleRequest, Sampling, UserError
from tiny import make_tiny, on_path

ON_THE_KERNELS: dict[str, dict[str, Any]] = {
    "projections": {"target_modules": ["q_proj", "down_proj"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "embedding alone": {"target_modules": ["embed_tokens"]},
    "rslora": {"target_modules": ["q_proj"], "use_rslora": True},
}
PLAIN: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["lm_head"]},
    "head beside": {"target_modules": ["q_proj", "lm_head"]},
    "head and embedding": {"target_modules": ["lm_head", "embed_tokens"]},
    "head saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "embedding saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "both saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "norm saved": {"target_modules": ["q_proj"], "modules_to_save": ["norm", "input_layernorm"]},
    "mlp saved": {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]},
    "dora": {"target_modules": ["q_proj"], "use_dora": True},
    "bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "rows": {"target_modules": ["q_proj"], "trainable_token_indices": [20, 21, 30]},
}
KINDS = ON_THE_KERNELS | PLAIN
BATCH = [([20, 21, 22], [30, 31, 32, 33], [True] * 4), ([23, 24], [34, 35], [True] * 2)]


def adapted(base, tokenizer, kind, path="fused"):
    options: dict[str, Any] = {**KINDS[kind], "lora_alpha": 8} if kind in KINDS else {}
    torch.manual_seed(3)
    module = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, task_type="CAUSAL_LM", **options))
    return on_path(Policy(module, tokenizer), path) if path == "plain" else Policy(module, tokenizer)


def trained(policy, tmp_path):
    learner = Learner(policy, objectives.preset("dr_grpo"), Optimizer())
    for _ in range(3):
        learner.update(supervised_batch(BATCH), 1e-2)
    save_policy(policy, tmp_path)
    return load_file(tmp_path / "adapter_model.safetensors")


@pytest.fixture(params=["qwen3", "qwen3-window"], ids=["untied", "tied"])
def base(request, tokenizer, tmp_path):
    """A model that is somewhere on disk, as the base of an adapter is."""
    model = make_tiny(request.param, tokenizer)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return AutoModelForCausalLM.from_pretrained(tmp_path / "base")


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_is_trained_on_the_compiled_path_as_on_the_plain_one(kind, base, tokenizer, tmp_path):
    policy = adapted(base, tokenizer, kind)
    if policy.fused is None and kind in ON_THE_KERNELS:
        pytest.skip(policy.plain_because)
    assert (policy.fused is None) == (kind in PLAIN), policy.plain_because
    before = {name: p.detach().clone() for name, p in policy.module.named_parameters() if p.requires_grad}
    ours = trained(policy, tmp_path / "ours")
    moved = {name for name, p in policy.module.named_parameters() if p.requires_grad and not p.equal(before[name])}
    # The first update moves the half that starts at zero, the next ones both.
    assert moved == before.keys()
    theirs = trained(adapted(base, tokenizer, kind, "plain"), tmp_path / "theirs")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=2e-4, rtol=0)
    # What was saved samples with the log-probs that peft computes.
    again = load_policy(str(tmp_path / "ours"))
    request = SampleRequest(0, (20, 21, 22), 2, 1, Sampling(max_tokens=6))
    _, completions = next(Engine(again).sample([request]))
    policy.release()
    for completion in completions:
        ids = torch.tensor([[20, 21, 22, *completion.tokens]])
        with torch.no_grad():
            logits = policy.module(input_ids=ids).logits[0, 2:-1].log_softmax(-1)
        found = logits.gather(1, ids[0, 3:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), found, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_of_every_adapter_is_the_base(kind, base, tokenizer, tmp_path):
    policy = adapted(base, tokenizer, kind)
    learner = Learner(policy, objectives.preset("grpo"), Optimizer(), reference=Reference(policy))
    batch = supervised_batch(BATCH)
    start = learner.logprobs(batch)
    trained(policy, tmp_path / "ours")
    assert not torch.allclose(learner.logprobs(batch), start, atol=1e-3)
    torch.testing.assert_close(learner.reference_logprobs(batch), start, atol=1e-5, rtol=0)


def test_a_merged_adapter_is_not_added_twice(base, tokenizer, tmp_path):
    policy = adapted(base, tokenizer, "projections")
    trained(policy, tmp_path / "ours")
    request = SampleRequest(0, (20, 21, 22), 2, 1, Sampling(max_tokens=6))
    _, expected = next(Engine(policy).sample([request]))
    policy.module.merge_adapter()
    again = Policy(policy.module, tokenizer)
    _, completions = next(Engine(again).sample([request]))
    assert (again.fused is None) == (policy.fused is None), again.plain_because
    assert [c.tokens for c in completions] == [c.tokens for c in expected]


SAME = Lora(rank=4, alpha=8.0, targets=("q_proj", "v_proj"))
OTHERS = {
    "rank": (Lora(rank=32, alpha=8.0, targets=("q_proj", "v_proj")), "rank is 4, not 32"),
    "alpha": (Lora(rank=4, alpha=64.0, targets=("q_proj", "v_proj")), "alpha is 8.0, not 64.0"),
    "fewer": (Lora(rank=4, alpha=8.0, targets=("q_proj",)), "no place for its .*v_proj"),
    "more": (Lora(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "lm_head")), "no weights for .*lm_head"),
    "all": (Lora(rank=4, alpha=8.0), "no weights for .*down_proj"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_an_adapter_beside_another_one_in_the_recipe_is_refused(case, base, tokenizer, tmp_path):
    table, says = OTHERS[case]
    save_policy(add_lora(Policy(base, tokenizer), SAME, seed=0), tmp_path / "first")
    with pytest.raises(UserError, match=f"another one than policy.lora describes: .*{says}"):
        add_lora(load_policy(str(tmp_path / "first")), table, seed=0)


@pytest.mark.parametrize("table", [SAME, Lora(rank=4), Lora(rank=2, targets=("embed_tokens", "lm_head"))])
def test_the_same_adapter_goes_on(table, base, tokenizer, tmp_path):
    save_policy(add_lora(Policy(base, tokenizer), table, seed=0), tmp_path / "first")
    policy = load_policy(str(tmp_path / "first"))
    assert add_lora(policy, table, seed=1) is policy


@pytest.mark.parametrize("kind", ["dora", "rslora", "head saved"])
def test_an_adapter_of_another_kind_beside_policy_lora_is_refused(kind, base, tokenizer):
    with pytest.raises(UserError, match=r"use_dora is True|use_rslora is True|modules_to_save is"):
        add_lora(adapted(base, tokenizer, kind), Lora(rank=2, alpha=8.0, targets=("q_proj",)), seed=0)


def test_a_model_that_got_an_adapter_has_its_own_attention_again(base, tokenizer):
    policy = add_lora(Policy(base, tokenizer), Lora(rank=2), seed=0)
    policy.release()
    base(input_ids=torch.tensor([[20, 21, 22]]))


def test_an_adapter_of_another_method_takes_the_plain_path(base, tokenizer):
    config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    policy = Policy(get_peft_model(base, config), tokenizer)
    assert policy.fused is None
    policy.check()
