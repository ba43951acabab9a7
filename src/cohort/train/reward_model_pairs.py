"""What of a reward-model stage can be checked before a model loads, and pairs as tokens once there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cohort.policy.policy import Policy
from cohort.rewards.model_text import Form, Reader
from cohort.settings import Stage
from cohort.tasks import R1_ZERO
from cohort.tasks.preferences import Pairs, Preferences, open_pairs
from cohort.train.reward_model_scorer import EncodedPair
from cohort.types import UserError

__all__ = ["PairReader", "RewardModelParts", "check_reward_model", "form_of"]


@dataclass(frozen=True, slots=True)
class RewardModelParts:
    """Everything of a reward-model stage that needs no model."""

    pairs: Preferences
    form: Form


def check_reward_model(stage: Stage) -> RewardModelParts:
    """Open the pairs. Raises `UserError` for whatever is wrong with them."""
    pairs, wanted = open_pairs(stage.task), stage.preferences.pairs_per_step
    if pairs.train.size < wanted:
        raise UserError(
            f"the task has {pairs.train.size} preference pairs, fewer than one step takes (preferences.pairs_per_step "
            f"= {wanted}). Lower pairs_per_step to {pairs.train.size} or less, or bring more."
        )
    return RewardModelParts(pairs, form_of(stage))


def form_of(stage: Stage) -> Form:
    """How the stage's template shows a prompt."""
    template, system = stage.task.template, stage.task.system
    if template == "chat":
        return Form(None, system)
    if template == "r1_zero" and system is not None:
        raise UserError('template = "r1_zero" brings its own instructions. Remove system, or use another template.')
    if template == "r1_zero":
        return Form(R1_ZERO)
    return Form("{prompt}" if system is None else f"{system}\n\n{{prompt}}")


class PairReader:
    """Pairs as tokens for one model; None where the `too_long` rule drops one."""

    def __init__(self, stage: Stage, policy: Policy, form: Form):
        self._reader = Reader(policy.tokenizer, form)
        self._task = stage.task
        self._room = policy.max_context or 2**31

    def read(self, pairs: Pairs, index: int, rule: str | None = None) -> EncodedPair | None:
        """Pair `index`. `rule` stands in for the task's `too_long`."""
        pair, rule = pairs[index], rule or self._task.too_long
        found = EncodedPair(
            tuple(self._reader.prompt(pair.prompt.messages or pair.prompt.question)),
            tuple(self._reader.answer(pair.chosen)),
            tuple(self._reader.answer(pair.rejected)),
            pair.margin,
        )
        longest = max(len(found.chosen), len(found.rejected))
        limit = min(self._room - longest, self._task.max_prompt_tokens or self._room)
        if len(found.prompt) <= limit:
            return found
        if rule == "drop":
            return None
        if rule == "truncate_left" and limit > 0:
            return replace(found, prompt=found.prompt[-limit:])
        raise UserError(
            f"preference pair {index} ({pair.prompt.question[:40]!r}...) has {len(found.prompt)} tokens in its prompt "
            f"and {longest} in its longer answer; the model has {self._room} positions. Shorten it, or say "
            'task.too_long = "drop" or "truncate_left".'
        )
