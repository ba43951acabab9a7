"""The learner: log-probs of a batch, one optimizer step on it, and nothing that knows where batches come from."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cohort.algorithms.objectives import (
    EntropyController,
    Objective,
    loss_metrics,
    merge_metrics,
    own_terms,
    per_token_loss,
    term,
)
from cohort.learn.batch import decided
from cohort.learn.budget import Budget
from cohort.learn.forward import batch_logprobs, forward, head, in_chunks
from cohort.learn.optimizer import clip_gradient, lost_weights, open_optimizer
from cohort.learn.reference import Reference
from cohort.learn.routing import Routers, balance, counts, load
from cohort.learn.teaching import Teaching
from cohort.policy.policy import Policy
from cohort.settings import Optimizer
from cohort.types import Batch, StepReport

# Means over the computed tokens: their public names, and the sums of `loss_metrics`.
MEANS = {
    "policy/entropy": "entropy",
    "policy/kl": "kl",
    "policy/clip_low": "clip_low",
    "policy/clip_high": "clip_high",
    "policy/clip_dual": "dual_clip",
    "policy/ratio": "ratio",
    "policy/mismatch": "mismatch",
}


class Learner:
    """Owns the optimizer of a policy. One `update` is one optimizer step on one batch.

    The loss is `(per_token * token_weight).sum()` with weights fixed for the whole batch, so micro-batches only have to
    be added up. Rows whose advantage is zero are not computed when nothing else (KL, entropy) depends on them.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        optimizer: Optimizer,
        temperature: float = 1.0,
        reference: Reference | None = None,
        router_aux_coef: float = 0.0,
        tolerant: bool = False,
        teaching: Teaching | None = None,
        budget: Budget | None = None,
    ):
        policy.refuse_classifier()
        self.policy = policy
        # A divergence over the vocabulary takes the place of what a teacher says of the sampled tokens.
        self.objective = objective if teaching is None else replace(objective, teacher_coef=0.0)
        self._teaching, self._teacher_coef = teaching, objective.teacher_coef
        self.settings = optimizer
        self.budget = Budget(optimizer.tokens_per_micro_batch) if budget is None else budget
        self.optimizer = open_optimizer(optimizer, policy.module)
        self.controller: EntropyController | None = None
        if (target := objective.entropy_target) is not None:
            o = objective
            self.controller = EntropyController(o.entropy_coef, target, o.entropy_step, o.entropy_min, o.entropy_max)
        self.form = temperature, objective.has_entropy_bonus  # of log-probs, as `head` takes it
        self.reference = reference
        self._routers = Routers(policy)
        self._router_aux_coef, self._tolerant = router_aux_coef, tolerant
        if router_aux_coef:
            self._routers.refuse_none()

    def logprobs(self, batch: Batch, policy: Policy | None = None, entropies: Tensor | None = None) -> Tensor:
        """`[N]` float32 log-probs of the batch under the current weights, or under another policy's; without gradient,
        and 0 outside the mask. `entropies` `[N]` is filled with those of the same tokens.
        """
        asked, wanted = policy or self.policy, self._wanted(batch)
        return self.budget.spend(lambda most: batch_logprobs(asked, batch, wanted, most, *self.form, entropies))

    def energies(self, batch: Batch) -> Tensor:
        """`[N]` float32: 1 - 2 p + sum_v p_v^2 of each token under the current weights, 0 outside the mask."""
        return self.budget.spend(partial(self._energies, batch))

    @torch.no_grad()
    def _energies(self, batch: Batch, tokens: int) -> Tensor:
        out = torch.zeros(batch.tokens.shape)

        def of(states: Tensor, targets: Tensor) -> tuple[Tensor]:
            p = (self.policy.logits(states) / self.form[0]).softmax(-1)  # [m, V]
            return (1 - 2 * p.gather(-1, targets[:, None])[:, 0] + p.square().sum(-1),)

        for micro, states in forward(self.policy, batch, batch.mask, tokens):
            (found,) = in_chunks(of, self.policy.vocabulary, states, micro.tokens)
            out[micro.picked] = found.float().cpu()
        return out

    def start(self, batch: Batch) -> Batch:
        """The batch with its log-probs under the current weights, and the entropies where the objective asks."""
        entropies = torch.zeros(batch.tokens.shape) if self.objective.focus == "top_entropy" else None
        return replace(batch, old_logprobs=self.logprobs(batch, entropies=entropies), entropy=entropies)

    def reference_logprobs(self, batch: Batch) -> Tensor:
        """The same, `[N]`, under the reference policy. Raises `ValueError` for an objective that needs none."""
        if self.reference is None:
            raise ValueError("an objective without a KL has no reference policy to ask")
        with self.reference.active() as policy:
            return self.logprobs(batch, policy)

    def update(self, batch: Batch, rate: float) -> StepReport:
        """One optimizer step. When the gradient is not finite, the weights are untouched, and `UserError` is raised, or
        where that is tolerated (`Stage.tolerant`) `loss` and `grad_norm` say so, and `policy/not_finite` counts what
        weights were lost.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.objective.surrogate == "label_contrast" and batch.old_logprobs is not None:
            batch = decided(batch, self.objective, self.logprobs(batch))  # its slopes are those of the policy as it is
        if self.policy.fused is not None:
            self.policy.fused.will_change()
        sums, loss = self.budget.spend(partial(self._gradients, batch), partial(self.optimizer.zero_grad, True))
        ranks = self.policy.ranks
        if ranks is not None:
            sums, loss = ranks.merged(sums, loss)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_gradient(parameters, self.settings.gradient_clip, self._tolerant)
        if finite := norm < math.inf:
            for p in parameters:  # a batch without signal is a step on a zero gradient
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            self.optimizer.step()
            if ranks is not None:
                ranks.moved()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = float(sums.get("tokens", 0.0))
        # NaN, null on disk: nothing was computed (no group carried signal), or there is no such thing to measure.
        means = {
            public: float(sums[name]) / tokens if name in sums and tokens else math.nan
            for public, name in MEANS.items()
        }
        for name, there in (
            ("masked", self.objective.has_mask),
            ("filtered", batch.whole is not None and batch.whole.keep is not None),
        ):
            if there:  # only in the metrics of objectives that have such
                means[f"policy/{name}"] = float(sums[name]) / tokens if tokens else math.nan
        means |= {"policy/ratio_max": float(sums.get("ratio_max", math.nan)), "tokens/trained": tokens}
        means |= load(sums["routed"]) if "routed" in sums else {}
        if self.controller is not None:
            means["policy/entropy_coef"] = self.controller.applied
            if finite and tokens:
                self.controller.update(means["policy/entropy"])
        if self._teaching is not None:
            means["teacher/divergence"] = float(sums.get("divergence", 0.0)) / tokens if tokens else math.nan
        if self.budget.tokens < self.budget.most:
            means["memory/tokens_at_once"] = float(self.budget.tokens)
        means |= {"policy/not_finite": float(lost_weights(parameters))} if self._tolerant else {}
        return StepReport(means | {"loss": loss if finite else math.nan, "grad_norm": norm, "lr": rate})

    def _gradients(self, batch: Batch, tokens: int) -> tuple[dict[str, Tensor], float]:
        """Add the gradients of the loss to the parameters', in micro-batches of about `tokens` tokens. The sums of
        `loss_metrics`, and the loss.
        """
        sums: dict[str, Tensor] = {}
        loss = 0.0
        routed = self._routed(batch, tokens) if self._router_aux_coef else None  # [layers, experts]
        objective, share = self.objective, self.objective.expert_share(batch.version - 1)
        if self.controller is not None:
            objective = replace(objective, entropy_coef=self.controller.applied)
        for micro, states in forward(self.policy, batch, self._wanted(batch), tokens, self._routers):
            found, entropy = head(self.policy, states, micro.tokens, *self.form)
            logprobs = micro.spread(found)  # [b, T], as all that the loss looks at
            old, ref, taught = batch.old_logprobs, batch.ref_logprobs, batch.teacher_logprobs
            arguments: dict[str, Any] = {
                "logprobs": logprobs,
                "old_logprobs": logprobs.detach() if old is None else micro.take(old),
                "mask": micro.take(batch.mask),
                "advantages": micro.take(batch.advantages),
                "ref_logprobs": None if ref is None else micro.take(ref),
                "sampler_logprobs": micro.take(batch.sampler_logprobs),
                "entropy": micro.spread(entropy),
                "teacher_logprobs": None if taught is None else micro.take(taught),
                "whole": None if batch.whole is None else batch.whole.map(micro.take),
            }
            if self.objective.old == "interpolate":
                assert batch.versions is not None
                drawn = micro.take(batch.versions.repeat_interleave(batch.lengths))
                arguments |= {"versions": drawn, "current_version": batch.version}
            per_token = per_token_loss(objective, **arguments)  # [b, T]
            if share:
                per_token = (1 - share) * per_token
            if self._teaching is not None:
                apart = self._teaching.divergence(self.policy, batch, micro, states)  # [M]
                per_token = per_token + self._teacher_coef * micro.spread(apart)
                sums["divergence"] = apart.detach().sum(dtype=torch.float64).cpu() + sums.get("divergence", 0.0)
            weighted = (per_token * micro.take(batch.token_weight)).sum()
            if self.objective.has_own_terms:
                own = {name: value for name, value in arguments.items() if name not in ("ref_logprobs", "entropy")}
                weighted = weighted + own_terms(self.objective, **own).sum()
            if routed is not None:
                count, shares = int(routed[0].sum()) // micro.routed[0].chosen.shape[1], routed / routed[0].sum()
                weighted = weighted + self._router_aux_coef * balance(micro.routed, shares, count)
            weighted.backward()
            loss += weighted.item()
            measured = loss_metrics(self.objective, **arguments)
            if old is batch.sampler_logprobs:  # they stand in for the old ones: compare them with what is computed here
                apart = (logprobs.detach() - arguments["sampler_logprobs"]).abs()
                measured["mismatch"] = apart.masked_fill(~arguments["mask"], 0).sum(dtype=torch.float64)
            sums = merge_metrics(sums, measured)
            if micro.routed:
                sums["routed"] = counts(micro.routed) + sums.get("routed", 0)
        if batch.expert is not None:
            loss += self._learn_from(batch.expert, share, tokens)
        return sums, loss

    def _learn_from(self, expert: Batch, share: float, tokens: int) -> float:
        """Add the gradient of the terms of expert rows, means over their tokens; `share` is that of a blend. Returns
        what they add to the loss.
        """
        count, total = max(int(expert.mask.sum()), 1), 0.0
        for micro, states in forward(self.policy, expert, expert.mask, tokens):
            found, _ = head(self.policy, states, micro.tokens, *self.form)  # [M]
            parts = [
                (share if self.objective.blend else 1.0) * coef * term(kind, focus, found, found).sum() / count
                for kind, tokens_of, coef, focus in self.objective.extras
                if tokens_of == "expert"
            ]
            loss = torch.stack(parts).sum()
            loss.backward()
            total += loss.item()
        return total

    def _wanted(self, batch: Batch) -> Tensor:
        """`[N]` bool: the tokens that can change the gradient."""
        o = self.objective
        if o.trains_without_signal or o.is_batchwide or self._teaching is not None:
            return batch.mask if batch.observed is None else batch.mask | batch.observed
        # Whole rollouts: a sequence ratio reads all tokens of a rollout that any token's advantage reaches.
        rollout = torch.repeat_interleave(batch.lengths)  # [N]
        paid = torch.zeros(len(batch.lengths), dtype=torch.bool)
        paid[rollout[batch.mask & (batch.advantages != 0)]] = True
        return batch.mask & paid[rollout]

    @torch.no_grad()
    def _routed(self, batch: Batch, tokens: int) -> Tensor:
        """The choices of the routers before the update: `[layers, experts]`."""
        passes = forward(self.policy, batch, self._wanted(batch), tokens, self._routers)
        found = [counts(micro.routed) for micro, _ in passes]
        return torch.stack(found).sum(0) if found else torch.zeros(1, 1)
