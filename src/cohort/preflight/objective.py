"""The objective of a stage, settled before a model loads: what makes no sense, or cannot be trained, is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from cohort.algorithms import objectives
from cohort.algorithms.equation import equation
from cohort.algorithms.objectives import Objective
from cohort.settings import Divergence, Reward, Stage
from cohort.settings.training import STAYS
from cohort.types import UserError
from cohort.wording import counted


def settled_objective(stage: Stage) -> Objective:
    """The objective of a stage. Raises `UserError` for one that makes no sense, or that training cannot do. Of groups
    that are no draws there is no ratio: it is A * log pi, which has the gradient of a ratio of 1 that is not clipped.
    """
    fields = stage.objective.fields() | ({} if stage.rollout.draws else {"surrogate": "reinforce"})
    try:
        objective = objectives.preset(stage.objective.preset, **fields)
    except ValueError as error:
        raise UserError(f"[objective] {error}") from None
    if objective.rewards == "normalise_then_sum" and objective.kl_coef and objective.kl_place == "reward":
        raise UserError(
            "[objective] rewards that are normalised one by one (GDPO) leave no place for a KL among them: "
            'set kl_place = "loss", or kl_coef = 0'
        )
    if stage.objective.bypasses and (objective.correction != "off" or objective.filters):
        what = f"correction = '{objective.correction}'" if objective.correction != "off" else "filters"
        off = 'correction = "off"' if objective.correction != "off" else "filters = []"
        raise UserError(
            f"[objective] with bypass the ratio is taken against the sampler itself, so {what} has nothing to correct: "
            f"set {off}, or bypass = false"
        )
    if objective.old != "recompute" and stage.objective.bypass is (objective.old == "interpolate"):
        raise UserError(
            f"[objective] old = '{objective.old}' says what the ratio is taken against, and bypass = "
            f"{str(stage.objective.bypass).lower()} says another thing: leave one of them out"
        )
    if objective.credit == "states" and not stage.environment.acts:
        raise UserError(
            "[objective] credit = 'states' compares turns that were taken in the same state, and there is no "
            "environment and no tool: leave it out"
        )
    if objective.credit == "process" and not supervised_steps(stage.reward):
        raise UserError(
            "[objective] credit = 'process' is of rewards that score steps, and there is none: leave it out"
        )
    by_token = objective.credit == "states" or objective.whiten_by == "token" or objective.baseline == "token_optimal"
    if by_token and (stage.objective.pass_at_k is not None or supervised_steps(stage.reward)):
        raise UserError(
            "[objective] pass_at_k, and rewards that score steps, give advantages of their own: leave out credit = "
            "'states', whiten_by = 'token' and baseline = 'token_optimal' beside them"
        )
    ratios = {
        "mask": objective.mask != "off",
        "off_policy_delta": objective.off_policy_delta is not None,
        "filters": bool(objective.filters),
        "old": objective.old != "recompute",
        "future_kl_half_life": objective.future_kl_half_life is not None,
        "baseline = 'token_optimal'": objective.baseline == "token_optimal",
        "credit = 'states'": objective.credit == "states",
    }
    if not stage.rollout.draws and any(ratios.values()):
        name = next(name for name, acts in ratios.items() if acts)
        raise UserError(
            f"[objective] {name} is for groups that were drawn, and those of rollout.groups = '{stage.rollout.groups}' "
            "were not: leave it out, or set rollout.groups = 'sample'"
        )
    if objective.term_of("observation") and (stage.taught or not stage.environment.acts):
        raise UserError(
            "[objective] extras has a term of what the environment writes, and "
            + (f"stage '{stage.name}' learns from a teacher" if stage.taught else "there is no environment and no tool")
            + ": leave it out"
        )
    if stage.objective.malformed_penalty and objective.surrogate == "label_contrast":
        raise UserError(
            "[objective] malformed_penalty is of tokens, and surrogate = 'label_contrast' is of whole completions: "
            "leave one of them out"
        )
    _refuse_pass_at_k(stage, objective)
    _refuse_teaching(stage, objective)
    if asks_reference(stage, objective) and stage.policy.lora is not None and stage.reference.moves:
        raise UserError(STAYS)
    _refuse_step_rewards(stage, objective)
    return objective


def asks_reference(stage: Stage, objective: Objective) -> bool:
    """Whether a stage has a reference policy: for a KL, or as its teacher."""
    return objective.needs_reference or stage.asks_reference


def _refuse_teaching(stage: Stage, o: Objective) -> None:
    """Refuse a teacher that nobody listens to, and an objective that asks one who is not there."""
    table = stage.taught
    if table is None:
        if o.teacher_coef:
            raise UserError(
                f"[objective] teacher_coef = {o.teacher_coef:g} asks a teacher, which stage '{stage.name}' of kind "
                f"'{stage.kind}' does not have: set kind = \"distill\", or teacher_coef = 0"
            )
        return
    if not o.teacher_coef:
        raise UserError(
            f"[objective] teacher_coef = 0, so stage '{stage.name}' would learn nothing from its teacher: set it to 1, "
            'or kind = "grpo"'
        )
    if table.divergence != "sampled" and (o.teacher_form, o.teacher_discount) != ("add", 0.0):
        raise UserError(
            f"[objective] teacher_form and teacher_discount are for the sampled tokens, and divergence = "
            f"'{table.divergence}' looks at the whole vocabulary: leave them out"
        )
    if not stage.rewarded and (o.baseline == "critic" or o.teacher_form == "reweight"):
        what = "baseline = 'critic'" if o.baseline == "critic" else "teacher_form = 'reweight'"
        raise UserError(f"[objective] {what} needs a reward, and stage '{stage.name}' pays none: give one a weight")


def equation_of(stage: Stage, objective: Objective, latex: bool) -> str:
    """The equation of a stage's objective, with every constant filled in."""
    r, o = stage.rollout, stage.optimizer
    return equation(
        objective,
        prompts=r.prompts_per_step,
        group_size=r.group_size,
        max_tokens=r.max_tokens,
        updates=o.updates_per_batch * o.epochs,
        bypass=stage.objective.bypasses,
        parts=o.updates_per_batch,
        groups=r.groups,
        divergence="" if stage.taught is None or stage.taught.divergence == "sampled" else stage.taught.divergence,
        latex=latex,
    )


def hash_of(stage: Stage, objective: Objective) -> str:
    """The hash of the objective; of one to which the recipe adds something, the hash of both."""
    beside: dict[str, Any] = {"bypass": True} if stage.objective.bypasses else {}
    if objective.old == "sampler":  # the same thing by another key
        objective = replace(objective, old="recompute")
    if stage.objective.pass_at_k is not None:
        beside["pass_at_k"] = stage.objective.pass_at_k
    if stage.objective.malformed_penalty:
        beside["malformed_penalty"] = stage.objective.malformed_penalty
    if supervised_steps(stage.reward):
        beside["process_supervision"] = True
    if not stage.rollout.draws:
        beside["groups"] = stage.rollout.groups
    if (table := stage.taught) is not None and table.divergence != "sampled":
        beside |= {name: getattr(table, name) for name in Divergence.model_fields}
    whole = json.dumps({"objective": objective.hash, **beside}, sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest() if beside else objective.hash


def reference_of(stage: Stage) -> str:
    """What a KL term compares with, in words."""
    settings = stage.reference
    if stage.policy.lora is not None:
        return "the policy that the stage starts from: the base with a fresh adapter off, or an adapter as it was"
    if settings.update_every:
        how = "copied from" if settings.ema is None else f"{settings.ema:g} x itself + {1 - settings.ema:g} x"
        return f"the starting policy; every {counted(settings.update_every, 'step')} {how} the policy"
    return "the starting policy, never moved" if settings.ema is None else f"an average with {settings.ema:g} of itself"


def supervised_steps(rewards: tuple[Reward, ...]) -> tuple[str, ...]:
    """The names of the rewards whose steps are supervised one by one."""
    return tuple(
        reward.name
        for reward in rewards
        if reward.weight and reward.fold is None and (reward.split is not None or reward.use == "process_model")
    ) + paid_by_call(rewards)


def paid_by_call(rewards: tuple[Reward, ...]) -> tuple[str, ...]:
    """The names of the rewards that are what an agent paid its calls one by one."""
    return tuple(one.name for one in rewards if one.weight and one.use == "agent" and one.args.get("by_call") is True)


def _refuse_pass_at_k(stage: Stage, objective: Objective) -> None:
    k, size = stage.objective.pass_at_k, stage.rollout.group_size
    if k is None:
        return
    if objective.kl_coef and objective.kl_place == "reward":
        raise UserError(
            "[objective] pass_at_k is defined for rewards of 0 and 1, so a KL cannot be taken off them: set kl_place = "
            '"loss", or kl_coef = 0'
        )
    if k > size or objective.baseline == "critic" or objective.rewards == "normalise_then_sum":
        raise UserError(
            f"[objective] pass_at_k = {k} replaces the advantages of a group: it must be at most rollout.group_size "
            f"({size}), and goes with neither a critic nor GDPO"
        )


def _refuse_step_rewards(stage: Stage, objective: Objective) -> None:
    """Refuse an objective that process supervision does not go with."""
    names = supervised_steps(stage.reward)
    if not names:
        return
    o = objective
    problems = {
        f"baseline = '{o.baseline}' (it needs group_mean)": o.baseline != "group_mean",
        f"scale = '{o.scale}' (it needs group_std or none)": o.scale not in ("group_std", "none"),
        "rewards = 'normalise_then_sum' (it normalises the steps itself)": o.rewards != "sum_then_normalise",
        "pass_at_k": stage.objective.pass_at_k is not None,
        "a KL in the reward (kl_place = 'loss' is fine)": bool(o.kl_coef) and o.kl_place == "reward",
        f"rollout.groups = '{stage.rollout.groups}'": not stage.rollout.draws,
    }
    if found := [problem for problem, there in problems.items() if there]:
        raise UserError(
            f"[objective] reward '{names[0]}' scores steps, and process supervision does not go with {found[0]}: "
            'change that, or give the reward fold = "mean" to make one reward of its steps'
        )
