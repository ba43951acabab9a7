"""One uniform number a row: the right distribution, the right log-probs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.engine.sampling import RowSampling, choose


def settings_of(n, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    return RowSampling(
        torch.full((n,), float(temperature)), torch.full((n,), float(top_p)), torch.full((n,), top_k),
        torch.full((n,), float(min_p)),
    )  # fmt: skip


def test_the_inverse_cdf_gives_each_token_its_share():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    n = 20_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens, logprobs = choose(logits.expand(n, -1), uniform, settings_of(n, 0.7), False)
    expected = (logits / 0.7).softmax(-1)
    shares = torch.bincount(tokens, minlength=4) / n
    torch.testing.assert_close(shares, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(logprobs, expected.log()[tokens])


def test_temperature_as_worked_out_in_the_literature():
    _, logprobs = choose(torch.tensor([[2.0, 1.0, 0.0]]), torch.zeros(1).double(), settings_of(1, 0.6), False)
    torch.testing.assert_close(logprobs, torch.tensor([-0.202573100]))


def test_greedy_takes_the_first_maximum_at_temperature_one():
    tokens, logprobs = choose(torch.tensor([[0.0, 3.0, 3.0]]), torch.tensor([0.999]).double(), settings_of(1, 0), False)
    assert tokens.item() == 1
    torch.testing.assert_close(logprobs, torch.tensor([[0.0, 3.0, 3.0]]).log_softmax(-1)[:, 1])


@given(
    seed=st.integers(0, 10_000),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.5),
    u=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=150)
def test_truncated_distributions_are_renormalised(seed, top_k, top_p, min_p, u):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed)) * 2
    probs = logits.softmax(-1)[0].double()
    alive = probs >= min_p * probs.max() * (1 - 1e-6)
    if top_k:
        alive &= probs >= torch.where(alive, probs, 0).sort(descending=True).values[min(top_k, 12) - 1]
    kept = torch.where(alive, probs, 0)
    kept = kept / kept.sum()
    order = kept.argsort(descending=True)
    before = kept[order].cumsum(0) - kept[order]
    nucleus = torch.zeros(12, dtype=torch.bool)
    nucleus[order[(before < top_p - 1e-6) | (torch.arange(12) == 0)]] = True
    wider = torch.zeros(12, dtype=torch.bool)  # within rounding of the border, either side is right
    wider[order[(before < top_p + 1e-6) | (torch.arange(12) == 0)]] = True

    uniform = torch.tensor([u], dtype=torch.float64)
    tokens, logprobs = choose(logits, uniform, settings_of(1, 1.0, top_p, top_k, min_p), True)
    token = tokens.item()
    assert (alive & wider)[token]
    if torch.equal(nucleus, wider):
        final = torch.where(nucleus, kept, 0)
        torch.testing.assert_close(logprobs.double(), (final / final.sum())[tokens].log(), atol=1e-5, rtol=0)


def test_a_token_of_probability_zero_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for u in (0.0, 0.25, 0.5, 0.75, 1 - 2**-53):
        tokens, _ = choose(logits, torch.tensor([u], dtype=torch.float64), settings_of(1), False)
        assert tokens.item() in (1, 3)
