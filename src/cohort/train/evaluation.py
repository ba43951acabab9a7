"""Evaluations of a stage: which prompts, which verifier, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable

from cohort.environments import Player
from cohort.evaluate import evaluate
from cohort.policy.policy import Policy
from cohort.record.rollouts import write_groups
from cohort.rewards import RewardPool
from cohort.seeds import derive_seed
from cohort.train.setup import GrpoParts, evaluation_sampling, held_out_prompts
from cohort.train.stage_run import StageRun
from cohort.types import UserError

__all__ = ["Evaluator"]


class Evaluator:
    """Measures held-out accuracy. What is odd about the held-out prompts is said once, when this is made."""

    def __init__(
        self,
        run: StageRun,
        parts: GrpoParts,
        policy: Policy,
        play: Player,
        pool: RewardPool,
        on_group: Callable[[], None],
    ):
        self._run, self._play, self._pool = run, play, pool
        self._on_group = on_group
        self._prompts, too_long = held_out_prompts(run.stage, parts.task, policy)
        if too_long:
            run.console.warn(f"{too_long} held-out prompts are longer than the model's context leaves room for")
        if too_long and not self._prompts:
            raise UserError("all held-out prompts are too long: lower rollout.max_tokens, or set task.too_long")
        if self._prompts and (both := parts.task.overlap()):
            run.console.warn(f"{both} held-out questions are also trained on, so their accuracy proves little")

    def evaluate(self, step: int) -> dict[str, float]:
        """Accuracy of the current weights, greedy and sampled, as metrics; every completion goes to disk."""
        stage, metrics = self._run.stage, {}
        for greedy, samples in ((True, int(stage.evaluate.greedy)), (False, stage.evaluate.samples)):
            if not samples or not self._prompts:
                continue
            result = evaluate(
                self._play,
                self._prompts,
                self._pool,
                evaluation_sampling(stage, greedy),
                samples,
                derive_seed(self._run.seed, "evaluate"),
                self._on_group,
            )
            metrics.update(result.metrics())
            if result.failed:
                metrics["eval/failed"] = metrics.get("eval/failed", 0.0) + result.failed
                why = next(group.error for group in result.groups if group.error is not None)
                self._run.console.warn(
                    f"{result.failed} of {len(self._prompts)} held-out problems could not be scored and are left out "
                    f"of the {result.name} accuracy: {why}"
                )
            if stage.run.save_rollouts:
                file = self._run.directory / "log" / f"eval-{step:06d}-{result.name}.parquet"
                write_groups(file, result.groups, step)
        return metrics
