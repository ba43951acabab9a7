"""What is decided once, over the whole optimizer batch, before it is split: which tokens stay in the policy term.

Filters, quantiles and covariances of a micro-batch are those of another, smaller batch, so a loss that takes them there
depends on the memory of the machine (TRL, verl and SkyRL do so). Here they are taken once, beside `token_weight`, from
the log-probs and entropies at the start of the update, and handed to `per_token_loss` row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cohort.algorithms import corrections, losses, terms

if TYPE_CHECKING:
    from cohort.algorithms.losses import Tokens
    from cohort.algorithms.objective import Objective


class Batchwide(NamedTuple):
    """[B, T] each, detached; None where the objective has no such thing."""

    keep: Tensor | None = None  # bool: the tokens that stay in the policy term
    extras: tuple[Tensor | None, ...] = ()  # of each extra term, how much each token counts; None: not a token of these
    slopes: Tensor | None = None  # of label_contrast: how the loss changes with a token's log-prob, here and now
    values: Tensor | None = None  # and what it is, spread over the tokens

    def rows(self, at: slice | Tensor | list[int]) -> Batchwide:
        """That of some rows."""
        return self.map(lambda part: part[at])

    def map(self, function: Callable[[Tensor], Tensor]) -> Batchwide:
        """A function of each of the tensors."""

        def of(part: Tensor | None) -> Tensor | None:
            return None if part is None else function(part)

        return Batchwide(of(self.keep), tuple(map(of, self.extras)), of(self.slopes), of(self.values))


class About(NamedTuple):
    """What is known of a whole optimizer batch beside its tokens."""

    weight: Tensor  # [B, T] `token_weight`
    rewards: Tensor | None = None  # [B]
    group: Tensor | None = None  # [B]
    observed: Tensor | None = None  # [B, T] bool: tokens that the environment wrote
    entropy: Tensor | None = None  # [B, T] nats
    seed: int = 0  # of what is chosen at random


@torch.no_grad()
def decide(o: Objective, x: Tokens, about: About) -> Batchwide:
    """The decisions over a whole optimizer batch."""
    keep = slopes = values = None
    if o.filters:
        keep = corrections.filtered(o.filters, x.old_logprobs, x.behaviour, x.mask)
    if o.focus != "all":
        chosen = FOCUSES[o.focus](o, x, about) | ~x.mask
        keep = chosen if keep is None else keep & chosen
    if o.surrogate == "label_contrast":
        slopes, values = _contrast(o, x, about.group)
    return Batchwide(keep, tuple(_weight(o, tokens, x, about) for _, tokens, _, _ in o.extras), slopes, values)


def _weight(o: Objective, tokens: str, x: Tokens, about: About) -> Tensor | None:
    """How much each token counts in an extra term: 1 over their number. The top of the covariance has the policy's own
    weights, as in its source.
    """
    word, share = terms.share_of("extras", tokens)
    if share is not None:
        return about.weight * top(covariance(x), x.mask, share)
    if word == "expert":
        return None
    chosen = x.mask
    if word == "positive":
        if about.rewards is None:
            raise ValueError("rewards is missing and an extra term of 'positive' tokens needs it; pass rewards [B]")
        chosen = x.mask & (about.rewards.to(x.logprobs) > 0)[:, None]
    elif word == "observation":
        if about.observed is None:
            return None
        chosen = about.observed
    return chosen.double() / chosen.sum().clamp(min=1)


def covariance(x: Tokens) -> Tensor:
    """(A - mean A)(log pi - mean log pi) of each token, [B, T] float64, means over all unmasked tokens. 2505.22617."""
    count = x.mask.sum().clamp(min=1)
    parts = [value.double().masked_fill(~x.mask, 0) for value in (x.advantages, x.logprobs)]
    a, logs = (part - part.sum() / count for part in parts)
    return a * logs


def top(values: Tensor, among: Tensor, share: float) -> Tensor:
    """The largest values of the tokens in `among`, [B, T] bool: max(1, floor(share * count)) of them; of equal ones
    those that come first.
    """
    count = int(among.sum())
    wanted = min(count, max(1, int(share * count + 1e-9)))
    order = torch.where(among, values, -math.inf).flatten().argsort(descending=True, stable=True)
    found = torch.zeros_like(among).flatten()
    found[order[:wanted]] = True
    return found.view_as(among) & among


def _top_entropy(o: Objective, x: Tokens, about: About) -> Tensor:
    """Tokens whose entropy is at least the (1 - share) quantile of all tokens, linearly interpolated. 2506.01939."""
    if about.entropy is None:
        raise ValueError("entropy is missing and focus='top_entropy' needs it; pass entropy [B, T]")
    assert o.focus_share is not None
    values = about.entropy.double()
    ranked = values[x.mask].sort().values
    if not len(ranked):
        return x.mask
    at = (1 - o.focus_share) * (len(ranked) - 1)
    low = min(int(at + 1e-9), len(ranked) - 1)
    high = min(low + 1, len(ranked) - 1)
    return values >= torch.lerp(ranked[low], ranked[high], max(at - low, 0.0))


def _low_covariance(o: Objective, x: Tokens, about: About) -> Tensor:
    """All tokens but max(1, floor(share * N)) drawn from those whose covariance is inside the bounds, and which the
    surrogate's bounds have not stopped already. Clip-Cov of 2505.22617.
    """
    assert o.focus_share is not None
    low = -math.inf if o.focus_low is None else o.focus_low
    high = math.inf if o.focus_high is None else o.focus_high
    cov = covariance(x)
    clipped, capped, dual = losses.SURROGATES[o.surrogate].clips(o, x, x.ratio(o))
    eligible = (x.mask & ~(clipped | capped | dual) & (cov > low) & (cov < high)).flatten().nonzero()[:, 0].cpu()
    count = max(1, int(o.focus_share * int(x.mask.sum()) + 1e-9))
    drawn = torch.randperm(len(eligible), generator=torch.Generator().manual_seed(about.seed))[:count]
    left = torch.ones(x.mask.numel(), dtype=torch.bool)
    left[eligible[drawn]] = False
    return left.view(x.mask.shape).to(x.mask.device)


# Choices of tokens: (objective, tokens, what is known of the batch) to which stay, [B, T] bool.
FOCUSES: dict[str, Callable[[Objective, Tokens, About], Tensor]] = {
    "top_entropy": _top_entropy,
    "low_covariance": _low_covariance,
}


def _contrast(o: Objective, x: Tokens, group: Tensor | None) -> tuple[Tensor, Tensor]:
    """REAL (2602.05630): 1/P sum over groups of ln(1 + sum_{A > 0} e^(-s/tau)) + ln(1 + sum_{A <= 0} e^(s/tau)), s the
    mean log-ratio of a completion. Groups of one kind add 0 and stay in P. Its gradient by each log-prob, and its value
    spread over all tokens, [B, T] each. A completion's advantage is the mean over its tokens.
    """
    if group is None:
        raise ValueError("group is missing and surrogate='label_contrast' needs it; pass the prompt of each row, [B]")
    lengths = x.mask.sum(-1).clamp(min=1)  # [B]
    moved = (x.logprobs - x.old_logprobs).masked_fill(~x.mask, 0).double()
    s = (moved.sum(-1) / lengths).clamp(-40 * o.contrast_temperature, 40 * o.contrast_temperature)
    there, right = x.mask.any(-1), x.advantages.masked_fill(~x.mask, 0).sum(-1) > 0
    groups, of = torch.unique(group, return_inverse=True)
    sides = []
    for chosen, sign in ((there & right, -1.0), (there & ~right, 1.0)):
        powers = torch.where(chosen, torch.exp(sign * s / o.contrast_temperature), 0)  # [B]
        sides.append((chosen, sign, powers, powers.new_zeros(len(groups)).index_add(0, of, powers)))  # [P]
    both = (sides[0][3] > 0) & (sides[1][3] > 0)  # [P]
    slopes, value = torch.zeros_like(s), torch.zeros((), dtype=s.dtype, device=s.device)
    for _, sign, powers, sums in sides:
        slopes += torch.where(both[of], sign / o.contrast_temperature * powers / (1 + sums[of]), 0)
        value += torch.where(both, sums.log1p(), 0).sum()
    slopes = (slopes / lengths / len(groups))[:, None] * x.mask
    return slopes, x.mask.double() * (value / len(groups) / x.mask.sum().clamp(min=1))
