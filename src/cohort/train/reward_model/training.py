"""Training a reward model from preference pairs: -log sigmoid(chosen - rejected - margin), averaged over the step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import orjson
import torch
from torch import Tensor

from cohort.algorithms.losses import bradley_terry
from cohort.learn.optimizer import load_optimizer, save_optimizer
from cohort.monitor.machine import peak_memory_gb
from cohort.record.files import new_directory, write_bytes
from cohort.record.metrics import MetricsLog
from cohort.seeds import derive_seed
from cohort.tasks import Ledger
from cohort.train.checkpoint import Checkpoint, latest_checkpoint, prune, readable
from cohort.train.plan import reward_model_plan
from cohort.train.reward_model_card import REPORT, show_report
from cohort.train.reward_model_pairs import PairReader, RewardModelParts
from cohort.train.reward_model_report import PairReport, report_pairs
from cohort.train.reward_model_scorer import EncodedPair, Scorer
from cohort.train.setup import build_policy, optimizer_settings, rate_at, resumed_policy
from cohort.train.stage_run import StageRun
from cohort.types import UserError

__all__ = ["run_reward_model"]

_DROPPED_IN_A_ROW = 10_000


def run_reward_model(run: StageRun, parts: RewardModelParts) -> Scorer:
    """Train a stage from its start or its last checkpoint to its end. Returns the reward model."""
    stage = run.stage
    checkpoint = latest_checkpoint(run.directory / "checkpoints")
    with readable(checkpoint):
        scorer = _scorer(run, parts, checkpoint)
        training = _Training(run, parts, scorer, checkpoint)
    log = MetricsLog(run.directory / "metrics.jsonl")
    log.keep_until(training.done)
    held_out = parts.pairs.held_out
    size = (parts.pairs.train.size, 0 if held_out is None else held_out.size)
    run.console.plan(run.title, reward_model_plan(stage, scorer.policy, run.threads, *size))
    with run.console.steps("reward_model", stage.run.steps, training.done) as view:
        for step in range(training.done + 1, stage.run.steps + 1):
            metrics = training.step(step)
            if held_out is not None and run.evaluates_at(step) and (report := training.evaluate()) is not None:
                metrics |= report.metrics()
                write_bytes(run.directory / REPORT, orjson.dumps({"step": step, **report.as_dict()}))
            log.write(step, metrics)
            view.step(step, metrics)
            if run.saves_at(step):
                training.save(step)
    show_report(run.console, run.directory)
    return scorer


def _scorer(run: StageRun, parts: RewardModelParts, checkpoint: Checkpoint | None) -> Scorer:
    if checkpoint is not None:
        scorer = Scorer(resumed_policy(run.stage, checkpoint.path), parts.form)
        scorer.load_state(checkpoint.path)
        return scorer
    scorer = Scorer(build_policy(run.stage, run.seed, run.start, run.live), parts.form)
    scorer.take_head(run.stage.policy.revision)
    return scorer


class _Training:
    """The parts of a reward-model stage, wired together."""

    def __init__(self, run: StageRun, parts: RewardModelParts, scorer: Scorer, checkpoint: Checkpoint | None):
        self.run, self.stage, self.parts, self.scorer = run, run.stage, parts, scorer
        self.done = checkpoint.step if checkpoint else 0
        self.reader = PairReader(run.stage, scorer.policy, parts.form)
        self.optimizer = optimizer_settings(run.stage).build(scorer.module)
        order = (parts.pairs.train.size, derive_seed(run.seed, "ledger"))
        self.ledger = Ledger.restore(checkpoint.state["ledger"], *order) if checkpoint else Ledger(*order)
        if checkpoint is not None:
            load_optimizer(self.optimizer, checkpoint.path)

    def step(self, step: int) -> dict[str, float]:
        """One update: its metrics."""
        began = time.perf_counter()
        pairs, dropped = self._next()
        rate = rate_at(self.stage, step)
        metrics = self._update(pairs, rate)
        spent = time.perf_counter() - began
        tokens = sum(pair.tokens for pair in pairs)
        return metrics | {
            "lr": rate,
            "pairs/too_long": float(dropped),
            "tokens/trained": float(tokens),
            "time/step_s": spent,
            "tokens_per_s": tokens / spent,
            "memory/peak_gb": peak_memory_gb(),
        }

    def evaluate(self) -> PairReport | None:
        """The measures of the held-out pairs; None when there is none that fits and whose answers differ."""
        source, wanted = self.parts.pairs.held_out, self.stage.evaluate.problems
        assert source is not None
        rule = "drop" if self.stage.task.too_long == "error" else self.stage.task.too_long
        read = (self.reader.read(source, index, rule) for index in range(min(source.size, wanted)))
        pairs = [pair for pair in read if pair is not None and pair.chosen != pair.rejected]
        if not pairs:
            return None
        with torch.no_grad():
            scores = torch.cat([self.scorer.scores(part).cpu() for part in self._parts(pairs)]).tolist()
        lengths = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
        (better, worse), (long, short) = zip(*scores, strict=True), zip(*lengths, strict=True)
        return report_pairs(better, worse, long, short)

    def save(self, step: int) -> None:
        """A checkpoint: everything that the stage needs to go on as if it had never stopped."""
        directory = self.run.directory / "checkpoints"
        with new_directory(directory / f"step-{step:06d}") as new:
            self.scorer.save_state(new)
            save_optimizer(self.optimizer, new)
            state = {"step": step, "ledger": self.ledger.state()}
            (new / "state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
        prune(directory, self.stage.run.keep_checkpoints)

    def _next(self) -> tuple[list[EncodedPair], int]:
        """The pairs of the next step, and how many were dropped as too long on the way."""
        pairs: list[EncodedPair] = []
        dropped = in_a_row = 0
        while len(pairs) < self.stage.preferences.pairs_per_step:
            ticket = self.ledger.issue()
            pair = self.reader.read(self.parts.pairs.train, ticket.index)
            self.ledger.finish(ticket.number, "trained" if pair is not None else "too_long")
            if pair is not None:
                pairs.append(pair)
                in_a_row = 0
                continue
            dropped, in_a_row = dropped + 1, in_a_row + 1
            if in_a_row > _DROPPED_IN_A_ROW:
                raise UserError(
                    f"{_DROPPED_IN_A_ROW:,} preference pairs in a row were too long; raise the model's context"
                )
        return pairs, dropped

    def _update(self, pairs: Sequence[EncodedPair], rate: float) -> dict[str, float]:
        """One optimizer step; micro-batches add up to the mean over all pairs."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        found: list[Tensor] = []
        total = 0.0
        for part in self._parts(pairs):
            scores = self.scorer.scores(part)  # [n, 2]
            margin = torch.tensor([pair.margin for pair in part], device=scores.device)
            loss = bradley_terry(scores[:, 0], scores[:, 1], margin, self.stage.preferences.centring)
            loss = loss * (len(part) / len(pairs))
            loss.backward()
            total += loss.item()
            found.append(scores.detach().cpu())
        clip = self.stage.optimizer.gradient_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.scorer.module.parameters(), clip).item()
        if not norm < math.inf:
            raise UserError(f"the gradient is not finite (norm {norm}): lower optimizer.learning_rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        scores = torch.cat(found)
        gaps = scores[:, 0] - scores[:, 1]
        return {
            "loss": total,
            "pairs/accuracy": (gaps > 0).float().mean().item(),
            "pairs/gap": gaps.mean().item(),
            "scores/mean": scores.mean().item(),
            "scores/std": scores.std().item(),
            "grad_norm": norm,
        }

    def _parts(self, pairs: Sequence[EncodedPair]) -> Iterator[list[EncodedPair]]:
        """Micro-batches of about `tokens_per_micro_batch` tokens, one pair at least."""
        part: list[EncodedPair] = []
        for pair in pairs:
            limit = self.stage.optimizer.tokens_per_micro_batch
            if part and sum(other.tokens for other in part) + pair.tokens > limit:
                yield part
                part = []
            part.append(pair)
        if part:
            yield part
