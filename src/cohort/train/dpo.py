"""Learning from preference pairs without a reward model: DPO and IPO (`kind = "dpo"`).

The gradient of a pair's loss is that of its two log-probs, each times a number: the gradient coefficient of
DeepSeekMath's unified view (2402.03300, section 5.2). So a step computes the log-probs of whole answers, of the policy
and of the reference, takes the loss's derivative at them, and gives it to the one learner as the advantage of every
token of the answer. The gradient is that of the paper's loss, for any size of micro-batches, at the price of one more
forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cohort import settings
from cohort.algorithms import losses, objectives
from cohort.algorithms.objectives import Objective
from cohort.backends.base import Backend
from cohort.evaluate import mean_interval
from cohort.learn.batch import collate
from cohort.policy.policy import PolicyFacts
from cohort.preflight.parts import open_parts
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks import Renderer
from cohort.tasks.preferences import Pairs, Preferences, open_with_history
from cohort.tasks.prompts import place_of
from cohort.train.checkpoint import Checkpoint
from cohort.train.choosing import halves_of_pairs
from cohort.train.examples import ExamplesTraining, PreparedPairs, Told, prepared_pairs
from cohort.train.sft import asked, encoded, seen_in, updated
from cohort.train.stage import Context, Plan
from cohort.train.unread import NO_DEMONSTRATIONS, NO_GROUPS, ONE_UPDATE
from cohort.types import Batch, Group, Prompt, Rollout, UserError
from cohort.views.plan import dpo_plan


class Dpo:
    """`kind = "dpo"`, a `StageKind`."""

    tables = (
        *("policy", "task", "preferences", "dpo", "optimizer", "reference"),
        *("rollout", "reward", "evaluate", "run"),
    )
    # The margin of a pair is for reward models; the reference is what the stage starts from.
    unread = (*NO_GROUPS, *NO_DEMONSTRATIONS, *ONE_UPDATE, "task.margin", "preferences.centring")
    columns = ("loss", "pairs/accuracy", "pairs/gap", "grad_norm", "tokens_per_s")
    makes_policy = True
    reads = ("chosen", "rejected")
    acts = ("adapt", "roll_back")

    def prepare(self, stage: Stage, seed: int) -> PreparedPairs[Preferences]:
        """The pairs, no two answers of which may be equal; and what accuracy is measured with, where the stage has a
        reward: then task.held_out names problems, else pairs.
        """
        if stage.reference.moves:
            raise UserError("the reference of a dpo stage is what the stage starts from: remove the [reference] table")
        if stage.dpo.loss == "ipo" and stage.dpo.label_smoothing:
            raise UserError('dpo.label_smoothing is for loss = "sigmoid", and ipo has none: set it to 0')
        judged = bool(stage.reward) or stage.evaluate.reward is not None
        other = isinstance(stage.task.held_out, settings.Task)
        table = stage.task.with_(held_out=None, held_out_split=None) if judged or other else stage.task
        pairs = open_with_history(table, stage.preferences, derive_seed(seed, "replay"))
        for side in (pairs.train, pairs.held_out):
            _refuse_equal(side)
        parts = open_parts(_asked(stage), seed) if judged else None
        return prepared_pairs(stage, pairs, "preference pairs", parts)

    def plan(self, stage: Stage, prepared: PreparedPairs[Preferences], facts: PolicyFacts) -> Plan:
        """The loss, how many pairs, how often."""
        return dpo_plan(stage, facts, prepared.pairs, None if prepared.parts is None else prepared.parts.task.held_out)

    def open(
        self, context: Context, prepared: PreparedPairs[Preferences], checkpoint: Checkpoint | None
    ) -> ExamplesTraining:
        """See `StageKind`."""
        lesson, per_step = partial(_Pairs, context.stage, prepared), context.stage.preferences.pairs_per_step
        return ExamplesTraining(context, prepared, checkpoint, _objective(context.stage.dpo), per_step, lesson)


def _asked(stage: Stage) -> Stage:
    """The stage with the task of its held-out problems: rows of pairs need no gold answers. Its prompts show no tools,
    nor do these, whatever environment stands outside the stages: the recipe that a run keeps has none for this one.
    """
    other, stage = stage.task.held_out, stage.with_(environment=settings.Environment())
    return stage.with_(task={"source": other}) if isinstance(other, str) else asked(stage)


def _objective(table: settings.Dpo) -> Objective:
    """What the learner minimises: minus the log-probs, each times its advantage, summed. With a reference, whose
    log-ratio times beta is the reward that DPO stands for.
    """
    plain = {"baseline": "none", "scale": "none", "zero_std": "zero", "kl_place": "reward"}
    return objectives.preset("reinforce", **plain, aggregation="sequence_sum", kl_coef=table.beta)


def _refuse_equal(pairs: Pairs | None) -> None:
    if pairs is None:
        return
    for index in range(pairs.size):
        pair = pairs[index]
        if pair.chosen.strip() == pair.rejected.strip():
            raise UserError(
                f"{place_of(pairs, index, 'preference pair')} ({pair.prompt.question[:40]!r}...) has equal answers, "
                "from which nothing can be learnt: mend or remove it"
            )


class _Pairs:
    """A `Lesson` of preference pairs."""

    def __init__(self, stage: Stage, prepared: PreparedPairs[Preferences], facts: PolicyFacts):
        self._stage, self._table, self._facts = stage, stage.dpo, facts
        self._pairs, self._objective = prepared.pairs, _objective(stage.dpo)
        self._renderer = Renderer.of(stage.task, facts.tokenizer)
        self.size = prepared.pairs.train.size

    def learn(self, backend: Backend, indices: Sequence[int], rate: float) -> Told:
        """One step on these pairs."""
        batch = self._batch(self._pairs.train, indices)
        sums = self._sums(backend, batch).requires_grad_(True)  # [2, n, 2]
        loss = self._losses(sums).mean()
        (slope,) = torch.autograd.grad(loss, sums)  # 0 for the reference
        advantages = -slope[0].flatten().float().repeat_interleave(batch.lengths)
        weight = torch.ones_like(batch.token_weight)
        report = backend.update(replace(batch, advantages=advantages, token_weight=weight), rate).metrics
        update = updated(report)
        return update | {"loss": loss.item()} | self._measures(sums.detach()), seen_in(batch)

    def measure(self, backend: Backend) -> dict[str, float]:
        """Of the held-out pairs: the loss, and how many the policy tells apart better than the reference does."""
        held_out = self._pairs.held_out
        if held_out is None or not held_out.size:
            return {}
        indices, many = range(min(held_out.size, self._stage.evaluate.problems)), self._stage.preferences.pairs_per_step
        parts = (self._batch(held_out, indices[start : start + many]) for start in range(0, len(indices), many))
        if not indices:
            return {}
        sums = torch.cat([self._sums(backend, part) for part in parts], 1)
        rows = [*zip(self._losses(sums).tolist(), (self._margins(sums) > 0).double().tolist(), strict=True)]
        asked = [held_out[index].prompt.id for index in indices]
        return _of_pairs(rows) | halves_of_pairs(rows, asked, self._stage.run, _of_pairs)

    def _batch(self, pairs: Pairs, indices: Sequence[int]) -> Batch:
        """2n answers to n prompts, of each pair the chosen one first."""
        groups = []
        for index in indices:
            pair, what = pairs[index], place_of(pairs, index, "preference pair")
            answers = [
                encoded(self._renderer, pair.prompt, text, self._facts, None, what)
                for text in (pair.chosen, pair.rejected)
            ]
            (prompt, chosen, _), (_, rejected, _) = answers
            if chosen == rejected:
                raise UserError(f"{what} has answers of equal tokens, from which nothing can be learnt: remove it")
            rollouts = tuple(Rollout(one, own, [0.0] * len(own), 0, "stop", "") for _, one, own in answers)
            groups.append(Group(index, Prompt("", tokens=prompt), rollouts, advantages=(1.0, 1.0)))
        return collate(groups, self._objective, max_tokens=0)

    def _sums(self, backend: Backend, batch: Batch) -> Tensor:
        """`[2, n, 2]` float64: of policy and reference, the log-probs of each pair's answers, chosen and rejected."""
        scored = backend.score(backend.score(batch, "old"), "reference")
        rows = torch.repeat_interleave(batch.lengths)  # [N]
        sums = torch.zeros(2, len(batch.lengths), dtype=torch.float64)
        for side, logprobs in enumerate((scored.old_logprobs, scored.ref_logprobs)):
            assert logprobs is not None
            sums[side].index_add_(0, rows, logprobs.double())
        return sums.view(2, -1, 2)

    def _losses(self, sums: Tensor) -> Tensor:
        """`[n]`: the loss of each pair."""
        beta, answers = self._table.beta, _answers(sums)
        if self._table.loss == "ipo":
            return losses.ipo(*answers, beta=beta)
        return losses.dpo(*answers, beta=beta, label_smoothing=self._table.label_smoothing)

    def _margins(self, sums: Tensor) -> Tensor:
        """`[n]`: by how much the implicit reward of the chosen answer is the higher one."""
        return self._table.beta * losses.log_ratios(*_answers(sums))

    def _measures(self, sums: Tensor) -> dict[str, float]:
        margins, rewards = self._margins(sums), self._table.beta * (sums[0] - sums[1])  # [n, 2]
        return {
            "pairs/accuracy": (margins > 0).double().mean().item(),
            "pairs/gap": margins.mean().item(),
            "pairs/chosen_reward": rewards[:, 0].mean().item(),
            "pairs/rejected_reward": rewards[:, 1].mean().item(),
            "pairs/chosen_logprob": sums[0, :, 0].mean().item(),
            "pairs/rejected_logprob": sums[0, :, 1].mean().item(),
        }


def _answers(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`[n]` each: the chosen and the rejected answers, by the policy and by the reference, which learns nothing."""
    policy, reference = sums[0], sums[1].detach()
    return policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1]


def _of_pairs(rows: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The measures of held-out pairs: of each its loss, and 1 where it is told apart."""
    lost, right = zip(*rows, strict=True)
    low, high = mean_interval(right)
    found = {"eval/loss": math.fsum(lost) / len(rows), "eval/accuracy": math.fsum(right) / len(rows)}
    return found | {"eval/accuracy_low": low, "eval/accuracy_high": high}
