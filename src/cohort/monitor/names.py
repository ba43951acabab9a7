"""The glossary: every number of metrics.jsonl, what it is called, its unit, what it says, and which way is better.

This is the one table that console, documents and detectors read. A name with {} stands for many: the reward, level or
domain that the number is about takes its place. A stage of a kind of one's own may write numbers beside these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

Better = Literal["up", "down", ""]
Merge = Literal["mean", "sum", "max", "by tokens"]  # how the reports of several updates become one


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a step. `merge` is for the numbers that an update reports, of which a step may have several."""

    name: str
    unit: str
    meaning: str
    better: Better = ""
    heading: str = ""  # on the live line
    form: str = "{:6.3f}"
    merge: Merge = "mean"


# Of held-out problems where `run.keep_best` chooses: eval/choosing/greedy, eval/confirming/greedy.
HALVES = ("choosing", "confirming")
# The dozen to look at first, of those that a run has.
FIRST = (
    *("reward/mean", "eval/greedy", "eval/pass@1", "groups/signal", "completions/mean_tokens", "completions/truncated"),
    *("policy/entropy_sampled", "policy/kl", "policy/mismatch", "policy/clip_high", "grad_norm", "loss"),
    "tokens_per_s",
)
# What the numbers of the update are taken over: rows that cannot change the gradient are not computed.
_COMPUTED = (
    " over the tokens computed (all, with a KL in the loss or an entropy bonus; else those of rollouts with an "
    "advantage)"
)


def _over(
    name: str, unit: str, what: str, better: Better = "", heading: str = "", form: str = "{:6.3f}", rest: str = ""
) -> Metric:
    """A number over the tokens that the update computed, by which those of several updates are averaged."""
    return Metric(name, unit, f"{what}{_COMPUTED}{rest}.", better, heading, form, "by tokens")


# By what the numbers are about, in the order of docs/metrics.md.
SECTIONS: dict[str, tuple[Metric, ...]] = {
    "Rewards": (
        Metric("reward/mean", "", "Mean reward of all completions that were scored.", "up", "reward"),
        Metric("reward/{}/mean", "", "Mean score of this reward, where it applies.", "up"),
        Metric("reward/std", "", "Standard deviation of the rewards of all completions; 0: they are all the same."),
        Metric(
            "reward/{}/with_reward",
            "",
            "Correlation inside groups of this score, after its gate, and the reward, of several rewards.",
        ),
        Metric(
            "reward/{}/with_accuracy", "", "Correlation inside groups of this score, after its gate, and the accuracy."
        ),
        Metric("reward/{}/scored", "completions", "Completions to which this reward gave a score."),
        Metric("reward/{}/not_applicable", "completions", "Completions to which this reward does not apply."),
        Metric(
            "reward/{}/gated", "completions", "Completions that this reward did not pay, as its gate scored too little."
        ),
        Metric("reward/{}/steps", "steps", "Mean number of steps of a completion, where steps are scored one by one."),
        Metric(
            "reward/{}/retries", "tries", "Times that a group was scored again, as a worker or server failed.", "down"
        ),
        Metric("reward/{}/failures", "groups", "Groups lost because this reward failed.", "down"),
        Metric("reward/{}/timeouts", "groups", "Groups lost because this reward took too long.", "down"),
        Metric("reward/{}/{}", "completions", "Completions that this reward gave the label, such as no_answer."),
    ),
    "Groups": (
        Metric("groups/sampled", "groups", "Groups that were sampled for the step."),
        Metric("groups/signal", "share", "Scored groups whose accuracies differ.", "up", "signal", "{:4.0%}"),
        Metric("groups/all_right", "share", "Scored groups in which every completion is right."),
        Metric("groups/all_wrong", "share", "Scored groups in which every completion is wrong.", "down"),
        Metric("groups/partial", "share", "Scored groups whose accuracies are equal, and neither 0 nor 1.", "down"),
        Metric("groups/pass_rate", "share", "Completions that are right.", "up"),
        Metric(
            "groups/similar", "share", "Copies of another of their group, in groups that are not all right.", "down"
        ),
        Metric("groups/contradictions", "share", "Groups with equal completions that got different scores.", "down"),
        Metric(
            "advantage/below_right", "share", "Positive advantage that went to completions that are not right.", "down"
        ),
        Metric("groups/left_out", "groups", "Groups that were not trained on: without signal, or failed.", "down"),
        Metric(
            "groups/repeats",
            "completions",
            "Members of groups that are no draws (rollout.groups) left out as another one says the same.",
            "down",
        ),
        Metric(
            "groups/replayed", "groups", "Groups of earlier steps that were learnt from once more; in no other count."
        ),
        Metric("groups/quarantined", "groups", "Groups left out as a detector found something in them.", "down"),
        Metric("groups/failed", "groups", "Groups that could not be scored; they are among those left out.", "down"),
    ),
    "Prompts": (
        Metric("prompts/mean_tokens", "tokens", "Mean length of a prompt."),
        Metric("prompts/too_long", "prompts", "Prompts that task.too_long dropped on the way to this step.", "down"),
        Metric("task/pass_rate_{}", "share", "Prompts with a pass rate in this fifth: 0 is [0, 0.2), 4 is [0.8, 1]."),
        Metric("task/level", "", "Level that the curriculum has reached."),
        Metric("task/resting", "prompts", "Prompts that adaptive sampling lets rest."),
        Metric("task/level/{}/share", "share", "Prompts of this level among those of the step."),
        Metric("task/level/{}/pass_rate", "share", "Right completions of the prompts of this level.", "up"),
        Metric("domain/{}/share", "share", "Prompts of this source of a mixture among those of the step."),
        Metric("domain/{}/pass_rate", "share", "Right completions of the prompts of this source.", "up"),
        Metric("domain/{}/level", "", "Level that the curriculum of this source has reached."),
        Metric("domain/{}/resting", "prompts", "Prompts of this source that adaptive sampling lets rest."),
    ),
    "Completions": (
        Metric("completions/mean_tokens", "tokens", "Mean length of a completion.", "", "length", "{:6.1f}"),
        Metric("completions/truncated", "share", "Completions cut off at the limit.", "down", "cut off", "{:5.1%}"),
        Metric("completions/cut", "completions", "Begun beyond group_size and not kept (rollout.over_sample).", ""),
        Metric(
            "completions/cut_tokens",
            "tokens",
            "Mean length at which these ended or were cut: at least so much longer than those kept would they be.",
        ),
        Metric("completions/right_tokens", "tokens", "Mean length of the right ones."),
        Metric("completions/wrong_tokens", "tokens", "Mean length of the wrong ones."),
        Metric("completions/length_correlation", "", "Rank correlation of length and reward inside groups; 0: none."),
        Metric("completions/repeated", "share", "Sequences of four tokens that a completion has had before.", "down"),
        Metric("completions/same_answer", "share", "Completions that end in the commonest last word of the step."),
        Metric("completions/bare", "share", "Completions that are an answer alone, of two words at most."),
        Metric(
            "completions/reflective",
            "share",
            "Completions with a word of reflection, such as wait or check: an observation, which says of no completion "
            "that it reflects.",
        ),
        Metric(
            "completions/trace_words",
            "words",
            "Mean length of what stands before the answer (between think tags, where there are any): an observation.",
        ),
        Metric("completions/test_aware", "share", "Completions with code that acts on its tests.", "down"),
        Metric("turns/mean", "turns", "Mean number of turns of a rollout."),
        Metric("turns/limit", "share", "Rollouts that wanted more turns than there are.", "down"),
        Metric("tools/calls", "calls", "Mean number of calls of a rollout."),
        Metric("tools/errors", "share", "Calls that were answered with an error.", "down"),
        Metric("tools/tokens", "tokens", "Mean number of tokens of a rollout that tools wrote."),
    ),
    "The update": (
        Metric("loss", "", "The loss that was minimised.", "", "loss", "{:6.4f}"),
        Metric("lr", "", "Learning rate."),
        Metric("grad_norm", "", "Norm of the gradient before it was clipped.", "", "grad norm"),
        Metric(
            "teacher/kl",
            "nats",
            "Mean of the sampler's log-prob minus the teacher's, over the tokens of which one speaks: an estimate of "
            "the reverse KL.",
            "down",
            "teacher kl",
            "{:6.4f}",
        ),
        Metric(
            "teacher/agreement",
            "share",
            "Sampled tokens that are their teacher's likeliest.",
            "up",
            "agreement",
            "{:5.1%}",
        ),
        Metric("teacher/rollouts", "share", "Rollouts of which a teacher speaks.", "up"),
        Metric("teacher/tokens", "tokens", "Tokens that teachers read: completions, and each prompt before them once."),
        Metric("teacher/{}/tokens", "tokens", "The same as teacher/tokens of one teacher, of several."),
        Metric("teacher/{}/kl", "nats", "The same as teacher/kl of one teacher, of several.", "down"),
        Metric("teacher/{}/agreement", "share", "The same as teacher/agreement of one teacher, of several.", "up"),
        Metric(
            "teacher/divergence",
            "nats",
            "Mean of the divergence from the teacher over the vocabulary, over the tokens computed.",
            "down",
            merge="by tokens",
        ),
        Metric(
            "policy/not_finite",
            "weights",
            "Weights that are no numbers, where [monitor] may roll back.",
            "down",
            merge="max",
        ),
        Metric("critic/loss", "", "Loss of the value model.", "down"),
        Metric("critic/explained", "share", "Share of the variance of returns that the critic foresaw; 0: none.", "up"),
        Metric("critic/warmup", "", "1 in a step in which only the critic learnt, and the policy stayed."),
        _over("policy/entropy", "nats", "Mean entropy", "", "entropy", "{:5.3f}"),
        Metric(
            "policy/entropy_sampled",
            "nats",
            "Mean of minus the log-prob of what was sampled, over all tokens of all completions: an estimate of the "
            "entropy that covers the same with and without a KL, whatever groups are left out.",
        ),
        Metric(
            "policy/kl",
            "nats",
            "Mean of the KL estimate against the reference over the tokens computed, which with a KL are all.",
            "",
            "kl",
            "{:6.4f}",
            "by tokens",
        ),
        _over("policy/clip_low", "share", "Tokens whose gradient the lower clip removed"),
        _over("policy/clip_high", "share", "Tokens whose gradient the upper clip removed"),
        _over("policy/clip_dual", "share", "Tokens whose gradient dual_clip or ratio_max removed"),
        _over("policy/ratio", "", "Mean ratio of new to old probability", rest="; 1 is on-policy"),
        Metric("policy/entropy_coef", "", "Coefficient of the entropy bonus where it is steered; 0 where it rests."),
        _over("policy/masked", "share", "Tokens that a mask took out of the policy term for having moved too far"),
        _over(
            "policy/filtered",
            "share",
            "Tokens with an advantage that filters of mismatch or a choice of tokens left out",
        ),
        Metric("policy/ratio_max", "", f"Largest ratio of new to old probability{_COMPUTED}.", "down", merge="max"),
        _over(
            "policy/mismatch",
            "nats",
            "Mean distance of the log-probs of sampler and learner",
            "down",
            rest="; null where they are not compared",
        ),
        Metric(
            "router/busiest",
            "share",
            "Choices of a mixture's routers that went to the busiest expert, a mean over layers; even: 1 / experts.",
            "down",
        ),
        Metric(
            "router/evenness",
            "",
            "Entropy of the experts' load over that of an even one, a mean over layers: 1 is even, 0 one expert alone.",
            "up",
        ),
        Metric(
            "pairs/accuracy", "share", "Pairs of the step whose better answer scored higher.", "up", "right", "{:4.0%}"
        ),
        Metric("pairs/gap", "", "Mean score of the better answers minus that of the worse ones.", "up"),
        Metric("pairs/too_long", "pairs", "Pairs that were dropped as too long on the way to this step.", "down"),
        Metric(
            "pairs/chosen_reward", "", "dpo: mean of beta times the log-ratio to the reference, of the better ones."
        ),
        Metric("pairs/rejected_reward", "", "dpo: the same of the worse answers."),
        Metric("pairs/chosen_logprob", "nats", "dpo: mean log-prob of whole better answers, before the update."),
        Metric("pairs/rejected_logprob", "nats", "dpo: the same of the worse answers."),
        Metric("scores/mean", "", "Mean score of all answers of the step."),
        Metric("scores/std", "", "Standard deviation of the scores of the step."),
    ),
    "Samples that are kept": (
        Metric("reject/kept", "share", "Samples of the step that are kept to learn from.", "up", "kept", "{:4.0%}"),
        Metric("reject/prompts", "share", "Prompts of the step of which a sample is kept.", "up"),
        Metric("reject/low_score", "samples", "Refused because a reward in reject.least scored too little.", "down"),
        Metric("reject/{}", "samples", "Refused for this reason, such as wrong, cut_off or duplicate.", "down"),
    ),
    "Tokens, time, memory": (
        Metric("tokens/sampled", "tokens", "Tokens that the policy wrote for the step."),
        Metric("tokens/trained", "tokens", "Tokens that went through the update, each pass counted.", "", merge="sum"),
        Metric("tokens/malformed", "tokens", "Tokens of malformed calls and tags, which paid a penalty.", "down"),
        Metric("tokens/replayed", "tokens", "Tokens of groups of earlier steps that were learnt from once more."),
        Metric("tokens/wasted", "tokens", "Tokens that were sampled and not trained on.", "down"),
        Metric("tokens_per_s", "1/s", "Tokens of the step divided by its time.", "up", "tokens/s", "{:7,.0f}"),
        Metric("time/step_s", "s", "The whole step, evaluation and saving apart.", "down"),
        Metric("time/sample_s", "s", "Sampling.", "down"),
        Metric("time/score_s", "s", "Waiting for rewards, which are computed while others are sampled.", "down"),
        Metric("time/teacher_s", "s", "Asking the teachers of sampled tokens.", "down"),
        Metric("time/learn_s", "s", "Advantages, updates, publishing the weights.", "down"),
        Metric("time/reward/{}/mean_s", "s", "Mean time of this reward for a group.", "down"),
        Metric("time/reward/{}/p95_s", "s", "Time that this reward exceeds for one group in twenty.", "down"),
        Metric(
            "energy/step_j", "J", "Energy of the processor in the step, where its counter (RAPL) may be read.", "down"
        ),
        Metric("energy/estimated_j", "J", "Else, with codecarbon: an estimate of the machine's energy.", "down"),
        Metric(
            "memory/peak_gb", "GB", "Most memory so far: of the process, or on a GPU what was allocated there.", "down"
        ),
        Metric(
            "memory/tokens_at_once",
            "tokens",
            "Tokens of a micro-batch, where memory has run out and they were halved; else it is not there.",
            "",
        ),
    ),
    "Held-out accuracy": (
        Metric("eval/greedy", "share", "Problems answered right by greedy decoding.", "up"),
        Metric("eval/greedy_low", "share", "Lower end of its 95% interval.", "up"),
        Metric("eval/greedy_high", "share", "Upper end of its 95% interval.", "up"),
        Metric("eval/pass@1_low", "share", "Lower end of the 95% interval of eval/pass@1.", "up"),
        Metric("eval/pass@1_high", "share", "Upper end of the 95% interval of eval/pass@1.", "up"),
        Metric("eval/maj@{}", "share", "Problems that the vote of so many sampled completions answers right.", "up"),
        Metric("eval/pass@{}", "share", "Problems of which one of so many sampled completions is right.", "up"),
        Metric("eval/{}/{}", "", "This number of a suite, or of the half of the problems that chooses or confirms."),
        Metric("eval/mean_tokens", "tokens", "Mean length of a sampled completion."),
        Metric("eval/truncated", "share", "Sampled completions cut off at the limit.", "down"),
        Metric("eval/failed", "problems", "Problems left out as they could not be scored.", "down"),
    ),
    "Steps of a process reward model": (
        Metric("steps/accuracy", "share", "Steps that it tells right from wrong.", "up"),
        Metric("steps/right", "share", "Steps whose label is right."),
        Metric("eval/steps", "steps", "Held-out steps that were measured."),
        Metric("eval/steps_right", "share", "Of these, steps whose label is right."),
    ),
    "Whether answers need their traces": (
        Metric("eval/traced", "problems", "Problems of `evaluate.traces` whose answer has a trace before it."),
        Metric("eval/untraced", "problems", "The others of them."),
        Metric("eval/trace_tokens", "tokens", "Mean length of a trace."),
        Metric("eval/traced_right", "share", "Right answers of those with a trace, as they were."),
        Metric(
            "eval/trace_{}_changed",
            "share",
            "Answers that are others when the policy goes on from a trace that is `removed`, `kept_25`, `kept_50` or "
            "`kept_75` (its first 25, 50 or 75%), `corrupted` (its numbers are others), `exchanged` (it is another "
            "problem's).",
        ),
        Metric("eval/trace_{}_right", "share", "Answers that are right then."),
        Metric("eval/trace_followed", "share", "Answers to another problem's trace that are that problem's."),
        Metric("eval/trace_failed", "problems", "Problems left out as these answers could not be scored.", "down"),
        Metric("eval/trace{}_low", "share", "Lower end of the 95% interval of one of these."),
        Metric("eval/trace{}_high", "share", "Upper end of the 95% interval of one of these."),
    ),
    "Held-out pairs of a reward model": (
        Metric("eval/pairs", "pairs", "Held-out pairs that were measured."),
        Metric("eval/accuracy", "share", "Pairs whose better answer scored higher.", "up"),
        Metric("eval/accuracy_low", "share", "Lower end of its 95% interval.", "up"),
        Metric("eval/accuracy_high", "share", "Upper end of its 95% interval.", "up"),
        Metric("eval/loss", "", "Mean of -log sigmoid(better - worse); of a dpo stage its own loss.", "down"),
        Metric("eval/calibration_error", "", "Expected calibration error of its confidence.", "down"),
        Metric("eval/length_correlation", "", "Correlation of the differences in score and in tokens; 0: none."),
        Metric("eval/longer_chosen", "share", "Pairs whose longer answer is the better one."),
        Metric(
            "eval/longer_preferred", "share", "Pairs whose longer answer scores higher; as eval/longer_chosen is best."
        ),
        Metric("eval/score_mean", "", "Mean score of the held-out answers."),
        Metric("eval/score_std", "", "Standard deviation of the scores of the held-out answers."),
    ),
}
# Of several patterns that match a name, the first one counts.
METRICS: dict[str, Metric] = {m.name: m for part in SECTIONS.values() for m in part}


@cache
def metric(name: str) -> Metric | None:
    """What a number of metrics.jsonl is; None for one that the table does not know."""
    if name in METRICS:
        return METRICS[name]
    patterns = (known for known in METRICS if "{}" in known)
    return next((METRICS[p] for p in patterns if re.fullmatch(re.escape(p).replace(r"\{\}", ".+"), name)), None)


# How a model behaves, as `cohort eval` shows it; `evaluate.behaviour` computes it, and no run writes it.
_BEHAVIOUR = (
    Metric("mean_tokens", "tokens", "Mean length of a completion.", "", "tokens", "{:.1f}"),
    Metric("mean_tokens_right", "tokens", "Mean length of right ones.", "", "tokens, right", "{:.1f}"),
    Metric("mean_tokens_wrong", "tokens", "Mean length of wrong ones.", "", "tokens, wrong", "{:.1f}"),
    Metric("truncated", "share", "Completions cut off at the limit.", "down", "cut off", "{:.1%}"),
    Metric("answered", "share", "Completions that mark a final answer.", "up", "answer marked", "{:.1%}"),
    Metric("repetition", "share", "4-grams that a completion had before.", "down", "repetition", "{:.1%}"),
    Metric("distinct_1", "share", "Different words of a problem's completions.", "", "distinct-1"),
    Metric("distinct_2", "share", "Different pairs of words of them.", "", "distinct-2"),
    Metric("self_bleu", "", "BLEU of a completion with the problem's others; 1: copies.", "", "self-BLEU"),
    Metric("unique_answers", "share", "Different answers over samples.", "", "unique answers", "{:.1%}"),
    Metric(
        "vote_calibration_error",
        "share",
        "How far the share of a majority is from how often it is right.",
        "down",
        "vote's calibration error",
    ),
    Metric("language", "share", "Words in the language asked for.", "up", "in the language", "{:.1%}"),
    Metric("tools/calls", "calls", "Mean number of calls of a completion.", "", "calls", "{:.2f}"),
    Metric("tools/valid", "share", "Calls answered without an error.", "up", "valid calls", "{:.1%}"),
    Metric("tools/needed", "share", "Calls whose result was then written.", "up", "needed calls", "{:.1%}"),
    Metric("tools/wasted", "share", "Calls that failed or asked again.", "down", "wasted calls", "{:.1%}"),
)
BEHAVIOUR: dict[str, Metric] = {m.name: m for m in _BEHAVIOUR}
