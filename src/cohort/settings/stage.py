"""One stage of training: a kind and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from cohort.settings.cluster import Cluster
from cohort.settings.distill import Distill, SelfDistill
from cohort.settings.environment import Environment
from cohort.settings.monitor import Monitor
from cohort.settings.objective import Objective
from cohort.settings.policy import Policy
from cohort.settings.record import Record
from cohort.settings.reject import Dpo, Reject, Rft
from cohort.settings.reward import Reward
from cohort.settings.run import Run
from cohort.settings.sampling import Evaluate, Rollout
from cohort.settings.suite import Suite
from cohort.settings.table import Later, NoEffect, OneOf, Table, Text, as_list, key
from cohort.settings.task import Task
from cohort.settings.training import Critic, Optimizer, Preferences, Reference, Supervised

EVERY_KIND = ("record", "suite", "monitor")  # tables that a stage of any kind may have
# What a stage may be, and where it is: "module:name" of a `train.stage.StageKind`.
KINDS = {
    "grpo": "cohort.train.grpo:Grpo",
    "distill": "cohort.train.distill.kinds:Distill",
    "self_distill": "cohort.train.distill.kinds:SelfDistill",
    "sft": "cohort.train.sft:Supervised",
    "reward_model": "cohort.train.reward_model:RewardModel",
    "process_model": "cohort.train.reward_model:ProcessModel",
    "reject": "cohort.train.reject:Reject",
    "rft": "cohort.train.reject:Rft",
    "dpo": "cohort.train.dpo:Dpo",
    "evaluate": "cohort.train.measure:Measure",
}

GROUPS = ("grpo", "distill", "self_distill")  # those that sample groups, score them and learn from them
KEEPS = ("reject", "rft")  # those that sample and score, and keep or learn what is right
SCORERS = ("reward_model", "process_model")  # those that train what scores samples, and no policy
SAMPLED = (*GROUPS, *KEEPS)


def named_stage(value: Any) -> str | None:
    """The NAME of "stage:NAME", as which a recipe names what a stage before it leaves; None for anything else."""
    return value.removeprefix("stage:") if isinstance(value, str) and value.startswith("stage:") else None


def policy_of(stages: Sequence[Stage], index: int) -> int | None:
    """The number of the stage whose policy stage `index` goes on from; None where its own table says where from."""
    table, before = stages[index].policy, stages[:index]
    if (name := named_stage(table.model)) is not None:
        return next(number for number, one in enumerate(before) if one.name == name)
    if table.model is not None or table.scratch is not None:
        return None
    return max((number for number, one in enumerate(before) if one.kind not in SCORERS), default=None)


class Stage(Table):
    """One stage with everything it needs."""

    kind: Annotated[str, OneOf(KINDS)] = key(
        "grpo",
        "One of grpo, distill, self_distill, sft, reward_model, process_model, reject, "
        "rft, dpo, evaluate, or a kind of your own.",
    )
    name: Text = key("grpo", "Name of the stage in overrides, metrics and directories.")
    policy: Policy = key(Policy(), "The model to train.")
    task: Task = Field(description="Where prompts and answers come from.")
    rollout: Rollout = key(Rollout(), "How groups of completions are sampled.")
    environment: Environment = key(Environment(), "What the policy acts in.")
    reward: Annotated[tuple[Reward, ...], Field(strict=False)] = key((), "How completions are scored.")
    objective: Objective = key(Objective(), "What is optimised.")
    optimizer: Optimizer = key(Optimizer(), "How the weights move.")
    critic: Critic = Field(default_factory=Critic, description="The value model of PPO.")
    evaluate: Evaluate = key(Evaluate(), "How held-out accuracy is measured.")
    suite: Annotated[tuple[Suite, ...], Field(strict=False)] = key(
        (), "Further problems to evaluate on, each for what it stands for."
    )
    reference: Reference = key(Reference(), "What the KL term compares with.")
    run: Run = key(Run(), "How long, how often, and where.")
    cluster: Later[Cluster] = key(Cluster(), "Where its parts run, if not all of them here.")
    monitor: Monitor = key(Monitor(), "What is watched while it trains.")
    supervised: Supervised = key(Supervised(), "Settings of supervised stages.")
    preferences: Preferences = key(Preferences(), "What reward_model, process_model and dpo stages learn from.")
    reject: Reject = key(Reject(), "Which samples reject and rft stages keep.")
    rft: Rft = key(Rft(), "Settings of rft stages.")
    dpo: Dpo = key(Dpo(), "Settings of dpo stages.")
    distillation: Distill = key(Distill(), "The teachers of distill stages.")
    self_distillation: SelfDistill = key(SelfDistill(), "Settings of self_distill stages.")
    record: NoEffect[Record] = key(Record(), "What a person declares for the record of the run.")

    @property
    def clustered(self) -> bool:
        """Whether its parts are on a cluster. Stages other than grpo run where the driver is."""
        return self.kind == "grpo" and self.cluster.address is not None

    @property
    def samples(self) -> bool:
        """Whether completions are drawn, to learn from or to evaluate."""
        judged = self.evaluate.problems and (self.reward or self.evaluate.reward is not None)
        return self.kind in SAMPLED or bool(judged or self.suite)

    @property
    def learners(self) -> int:
        """How many processes learn."""
        return self.cluster.learners if self.clustered else 1

    @property
    def tolerant(self) -> bool:
        """Whether a gradient that is not finite leaves the weights as they are, in place of ending the run at once."""
        return self.monitor.rolls_back or self.optimizer.skip_budget > 0

    @property
    def taught(self) -> Distill | SelfDistill | None:
        """What a stage that learns from a teacher is set by."""
        if self.kind == "distill":
            return self.distillation
        return self.self_distillation if self.kind == "self_distill" else None

    @property
    def asks_reference(self) -> bool:
        """Whether the reference policy is the teacher."""
        return self.kind == "self_distill" and self.self_distillation.teacher == "reference"

    @property
    def rewarded(self) -> bool:
        """Whether any reward is paid."""
        return any(reward.weight for reward in self.reward)

    @field_validator("reward", "suite", mode="before")
    @classmethod
    def _as_list(cls, given: Any) -> list[Any]:
        return as_list(given)
