"""The preference pairs of a stage: opened and checked before a model loads, and as tokens once there is one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cohort.policy.policy import PolicyFacts
from cohort.preflight.parts import SamplingParts
from cohort.rewards.models.text import Form, Reader
from cohort.settings import Stage, Task
from cohort.tasks import R1_ZERO
from cohort.tasks.preferences import Pairs, Preferences
from cohort.tasks.preferences import open_pairs as open_task_pairs
from cohort.train.reward_model.scorer import EncodedPair
from cohort.types import UserError

__all__ = ["PairReader", "PreparedRewardModel", "form_of", "open_pairs"]

TEXTS_FOR_TOKENIZER = 4000


@dataclass(frozen=True, slots=True)
class PreparedRewardModel:
    """All of a reward-model stage that needs no model."""

    pairs: Preferences
    form: Form
    parts: SamplingParts | None = None  # no completion is sampled

    def texts(self) -> Iterable[str]:
        """The first pairs."""
        train = self.pairs.train
        found = (train[i] for i in range(min(train.size, TEXTS_FOR_TOKENIZER)))
        return (f"{pair.prompt.question} {pair.chosen} {pair.rejected}" for pair in found)


def open_pairs(stage: Stage) -> PreparedRewardModel:
    """Open the pairs. Raises `UserError` for whatever is wrong with them."""
    pairs, wanted = open_task_pairs(stage.task), stage.preferences.pairs_per_step
    if pairs.train.size < wanted:
        raise UserError(
            f"the task has {pairs.train.size} preference pairs, fewer than one step takes (preferences.pairs_per_step "
            f"= {wanted}). Lower pairs_per_step to {pairs.train.size} or less, or bring more."
        )
    return PreparedRewardModel(pairs, form_of(stage))


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

    def __init__(self, task: Task, facts: PolicyFacts, form: Form):
        self._reader = Reader(facts.tokenizer, form)
        self._task = task
        self._room = facts.context or 2**31

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
