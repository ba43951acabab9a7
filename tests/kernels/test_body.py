"""The fused body and the fused decoder against the model's own forward pass."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from cohort.engine.engine import Engine
from cohort.engine.fused import FusedDecoder
from cohort.kernels.functions import product
from cohort.learn.forward import head
from cohort.policy.attention import PackedGroups
from cohort.policy.fused import FusedBody
from cohort.policy.load import add_lora
from cohort.policy.policy import Policy
from cohort.settings import Lora
from cohort.types import SampleRequest, Sampling
from tiny import make_tiny, on_path

KINDS = ("qwen3", "qwen2", "llama", "qwen3-window", "mistral", "llama-bias")


@pytest.fixture(params=KINDS)
def policy(request, tokenizer):
    return on_path(Policy(make_tiny(request.param, tokenizer), tokenizer), "fused")


def twin(policy: Policy) -> Policy:
    """The same weights, on the plain path."""
    model = copy.deepcopy(policy.model)
    return on_path(Policy(model, policy.tokenizer), "plain")


def tokens(draw: torch.Generator, count: int) -> list[int]:
    return torch.randint(2, 300, (count,), generator=draw).tolist()


def groups() -> PackedGroups:
    draw = torch.Generator().manual_seed(3)
    prompts = [tokens(draw, n) for n in (37, 1, 16)]
    rollouts = [tokens(draw, n) for n in (40, 3, 1, 33, 17, 16)]
    return PackedGroups(prompts, rollouts, [0, 0, 1, 1, 2, 2])


def hidden_and_gradients(policy: Policy, layout: PackedGroups) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    policy.model.zero_grad()
    hidden = policy.hidden(layout.tokens, layout.positions, layout)
    (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(5))).sum().backward()
    return hidden.detach(), {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}


def test_hidden_states_and_gradients_are_the_plain_ones(policy):
    fused, gradients = hidden_and_gradients(policy, groups())
    plain, expected = hidden_and_gradients(twin(policy), groups())
    assert policy.fused is not None
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert (gradient - expected[name]).norm() <= 1e-4 * expected[name].norm(), name


def test_products_have_a_rounded_number_of_rows(tokenizer, monkeypatch):
    """Or oneDNN would compile them anew for every batch, and keep each."""
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    rows = []

    def noting(x, weight, bias=None):
        rows.append(len(x))
        return product(x, weight, bias)

    monkeypatch.setattr("cohort.kernels.functions.product", noting)
    monkeypatch.setattr("cohort.learn.forward.product", noting)
    layout = groups()
    states = policy.hidden(layout.tokens, layout.positions, layout)
    found, entropy = head(policy, states[:70], torch.full((70,), 5), 1.0, False)
    found.sum().backward()
    assert len(states) == layout.tokens.numel() == 158
    assert found.shape == entropy.shape == (70,)
    assert {192, 128} <= set(rows)
    assert all(count % 64 == 0 for count in rows)


def test_long_sequences(tokenizer):
    """Longer than a block of queries and a tile of keys, many times over."""
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    policy.config.max_position_embeddings = 1024
    draw = torch.Generator().manual_seed(0)
    layout = PackedGroups([tokens(draw, 300)], [tokens(draw, n) for n in (500, 77)], [0, 0])
    fused, gradients = hidden_and_gradients(policy, layout)
    plain, expected = hidden_and_gradients(twin(policy), layout)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        assert (gradient - expected[name]).norm() <= 1e-4 * expected[name].norm(), name


def test_bfloat16_is_near_plain_bfloat16(tokenizer):
    fused = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer, "bfloat16"), "fused")
    plain = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer, "bfloat16"), "plain")
    exact = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "plain")
    layout = groups()
    (a, to_a), (b, to_b), (c, to_c) = (hidden_and_gradients(p, layout) for p in (fused, plain, exact))
    # Not farther from the exact numbers than the plain path is, give or take.
    assert (a - c).norm() <= 1.5 * (b - c).norm()
    for name in to_c:
        assert (to_a[name] - to_c[name]).norm() <= 4 * (to_b[name] - to_c[name]).norm() + 1e-6, name


def sample(policy: Policy, requests, **settings):
    return {r.key: c for r, c in Engine(policy, **settings).sample(requests)}


def requests(temperature: float = 1.0, count: int = 5) -> list[SampleRequest]:
    draw = torch.Generator().manual_seed(9)
    return [
        SampleRequest(i, tuple(tokens(draw, 3 + 9 * i)), count, i, Sampling(12 + 13 * (i % 3), temperature))
        for i in range(6)
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("rows", [256, 7])
def test_decoding_samples_the_same_tokens(policy, rows, temperature):
    fused = sample(policy, requests(temperature), max_rows=rows)
    plain = sample(twin(policy), requests(temperature), max_rows=rows)
    assert policy.fused is not None
    for index, completions in fused.items():
        for a, b in zip(completions, plain[index], strict=True):
            assert (a.tokens, a.finish) == (b.tokens, b.finish)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_truncated_sampling_on_the_fused_decoder(tokenizer):
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    wanted = [SampleRequest(0, (5, 6, 7), 6, 3, Sampling(20, 1.0, top_p=0.8, top_k=20))]
    fused, plain = sample(policy, wanted), sample(twin(policy), wanted)
    assert [c.tokens for c in fused[0]] == [c.tokens for c in plain[0]]


def test_decoding_in_bfloat16(tokenizer):
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer, "bfloat16"), "fused")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the first group is compared with the plain path
        completions = sample(policy, requests())
    assert policy.fused is not None
    assert all(len(c) == 5 for c in completions.values())


def test_new_weights_are_used_at_once(policy):
    from cohort.learn.optimizer import open_optimizer
    from cohort.settings import Optimizer

    optimizer = open_optimizer(Optimizer(), policy.module)
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    sample(policy, requests())
    layout = groups()
    hidden_and_gradients(policy, layout)
    optimizer.step()
    fused, plain = sample(policy, requests()), sample(twin(policy), requests())
    for index, completions in fused.items():
        assert [c.tokens for c in completions] == [c.tokens for c in plain[index]]
    after = policy.hidden(layout.tokens, layout.positions, layout)
    other = twin(policy)
    torch.testing.assert_close(after, other.hidden(layout.tokens, layout.positions, layout), atol=1e-5, rtol=1e-5)


def test_an_adapter_is_merged_for_decoding_and_trained(tokenizer, checkpoint_dir):
    from cohort.policy.load import load_policy

    policy = on_path(load_policy(str(checkpoint_dir)), "fused")
    policy = on_path(add_lora(policy, Lora(rank=4, alpha=8.0), seed=0), "fused")
    with torch.no_grad():
        for name, parameter in policy.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    fused = sample(policy, requests())
    layout = groups()
    trained = {n: p for n, p in policy.module.named_parameters() if p.requires_grad}
    hidden = policy.hidden(layout.tokens, layout.positions, layout)
    flow = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(5))
    gradients = torch.autograd.grad(hidden, list(trained.values()), flow)
    policy.fused = None
    plain = sample(policy, requests())
    hidden = policy.hidden(layout.tokens, layout.positions, layout)
    expected = torch.autograd.grad(hidden, list(trained.values()), flow)
    for index, completions in fused.items():
        for a, b in zip(completions, plain[index], strict=True):
            assert a.tokens == b.tokens
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    for name, a, b in zip(trained, gradients, expected, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-9, name


def test_a_wrong_body_is_found_out_and_left(tokenizer, monkeypatch):
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    final = FusedBody.final
    monkeypatch.setattr(FusedBody, "final", lambda self, x, change: final(self, x, change) * 1.01)
    layout = groups()
    with pytest.warns(UserWarning, match="differ by 0.01 of the largest"):
        hidden = policy.hidden(layout.tokens, layout.positions, layout)
    assert policy.fused is None
    other = twin(policy)
    assert torch.equal(hidden, other.hidden(layout.tokens, layout.positions, layout))


def test_a_wrong_gradient_is_found_out(tokenizer, monkeypatch):
    from cohort.kernels import functions

    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    right = functions.weight_gradient
    monkeypatch.setattr(functions, "weight_gradient", lambda flow, x: right(flow, x) * 1.1)
    layout = groups()
    with pytest.warns(UserWarning, match="gradients differ by 0.1"):
        policy.hidden(layout.tokens, layout.positions, layout)
    assert policy.fused is None


def test_wrong_decoding_is_found_out_and_sampled_again(tokenizer, monkeypatch):
    policy = on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), "fused")
    decode = FusedDecoder.decode
    monkeypatch.setattr(FusedDecoder, "decode", lambda *given: decode(*given) * 1.5)
    with pytest.warns(UserWarning, match="log-probs of sampled tokens differ"):
        found = sample(policy, requests())
    plain = sample(twin(policy), requests())
    assert policy.fused is None
    assert {i: [c.tokens for c in of] for i, of in found.items()} == {
        i: [c.tokens for c in of] for i, of in plain.items()
    }


def test_what_does_not_fit_says_why(tokenizer):
    assert "Gemma3ForCausalLM" in Policy(make_tiny("gemma3", tokenizer), tokenizer).plain_because
    half = make_tiny("qwen3", tokenizer).bfloat16()
    assert "float32" in Policy(half, tokenizer).plain_because
