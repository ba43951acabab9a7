"""The one loop. It resumes, plans, steps, evaluates, records, saves, and says what happens, for every kind of stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from cohort.chat import template_for
from cohort.clock import moment, told
from cohort.monitor.detectors.update import NEVER_NULL
from cohort.monitor.energy import open_meter
from cohort.monitor.watcher import INCIDENTS, Watcher, lines_of, read_incidents
from cohort.record.entries import digest_of
from cohort.record.files import sweep
from cohort.record.manifest import sealed_directory
from cohort.record.metrics import MetricsLog, read_metrics
from cohort.settings.training import LEAST_OF_LORA, LORA_REASON
from cohort.train.checkpoint import (
    Checkpoint,
    checkpoints_in,
    latest_step,
    load_checkpoint,
    newest,
    path_of,
    prune,
    read_checkpoint,
    readable,
    save_checkpoint,
)
from cohort.train.choosing import Choice, choose, columns, reason_to_stop
from cohort.train.directory import flat_recipe, keep_template, run_directory
from cohort.train.inputs import probe_of
from cohort.train.keeping import keep_account
from cohort.train.origins import begin
from cohort.train.stage import Acting, Context, Prepared, StageKind, Training, complete
from cohort.train.stopping import Stopped, stopping
from cohort.train.watching import act, adapted, decided, kept_to_go_back
from cohort.types import UserError
from cohort.views.console import Console, escape
from cohort.views.plan import about, not_shown
from cohort.views.trackers import Sinks
from cohort.wording import counted, going_on, resuming

OF_TRAINING = ("facts", "policy", "weights_of", "step", "evaluate", "save", "finish", "close")
LOWER = "Lower optimizer.learning_rate, or look at the last rollouts for a reward or log-prob out of range."


def train_stage(kind: StageKind[Any], prepared: Prepared, context: Context) -> None:
    """Train a stage from its start or its last checkpoint to its end, and write its final model."""
    stage, console = context.stage, context.console
    context.place.mkdir(parents=True, exist_ok=True)
    for place in (context.directory, context.log, context.checkpoints):
        sweep(place)
    own, begun = load_checkpoint(context.checkpoints, console.warn), context.metrics.exists()
    checkpoint = own or context.parent
    with ExitStack() as stack:
        with readable(checkpoint.path) if checkpoint else nullcontext():
            training = complete(kind.open(context, prepared, checkpoint), stage, "Training", OF_TRAINING)
            stack.enter_context(closing(training))
        if told(training.facts.tokenizer):
            console.warn(f"the chat template asks for the date; this run tells it {moment()} 00:00, also when resumed")
        tokenizer = training.facts.tokenizer
        template = template_for(stage.task.template, tokenizer)
        probe = probe_of(stage.task, tokenizer)
        environment = keep_template(context.recipe, stage.name, template, probe, training.facts)
        suites, facts = [one.table for one in context.suites], training.facts
        plan = {**kind.plan(stage, prepared, facts), **about(stage, suites, facts.device)}
        console.plan(context.title, not_shown(plan))
        rate = stage.optimizer.learning_rate
        if training.policy is not None and training.policy.has_adapter and rate < LEAST_OF_LORA:
            console.warn(
                f"optimizer.learning_rate = {rate:g} is low for an adapter: {LORA_REASON}. Set {LEAST_OF_LORA:g} or "
                "more, or leave it out beside [policy.lora]"
            )
        if checkpoint is not None or begun:
            console.say(f"  {_goes_on(context, own)}\n")
        loop = _Loop(context, training, prepared, own, environment)
        stack.callback(loop.sinks.close)
        if own is None and (before := training.evaluate(context.first)) is not None:
            loop.record(context.first, {}, before)
        if own is None and context.parent is not None:
            loop.save()  # what it begins from is another run's, which may delete it
        verifier = prepared.parts.verifier_name if prepared.parts else ""
        console.all_evaluated("before", context.evaluation_at(context.first), verifier)
        heard = partial(console.doing, "finishing the step; once more stops at once")
        with (
            stopping(context.stop, heard),
            console.steps(kind.columns, context.last, loop.whole) as view,
            loop.saving_on_failure(),
        ):
            meter = open_meter()
            for step in range(loop.whole + 1, context.last + 1):
                if loop.over:
                    break
                meter.joules()  # what evaluating and saving took is not the step's
                loop.adapt(step)
                metrics = {**training.step(step)}
                metrics |= {} if (joules := meter.joules()) is None else {meter.name: joules}
                measured: dict[str, float] = {}
                due = context.is_due(step, stage.run.evaluate_every) or loop.would_stop({"step": step, **metrics})
                if due and not metrics.get("policy/not_finite"):  # a policy of such weights writes nothing
                    if context.recorder.waiting:
                        context.recorder.enter(step)
                    measured = {**(training.evaluate(step) or {})}
                loop.record(step, metrics, measured)
                view.step(step, metrics)
                loop.count_skipped(step, metrics)
                console.all_evaluated(f"step {step}", measured, verifier)
                act(context, loop.watcher.found, step, loop.go_back)
                chosen = loop.choice is not None and loop.choice.step == step
                wanted = context.is_due(step, stage.run.save_every) or chosen or loop.over
                if wanted and latest_step(context.checkpoints) != step:  # it is saved already where the run went back
                    loop.save()
                context.stop.check()
        if loop.over:
            console.say(f"  stopped after step {loop.whole}: {escape(loop.over)}")
        if loop.choice is not None:
            console.say(f"  kept {escape(loop.choice.words())}")
        elif stage.run.keep_best is not None:
            console.warn(f"run.keep_best: {stage.run.keep_best} was measured after no step, so the last one is kept")
        with loop.trained(kind, prepared) as best, sealed_directory(context.final, loop.close) as final:
            best.finish(final)
        if training.policy is not None:
            training.policy.release()


def _skipped(line: Mapping[str, Any]) -> bool:
    """Whether an update of a step, as it is told or read again, was left out because its gradient was not finite."""
    numbers = [line[name] for name in NEVER_NULL if name in line]
    return "policy/not_finite" in line and any(one is None or not math.isfinite(one) for one in numbers)


def _goes_on(context: Context, checkpoint: Checkpoint | None) -> str:
    """Where a stage goes on that was stopped, or begins from another run's checkpoint."""
    if checkpoint is None and context.parent is not None:
        return f"begins from {escape(str(context.parent.path))}, with step {context.first + 1}"
    if checkpoint is None:
        return f"{escape(str(context.directory))} has no checkpoint yet: it begins again at step 1"
    return f"{escape(str(context.directory))} goes on after step {checkpoint.step} of {context.last}"


class _Loop:
    """What is done around the steps of a stage. `whole` is the last step that is done and recorded."""

    def __init__(
        self,
        context: Context,
        training: Training,
        prepared: Prepared,
        checkpoint: Checkpoint | None,
        environment: bytes | None,
    ):
        self.context, self.run, self.training = context, context.stage.run, training
        first = context.first  # what has this number was measured before the first step
        self.whole = checkpoint.step if checkpoint else first
        recorded = checkpoint.step if checkpoint else first - 1
        begin(context, prepared, recorded, environment)
        self._log = MetricsLog(context.metrics)
        kept = self._log.keep_until(recorded)
        if lost := [number for number in range(first + 1, recorded + 1) if number not in kept]:
            context.console.warn(
                f"{context.metrics} has no line of step {', '.join(map(str, lost[:5]))}{' ...' * (len(lost) > 5)}: it "
                "was lost or damaged, and stays so. The weights do not depend on it."
            )
        context.forget_after(recorded)
        lines = read_metrics(context.metrics) if context.metrics.exists() else []
        self._skipped = sum(map(_skipped, lines))
        before = read_incidents(context.directory, recorded)
        self.watcher = Watcher(context.stage.monitor, lines, before, partial(decided, context))
        self._acting = cast(Acting, training)  # what is asked of it, a kind that says so in `acts` can do
        if self.watcher.screens:
            self._acting.screen = self.watcher.screen
        self._adapted = context.stage
        self._incidents = context.log / INCIDENTS
        if self._incidents.exists():  # what a run that goes on has abandoned is found again
            context.recorder.file(self._incidents, lines_of(self.watcher.found), recorded, kind="resume")
        self._decides = None if self.run.keep_best is None and self.run.stop is None else columns(self.run)
        self.choice: Choice | None = None
        self.over, self._lines = "", list[dict[str, Any]]()
        if self._decides:
            self._lines = [self._short(line) for line in lines]
            self._decide()
        self.sinks = self._open_sinks(recorded)

    def _open_sinks(self, recorded: int) -> Sinks:
        kept = run_directory(self.context.recipe) / "recipe.toml"
        config = flat_recipe(kept.read_text("utf-8")) if self.run.trackers else {}
        shown = self.context.recipe.stages[-1].record.traces
        return Sinks.open(self.run.trackers, self.context.directory, recorded, config, self.context.console.warn, shown)

    @contextmanager
    def saving_on_failure(self) -> Iterator[None]:
        """When a step fails for a reason the person can mend, or is stopped, before it has moved the weights, keep what
        was trained: what that step has taken is still in flight. Later failures go back to the last checkpoint.
        """
        try:
            yield
        except (UserError, Stopped) as reason:
            untouched = self.training.weights_of == self.whole
            if self.whole and untouched and latest_step(self.context.checkpoints) != self.whole:
                with suppress(UserError):  # weights that cannot be saved were the reason, or come of it
                    self.save()
            if self.whole:
                with suppress(UserError, OSError):  # what has failed is said all the same
                    self.context.check()
                    keep_account(run_directory(self.context.recipe), self.context.recipe)
            if last := latest_step(self.context.checkpoints):
                mend = "mend the cause and " if isinstance(reason, UserError) else ""
                how = f"{resuming()}: {going_on(run_directory(self.context.recipe))}"
                self.context.console.say(f"  saved up to step {last}; {mend}continue with {escape(how)}", fold=False)
            elif isinstance(reason, Stopped):
                self.context.console.say("  stopped before the first step was done")
            raise

    def record(self, step: int, metrics: Mapping[str, float], measured: Mapping[str, float]) -> None:
        self.context.check()
        line = self._log.write(step, {**metrics, **measured})
        said = {"measured": dict(measured)} if measured else {}
        self.context.recorder.enter(step, sha256=digest_of(line), **said)
        shard = self.context.directory / "log" / f"step-{step:06d}.parquet"
        shown = self.run.show_group_every and step % self.run.show_group_every == 0 and shard.is_file()
        self.sinks.write(step, {**metrics, **measured}, shard if shown else None)
        self.whole = step
        if self.watcher.see({"step": step, **metrics, **measured}, getattr(self.training, "groups", ())):
            self.context.recorder.file(self._incidents, lines_of(self.watcher.found), step, kind="incident")
        if self._decides:
            self._lines.append(self._short({"step": step, **metrics, **measured}))
            self._decide()

    def count_skipped(self, step: int, line: Mapping[str, float]) -> None:
        """Say that weights stay because a gradient was lost. Raises `UserError` beyond the budget of such steps, and
        where weights were lost with it.
        """
        budget = self.context.stage.optimizer.skip_budget
        if not budget:
            return
        if lost := line.get("policy/not_finite"):
            raise UserError(f"step {step}: {counted(int(lost), 'weight')} became not finite. {LOWER}")
        if not _skipped(line):
            return
        self._skipped += 1
        allowed = f"{self._skipped} of {budget} such steps that optimizer.skip_budget allows"
        said = f"step {step}: the gradient is not finite, so the weights stay ({allowed})"
        if self._skipped > budget:
            raise UserError(f"{said}. {LOWER}")
        self.context.console.warn(said)

    def adapt(self, step: int) -> None:
        """Train the step with the settings that detectors have changed before it."""
        now = adapted(self.context.stage, self.context.did or self.watcher.found, step)
        if now != self._adapted:
            self._adapted = now
            self._acting.adapt(now)

    def go_back(self, step: int) -> None:
        """Take the weights of an earlier checkpoint, and keep them as those of the step that is done: its prompts are
        not asked again. That step cannot be the best one any more.
        """
        path = path_of(self.context.checkpoints, step)
        with readable(path):
            self._acting.go_back(read_checkpoint(path).path)
        if self._decides:
            self._decide()
        self.save()

    def would_stop(self, line: Mapping[str, Any]) -> bool:
        """Whether the stage ends with this step, by what is known before its evaluation."""
        return bool(reason_to_stop([*self._lines, line], self.run)) and not self.over

    @contextmanager
    def trained(self, kind: StageKind[Any], prepared: Prepared) -> Iterator[Training]:
        """What has the weights that are kept: the last ones, or those of the checkpoint that was chosen."""
        if self.choice is None or self.choice.step == self.whole:
            yield self.training
            return
        context = replace(self.context, console=Console(quiet=True), suites=())
        chosen = read_checkpoint(path_of(context.checkpoints, self.choice.step))
        self.training.close()  # its machines, and its memory, are the other's now
        with readable(chosen.path), closing(kind.open(context, prepared, chosen)) as best:
            yield best

    def _decide(self) -> None:
        """What the lines so far say: the step to keep, and why to stop."""
        lost = {one.step for one in self.watcher.found if one.went_back(one.step)}
        self.choice = choose([one for one in self._lines if one["step"] not in lost], self.run, self.context.first)
        self.over = reason_to_stop(self._lines, self.run)

    def _short(self, line: Mapping[str, Any]) -> dict[str, Any]:
        assert self._decides is not None
        return {key: value for key, value in line.items() if self._decides(key)}

    def save(self) -> None:
        """A checkpoint; old ones go."""
        save_checkpoint(self.context.checkpoints, self.whole, self.training.save, self._enter_checkpoint)
        prune(self.context.checkpoints, self.run.keep_checkpoints, self._needed())

    def _needed(self) -> set[int]:
        """Checkpoints that stay beside the newest ones: the best, and those that the run may go back to."""
        needed = {self.choice.step} if self.choice else set()
        if self.context.stage.monitor.rolls_back:
            needed |= {*kept_to_go_back(self.run, {*checkpoints_in(self.context.checkpoints), self.whole})}
        return needed

    def close(self, files: Mapping[str, str]) -> None:
        """Enter the final model, before it is in its place."""
        step = self.choice.step if self.choice else self.whole
        self.context.recorder.model("close", step, self.context.final, files, self.choice)

    def _enter_checkpoint(self, path: Path, files: Mapping[str, str]) -> None:
        older = [one for one in newest(path.parent, self.run.keep_checkpoints) if one != path]
        kept = older[len(older) - self.run.keep_checkpoints + 1 :]
        needed = [path_of(path.parent, step) for step in sorted(self._needed())]
        kept += [one for one in needed if one not in (*kept, path) and one.exists()]
        names = [self.context.recorder.chain.relative(one) for one in kept]  # of those that stay beside it
        self.context.recorder.model("checkpoint", self.whole, path, files, self.choice, kept=names)
