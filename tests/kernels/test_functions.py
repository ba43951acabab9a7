"""Each kernel against the PyTorch that it stands for, values and gradients, at awkward shapes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cohort.engine.sampling import RowSampling, choose
from cohort.kernels import functions
from cohort.kernels.library import built, kernels, why_not
from cohort.learn.forward import _Fused

pytestmark = pytest.mark.skipif(kernels() is None, reason=str(why_not()))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (70, 33), (130, 64)])
@pytest.mark.parametrize("added", [True, False])
def test_add_norm(rows, width, added):
    def plain(x, r, w):
        y = x + r if added else x
        return y, y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * w

    def fused(x, r, w):
        return functions.add_norm(x, r if added else None, w, 1e-6, torch.float32)

    results = []
    for function in (fused, plain):
        given = [normal(rows, width, seed=i).requires_grad_() for i in range(2)] + [
            normal(width, seed=2).requires_grad_()
        ]
        y, h = function(*given)
        wanted = given if added else [given[0], given[2]]
        results.append(
            (
                y,
                h,
                *torch.autograd.grad((y * normal(rows, width, seed=3) + h * normal(rows, width, seed=4)).sum(), wanted),
            )
        )
    for ours, theirs in zip(*results, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 19), (64, 96)])
def test_swiglu(rows, width):
    x = (normal(rows, 2 * width) * 20).requires_grad_()  # far into both tails of the sigmoid
    flow = normal(rows, width, seed=1)
    ours = functions.swiglu(x)
    theirs = F.silu(x[:, :width]) * x[:, width:]
    same(ours, theirs)
    (to_ours,) = torch.autograd.grad(ours, x, flow)
    (to_theirs,) = torch.autograd.grad(theirs, x, flow)
    same(to_ours, to_theirs)


@pytest.mark.parametrize(("n", "outputs", "inputs"), [(1, 3, 32), (257, 129, 64), (700, 1100, 32), (40, 24, 20)])
def test_weight_gradients(n, outputs, inputs):
    flow, x = normal(n, outputs), normal(n, inputs, seed=1)
    exact = (flow.double().t() @ x.double()).float()
    torch.testing.assert_close(functions.weight_gradient(flow, x), exact, atol=1e-4, rtol=1e-4)
    flow, x = flow.bfloat16(), x.bfloat16()
    exact = (flow.double().t() @ x.double()).float()
    half = functions.weight_gradient(flow, x)
    assert half.dtype is torch.float32
    assert (half - exact).norm() <= 1e-2 * exact.norm()


@pytest.mark.parametrize("vocabulary", [3, 64, 401])
def test_log_probs_of_the_head(vocabulary, monkeypatch):
    states, weight = normal(50, 16).requires_grad_(), normal(vocabulary, 16, seed=1).requires_grad_()
    targets = torch.randint(0, vocabulary, (50,), generator=torch.Generator().manual_seed(2))
    flow = normal(50, seed=3)
    for limit in (1 << 24, 7 * vocabulary):  # in one chunk, and in several that are recomputed
        monkeypatch.setattr("cohort.learn.forward.LOGITS_AT_ONCE", limit)
        ours, entropy = _Fused.apply(states, weight, targets, 0.7)
        whole = (states @ weight.t() / 0.7).log_softmax(-1)
        theirs = whole.gather(1, targets[:, None])[:, 0]
        same(ours, theirs)
        same(entropy, -(whole.exp() * whole).sum(-1))
        for a, b in zip(
            torch.autograd.grad(ours, (states, weight), flow),
            torch.autograd.grad(theirs, (states, weight), flow),
            strict=True,
        ):
            same(a, b)


def test_extreme_logits():
    logits = torch.full((3, 40), -math.inf)
    logits[0, 5] = 0.0  # one token has all
    logits[1] = 1e30
    logits[2] = torch.linspace(-2000, 2000, 40)
    targets = torch.tensor([5, 7, 39])
    found, entropy, _ = functions.logprobs(logits, targets, 1.0)
    assert found.tolist() == pytest.approx([0.0, -math.log(40), 0.0], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.0, math.log(40), 0.0], abs=1e-6)


def append(logits: torch.Tensor, uniform: torch.Tensor, temperature: torch.Tensor, ends=(10**6,), limit: int = 9):
    n = len(logits)
    tokens, logprobs = torch.zeros(n, 3, dtype=torch.long), torch.zeros(n, 3)
    uniforms = uniform[:, None].repeat(1, 3)
    length = torch.ones(n, dtype=torch.long)
    ended, columns = torch.empty(n, dtype=torch.uint8), (tokens, logprobs, uniforms, length, torch.full((n,), limit))
    given = logits.stride(0), logits, temperature, tokens.stride(0), *columns, torch.tensor(ends), len(ends), ended
    built().append_tokens(*logits.shape, *given)
    assert length.tolist() == [2] * n
    assert tokens[:, [0, 2]].eq(0).all()
    return tokens[:, 1], logprobs[:, 1], ended


@pytest.mark.parametrize("vocabulary", [2, 64, 65, 1000])
def test_tokens_are_those_of_the_plain_inversion(vocabulary):
    n = 2000
    logits = normal(n, vocabulary) * 3
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    temperature = torch.tensor([0.0, 0.5, 1.0, 2.0]).repeat(n // 4)
    zeros = torch.zeros(n)
    tokens, logprobs, _ = append(logits, uniform, temperature)
    plain, expected = choose(logits, uniform, RowSampling(temperature, zeros + 1, zeros.long(), zeros), False)
    apart = tokens != plain
    assert apart.sum() <= 1  # a uniform may fall on a rounding of the cumulative sum
    torch.testing.assert_close(logprobs[~apart], expected[~apart], atol=1e-5, rtol=1e-5)


def test_no_token_of_probability_zero_is_drawn():
    # 1.0 is what u * total can round to
    logits = torch.full((4, 70), -math.inf)
    logits[:, 3] = logits[:, 40] = 0.0
    tokens, logprobs, _ = append(logits, torch.tensor([0.0, 0.4999999, 0.5, 1.0], dtype=torch.float64), torch.ones(4))
    assert tokens.tolist() == [3, 3, 40, 40]
    assert logprobs.tolist() == pytest.approx([math.log(0.5)] * 4)


def test_ends_limits_and_broken_logits():
    logits = torch.zeros(3, 8)
    logits[:, 6] = 50.0
    logits[2, 1] = math.nan
    tokens, logprobs, ended = append(logits, torch.full((3,), 0.5).double(), torch.ones(3), ends=(5, 6))
    assert tokens[:2].tolist() == [6, 6]
    assert ended[:2].tolist() == [1, 1]
    assert logprobs[2].isnan()  # the engine stops the run
    _, _, ended = append(torch.zeros(1, 8), torch.tensor([0.1]).double(), torch.ones(1), limit=2)
    assert ended.tolist() == [1]


def test_results_do_not_depend_on_threads():
    layout = functions.Sequences(  # type: ignore[call-arg]
        torch.tensor([0, 3, 5]), torch.tensor([0, 30, 70, 100, 140]), torch.tensor([30, 40, 30, 40, 20]),
        *normal(2, 160, 8).unbind(0), 160,  # type: ignore[arg-type]
    )  # fmt: skip
    heads = functions.Heads(4, 2, 16, 1e-6, 0.25, 0)
    qkv, weight = normal(160, 8 * 16), normal(16, seed=1)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            given = [qkv.clone().requires_grad_(), weight.clone().requires_grad_(), weight.clone().requires_grad_()]
            out = functions.attend(*given, heads, layout)  # type: ignore[arg-type, call-arg]
            found.append((out, *torch.autograd.grad(out.square().sum(), given)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
