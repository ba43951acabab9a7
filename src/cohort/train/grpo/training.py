"""One GRPO stage under way: the parts of a step, wired together, and the step itself."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cohort.algorithms.objectives import Objective
from cohort.backends.base import Backend, Scorer, open_backend, open_pool
from cohort.backends.proving import proves
from cohort.engine.engine import Engine
from cohort.machine import peak_memory_gb
from cohort.monitor.behaviour import behaviour
from cohort.monitor.metrics import group_metrics
from cohort.monitor.scoring import scoring_metrics
from cohort.monitor.tasks import task_metrics
from cohort.policy.policy import PolicyFacts
from cohort.policy.text import reader
from cohort.preflight.memory import fitted, memory
from cohort.preflight.objective import asks_reference, settled_objective
from cohort.preflight.parts import SamplingParts
from cohort.preflight.rehearsal import can_rehearse, free_gb, rehearse
from cohort.record.rollouts import read_groups, write_groups
from cohort.rewards import Combination
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.tasks.render import longest_prompt, prompt_limit, refuse_long
from cohort.train.checkpoint import Checkpoint
from cohort.train.distill.lesson import teach
from cohort.train.evaluation import Evaluator
from cohort.train.grpo.earlier import earlier, fresh
from cohort.train.grpo.learning import Learning
from cohort.train.grpo.step_rewards import token_steps
from cohort.train.grpo.stream import Groups, GroupStream, StepGroups, StreamSettings, Unscored
from cohort.train.stage import Context, Screen, first_texts
from cohort.types import Group, UserError
from cohort.wording import counted

PENDING = "pending.parquet"  # of a checkpoint: groups that were sampled and not yet trained on


class Learns(Protocol):
    """What a stage makes of the scored groups of a step."""

    def learn(self, groups: Sequence[Group], step: int) -> tuple[list[Group], dict[str, float]]:
        """The groups with what was made of them, and the metrics."""


def _save_model(context: Context, backend: Backend, directory: Path) -> None:
    """The trained model."""
    backend.save_model(directory)


@dataclass(frozen=True, slots=True)
class PreparedGrpo:
    """All of a GRPO stage that needs no model."""

    parts: SamplingParts
    objective: Objective
    stored: Groups | None = None  # groups that were sampled before, in place of a stream of new ones
    learning: Callable[[Stage, Objective, Combination, Backend], Learns] = Learning
    trains: bool = True  # whether weights move; else checkpoints hold none
    finish: Callable[[Context, Backend, Path], None] = _save_model  # writes what the stage leaves

    def texts(self) -> Iterable[str]:
        """The first questions of the task."""
        return first_texts(self.parts.task.train, lambda prompt: prompt.question)


class GrpoTraining:
    """A `Training`: a stream of scored groups, what is learnt from them, and held-out evaluations."""

    def __init__(self, context: Context, prepared: PreparedGrpo, checkpoint: Checkpoint | None):
        stage, parts, objective = context.stage, prepared.parts, prepared.objective
        self._context, self._stage, self._objective = context, stage, objective
        self.weights_of = checkpoint.step if checkpoint else context.first
        self._said_short = self._said_lost = False
        self._cut = 0, 0  # completions that the engine has cut so far, and their tokens
        self.groups: list[Group] = []
        self.screen: Screen | None = None
        staleness = stage.rollout.max_staleness
        if staleness and not stage.objective.corrects:
            context.console.warn(
                f"rollouts may be {counted(staleness, 'training step')} old (rollout.max_staleness), uncorrected: "
                'set objective.bypass = true, or objective.correction = "token_truncate"'
            )
        moved = checkpoint if prepared.trains else None
        if not stage.rollout.draws:
            context.console.warn(
                f"groups are no draws from the policy (rollout.groups = '{stage.rollout.groups}'): what is learnt is "
                "the likelihood of what was found, weighted by advantages, and no policy gradient; see docs/beams.md"
            )
        with ExitStack() as stack:  # what is open is closed again where something after it fails
            self.backend = open_backend(stage, objective, context.origin(prepared, moved))
            stack.callback(self.backend.close)
            stack.callback(parts.world.close)
            if moved is not None:
                self.backend.load(moved.path)
            self.backend.publish(self.weights_of)
            if not proves(self.backend.sampler):
                context.console.warn(
                    f"{stage.rollout.sampler} cannot show which weights it holds (`fingerprint` and `canary` of "
                    "cohort.types.ProvingSampler): only the log-probs of its rollouts are compared with the learner's"
                )
            taught = stage.taught if prepared.stored is None else None
            self._teaches = taught is not None and taught.divergence == "sampled"  # else it is part of the update
            self.facts: PolicyFacts = self.backend.facts
            if taught is not None:
                self.facts = replace(self.facts, teacher_bytes=self.backend.open_teachers())
            self.policy = self.backend.policy
            renderer = parts.task.renderer(self.facts.tokenizer)
            limit = prompt_limit(self.facts.context, stage.rollout.max_tokens, stage.task.max_prompt_tokens)
            if prepared.stored is None and taught is None and self.policy is not None and can_rehearse():
                prompt = longest_prompt(parts.task.train, renderer, limit)
                most = free_gb() if stage.policy.memory_gb is None else stage.policy.memory_gb
                if memory(fitted(stage, objective, self.facts), objective, self.facts, prompt).gb >= most / 2:
                    self._rehearse(prompt, most)
            self._combination = Combination.of(parts.rewards)
            self._prepared = prepared
            self._learning = prepared.learning(stage, objective, self._combination, self.backend)
            self._stream: Groups
            self._evaluate: Evaluator | None = None
            if prepared.stored is not None:
                self._stream = prepared.stored
            else:
                pool: Scorer = Unscored()
                if parts.rewards:
                    log, say = context.directory / "rewards.log", context.console.warn
                    pool = stack.enter_context(open_pool(stage, parts.rewards, log, say))
                play = parts.world.player(self.facts.tokenizer, self.facts.eos_ids, self.backend.sampler)
                if stage.task.too_long == "error":
                    refuse_long(parts.task.train, renderer, limit)
                state = checkpoint.ledger if checkpoint else None
                ledger = parts.task.tickets(derive_seed(context.seed, "ledger"), state)
                settings = StreamSettings(stage, limit, objective.zero_std, self._combination, context.seed)
                to_steps = functools.partial(token_steps, decode=reader(self.facts.tokenizer, self.facts.eos_ids))
                apart = getattr(self.backend.sampler, "apart", False)
                stream = GroupStream(
                    parts.task.train, renderer, ledger, play, pool, settings, to_steps, self._one_group_sampled, apart
                )
                stack.callback(stream.close)
                pending = checkpoint is not None and checkpoint.state.get("pending", True)
                if checkpoint is not None and pending and (checkpoint.path / PENDING).exists():
                    stream.restore(read_groups(checkpoint.path / PENDING))
                self._stream = stream
                judged = parts.task.held_out is not None and stage.evaluate.problems and parts.verifiers
                asked = parts if judged else None
                if asked is not None or context.suites:
                    sampler = self.backend.sampler
                    self._evaluate = Evaluator(context, asked, self.facts, sampler, stack, self._one_group_sampled)
            self._opened = stack.pop_all()
        self._doing, self._sampled = "sampling", 0  # what the live line says, and of how many groups

    def _rehearse(self, prompt: int, limit: float) -> None:
        """Do the worst step, with prompts of so many tokens, once and see. Raises `UserError` where it takes more than
        `limit` GB.
        """
        stage, asked = self._stage, self._stage.policy.memory_gb
        self._context.console.doing("rehearsing the worst step")
        found = rehearse(functools.partial(self.backend.rehearse, prompt), limit)
        if found is None:
            self._context.console.warn("no minute was enough to rehearse the worst step: whether it fits is not known")
        elif not found.fits:
            there = f"{limit:.1f} GB are free" if asked is None else f"policy.memory_gb = {limit:g}"
            raise UserError(
                f"stage '{stage.name}' does not fit: its worst step (prompts of {prompt} tokens, all completions of "
                f"{stage.rollout.max_tokens}) took more than {found.gb:.1f} GB in a rehearsal, and {there}. Lower "
                "optimizer.tokens_per_micro_batch and rollout.max_rows, set policy.checkpointing, or train an adapter "
                "(policy.lora)"
            )
        elif found.error:
            self._context.console.warn(f"the worst step could not be rehearsed: {found.error}")
        else:
            self._context.console.say(f"  the worst step was rehearsed: {found.gb:.1f} GB at the peak")

    def step(self, step: int) -> dict[str, float]:
        """Sample, score, learn, publish, record: one training step, and its metrics."""
        began = time.perf_counter()
        self._doing, self._sampled = "sampling", 0
        groups, said = self._stream.next(step), dict[str, float]()
        if self.screen is not None:
            groups = self._screened(groups, step, self.screen)
        sampled = time.perf_counter()
        if self._teaches:
            self._context.console.doing("asking the teacher")
            groups.kept, said = teach(self._stage, self._objective, self.backend, groups.kept)
            said["time/teacher_s"] = time.perf_counter() - sampled
        self.weights_of = step
        self._context.console.doing("learning")
        table, again = self._stage.rollout, list[Group]()
        if table.replay and self._prepared.stored is None:  # else they are among those that were stored
            again = earlier(self._context.log, step, table, self._context.seed)
        trained, report = self._learning.learn([*groups.kept, *again], step)
        if table.in_flight == "off":
            self._settle()
        self.backend.publish(step)
        reference = self._stage.reference
        if asks_reference(self._stage, self._objective) and reference.is_due(step):
            self.backend.move_reference(reference.ema)
        self._stream.finish(groups)
        ended = time.perf_counter()
        self.groups = everything = [*trained, *groups.left_out]
        if self._stage.run.save_rollouts:
            path = self._context.log / f"step-{step:06d}.parquet"
            self._context.recorder.waiting.append(write_groups(path, everything, step))
        self._show(step, trained, groups)
        new = fresh(trained, step, table)
        metrics = group_metrics(new, groups.left_out) | scoring_metrics(self._combination, groups.outcomes)
        metrics |= (
            behaviour([*new, *groups.left_out], self._combination)
            | said
            | report
            | task_metrics([*new, *groups.left_out])
            | self._beside(trained[len(new) :])
            | self._stream.ledger.metrics()
        )
        used = report.get("tokens/trained", 0.0) / self._stage.optimizer.epochs  # once, however often they were passed
        used -= metrics.get("tokens/replayed", 0.0)
        return metrics | {
            "tokens/wasted": metrics["tokens/sampled"] - used,
            "prompts/too_long": float(groups.prompts_too_long),
            "time/step_s": ended - began,
            "time/sample_s": groups.sample_s,
            "time/score_s": groups.score_s,
            "time/learn_s": ended - sampled - said.get("time/teacher_s", 0.0),
            "memory/peak_gb": peak_memory_gb(),
            "tokens_per_s": metrics["tokens/sampled"] / max(ended - began, 1e-9),
        }

    def _beside(self, again: Sequence[Group]) -> dict[str, float]:
        """What was learnt from once more, and what was begun and cut; nothing where the recipe asks for neither."""
        found, rollout = dict[str, float](), self._stage.rollout
        if rollout.replay:
            found["groups/replayed"] = float(len(again))
            found["tokens/replayed"] = float(sum(sum(r.mask) for group in again for r in group.rollouts))
        if rollout.over_sample and isinstance(engine := self.backend.sampler, Engine):
            cut, tokens = engine.cut - self._cut[0], engine.cut_tokens - self._cut[1]
            self._cut = engine.cut, engine.cut_tokens
            found |= {"completions/cut": float(cut), "completions/cut_tokens": tokens / cut if cut else math.nan}
        return found

    def _screened(self, groups: StepGroups, step: int, screen: Screen) -> StepGroups:
        """The groups of a step without those that a detector quarantines: as if they had not been sampled, they are in
        no baseline, no divisor and no KL. They are recorded with what was left out.
        """
        line = {"step": step, **group_metrics(groups.kept, groups.left_out)}
        line |= behaviour([*groups.kept, *groups.left_out], self._combination)
        found = screen(line, groups.kept, groups.left_out)
        bad = [group.with_(disposition="quarantined") for group in groups.kept if group.ticket in found]
        kept = [group for group in groups.kept if group.ticket not in found]
        return replace(groups, kept=kept, left_out=[*groups.left_out, *bad])

    def adapt(self, stage: Stage) -> None:
        """Another learning rate, KL coefficient or temperature, from the next step on."""
        self._stage, self._objective = stage, settled_objective(stage)
        self._learning = self._prepared.learning(stage, self._objective, self._combination, self.backend)
        self.backend.adapt(self._objective, stage.rollout.temperature)
        if isinstance(self._stream, GroupStream):
            self._stream.sample_by(stage)

    def go_back(self, path: Path) -> None:
        """The weights of a checkpoint, its optimizer, reference and critic; prompts go on."""
        self._settle()
        self.backend.restore(path)
        self.backend.publish(self.weights_of)

    def evaluate(self, step: int) -> dict[str, float] | None:
        """Held-out accuracy of the current weights, where there are held-out prompts; None where nothing is sampled."""
        if not self._prepared.trains and step > self._context.first:  # the weights are what was measured before
            return {}
        self._settle()
        self._doing, self._sampled = "evaluating", 0
        if self._evaluate is None:
            return {} if self._prepared.stored is None else None
        return self._evaluate(step)

    def save(self, directory: Path) -> Mapping[str, Any]:
        """The model and what trains it, the groups in flight, and the ledger."""
        if self._prepared.trains:
            self.backend.save(directory)
        if pending := self._stream.in_flight():
            write_groups(directory / PENDING, pending, self.weights_of)
        return {"ledger": self._stream.ledger.state()}

    def finish(self, directory: Path) -> None:
        """The trained model, or what else the stage leaves."""
        self._prepared.finish(self._context, self.backend, directory)

    def close(self) -> None:
        """End the reward workers and the tools."""
        self._opened.close()

    def _settle(self) -> None:
        if isinstance(self._stream, GroupStream):
            self._stream.settle()

    def _one_group_sampled(self) -> None:
        self._sampled += 1
        if self._doing == "sampling":  # the weights are those of the step before, and all tickets are in flight
            self._context.stop.check()
        self._context.console.doing(f"{self._doing} {self._sampled}")

    def _show(self, step: int, trained: list[Group], groups: StepGroups) -> None:
        """A sampled group from time to time; the first group that was lost, and the first step without enough to train
        on.
        """
        console, every = self._context.console, self._stage.run.show_group_every
        if every and step % every == 0 and trained:
            best = max(trained, key=lambda group: (group.has_signal, group.disposition == "trained"))
            console.group(step, best, self._context.recipe.stages[-1].record.traces)
        lost = next((group.error for group in groups.left_out if group.error is not None), None)
        if lost is not None and not self._said_lost:
            self._said_lost = True
            console.warn(f"step {step} lost a group: {lost} (said once; see groups/failed)")
        short = self._objective.zero_std == "resample" and len(trained) < self._stage.rollout.prompts_per_step
        if (short or not trained) and not self._said_short:
            self._said_short = True
            failed = sum(group.error is not None for group in groups.left_out)
            bad = sum(group.disposition == "quarantined" for group in groups.left_out)
            silent = len(groups.left_out) - failed - bad
            why = [f"{silent} left out as without signal"] * bool(silent) + [f"{failed} not scored"] * bool(failed)
            why += [f"{bad} quarantined"] * bool(bad)
            advice = " The task is too hard, too easy, or the reward says nothing" if silent else ""
            console.warn(
                f"step {step} trains on {counted(len(trained), 'group')}: {', '.join(why)}.{advice} (said once; see "
                "groups/left_out)"
            )
