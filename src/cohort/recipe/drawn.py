"""What groups that are no draws from the policy cannot go with: each problem is one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator

from cohort.settings import SAMPLED, Stage
from cohort.settings.table import Path


def not_drawn(stage: Stage, at: str) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """What is wrong with `rollout.groups` and what goes with it; see `recipe.check`."""
    rollout = stage.rollout
    if stage.kind not in SAMPLED or rollout.draws:
        return
    for why, path in (*_of_sampling(stage), *_of_learning(stage)):
        yield f"{at}rollout.groups is {rollout.groups!r}, {why}", (("rollout", "groups"), path)
    parts = rollout.beam_groups
    if parts is not None and rollout.group_size % parts:
        sentence = f"{at}rollout.beam_groups ({parts}) must divide rollout.group_size ({rollout.group_size})"
        yield sentence, (("rollout", "beam_groups"), ("rollout", "group_size"))


def _of_sampling(stage: Stage) -> Iterator[tuple[str, Path]]:
    rollout, e = stage.rollout, stage.environment
    if stage.kind != "grpo":
        yield f"which grpo stages learn from: a {stage.kind} stage needs draws from the policy", ("kind",)
    if rollout.group_size == 1:
        yield (
            "whose members are compared with each other: use a rollout.group_size of 2 or more",
            (
                "rollout",
                "group_size",
            ),
        )
    if rollout.temperature != 1 or any(one.setting == "temperature" for one in stage.monitor.adapt.values()):
        yield (
            "which takes what is likeliest by the policy's own log-probs: rollout.temperature must stay 1",
            ("rollout", "temperature"),
        )
    if rollout.sampler != "local":
        yield 'which the engine of this process finds: set rollout.sampler = "local"', ("rollout", "sampler")
    if e.tools or e.use is not None:
        yield "which are whole completions, and no turns of a conversation: remove [environment]", ("environment",)


def _of_learning(stage: Stage) -> Iterator[tuple[str, Path]]:
    o, optimizer = stage.objective, stage.optimizer
    ratio = "whose members are no draws, so there is no ratio"
    surrogate, level = o.value("surrogate"), o.value("ratio_level")
    if surrogate not in ("clipped", "reinforce") or (surrogate == "clipped" and level != "token"):
        what = f"surrogate = {surrogate!r}" if surrogate != "clipped" else f"ratio_level = {level!r}"
        yield (
            f'{ratio} for objective.{what} to act on: set surrogate = "reinforce", or a preset such as "grpo"',
            ("objective", "surrogate"),
        )
    if o.value("correction") != "off" or o.bypasses:
        key, off = ("correction", '"off"') if o.value("correction") != "off" else ("bypass", "false")
        yield f"{ratio} to the sampler: set objective.{key} = {off}", ("objective", key)
    if o.value("kl_coef") and o.value("kl_gradient") == "weighted":
        yield f'{ratio} to weigh a KL with: set objective.kl_gradient = "pathwise"', ("objective", "kl_gradient")
    if o.value("baseline") == "critic":
        yield (
            "whose members are no draws, and a critic learns what draws are worth: use another objective.baseline",
            ("objective", "baseline"),
        )
    if o.value("zero_std") == "resample" and stage.rollout.groups != "greedy_plus_sample":
        yield (
            "which are the same whenever a prompt is asked again, so no resampling finds a group with signal: set "
            'objective.zero_std = "drop"',
            ("objective", "zero_std"),
        )
    if o.pass_at_k is not None:
        yield "and objective.pass_at_k is about k draws: remove it", ("objective", "pass_at_k")
    if stage.rollout.max_staleness:
        yield f"{ratio} that corrects for older weights: set rollout.max_staleness = 0", ("rollout", "max_staleness")
    if optimizer.updates_per_batch * optimizer.epochs > 1:
        yield (
            f"{ratio} that bounds a second update: set optimizer.updates_per_batch = 1 and optimizer.epochs = 1",
            ("optimizer", "updates_per_batch"),
        )
