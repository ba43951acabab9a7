"""What each token counts, against sums written out."""

from __future__ import annotations

import pytest
import torch

from cohort.algorithms import token_weights as tw

# Two prompts with two completions each, lengths 3, 1, 2 and 0 (the last one wholly masked).
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]])
GROUP = torch.tensor([7, 7, 3, 3])


@pytest.mark.parametrize(
    ("weight", "rows"),
    [
        (tw.token_mean(MASK), [1 / 6, 1 / 6, 1 / 6, 0]),
        (tw.prompt_token_mean(MASK, GROUP), [1 / 8, 1 / 8, 1 / 4, 0]),
        (tw.sequence_mean(MASK), [1 / 12, 1 / 4, 1 / 8, 0]),
        (tw.sequence_sum(MASK), [1 / 4, 1 / 4, 1 / 4, 0]),
        (tw.sequence_token_sum(MASK), [1 / 4, 1 / 4, 1 / 4, 0]),
        (tw.constant_length(MASK, 10), [1 / 40, 1 / 40, 1 / 40, 0]),
    ],
)
def test_weights(weight, rows):
    expected = torch.tensor(rows, dtype=torch.float64)[:, None] * MASK
    torch.testing.assert_close(weight, expected, rtol=0, atol=1e-15)
    assert torch.equal(weight, weight.masked_fill(MASK == 0, 0))


def test_a_batch_without_a_token_weighs_nothing():
    empty = torch.zeros(2, 3, dtype=torch.bool)
    everything = [tw.token_mean(empty), tw.prompt_token_mean(empty, torch.tensor([0, 0])), tw.sequence_mean(empty),
                  tw.sequence_sum(empty), tw.sequence_token_sum(empty), tw.constant_length(empty, 3)]  # fmt: skip
    assert all((weight == 0).all() for weight in everything)


def test_refusals():
    with pytest.raises(ValueError, match="group has shape"):
        tw.prompt_token_mean(MASK, torch.tensor([0]))
    with pytest.raises(ValueError, match="max_tokens=0"):
        tw.constant_length(MASK, 0)
    with pytest.raises(ValueError, match="mask has shape"):
        tw.token_mean(MASK[0])
