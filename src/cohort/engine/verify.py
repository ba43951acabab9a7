"""The first group that compiled decoding gives is recomputed by the model's own forward pass."""

from __future__ import annotations

import numpy as np
import torch

from cohort.policy.attention import PackedGroups, places
from cohort.policy.policy import Policy
from cohort.types import Completion, SampleRequest

__all__ = ["disagreement"]

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}  # of a log-prob; rounding in float32 is 1e-5


@torch.no_grad()
def disagreement(policy: Policy, request: SampleRequest, completions: tuple[Completion, ...]) -> str | None:
    """What is wrong with the log-probs of a sampled group; None when they are those of the plain path.

    Truncated distributions (top-p, top-k, min-p) are not compared: their log-probs are of another distribution.
    """
    sampling = request.sampling
    if sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0:
        return None
    rows = [completion.tokens for completion in completions]
    layout = PackedGroups([request.tokens], rows, [0] * len(rows), policy.device)
    hidden = policy.plain_hidden(layout.tokens, layout.positions, layout)
    logits = policy.logits(hidden[layout.predictors(*places(torch.tensor([len(row) for row in rows])))])
    plain = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
    plain = plain.gather(-1, torch.from_numpy(np.concatenate(rows))[:, None])[:, 0]
    sampled = torch.from_numpy(np.concatenate([completion.logprobs for completion in completions]))
    apart = (plain - sampled).abs().max().item()
    if apart <= TOLERANCE[policy.compute]:
        return None
    return f"log-probs of sampled tokens differ by {apart:.2g}"
