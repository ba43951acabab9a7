"""Decoding that multiplies in bytes, against the same rounding written out in PyTorch."""

from __future__ import annotations

import copy
import sys
import threading

import pytest
import torch
from torch import nn

from cohort.engine.engine import Engine
from cohort.kernels.library import built
from cohort.policy.policy import Policy
from cohort.types import SampleRequest, Sampling, UserError
from tiny import make_tiny, on_path

GROUP = 64  # inputs that share a scale


def in_bytes(x: torch.Tensor) -> torch.Tensor:
    """`[n, width]`, 64 neighbours rounded to 255 steps of their largest, as a number again."""
    width = x.shape[1]
    groups = nn.functional.pad(x, (0, -width % GROUP)).view(len(x), -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return (torch.where(scale > 0, groups / scale, 0).round() * scale).view(len(x), -1)[:, :width]


class Rounding(nn.Module):
    """A linear layer whose weight and input are rounded."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = in_bytes(layer.weight.detach()), layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(in_bytes(x.flatten(0, -2)).view_as(x), self.weight, self.bias)


def rounded_model(model: nn.Module) -> nn.Module:
    """A copy, all of whose products are rounded."""
    other = copy.deepcopy(model)
    for name, layer in [(name, layer) for name, layer in other.named_modules() if type(layer) is nn.Linear]:
        parent, _, attribute = name.rpartition(".")
        setattr(other.get_submodule(parent), attribute, Rounding(layer))
    return other


@torch.no_grad()
def logprobs(model: nn.Module, rounded: nn.Module, prompt: tuple[int, ...], tokens: list[int]) -> torch.Tensor:
    """What decoding gives: the prompt as it is, every token behind it rounded."""
    out = model(torch.tensor([prompt]), use_cache=True)
    found, cache = [out.logits[0, -1]], out.past_key_values
    for token in tokens[:-1]:
        out = rounded(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        found.append(out.logits[0, -1])
    return torch.stack(found).log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.mark.parametrize("kind", ["qwen3", "llama-bias", "qwen3-window"])
def test_log_probs_are_those_of_the_same_rounding_in_pytorch(tokenizer, kind):
    """Widths of 32 and 96 (a group of 64 and a half one), biases, heads of 24, a tied head."""
    model = make_tiny(kind, tokenizer)
    policy = on_path(Policy(copy.deepcopy(model), tokenizer), "fused")
    asked = [SampleRequest(i, tuple(range(5 + i, 12 + 3 * i)), 3, i, Sampling(20)) for i in range(3)]
    exact = dict(Engine(policy).sample(asked))
    engine, rounded = Engine(policy, precision="int8"), rounded_model(model)
    for request, completions in engine.sample(asked):
        for one in completions:
            plain = logprobs(model, rounded, tuple(request.tokens), list(one.tokens))
            # A value on the edge between two bytes may fall to either side: seldom, and that is a 255th of its group.
            apart = (torch.tensor(list(one.logprobs)) - plain).abs()
            assert apart.median() < 1e-5
            assert apart.max() < 0.02
    assert policy.fused is not None  # it agreed with the model's own forward pass
    assert dict(Engine(policy).sample(asked)) == exact  # another engine multiplies as ever,
    assert dict(engine.sample(asked)) != exact  # and this one in bytes


def test_bytes_follow_the_weights(tokenizer):
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    engine, asked = Engine(policy, precision="int8"), [SampleRequest(0, (5, 6, 7), 4, 1, Sampling(12))]
    before, mark = list(engine.sample(asked)), engine.fingerprint()
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(-1)
    assert list(engine.sample(asked)) != before
    assert engine.fingerprint() != mark


def test_the_plain_path_refuses_it(tokenizer):
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "plain")
    policy.plain_because = "COHORT_KERNELS switches them off"
    with pytest.raises(UserError, match=r'"int8" needs the compiled path, and this policy takes the plain path'):
        Engine(policy, precision="int8")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the numbers of threads say nothing")
@pytest.mark.parametrize("apart", [0, 1])
def test_tokens_start_no_threads(tokenizer, apart):
    """A team of threads that is made anew for every token costs a small model most of its time."""
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    engine, asked = Engine(policy), [SampleRequest(0, (5, 6, 7), 70, 1, Sampling(25))]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    built().decode_apart(apart)
    try:
        list(engine.sample(asked))
        counts = []
        for _ in range(40):  # other processes start threads, too, but not so many in each of these few milliseconds
            first = newest_thread()
            list(engine.sample(asked))
            counts.append(newest_thread() - first)
            if counts[-1] < 20:
                break
    finally:
        built().decode_apart(-1)
        torch.set_num_threads(before)
    assert min(counts) < 20  # in 25 tokens


def newest_thread() -> int:
    """The number of a thread that is made now; they are counted up."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return thread.native_id or 0


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_threads_that_go_apart_change_no_bit(tokenizer, precision):
    """70 rows of two threads: each goes through the model with its own, or both share every product."""
    policy = on_path(Policy(make_tiny("qwen3-window", tokenizer), tokenizer, "bfloat16"), "fused")
    asked = [SampleRequest(i, (5, 6, 7 + i), 35, i, Sampling(24)) for i in range(2)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for how in (0, 1):
            built().decode_apart(how)
            found.append(dict(Engine(policy, precision=precision).sample(asked)))
    finally:
        built().decode_apart(-1)
        torch.set_num_threads(before)
    assert found[0] == found[1]
