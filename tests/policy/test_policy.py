"""The policy: tokenizers that any text survives, models that are compared before they are trusted."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.environments.episodes import OneTurn
from cohort.policy.attention import PackedGroups
from cohort.policy.load import load_policy, save_policy
from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.policy.text import completion_reader
from cohort.settings import Scratch
from cohort.types import Completion, SampleRequest, Sampling, UserError
from tiny import make_tiny


@given(text=st.text(max_size=60))
@settings(max_examples=200)
def test_any_text_survives_the_scratch_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_are_single_tokens(tokenizer):
    assert [tokenizer.decode([t]) for t in tokenizer.encode("1987", add_special_tokens=False)] == list("1987")
    assert len(tokenizer.encode("</think><answer>", add_special_tokens=False)) == 2


def test_the_tokenizer_and_model_depend_on_text_and_seed_alone():
    texts = ["Tom has 12 apples.", "Ana buys 7 more apples."] * 5
    first, second = make_tokenizer(texts, 300), make_tokenizer(texts, 300)
    assert first.get_vocab() == second.get_vocab()
    a, b, c = (make_model(first, seed, Scratch(layers=1)) for seed in (1, 1, 2))
    same = [torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(a.lm_head.weight, c.lm_head.weight)


def test_the_chat_template_marks_the_assistants_turn(tokenizer):
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "2 + 2?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == "<|system|>Be kind.<|user|>2 + 2?<|assistant|>"


def test_every_architecture_passes_its_check(policy_and_plain):
    policy, _ = policy_and_plain
    policy.check()


def test_a_model_that_does_more_than_the_layouts_know_runs_by_its_own_forward_pass(tokenizer, monkeypatch):
    model = make_tiny("qwen3", tokenizer)
    policy = Policy(model, tokenizer)
    original = type(model.model).forward

    def with_a_twist(self, *args, layout=None, **kwargs):
        out = original(self, *args, **({"layout": layout} if layout is not None else {}), **kwargs)
        if layout is None:
            out.last_hidden_state = out.last_hidden_state * 1.1
        return out

    monkeypatch.setattr(type(model.model), "forward", with_a_twist)
    with pytest.warns(UserWarning, match="Qwen3ForCausalLM takes the generic path .packed rows change its log-probs"):
        policy.check()
    assert policy.fused is None
    assert policy.generic is not None


COARSE = [("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]


def coarse(kind, tokenizer, dtype):
    """A model whose log-probs move far when it is rounded to bfloat16, as those of trained models do."""
    model = make_tiny(kind, tokenizer)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)
    return model.to(getattr(torch, dtype))


@pytest.mark.parametrize(("dtype", "compute"), COARSE)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen3-window", "gemma3"])
def test_rounding_to_bfloat16_is_no_wrong_algorithm(kind, dtype, compute, tokenizer):
    model = coarse(kind, tokenizer, dtype)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        rounded, exact = (
            m(ids).logits.float().log_softmax(-1) for m in (model.bfloat16(), copy.deepcopy(model).float())
        )
    assert (rounded - exact).abs().max() > 0.2  # of which both attentions have their own
    model = coarse(kind, tokenizer, dtype)
    before = copy.deepcopy(model.state_dict())
    policy = Policy(model, tokenizer, compute)
    policy.check()
    assert policy.compute_name == compute
    after = policy.model.state_dict()
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(("dtype", "compute"), COARSE)
def test_a_wrong_algorithm_is_told_from_rounding(dtype, compute, tokenizer, monkeypatch):
    """One that moves log-probs less than rounding does."""
    policy = Policy(make_tiny("llama", tokenizer).to(getattr(torch, dtype)), tokenizer, compute)
    policy.check()
    attend = PackedGroups.attend
    monkeypatch.setattr(PackedGroups, "attend", lambda self, *a: attend(self, *a) * 1.01)
    with pytest.warns(UserWarning, match="packed rows change its log-probs"):
        policy.check()


def test_save_and_load_keep_every_bit(tiny_policy, tmp_path):
    save_policy(tiny_policy, tmp_path)
    again = load_policy(str(tmp_path))
    ours, theirs = tiny_policy.module.state_dict(), again.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize(("model", "says"), [("./nothing", "no directory './nothing'"), ("/tmp", "holds no model")])
def test_what_is_no_model_is_refused(model, says):
    with pytest.raises(UserError, match=says):
        load_policy(model)


def test_a_hub_id_that_cannot_be_reached_is_one_sentence():
    with pytest.raises(
        UserError, match="cannot load the model 'nobody/nothing': no file or directory here has this name, and as a hub"
    ):
        load_policy("nobody/nothing")


def test_packed_groups_compute_each_prompt_once(tiny_policy):
    layout = PackedGroups([[5, 6, 7], [8, 9]], [[10, 11, 12], [13], [14, 15]], [0, 0, 1])
    assert layout.tokens.tolist() == [[5, 6, 7, 8, 9, 10, 11, 14]]
    assert layout.positions.tolist() == [[0, 1, 2, 0, 1, 3, 4, 2]]
    rows, columns = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 0, 0, 1])
    assert layout.predictors(rows, columns).tolist() == [2, 5, 6, 2, 4, 7]


def test_text_is_a_view_without_special_tokens(tokenizer):
    tokens = (*tokenizer.encode("<answer> 4 </answer>", add_special_tokens=False), tokenizer.eos_token_id)
    completion = Completion(tokens, (0.0,) * len(tokens), "stop", 3)
    sampler = SimpleNamespace(sample=lambda requests: [(request, (completion,)) for request in requests])
    request = SampleRequest(0, (1,), 1, 0, Sampling(9))
    ((_, played),) = OneTurn(cast(Any, sampler), completion_reader(tokenizer))([request], {})
    assert isinstance(played, tuple)
    (rollout,) = played
    assert rollout.text == "<answer> 4 </answer>"
    assert rollout.tokens == tokens
    assert rollout.version == 3
    assert all(rollout.mask)
    tail = tuple(tokenizer.encode("a</answer>b", add_special_tokens=False))
    read = completion_reader(tokenizer, ("</answer>",))
    assert read(Completion(tail, (0.0,) * len(tail), "stop", 0)) == "a</answer>"
    assert read(Completion(tail, (0.0,) * len(tail), "length", 0)) == "a</answer>b"


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer):
    model = make_tiny("llama", tokenizer)
    model.resize_token_embeddings(len(tokenizer) - 5)
    with pytest.raises(UserError, match="the tokenizer has"):
        Policy(model, tokenizer)
