"""What is watched while a stage trains, when it is worth a word, and what is done then."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import Positive, Resumable, Share, Table, key

Action = Literal["log", "warn", "quarantine", "adapt", "pause", "roll_back"]
# What `adapt` may change, and where it stands in a stage.
ADAPTED = {
    "learning_rate": ("optimizer", "learning_rate"),
    "kl_coef": ("objective", "kl_coef"),
    "temperature": ("rollout", "temperature"),
}
# What looks at every step, and where it is: "module:name" of a `monitor.detectors.finding.Detector`. In this order they
# are asked, and of several that see the same, the first speaks.
DETECTORS = {
    "not_finite": "cohort.monitor.detectors.update:not_finite",
    "gradient_spike": "cohort.monitor.detectors.update:gradient_spike",
    "kl_blow_up": "cohort.monitor.detectors.collapse:kl_blow_up",
    "reward_collapse": "cohort.monitor.detectors.collapse:reward_collapse",
    "entropy_collapse": "cohort.monitor.detectors.collapse:entropy_collapse",
    "entropy_explosion": "cohort.monitor.detectors.collapse:entropy_explosion",
    "sampler_mismatch": "cohort.monitor.detectors.update:sampler_mismatch",
    "clip_fraction": "cohort.monitor.detectors.update:clip_fraction",
    "constant_reward": "cohort.monitor.detectors.signal:constant_reward",
    "no_signal": "cohort.monitor.detectors.signal:no_signal",
    "sparse_reward": "cohort.monitor.detectors.signal:sparse_reward",
    "similar_samples": "cohort.monitor.detectors.signal:similar_samples",
    "difficulty_drift": "cohort.monitor.detectors.signal:difficulty_drift",
    "truncation": "cohort.monitor.detectors.length:truncation",
    "length_reward": "cohort.monitor.detectors.length:length_reward",
    "wrong_longer": "cohort.monitor.detectors.length:wrong_longer",
    "reward_conflict": "cohort.monitor.detectors.rewards:reward_conflict",
    "reward_dominance": "cohort.monitor.detectors.rewards:reward_dominance",
    "best_of_bad": "cohort.monitor.detectors.rewards:best_of_bad",
    "format_only": "cohort.monitor.detectors.rewards:format_only",
    "proxy_gap": "cohort.monitor.detectors.held_out:proxy_gap",
    "held_out_drift": "cohort.monitor.detectors.held_out:held_out_drift",
    "repetition": "cohort.monitor.detectors.exploits:repetition",
    "constant_answer": "cohort.monitor.detectors.exploits:constant_answer",
    "no_working": "cohort.monitor.detectors.exploits:no_working",
    "test_aware": "cohort.monitor.detectors.exploits:test_aware",
    "verifier_contradiction": "cohort.monitor.detectors.verifier:verifier_contradiction",
    "verifier_errors": "cohort.monitor.detectors.verifier:verifier_errors",
}


Ratio = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(gt=0, le=1)]  # of what should not be there: with 0 it would be found where there is none
Growth = Annotated[float, Field(gt=1)]  # times what it was: at 1 or below, it would be found where nothing grew


class Adapt(Table):
    """What a finding of one detector changes, from the next step on."""

    place = ("monitor", "adapt", "DETECTOR")

    setting: Literal["learning_rate", "kl_coef", "temperature"] = Field(
        description="The setting that is changed: optimizer.learning_rate, objective.kl_coef, rollout.temperature."
    )
    factor: Ratio = Field(description="What every finding multiplies it by.")
    bound: Ratio = Field(description="The least that it becomes; with a factor above 1, the most.")


class Monitor(Table):
    """What is watched, and what is done about it. No default does more than say it."""

    window: Resumable[Positive] = key(
        10, "Steps in which a detector speaks once, and on which it looks back (on 6 at least)."
    )
    action: Resumable[Action] = key(
        "warn", "What a finding does: log (into the record only), warn, or pause (exit code 3)."
    )
    actions: Resumable[dict[str, Action]] = key(
        {}, 'The same for one detector, also quarantine and roll_back: `{ test_aware = "quarantine" }`.'
    )
    adapt: Resumable[dict[str, Adapt]] = key({}, "By detector what its findings change: that is what it does, then.")
    rescore: Resumable[Share] = key(
        0.0, "verifier_contradiction: share of each step's groups that are scored a second time."
    )
    signal: Resumable[Share] = key(0.05, "no_signal: the least share of groups with signal.")
    sparse: Resumable[Share] = key(0.05, "sparse_reward: the least share of right completions.")
    # Identical members of a group have advantage 0: with them a group is smaller than it is paid for.
    similar: Resumable[Part] = key(
        0.9, "similar_samples: completions of unsolved groups that repeat another of their group."
    )
    level_drift: Resumable[Part] = key(
        0.4, "difficulty_drift: share of prompts that are of other levels than at the beginning."
    )
    # The entropy of a policy is spent for reward (2505.22617): alone it says nothing.
    entropy_fall: Resumable[Share] = key(0.3, "entropy_collapse: share of the first steps' entropy that is left.")
    entropy_rise: Resumable[Growth] = key(3.0, "entropy_explosion: times the entropy of the first steps.")
    collapse: Resumable[Share] = key(0.3, "reward_collapse: share of the best mean reward of the window that is left.")
    kl: Resumable[Ratio] = key(1.0, "kl_blow_up: nats a token from the reference.")
    mismatch: Resumable[Ratio] = key(0.05, "sampler_mismatch: nats between the log-probs of sampler and learner.")
    # PPO clips a few tokens in a hundred; GSPO reports 15% and is well (2507.18071, figure 2).
    clipped: Resumable[Part] = key(0.4, "clip_fraction: share of tokens that were clipped.")
    gradient: Resumable[Growth] = key(10.0, "gradient_spike: times the median gradient norm of the window.")
    # Cut off completions are scored as wrong though they may have been on their way (DAPO 2503.14476, section 3.4).
    truncated: Resumable[Part] = key(0.5, "truncation: share of completions cut off.")
    length_correlation: Resumable[Part] = key(
        0.6, "length_reward: rank correlation of length and reward inside groups, up or down."
    )
    # A loss that divides by the length punishes long wrong answers less (Dr. GRPO 2503.20783, section 3.1).
    longer_wrong: Resumable[Growth] = key(
        1.5, "wrong_longer: growth of the length of wrong answers over that of right ones."
    )
    conflict: Resumable[Share] = key(
        0.5, "reward_conflict: correlation below minus this, of a reward and the accuracy."
    )
    dominance: Resumable[Share] = key(
        0.8, "reward_dominance: how much closer a reward follows the total than the accuracy does."
    )
    bad_credit: Resumable[Share] = key(
        0.7, "best_of_bad: share of positive advantage on completions that are not right."
    )
    gap: Resumable[Share] = key(0.1, "format_only, proxy_gap, held_out_drift: how far two scores may come apart.")
    repeated: Resumable[Part] = key(0.5, "repetition: share of four-token sequences that the completion had before.")
    constant: Resumable[Part] = key(
        0.7, "constant_answer: completions with the same answer, more than golds are alike."
    )
    bare: Resumable[Share] = key(0.7, "no_working: growth of the share of completions that are an answer alone.")
    test_aware: Resumable[Part] = key(0.05, "test_aware: share of completions with code that acts on its tests.")
    errors: Resumable[Part] = key(0.05, "verifier_errors: share of the window's groups that could not be scored.")

    def action_of(self, detector: str) -> Action:
        """What a finding of this detector does."""
        return self.actions.get(detector, "adapt" if detector in self.adapt else self.action)

    @property
    def rolls_back(self) -> bool:
        """Whether a numerical failure may send the run back to a checkpoint."""
        return "roll_back" in self.actions.values()
