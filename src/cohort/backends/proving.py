"""A sampler proves that it holds the weights that were published: by their fingerprint, and by a canary.

Frameworks have trained for days on rollouts of stale weights, or of a base model without its adapter, and ended with
exit code 0. Here three things stop a run, each before anything that came of it is recorded: another fingerprint, other
log-probs of the canary (a fixed text), and other log-probs of the rollouts themselves (`refuse_apart`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cohort.policy.attention import PackedGroups
from cohort.policy.policy import Policy
from cohort.policy.weights import fingerprint
from cohort.settings import Stage
from cohort.types import Sampler, UserError

CANARY = "Two and two are four; three and three are six; and five and five are ten."
MOST = 12  # tokens of it that are used; the first two thirds are the prompt
MEND = {  # what a person can do about it, by rollout.sampler
    "local": "They were damaged on their way, or in memory",
    "vllm": "See that nobody else gives the server weights, and what it says of these (rollout.vllm)",
}
MEND_OWN = "See to its `publish`, which has to copy every weight under its own name"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a sampler has to show of weights that were published: their number, their `policy.weights.fingerprint`, and
    the log-probs of the canary as the learner has them (empty where it is not asked, not finite where they prove
    nothing).
    """

    version: int
    digest: str
    prompt: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


def proves(sampler: Sampler) -> bool:
    """Whether a sampler can say which weights it holds: a `types.ProvingSampler`, or one that has at least a canary."""
    return hasattr(sampler, "canary")


def asks_canary(sampler: Sampler, version: int) -> bool:
    """Whether the canary is asked: at versions 0, 1, 2, 4, 8, ..., so that it costs nothing in a long run (log-probs
    of every step's rollouts are compared as well), and always where there is no fingerprint.
    """
    return proves(sampler) and (version & (version - 1) == 0 or not hasattr(sampler, "fingerprint"))


def claimed(policy: Policy, version: int, canary: bool) -> Fingerprint:
    """The fingerprint, and with `canary` the log-probs, that a sampler must show of the weights of a policy."""
    if not canary:
        return Fingerprint(version, fingerprint(policy.model))
    prompt, tokens = _canary(policy)
    plain = _plain(policy, prompt, tokens).tolist()
    return Fingerprint(version, fingerprint(policy.model), tuple(prompt), tuple(tokens), tuple(plain))


def prove(claim: Fingerprint, sampler: Sampler, stage: Stage) -> Fingerprint:
    """The claim, of weights that were just published. Raises `UserError` where the sampler holds other ones."""
    version = claim.version
    who = f"stage '{stage.name}', weights of step {version}: the sampler"
    if sampler.version != version:
        raise UserError(f"{who} says that it holds those of step {sampler.version} (rollout.sampler). {_mend(stage)}")
    if hasattr(sampler, "fingerprint") and proves(sampler) and (held := sampler.fingerprint()) != claim.digest:
        raise UserError(other_weights(stage, claim, held))
    if claim.tokens:
        plain = torch.tensor(claim.logprobs)
        if plain.isfinite().all():  # weights that diverged prove nothing; whoever samples from them says so
            drawn = torch.as_tensor(sampler.canary(claim.prompt, claim.tokens))  # type: ignore[attr-defined]
            refuse_apart((drawn - plain).abs().mean().item(), stage, version, "of the canary, a fixed text,")
    return claim


def other_weights(stage: Stage, claim: Fingerprint, held: str) -> str:
    """What is said where the fingerprint of what a sampler holds is not that which was published."""
    return (
        f"stage '{stage.name}', weights of step {claim.version}: the sampler holds other ones than were published "
        f"(their fingerprint is {held[:12]}, and should be {claim.digest[:12]}). {_mend(stage)}"
    )


def refuse_apart(gap: float, stage: Stage, version: int, what: str) -> None:
    """Raise `UserError` where log-probs of sampler and learner, of the same weights, are `gap` nats apart in the mean,
    and that is more than rounding.
    """
    bound = stage.rollout.max_mismatch
    if not gap <= bound:
        why = (
            f"the sampler holds other weights than the learner, or computes something else. {_mend(stage)}; where it is"
        )
        if stage.rollout.precision == "int8":
            why = 'rollout.precision = "int8" rounds what the sampler multiplies by: leave it out, or, where it is'
        raise UserError(
            f"stage '{stage.name}', weights of step {version}: the log-probs {what} are {gap:.3g} nats apart between "
            f"sampler and learner, and rollout.max_mismatch = {bound:g}: {why} only a coarser number type, raise the "
            "bound"
        )


def _mend(stage: Stage) -> str:
    return f"{MEND.get(stage.rollout.sampler, MEND_OWN)}, and go on from the last checkpoint"


def _canary(policy: Policy) -> tuple[list[int], list[int]]:
    """The text as a prompt and its completion, repeated where the tokenizer makes few tokens of it."""
    found = policy.tokenizer(CANARY, add_special_tokens=False)["input_ids"] or [policy.eos_ids[0]]
    count = min(MOST, policy.max_context or MOST)
    tokens = [int(token) for token in (found * count)[:count]]
    return tokens[: count * 2 // 3], tokens[count * 2 // 3 :]


@torch.no_grad()
def _plain(policy: Policy, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """Log-probs `[n]` of the completion by the model's own forward pass."""
    layout = PackedGroups([prompt], [tokens], [0], policy.device)
    hidden = policy.plain_hidden(layout.tokens, layout.positions, layout)
    logits = policy.logits(hidden[layout.predicting(0)])
    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens, device=policy.device)[:, None])[:, 0].cpu()
