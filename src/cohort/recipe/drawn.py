"""What groups that are no draws from the newest policy cannot go with: each problem is one sentence that says what to
do.
"""

from __future__ import annotations

from collections.abc import Iterator

from cohort.settings import SAMPLED, Rollout, Stage

Found = Iterator[tuple[str, ...]]  # a sentence, and the keys that it depends on

UNCORRECTED = (
    'uncorrected: set objective.correction = "token_truncate" with correction_max = 2, filters, or bypass = true'
)


def not_drawn(stage: Stage) -> Found:
    """What is wrong with `rollout.groups` and what goes with it; see `recipe.check`."""
    rollout = stage.rollout
    if stage.kind not in SAMPLED:
        return
    yield from _beside(stage)
    if rollout.draws:
        return
    for why, key in (*_of_sampling(stage), *_of_learning(stage)):
        yield f"rollout.groups is {rollout.groups!r}, {why}", "rollout.groups", key
    parts = rollout.beam_groups
    if parts is not None and rollout.group_size % parts:
        sentence = f"rollout.beam_groups ({parts}) must divide rollout.group_size ({rollout.group_size})"
        yield sentence, "rollout.beam_groups", "rollout.group_size"


def _beside(stage: Stage) -> Found:
    """What completions that are cut, and groups of earlier steps, cannot go with."""
    rollout = stage.rollout
    for key in (key for key in ("over_sample", "replay") if getattr(rollout, key)):
        if stage.kind != "grpo":
            yield f"rollout.{key} is for grpo stages, and this one is of kind {stage.kind!r}", "kind"
        if not rollout.draws:
            sentence = f'rollout.{key} goes with draws from the policy: set rollout.groups = "sample"'
            yield sentence, f"rollout.{key}", "rollout.groups"
    if rollout.over_sample and rollout.sampler != "local":
        sentence = 'rollout.over_sample needs the engine of this process: set rollout.sampler = "local"'
        yield sentence, "rollout.over_sample", "rollout.sampler"
    if rollout.precision == "int8" and rollout.sampler != "local":
        sentence = 'rollout.precision is of the engine of this process: set rollout.sampler = "local"'
        yield sentence, "rollout.precision", "rollout.sampler"
    if rollout.precision == "int8" and stage.kind == "grpo" and not stage.objective.corrects:
        yield f"rollout.precision = 'int8' samples from a rounded policy, {UNCORRECTED}", "rollout.precision"
    if rollout.over_sample and stage.environment.acts:
        sentence = "rollout.over_sample is of whole completions, and no turns of a conversation: remove [environment]"
        yield sentence, "rollout.over_sample", "environment"
    if rollout.replay and rollout.max_staleness:
        sentence = "rollout.replay is for rollouts of the newest weights and stored ones: set rollout.max_staleness = 0"
        yield sentence, "rollout.replay", "rollout.max_staleness"
    if rollout.replay and not stage.run.save_rollouts:
        sentence = "rollout.replay reads what run.save_rollouts keeps: set it to true"
        yield sentence, "rollout.replay", "run.save_rollouts"
    if rollout.replay and not stage.objective.corrects:
        yield f"rollout.replay learns from samples of older weights, {UNCORRECTED}", "rollout.replay"
    if rollout.in_flight != "off":
        for mend, key in _in_flight(stage):
            yield f"rollout.in_flight = {rollout.in_flight!r} {mend}", "rollout.in_flight", key
    if rollout.replay_age != Rollout.model_fields["replay_age"].default and not rollout.replay:
        sentence = "rollout.replay_age has no effect without rollout.replay: remove it, or say how many groups"
        yield sentence, "rollout.replay_age", "rollout.replay"


def _in_flight(stage: Stage) -> Iterator[tuple[str, str]]:
    """What new weights in the middle of a completion cannot go with."""
    rollout = stage.rollout
    if stage.kind != "grpo":
        yield f"is for grpo stages, and this one is of kind {stage.kind!r}", "kind"
    if stage.cluster.address is None:
        why = 'is of samplers that draw while the learner updates: set cluster.address, such as "local"'
        yield why, "cluster.address"
    if not rollout.max_staleness:
        yield "needs groups that are drawn ahead: set rollout.max_staleness = 1 or more", "rollout.max_staleness"
    if rollout.sampler != "local":
        yield 'is of the engine: set rollout.sampler = "local"', "rollout.sampler"
    if not rollout.draws:
        yield 'goes with draws from the policy: set rollout.groups = "sample"', "rollout.groups"
    if stage.environment.use == "endpoint":
        yield 'has no versions of an agent\'s calls: remove environment.use = "endpoint"', "environment.use"
    if not stage.objective.corrects:
        yield f"learns from samples of older weights, {UNCORRECTED}", "objective"


def _of_sampling(stage: Stage) -> Iterator[tuple[str, str]]:
    rollout = stage.rollout
    if stage.kind != "grpo":
        yield f"which grpo stages learn from: a {stage.kind} stage needs draws from the policy", "kind"
    if rollout.group_size == 1:
        why = "whose members are compared with each other: use a rollout.group_size of 2 or more"
        yield why, "rollout.group_size"
    if rollout.temperature != 1 or any(one.setting == "temperature" for one in stage.monitor.adapt.values()):
        why = "which takes what is likeliest by the policy's own log-probs: rollout.temperature must stay 1"
        yield why, "rollout.temperature"
    if rollout.sampler != "local":
        yield 'which the engine of this process finds: set rollout.sampler = "local"', "rollout.sampler"
    if stage.environment.acts:
        yield "which are whole completions, and no turns of a conversation: remove [environment]", "environment"


def _of_learning(stage: Stage) -> Iterator[tuple[str, str]]:
    o, optimizer = stage.objective, stage.optimizer
    ratio = "whose members are no draws, so there is no ratio"
    surrogate, level = o.value("surrogate"), o.value("ratio_level")
    if surrogate not in ("clipped", "reinforce") or (surrogate == "clipped" and level != "token"):
        what = f"surrogate = {surrogate!r}" if surrogate != "clipped" else f"ratio_level = {level!r}"
        why = f'for objective.{what} to act on: set surrogate = "reinforce", or a preset such as "grpo"'
        yield f"{ratio} {why}", "objective.surrogate"
    if o.value("correction") != "off" or o.bypasses:
        key, off = ("correction", '"off"') if o.value("correction") != "off" else ("bypass", "false")
        yield f"{ratio} to the sampler: set objective.{key} = {off}", f"objective.{key}"
    if o.value("kl_coef") and o.value("kl_gradient") == "weighted":
        yield f'{ratio} to weigh a KL with: set objective.kl_gradient = "pathwise"', "objective.kl_gradient"
    if o.value("baseline") == "critic":
        why = "whose members are no draws, and a critic learns what draws are worth: use another objective.baseline"
        yield why, "objective.baseline"
    if o.value("zero_std") == "resample" and stage.rollout.groups != "greedy_plus_sample":
        why = "which are the same whenever a prompt is asked again, so no resampling finds a group with signal: set"
        yield f'{why} objective.zero_std = "drop"', "objective.zero_std"
    if o.pass_at_k is not None:
        yield "and objective.pass_at_k is about k draws: remove it", "objective.pass_at_k"
    if stage.rollout.max_staleness:
        yield f"{ratio} that corrects for older weights: set rollout.max_staleness = 0", "rollout.max_staleness"
    if optimizer.updates_per_batch * optimizer.epochs > 1:
        why = "that bounds a second update: set optimizer.updates_per_batch = 1 and optimizer.epochs = 1"
        yield f"{ratio} {why}", "optimizer.updates_per_batch"
