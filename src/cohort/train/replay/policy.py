"""Level 4: steps whose policy is still stored, learnt again; and what its sampler said, by a plain forward pass."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.backends.base import Backend, open_backend
from cohort.engine.fused import IN_BYTES
from cohort.engine.fused import TOLERANCE as NATS
from cohort.learn.batch import collate
from cohort.learn.forward import batch_logprobs
from cohort.policy.policy import Policy
from cohort.preflight.objective import asks_reference
from cohort.record.inputs import fingerprints
from cohort.record.manifest import refuse_damaged
from cohort.record.report import Check
from cohort.settings import Cluster, Stage
from cohort.train.checkpoint import readable
from cohort.train.grpo.learning import Learning
from cohort.train.replay.advantages import bare, by_policy, compare_advantages, compare_metrics
from cohort.train.replay.opened import Recorded
from cohort.train.replay.stored import StoredStep
from cohort.train.replay.tally import Tally, equal
from cohort.train.replay.weights import unlike
from cohort.types import Group, UserError
from cohort.wording import counted

# How far the numbers of a step may be apart on another machine, relative to the larger one: the order of sums differs.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
MOST = 5.0  # nats of one token, where the sampler multiplied in bytes, or is not the engine; in the mean see `_coarse`


class Damaged(Exception):  # noqa: N818  (it is what was found)
    """What a run needs to go on from is there, and is not what the run left."""


def policy_checks(recorded: Recorded, steps: Sequence[int], shown: int) -> list[Check]:
    """Learn the steps again that come after a policy which is still stored, and compare all that learning says."""
    stored, stale = [0, *recorded.checkpoints], recorded.stage.rollout.oldest
    wanted = [version for version in stored if any(version < step <= version + 1 + stale for step in steps)]
    found: list[Check] = []
    for version in wanted:
        name = f"{recorded.title}policy of step {version}"
        try:
            found += _of_version(recorded, version, [step for step in steps if step > version], shown)
        except Damaged as problem:
            found.append(Check(4, name, "failed", str(problem)))
        except UserError as error:
            found.append(Check(4, name, "skipped", f"it cannot be opened: {error}"))
    if not wanted:
        there = ", ".join(map(str, stored[1:])) or "none"
        why = f"the policies before these steps are not stored (checkpoints: {there}); run.keep_checkpoints keeps more"
        found.append(Check(4, f"{recorded.title}steps", "skipped", why))
    return found


def _of_version(recorded: Recorded, version: int, steps: Sequence[int], shown: int) -> list[Check]:
    """The checks of one policy: its log-probs, then the step that it learnt next."""
    recorded = recorded.at(version + 1)
    backend = open_at(recorded, version)
    why = recorded.other_bits(backend.facts.device)
    found = []
    drawn = [step for step in steps if version < step <= version + 1 + recorded.stage.rollout.oldest]
    if backend.policy is not None:
        found.append(_logprobs(recorded, backend.policy, version, drawn, shown))
    if version + 1 in steps:
        found += _learnt(recorded, backend, recorded.read(version + 1), why, shown)
    return found


def open_at(recorded: Recorded, version: int) -> Backend:
    """The backend as it was when step `version` was done. Raises `Damaged`, or `UserError` where it cannot be had."""
    try:
        checkpoint = recorded.checkpoint(version)
    except UserError as error:
        raise Damaged(str(error)) from None
    if checkpoint is None:
        _refuse_other_start(recorded)
    with readable(checkpoint.path) if checkpoint else nullcontext():
        alone = recorded.stage.with_(cluster=Cluster())
        backend = open_backend(alone, recorded.objective, recorded.origin(checkpoint))
        if checkpoint is not None:
            backend.load(checkpoint.path)
    return backend


def _rounded_to(stage: Stage) -> torch.dtype:
    """The type that products of a stage, or the weights between them, are rounded to."""
    halves = "bfloat16" in (stage.policy.compute, stage.policy.dtype)
    return torch.bfloat16 if halves else torch.float32


def _refuse_other_start(recorded: Recorded) -> None:
    """Raise `Damaged` where what the stage began with is not what it was."""
    model, start = recorded.stage.policy.model, recorded.start.directory
    before = (recorded.environment.get("inputs") or {}).get(model)
    if model is not None and before is not None and fingerprints([model]).get(model, before) != before:
        raise Damaged(f"{model} is not the model that the run began with")
    if model is None and start is not None:
        try:
            refuse_damaged(Path(start))
        except UserError as error:
            raise Damaged(str(error)) from None


def _learnt(recorded: Recorded, backend: Backend, step: StoredStep, why: str, shown: int) -> list[Check]:
    """`why` the last bits are others than the run's; "" where they are the same."""
    learning = Learning(recorded.stage, recorded.objective, recorded.combination, backend)
    tolerance = TOLERANCE[_rounded_to(recorded.stage)] if why else 0.0
    how = f"all within {tolerance:g} of their size, as {why}" if why else "all equal bit for bit"
    said = "numbers of learning it again, loss and gradient norm among them"
    numbers = Tally(4, f"{recorded.title}step {step.step}", said, how)
    if _beyond(step, backend.facts.vocabulary):
        numbers.differ(f"log/{step.file.name} holds tokens that the model does not have")
        return [numbers.check(shown)]
    try:
        trained, now = learning.learn([bare(group) for group in step.kept], step.step)
    except UserError as error:
        numbers.differ(f"log/{step.file.name}: {error}")
        return [numbers.check(shown)]
    checks: list[Check] = []
    if by_policy(recorded):
        checks += _paid(recorded, step, trained, why, shown)
    line = recorded.metrics().get(step.step)
    if line is None:
        numbers.differ(f"metrics.jsonl has no line of step {step.step}")
    elif not tolerance:
        compare_metrics(numbers, step.step, line, now)
    else:
        _about(numbers, step.step, line, now, tolerance)
    checks.append(numbers.check(shown))
    after = recorded.checkpoints.get(step.step)
    if after is not None and not why:
        reference = recorded.stage.reference
        if asks_reference(recorded.stage, recorded.objective) and reference.is_due(step.step):
            backend.move_reference(reference.ema)
        back = [one.did["roll_back"] for one in recorded.findings if one.step == step.step and "roll_back" in one.did]
        checks.append(
            _gone_back(recorded, after, step.step, *back) if back else _weights(recorded, backend, after, step.step)
        )
    return checks


def _paid(recorded: Recorded, step: StoredStep, trained: Sequence[Group], why: str, shown: int) -> list[Check]:
    """The advantages that came from a policy or a critic."""
    of = f"of step {step.step}"
    advantages = Tally(4, f"{recorded.title}advantages {of}", "advantages, recomputed by the policy or the critic")
    became = Tally(4, f"{recorded.title}dispositions {of}", "what became of groups")
    if why:
        advantages.skipped = f"they depend on the policy's last bits, and {why}"
        return [advantages.check(shown)]
    for stored, group in zip(step.kept, trained, strict=True):
        compare_advantages(advantages, became, step, stored, group)
    return [advantages.check(shown), became.check(shown)]


def _about(tally: Tally, step: int, line: Any, now: Any, tolerance: float) -> None:
    for name, value in now.items():
        stored = line.get(name)
        close = equal(stored, value) or (
            isinstance(stored, (int, float)) and abs(stored - value) <= tolerance * max(abs(stored), abs(value), 1e-3)
        )
        tally.compare(f"metrics.jsonl, step {step}: {name}", stored, stored if close else value)


def _gone_back(recorded: Recorded, after: Path, step: int, to: int) -> Check:
    """A step after which the run took the weights of an earlier checkpoint."""
    check, earlier = partial(Check, 4, f"{recorded.title}weights after step {step}"), recorded.checkpoints.get(to)
    if earlier is None:
        return check("skipped", f"the run went back to the weights of step {to}, which are not stored any more")
    if (other := unlike(earlier, after)) is not None:
        return check("failed", f"checkpoints/{after.name} is not what the run went back to, step {to}: {other}")
    return check("holds", f"checkpoints/{after.name} has the weights of step {to}, to which the run went back")


def _weights(recorded: Recorded, backend: Backend, after: Path, step: int) -> Check:
    check = partial(Check, 4, f"{recorded.title}weights after step {step}")
    with tempfile.TemporaryDirectory(prefix="cohort-") as place:
        backend.save(Path(place))
        try:
            other = unlike(Path(place), after)
        except OSError as error:
            other = str(error)
    if other is not None:
        return check("failed", f"checkpoints/{after.name} is not what learning the step again gives: {other}")
    return check("holds", f"checkpoints/{after.name} is what learning the step again gives, bit for bit")


def _logprobs(recorded: Recorded, policy: Policy, version: int, steps: Sequence[int], shown: int) -> Check:
    """The log-probs of what this version sampled, in rollouts that other versions have drawn the rest of, too: unless
    their tokens saw keys and values of older weights, which nobody has any more.
    """
    what = "log-probs of the sampler, by a plain forward pass"
    tally = Tally(4, f"{recorded.title}log-probs of version {version}", what)
    in_mean = _coarse(recorded.stage)
    most = NATS[_rounded_to(recorded.stage)] if in_mean is None else MOST
    worst, total, left_out = 0.0, 0.0, 0
    keeps = recorded.stage.rollout.in_flight == "keep"
    for number in steps:
        step = recorded.read(number)
        if _beyond(step, policy.vocabulary):
            tally.differ(f"log/{step.file.name} holds tokens that the model does not have")
            continue
        groups = [g for g in step.groups if any(v == version for rollout in g.rollouts for v, _, _ in rollout.spans)]
        for group, found, _ in recomputed(recorded, policy, groups):
            for member, (rollout, now) in enumerate(zip(group.rollouts, found, strict=True)):
                where = torch.zeros(len(rollout.tokens), dtype=torch.bool)
                for drew, start, end in rollout.spans:
                    where[start:end] = drew == version
                if keeps and rollout.versions:
                    left_out += bool(where.any())
                    continue
                where &= torch.tensor(list(rollout.mask))
                if not where.any():
                    continue
                apart = (torch.tensor(list(rollout.logprobs)) - now).abs() * where
                tally.compared += int(where.sum())
                worst, total = max(worst, apart.max().item()), total + apart.sum().item()
                if not apart.max().item() <= most:
                    at = int(apart.argmax())
                    place, said = f"{step.place(group.ticket, member)}: logprobs[{at}]", rollout.logprobs[at]
                    tally.differ(f"{place} is {said:.6g}, and a forward pass gives {now[at].item():.6g}")
    if in_mean is not None and not total <= in_mean * tally.compared:
        tally.differ(f"in the mean they are {total / tally.compared:.3g} apart, and {in_mean:g} may be")
    tally.how = f"at most {worst:.2g} apart ({most:g} may be)"
    if left_out:
        why = f"{counted(left_out, 'rollout')} left out, whose tokens saw keys and values of several versions"
        tally.how += f"; {why} (rollout.in_flight = 'keep')"
        tally.skipped = "" if tally.compared else why
    return tally.check(shown)


def _coarse(stage: Stage) -> float | None:
    """How far log-probs may be apart in the mean where the sampler computes in its own way; None where it is the engine
    in the type of the policy.
    """
    if stage.rollout.sampler != "local":
        return stage.rollout.max_mismatch
    return IN_BYTES if stage.rollout.precision == "int8" else None


def recomputed(
    recorded: Recorded, policy: Policy, groups: Sequence[Group]
) -> Iterator[tuple[Group, Sequence[Tensor], Sequence[Tensor]]]:
    """Each group with the log-probs of its rollouts' tokens and the entropies of what they were drawn from, `[T]` each,
    by the model's own body and head.
    """
    if not groups:
        return
    batch = collate([bare(group) for group in groups], replace(recorded.objective, truncated="keep"), 1)
    rollout, tokens = recorded.stage.rollout, recorded.stage.optimizer.tokens_per_micro_batch
    fused, policy.fused = policy.fused, None
    entropies = torch.zeros(batch.tokens.shape)
    try:
        found = batch_logprobs(policy, batch, batch.mask, tokens, rollout.temperature, entropies=entropies)
    finally:
        policy.fused = fused
    rows, of = (iter(one.split(batch.lengths.tolist())) for one in (found, entropies))
    for group in groups:
        yield group, [next(rows) for _ in group.rollouts], [next(of) for _ in group.rollouts]


def _beyond(step: StoredStep, vocabulary: int) -> bool:
    return any(
        max(row, default=0) >= vocabulary
        for group in step.groups
        for row in (group.prompt.tokens, *(rollout.tokens for rollout in group.rollouts))
    )
