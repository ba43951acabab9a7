"""The worked example that most tests use: one group of four completions, off policy enough for every clip to act."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

torch.set_num_threads(1)


def padded(rows: list[list[float]], width: int = 4) -> torch.Tensor:
    """Rows of numbers as [B, width] float64, 0 beyond their ends."""
    result = torch.zeros(len(rows), width, dtype=torch.float64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return result


@pytest.fixture
def example() -> SimpleNamespace:
    """Lengths 3, 2, 4, 3 (N = 12), rewards 1, 0.5, 0, 0. `logprobs` asks for a gradient."""
    old = padded([[-1.0, -0.5, -2.0], [-0.7, -1.2], [-0.3, -0.9, -1.5, -2.2], [-1.3, -0.4, -0.8]])
    moved = padded([[0.05, 0.30, -0.10], [-0.40, 0.10], [0.02, -0.25, 0.40, 0], [1.20, -0.05, 0.15]])
    from_ref = padded([[0.10, -0.20, 0.05], [0.30, 0], [-0.15, 0.25, 0.50, -0.05], [0, 0.20, -0.40]])
    mismatch = padded([[0.01, -0.02, 0.60], [0, 0.03], [-0.80, 0.05, 0.02, -0.01], [1.0, 0, -0.05]])
    lengths = torch.tensor([3, 2, 4, 3])
    logprobs = old + moved
    return SimpleNamespace(
        logprobs=logprobs.clone().requires_grad_(),
        old_logprobs=old,
        ref_logprobs=logprobs - from_ref,
        sampler_logprobs=old - mismatch,
        mask=torch.arange(4) < lengths[:, None],
        lengths=lengths,
        rewards=torch.tensor([[1, 0.5, 0, 0]], dtype=torch.float64),
        A=torch.tensor([1.305582420, 0.261116484, -0.783349452, -0.783349452], dtype=torch.float64),
        dr_A=torch.tensor([0.625, 0.125, -0.375, -0.375], dtype=torch.float64),
        token_A=padded([[1, 1, -0.5], [0.2, 0.3], [-0.8, -0.8, -0.1, 0.4], [-0.7, -0.7, 0.9]]),
    )


@pytest.fixture
def pad():
    return padded
