"""What a stage that samples is made of, beside its model: prompts, rewards, who says what is right, what it acts in.

All of it is found, opened and checked here, before a model loads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cohort import environments
from cohort.environments import World
from cohort.preflight.contamination.report import Report
from cohort.preflight.contamination.sides import without_held_out
from cohort.preflight.gate.gold import check_gold
from cohort.rewards import Reward, resolve
from cohort.seeds import derive_seed
from cohort.settings import Reward as RewardTable
from cohort.settings import Stage
from cohort.tasks import Task, open_prompts
from cohort.types import UserError
from cohort.wording import did_you_mean


@dataclass(frozen=True, slots=True)
class SamplingParts:
    """The parts, checked. In evaluations, the first of the `verifiers` that applies to a prompt says what is right."""

    task: Task
    rewards: tuple[Reward, ...]
    verifiers: tuple[Reward, ...]
    world: World
    dropped: Report | None = None  # what was found in the training prompts that were left out of the task

    @property
    def verifier_name(self) -> str:
        """What tables call the verifiers."""
        return " or ".join(verifier.name for verifier in self.verifiers)

    def without(self, names: Collection[str]) -> SamplingParts:
        """The parts without the rewards of these names, and without the gates that they are to others."""
        kept = [one for one in self.rewards if one.name not in names]
        rewards = [
            replace(one, gate=None) if one.gate is not None and one.gate.reward in names else one for one in kept
        ]
        verifiers = [one for one in self.verifiers if one.name not in names]
        return replace(self, rewards=tuple(rewards), verifiers=tuple(verifiers))


def open_parts(stage: Stage, seed: int) -> SamplingParts:
    """Open the task, find the rewards, check the gold answers. Raises `UserError` for whatever is wrong with them."""
    world = environments.open(stage) if stage.environment.acts else World(stage)
    task = replace(open_prompts(stage.task, derive_seed(seed, "task")), tools=world.schemas)
    _refuse_missing_turns(stage, task)
    dropped = None
    if stage.task.decontaminate == "drop":
        task, dropped = without_held_out(task, stage.evaluate.problems)
    columns = [name for name in task.columns if name not in (stage.task.prompt, "answer")]
    has_answer = stage.task.answer in task.columns
    last = stage.run.steps
    rewards = tuple(replace(resolve(one, columns, has_answer), last_step=last) for one in stage.reward)
    paid = list(zip(stage.reward, rewards, strict=True))
    verifiers = tuple(
        next((reward for own, reward in paid if own is table), None)
        or replace(resolve(table, columns, has_answer), last_step=last)
        for table in verifier_tables(stage)
    )
    _check_gold_column(stage, task)
    check_gold({reward.name: reward for reward in (*rewards, *verifiers)}.values(), task.rows())
    # Whether an answer is right does not depend on other rewards, so the gate of a reward is not one of its verifier.
    verifiers = tuple(replace(verifier, gate=None) for verifier in verifiers)
    return SamplingParts(task, rewards, verifiers, world, dropped)


def accuracy_name(stage: Stage) -> str:
    """The reward whose spread says whether a group carries signal: of those with a weight, the first that applies."""
    return " or ".join(table.name for table in _deciding([t for t in stage.reward if t.weight]))


def verifier_tables(stage: Stage) -> tuple[RewardTable, ...]:
    """The tables of the rewards that say what is right in evaluations."""
    name = stage.evaluate.reward
    if name is None:
        return _deciding(stage.reward)
    return (next((table for table in stage.reward if table.name == name), None) or RewardTable(use=name),)


def _deciding(rewards: Sequence[RewardTable]) -> tuple[RewardTable, ...]:
    """The rewards that can be the first to apply: those up to the first one that applies to every prompt."""
    last = next((index for index, reward in enumerate(rewards) if not reward.when), len(rewards))
    return tuple(rewards[: last + 1])


def _refuse_missing_turns(stage: Stage, task: Task) -> None:
    """Refuse to end a conversation after its first reply where its source says that an environment must play it."""
    for source in task.sources:
        if source.environment not in (None, stage.environment.use):
            raise UserError(
                f"{source.table.source!r} has turns of its own: let it play, with environment.use = "
                f'"{source.environment}"'
            )


def _check_gold_column(stage: Stage, task: Task) -> None:
    column, columns = stage.evaluate.gold, [name for name in task.columns if name != stage.task.prompt]
    if column is not None and column not in columns:
        raise UserError(
            f"evaluate.gold names the column '{column}'{did_you_mean(column, columns)}, which the task does not have; "
            f"it has {', '.join(columns)}"
        )
