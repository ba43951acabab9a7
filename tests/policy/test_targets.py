"""all-linear puts adapters on layers that do what a linear layer does and are called, and says what it leaves out."""

from __future__ import annotations

import models_table
import pytest
import torch
from torch import nn

from cohort.policy.adapters import add_lora
from cohort.policy.load import load_policy, save_policy
from cohort.policy.policy import Policy
from cohort.policy.targets import linear_layers
from cohort.settings import Lora
from cohort.types import UserError

LEFT_OUT = {
    "llama4_text": {"router": "Llama4Router does more than a linear layer"},
    "phimoe": {"router": "PhimoeTopKRouter does more than a linear layer"},
    "deepseek_v4": {"o_a_proj": "DeepseekV4GroupedLinear does more than a linear layer"},
    "mamba": {"dt_proj": "the model reads its weights past it", "out_proj": "peft takes none on it in mamba"},
    "jamba": {"dt_proj": "the model reads its weights past it"},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*takes the generic path")


def made(name, tokenizer):
    model = models_table.make(name, len(tokenizer))
    model.config._name_or_path = model.name_or_path = "base"
    policy = Policy(model, tokenizer)
    policy.check()
    return policy


def logits(policy):
    policy.release()
    return policy.model(input_ids=torch.tensor([[5, 9, 31, 7, 12, 40]])).logits


def carriers(policy):
    """The modules that carry an adapter, by the last part of their names."""
    return {name.rpartition(".")[2] for name, one in policy.model.named_modules() if hasattr(one, "lora_A")}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_linear_layer_gets_no_adapter_and_the_plan_says_so(name, tokenizer):
    policy = made(name, tokenizer)
    before = logits(policy).detach()
    adapted = add_lora(policy, Lora(rank=2), 0)
    assert not carriers(adapted) & LEFT_OUT[name].keys()
    assert torch.allclose(logits(adapted), before, atol=1e-5)
    said = adapted.facts().adapter
    assert said.startswith("LoRA of rank 2, new; none on ")
    for layer, why in LEFT_OUT[name].items():
        assert f"{layer} ({why})" in said


@pytest.mark.parametrize("name", ["llama4_text", "mamba", "jamba", "gpt2", "falcon"])
def test_every_adapter_that_was_put_on_learns(name, tokenizer):
    adapted = add_lora(made(name, tokenizer), Lora(rank=2), 0)
    logits(adapted).log_softmax(-1)[..., 7].sum().backward()
    seconds = {n: p.grad for n, p in adapted.module.named_parameters() if ".lora_B." in n}
    assert seconds
    # An expert that no token was sent to has nothing to learn from.
    assert not [n for n, grad in seconds.items() if ".experts." not in n and (grad is None or not grad.any())]


def test_a_plain_model_is_left_to_peft(checkpoint_dir):
    policy = add_lora(load_policy(str(checkpoint_dir)), Lora(rank=2), 0)
    head = policy.model.get_output_embeddings()
    linear = {
        n for n, m in policy.model.named_modules() if isinstance(m, nn.Linear) and m is not head and "lora" not in n
    }
    assert carriers(policy) == {n.removesuffix(".base_layer").rpartition(".")[2] for n in linear}
    assert policy.facts().adapter == "LoRA of rank 2, new"


def test_chosen_layers_of_a_model_with_transposed_weights(tokenizer):
    policy = add_lora(made("gpt2", tokenizer), Lora(rank=2, layers=(1,)), 0)
    assert {n.split(".h.")[1][0] for n, m in policy.model.named_modules() if hasattr(m, "lora_A")} == {"1"}
    assert carriers(policy) == {"c_attn", "c_fc", "c_proj"}


def test_a_router_that_is_named_is_refused_in_a_sentence(tokenizer):
    with pytest.raises(UserError, match=r"policy\.lora\.targets = \('router',\).*Leave out modules that are no plain"):
        add_lora(made("llama4_text", tokenizer), Lora(rank=2, targets=("router",)), 0)


def test_the_same_layers_are_found_beneath_an_adapter(tmp_path, tokenizer):
    policy = made("llama4_text", tokenizer)
    before = linear_layers(policy.model, lambda: logits(policy))
    save_policy(policy, tmp_path / "base")
    policy = add_lora(load_policy(str(tmp_path / "base")), Lora(rank=2), 0)
    assert linear_layers(policy.model, lambda: logits(policy)) == before
    save_policy(policy, tmp_path / "adapter")
    again = load_policy(str(tmp_path / "adapter"))
    assert add_lora(again, Lora(rank=2), 0) is again
    with pytest.raises(UserError, match=r"another one than policy\.lora describes: rank"):
        add_lora(again, Lora(rank=4), 0)
