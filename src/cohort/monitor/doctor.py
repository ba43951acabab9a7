"""What went wrong in a stage, as one would say it: named causes with what speaks for each, the likeliest first, and
answers to what is asked of every run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cohort.monitor.detectors.finding import Finding, Line, known, mean
from cohort.settings import Stage

# Cause: what it is called, what to try, and how strongly each finding speaks for it.
CAUSES: dict[str, tuple[str, str, Mapping[str, int]]] = {
    "step_size": (
        "the updates are too large",
        "Begin from a checkpoint before it (`cohort train RECIPE --from RUN@STEP`) with a tenth of "
        "optimizer.learning_rate (here {rate:g}), fewer updates on one batch, or a KL (objective.kl_coef)",
        {"kl_blow_up": 3, "reward_collapse": 3, "not_finite": 3, "entropy_collapse": 2, "entropy_explosion": 2}
        | {"clip_fraction": 2, "gradient_spike": 1, "repetition": 1},
    ),
    "too_hard": (
        "the task is too hard for this model",
        "Easier prompts first ([task.curriculum], task.levels), a supervised stage before, or a larger "
        "rollout.group_size (here {group})",
        {"sparse_reward": 3, "no_signal": 2, "constant_reward": 2, "best_of_bad": 1},
    ),
    "blind_reward": (
        "the reward does not tell answers apart",
        "Score a right and a wrong answer by hand (`cohort check`, `cohort sample --answer`): the reward may not find "
        "the answer in the text, or return the same for all",
        {"constant_reward": 3, "no_signal": 1, "constant_answer": 1},
    ),
    "too_short": (
        "completions end before their answer",
        "Raise rollout.max_tokens (here {longest}), or ask for shorter answers; is the end token the right one?",
        {"truncation": 3},
    ),
    "hacked_reward": (
        "the reward is paid for something else than the task",
        "Read what is paid best (`cohort record rollouts RUN`), pay for the answer first and gate the rest by it; an "
        "earlier checkpoint is the better model",
        {"proxy_gap": 3, "test_aware": 3, "format_only": 2, "constant_answer": 2, "no_working": 2, "best_of_bad": 2}
        | {"reward_dominance": 2, "reward_conflict": 1, "length_reward": 1},
    ),
    "length_bias": (
        "the length is paid",
        'objective.aggregation = "constant_length" or "token_mean", or a reward for short answers',
        {"wrong_longer": 3, "length_reward": 2},
    ),
    "no_exploration": (
        "the members of a group are copies of each other",
        "Raise rollout.temperature (here {temperature:g}) and objective.clip_high, or lower optimizer.learning_rate",
        {"similar_samples": 3, "entropy_collapse": 1},
    ),
    "verifier": (
        "the verifier cannot be relied on",
        "rewards.log says what failed; a judge needs temperature 0 and its cache, a reward must depend on its "
        "arguments alone",
        {"verifier_contradiction": 3, "verifier_errors": 3},
    ),
    "off_policy": (
        "what is learnt from was not sampled by this policy",
        "objective.correction, rollout.max_staleness = 0, or the same precision for both",
        {"sampler_mismatch": 3, "clip_fraction": 1},
    ),
    "overfitting": (
        "the training prompts are learnt by heart",
        "More prompts, fewer passes, an earlier checkpoint",
        {"held_out_drift": 3},
    ),
    "data_order": (
        "early and late steps see different prompts",
        "Shuffle the data, and judge by held-out accuracy",
        {"difficulty_drift": 3},
    ),
}
COLLAPSES = ("reward_collapse", "kl_blow_up", "not_finite", "entropy_explosion")


@dataclass(frozen=True, slots=True)
class Cause:
    """A named cause, how much speaks for it, the findings in the order of their steps, and what to try."""

    name: str
    says: str
    weight: float
    evidence: tuple[str, ...]
    tickets: tuple[tuple[int, int], ...]  # (step, ticket) of groups that show it
    what_to_try: str


def causes(findings: Sequence[Finding], stage: Stage) -> list[Cause]:
    """The causes that findings speak for, the likeliest first. What comes after a collapse counts half for other
    causes: it is its consequence more often than not. Groups that are all right are no cause of anything.
    """
    findings = [one for one in findings if not (one.detector == "no_signal" and one.numbers.get("all_right", 0) > 0.5)]
    first: dict[str, Finding] = {}
    for one in findings:
        first.setdefault(one.detector, one)
    collapse = min((first[name].step for name in COLLAPSES if name in first), default=None)
    settings = {
        "rate": stage.optimizer.learning_rate,
        "group": stage.rollout.group_size,
        "longest": stage.rollout.max_tokens,
        "temperature": stage.rollout.temperature,
    }
    found = []
    for name, (says, what_to_try, speaks) in CAUSES.items():
        mine = [first[detector] for detector in speaks if detector in first]
        late = name != "step_size" and collapse is not None
        weight = sum(speaks[one.detector] * (0.5 if late and one.step > (collapse or 0) else 1) for one in mine)
        if mine:
            mine.sort(key=lambda one: one.step)
            evidence = tuple(f"step {one.step}: {one.line}" for one in mine)
            tickets = tuple((one.step, ticket) for one in mine for ticket in one.tickets[:2])
            found.append(Cause(name, says, weight, evidence, tickets, what_to_try.format(**settings)))
    return sorted(found, key=lambda cause: -cause.weight)


def paragraph(cause: Cause) -> str:
    """A cause in words, with its evidence and what to try."""
    return f"Most likely {cause.says}: {'; '.join(cause.evidence)}. {cause.what_to_try}."


def answers(lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """Questions that people ask of numbers like these, and the answers; none without lines."""
    if not lines:
        return
    loss, norms = known(lines, "loss"), known(lines, "grad_norm")
    if loss and "groups/signal" in lines[-1] and statistics.median(map(abs, loss)) < 0.05:
        still = sum(norm == 0 for norm in norms)
        yield (
            "The loss is 0, is it broken?",
            f"The gradient is 0, too, in {still} of {len(norms)} steps: no group had signal, nothing was learnt."
            if norms and still > len(norms) / 2
            else "No. Advantages of a group sum to about 0, and with one update of a batch every ratio is 1, so the "
            "loss is near 0 whatever is learnt. Its gradient is not (grad_norm "
            f"{statistics.median(norms or [0]):.2g}); look at reward/mean and at held-out accuracy.",
        )
    if "policy/kl" in lines[-1] and not known(lines, "policy/kl"):
        yield "policy/kl is null?", "There is no KL in this objective (kl_coef is 0), so there is no reference."
    rewards = known(lines, "reward/mean")
    if len(rewards) >= 8:
        part = len(rewards) // 4
        early, late = mean(rewards[:part]), mean(rewards[-part:])
        if abs(late - early) < 2 * statistics.pstdev(rewards) / part**0.5:
            yield (
                "The reward does not rise?",
                f"Not by more than its noise: {early:.3f} first, {late:.3f} last. "
                f"{mean(known(lines, 'groups/signal')):.0%} of the groups carry signal; with little, see the causes; "
                "with much, more steps or a higher optimizer.learning_rate.",
            )
    entropy = known(lines, "policy/entropy_sampled")
    if entropy and entropy[-1] < 0.1 and rewards and mean(rewards[-3:]) > rewards[0]:
        yield (
            "The entropy is near 0?",
            f"It is {entropy[-1]:.3f} nats, and the reward rose to {mean(rewards[-3:]):.2f}: it was spent for reward. "
            "It is a failure only where signal or held-out accuracy fall with it.",
        )
