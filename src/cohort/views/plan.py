"""The plan: what a stage is about to do, in a few lines, before it does it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch

from cohort.algorithms.explain import one_line
from cohort.algorithms.objectives import Objective
from cohort.chat import template_for
from cohort.policy.policy import PolicyFacts
from cohort.preflight.determinism import determinism
from cohort.preflight.memory import fitted, fitting_words, memory
from cohort.record.files import write_bytes
from cohort.settings import DETECTORS, Cluster, Distill, Prompts, Reward, Stage, Suite
from cohort.settings.suite import SUITE_KINDS
from cohort.settings.training import LORA_REASON
from cohort.settings.words import plain, shown
from cohort.tasks.preferences import Preferences
from cohort.tasks.prompts import Items
from cohort.tasks.steps import Solutions
from cohort.wording import counted, magnitude

SHOWN = "COHORT_SHOWN"  # names a file with the lines of plans that a person has seen, of the other arms of a comparison
QUIET = ("log", "warn")  # actions that change nothing


def grpo_plan(
    stage: Stage,
    objective: Objective,
    policy: PolicyFacts,
    prompts: int | None,
    held_out: Items[Any] | None,
    untold: bool = False,
    longest: int | None = None,
) -> dict[str, str]:
    """The lines of the console's plan; `held_out` are the problems to evaluate on, if there are any. `untold`: no
    prompt says that there are tools. `longest`: the most tokens of the first prompts.
    """
    return {
        "objective": one_line(objective, stage.rollout.draws),
        **groups_line(stage),
        "policy": _policy_line(policy),
        **adapter_line(stage),
        "ends": ends_line(policy),
        "task": task_line(stage, prompts) + ("; nothing is held out (task.held_out)" if held_out is None else ""),
        "template": template_line(stage, policy),
        **environment_line(stage, untold),
        "rewards": rewards_line(stage),
        "batch": batch_arithmetic(stage),
        **_evaluation(stage, held_out),
        "models": models_line(stage, objective),
        "memory": memory_line(stage, objective, policy, longest),
    }


def not_shown(plan: Mapping[str, str]) -> Mapping[str, str]:
    """The lines of a plan; of an arm of a comparison those alone that no arm before it has."""
    if (named := os.environ.get(SHOWN)) is None:
        return plan
    file = Path(named)
    seen = orjson.loads(file.read_bytes()) if file.exists() else []
    new = {name: text for name, text in plan.items() if [name, text] not in seen}
    write_bytes(file, orjson.dumps([*seen, *new.items()]))
    return new or {"plan": "as before"}


def placement(table: Cluster) -> dict[str, str]:
    """Where the parts of a stage go: `1 learner, 2 samplers and 1 reward actor, Ray at auto`."""
    kinds = ((table.learners, "learner"), (table.samplers, "sampler"), (table.rewards, "reward actor"))
    learners, samplers, rewards = (counted(count, what) for count, what in kinds)
    each = " and ".join(f"{n:g} {what}" for n, what in ((table.cpus, "CPUs"), (table.gpus, "GPUs")) if n)
    sharded = " (weights sharded)" if table.learners > 1 else ""
    return {
        "cluster": f"{learners}{sharded}, {samplers} and {rewards}, Ray at {table.address}"
        + (each and f"; {each} each")
    }


def groups_line(stage: Stage) -> dict[str, str]:
    """`beams, ...: no draws from the policy, so ...`, what is cut, and what is learnt from once more; no line where
    groups are whole draws for their step.
    """
    r, lines = stage.rollout, dict[str, str]()
    if r.over_sample:
        lines["cut"] = (
            f"{counted(r.group_size + r.over_sample, 'completion')} of a prompt are begun, the {r.group_size} shortest "
            "kept: they are no draws from the policy but from its short answers, and A compares these alone"
        )
    if r.replay:
        lines["replay"] = (
            f"up to {counted(r.replay, 'group')} of the last {counted(r.replay_age, 'step')} are learnt from once more "
            "in each step, with the log-probs of the weights that drew them"
        )
    if r.draws:
        return lines
    beams = r.of_groups().beams
    if beams is None:
        found = "the greedy completion of a prompt, and draws"
        why = "the first member is no draw from the policy, so none of them has a ratio"
    else:
        found = f"{r.group_size} beams, by log-prob / length^{beams.length_penalty:g}"
        if beams.parts > 1:
            found += f", in {beams.parts} parts: a token costs {beams.penalty:g} nats for each beam of the parts before"
            found += " that has just taken it (1610.02424)"
        why = "they are no draws from the policy, so there is no ratio"
    return {
        "groups": f"{found}; {why}: each log-prob is raised or lowered by its advantage, which is no policy gradient. "
        "What another member says already is left out"
    }


def teacher_line(stage: Stage) -> dict[str, str]:
    """`big (runs/big/final): the reverse KL of the sampled tokens`; no line where nobody teaches."""
    table = stage.taught
    if table is None:
        return {}
    if isinstance(table, Distill):
        who = ", ".join(
            f"{name} ({one.model}{f' at {one.url}' if one.url else ''})" for name, one in table.teacher.items()
        )
        who += "" if table.column is None else f", by the column {table.column}"
    else:
        shown = "a right completion of its group" if table.context == "sibling" else f"the column {table.column}"
        shown += ", else the verifier's label" if table.feedback and table.context == "sibling" else ""
        who = f"the {table.teacher}, shown {shown}"
    what = {"sampled": "log-probs of the sampled tokens", "jsd": f"JSD of beta {table.beta:g}"}.get(
        table.divergence, f"{table.divergence} KL"
    )
    if table.divergence != "sampled":
        rest = {"bucket": "the rest in one bucket", "renormalise": "renormalised", "none": "without the rest"}[
            table.rest
        ]
        what += f" over {'the vocabulary' if table.top_k is None else f'its {table.top_k} likeliest words, {rest}'}"
    return {"teacher": f"{who}: {what}"}


def sft_plan(stage: Stage, policy: PolicyFacts, examples: int | None, held_out: Items[Any] | None) -> dict[str, str]:
    """The lines of the console's plan for supervised training; `held_out` are the problems to evaluate on, if any."""
    per_step, steps = stage.supervised.examples_per_step, stage.run.steps
    objective = "supervised: minus the mean log-prob of all completion tokens of the batch"
    task = f"{stage.task.source}, {_supply(examples, 'demonstration')}"
    batch = f"{counted(per_step, 'example')} a step, {counted(steps, 'step')} = {per_step * steps:,} in all"
    return _learnt(stage, policy, objective, task, batch, held_out)


def _learnt(
    stage: Stage, policy: PolicyFacts, objective: str, task: str, batch: str, held_out: Items[Any] | None
) -> dict[str, str]:
    """The plan of a policy that learns from what is written already."""
    return {
        "objective": objective,
        "policy": _policy_line(policy),
        **adapter_line(stage),
        "ends": ends_line(policy),
        "task": task,
        "template": template_line(stage, policy),
        "batch": batch,
        **_evaluation(stage, held_out),
    }


def reject_plan(stage: Stage, policy: PolicyFacts, prompts: int | None, held_out: Items[Any] | None) -> dict[str, str]:
    """The lines of the console's plan for a stage that samples and keeps what is right."""
    return {
        "objective": "none: samples are kept, and no weight moves",
        **_sampled(stage, policy, prompts),
        **_evaluation(stage, held_out),
    }


def rft_plan(stage: Stage, policy: PolicyFacts, prompts: int | None, held_out: Items[Any] | None) -> dict[str, str]:
    """The lines of the console's plan for a stage that learns its own right samples."""
    steps, table = stage.run.steps, stage.rft
    how = "what is kept of a step's samples is learnt in that step"
    if table.mode == "offline":
        first, each = counted(table.sampling_steps, "step"), counted(stage.supervised.examples_per_step, "kept sample")
        how = f"the first {first} sample, each of the other {steps - table.sampling_steps} learns {each}"
    return {
        "objective": f"supervised, on its own right samples ({table.mode}): minus their mean log-prob by token",
        **_sampled(stage, policy, prompts),
        "learning": how,
        **_evaluation(stage, held_out),
    }


def keeps_line(stage: Stage) -> str:
    """`what is right, language at least 0.8, at most 4 of a prompt, balanced by level`."""
    table = stage.reject
    least = "".join(f", {name} at least {value:g}" for name, value in table.least.items())
    between = f", pass rate {table.hardest:g} to {table.easiest:g}" if (table.hardest, table.easiest) != (0, 1) else ""
    even = f", balanced by {table.balance}" if table.balance else ""
    return f"what is right{least}{between}, at most {table.per_prompt} of a prompt{even}"


def _sampled(stage: Stage, policy: PolicyFacts, prompts: int | None) -> dict[str, str]:
    return {
        "policy": _policy_line(policy),
        "ends": ends_line(policy),
        "task": task_line(stage, prompts),
        "template": template_line(stage, policy),
        "rewards": rewards_line(stage),
        "batch": batch_arithmetic(stage),
        "keeps": keeps_line(stage),
    }


def dpo_plan(stage: Stage, policy: PolicyFacts, pairs: Preferences, held_out: Items[Any] | None) -> dict[str, str]:
    """The lines of the console's plan for learning from pairs."""
    table = stage.dpo
    loss = {
        "sigmoid": f"DPO: mean of -log sigmoid({table.beta:g} h), h the difference of the answers' log-ratios",
        "ipo": f"IPO: mean of (h - {1 / (2 * table.beta):g})^2, h the difference of the answers' log-ratios",
    }
    smooth = f", {table.label_smoothing:.0%} of the labels taken for wrong" if table.label_smoothing else ""
    return _learnt(stage, policy, loss[table.loss] + smooth, _pairs(stage, pairs), _passes(stage, pairs), held_out)


def measure_plan(stage: Stage, policy: PolicyFacts, held_out: Items[Any] | None) -> dict[str, str]:
    """The lines of the console's plan for a stage that only measures."""
    return {
        "objective": "none: the model that comes in is measured",
        "policy": _policy_line(policy),
        "template": template_line(stage, policy),
        **_evaluation(stage, held_out),
    }


def reward_model_plan(stage: Stage, policy: PolicyFacts, pairs: Preferences) -> dict[str, str]:
    """The lines of the console's plan for a reward model."""
    margin = "" if stage.task.margin is None else f" - {stage.task.margin}"
    centring = f" + {weight:g} (chosen + rejected)^2" if (weight := stage.preferences.centring) else ""
    return _scorer(stage, policy, f"Bradley-Terry: mean of -log sigmoid(chosen - rejected{margin}){centring}", pairs)


def process_model_plan(stage: Stage, policy: PolicyFacts, solutions: Solutions) -> dict[str, str]:
    """The lines of the console's plan for a process reward model."""
    return _scorer(stage, policy, "cross-entropy of each step's label, averaged over the steps", solutions)


def _scorer(stage: Stage, policy: PolicyFacts, objective: str, data: Preferences | Solutions) -> dict[str, str]:
    return {
        "objective": objective,
        "model": _policy_line(policy),
        "task": _pairs(stage, data),
        "template": template_line(stage, policy),
        "batch": _passes(stage, data),
    }


def _pairs(stage: Stage, data: Preferences | Solutions) -> str:
    """`pairs.jsonl, 1,000 preference pairs (100 of them earlier ones), 50 held out`."""
    replayed = data.replayed if isinstance(data, Preferences) else 0
    again = f" ({replayed:,} of them earlier ones)" if replayed else ""
    out = "" if data.held_out is None else f", {data.held_out.size:,} held out"
    one = "preference pair" if isinstance(data, Preferences) else "solution"
    return f"{stage.task.source}, {counted(data.train.size or 0, one)}{again}{out}"


def _passes(stage: Stage, data: Preferences | Solutions) -> str:
    a_step, steps = stage.preferences.pairs_per_step, stage.run.steps
    one = "pair" if isinstance(data, Preferences) else "solution"
    passes = a_step * steps / (data.train.size or 1)
    return f"{counted(a_step, one)} a step, {counted(steps, 'step')} = {passes:.2g} passes"


def _evaluation(stage: Stage, held_out: Items[Any] | None) -> dict[str, str]:
    """No line where nothing is held out."""
    e = stage.evaluate
    measured = " and ".join(["greedy"] * e.greedy + [f"{e.samples} sampled"] * bool(e.samples))
    if held_out is None or not (e.problems and measured):
        return {}
    most = e.problems if held_out.size is None else min(e.problems, held_out.size)
    traces = f"; traces of {min(most, e.traces)} of them cut, changed, exchanged" if e.traces else ""
    return {"evaluation": f"up to {counted(most, 'held-out problem')}, {measured}{traces}"}


def about(stage: Stage, suites: Sequence[Suite], device: str | None = None) -> dict[str, str]:
    """What the plans of all kinds end with: suites, which step is kept, what detectors do; and what a repetition gives,
    where the policy's device is known.
    """
    repeated = {} if device is None else {"repeated": str(determinism(stage, device))}
    return {**_suites(suites), **_keeping(stage), **_acting(stage), **repeated}


def _suites(suites: Sequence[Suite]) -> dict[str, str]:
    """`gsm8k (performance), refusals (refusal); not evaluated: hallucination, ...`; no line without suites."""
    if not suites:
        return {}
    named = ", ".join(f"{one.name} ({one.kind})" for one in suites)
    left = [kind.replace("_", " ") for kind in SUITE_KINDS if kind not in {one.kind for one in suites}]
    return {"suites": named + (f"; not evaluated: {', '.join(left)}" if left else "")}


def _acting(stage: Stage) -> dict[str, str]:
    """`test_aware: quarantine; kl_blow_up: learning_rate x 0.5, down to 1e-05`; no line where detectors only speak."""
    table = stage.monitor
    parts = [f"{name}: {table.action_of(name)}" for name in DETECTORS if table.action_of(name) not in QUIET]
    for name, how in table.adapt.items():
        limit = f"{'down' if how.factor < 1 else 'up'} to {how.bound:g}"
        parts = [one for one in parts if one != f"{name}: adapt"]
        parts.append(f"{name}: {how.setting} x {how.factor:g}, {limit}")
    if table.action not in QUIET:
        parts = [f"every detector: {table.action}"]
    return {"acts on": "; ".join(parts)} if parts else {}


def _keeping(stage: Stage) -> dict[str, str]:
    """`the step that is best by eval/greedy ...; stops early ...`; no line where the last step is kept."""
    keep, stop = stage.run.keep_best, stage.run.stop
    parts = []
    if keep is not None and keep.startswith("eval/"):
        parts.append(f"the step that is best by {keep} on half of the problems, confirmed on the others")
    elif keep is not None:
        parts.append(f"the step of the highest {keep}, a training reward that proves nothing about held-out problems")
    if stop is not None and stop.patience is not None:
        parts.append(f"stops when {stop.metric} has not been better {stop.patience} times in a row")
    elif stop is not None and stop.total is not None:
        parts.append(f"stops when {stop.metric} has come to {stop.total:,.6g} in all")
    elif stop is not None:
        parts.append(f"stops when {stop.metric} reaches {stop.threshold:g}")
    return {"keeps": "; ".join(parts)} if parts else {}


def environment_line(stage: Stage, untold: bool) -> dict[str, str]:
    """`calculator, my_tools:search; up to 8 turns`; nothing where a completion is the whole rollout."""
    e = stage.environment
    uses = [plain(use) for use in (*e.tools, e.use, e.agent) if use is not None]
    limit = "" if e.max_turn_tokens is None else f" of up to {counted(e.max_turn_tokens, 'token')}"
    note = "; calls are written <tool>NAME: ARGUMENT</tool>, which no prompt says: task.system can" if untold else ""
    return {"environment": f"{', '.join(uses)}; up to {counted(e.max_turns, 'turn')}{limit}{note}"} if uses else {}


def task_line(stage: Stage, prompts: int | None) -> str:
    """`word_problems, unlimited training prompts, a curriculum`, or the sources of a mixture with their weights."""
    task = stage.task
    if not task.mixture:
        extra = "".join(f", {what}" for what in _order(task))
        return f"{task.source}, {_supply(prompts, 'training prompt')}{extra}"
    parts = []
    for name, source in task.mixture.items():
        by_step = source.weight.items() if isinstance(source.weight, dict) else ()
        weight = ", ".join(f"{w:g} from step {step}" for step, w in by_step) if by_step else f"{source.weight:g}"
        parts.append(f"{name} ({'; '.join([source.source, weight, *_order(source)])})")
    return " + ".join(parts)


def template_line(stage: Stage, policy: PolicyFacts) -> str:
    """`the tokenizer's chat template`, or `plain text, as the tokenizer has no chat template`."""
    found = template_for(stage.task.template, policy.tokenizer)
    because = ", as the tokenizer has no chat template" if found == "none" != stage.task.template else ""
    words = {"chat": "the tokenizer's chat template", "r1_zero": "the text of R1-Zero", "none": "plain text"}
    args = "".join(f", {name} = {shown(value)}" for name, value in stage.task.template_args.items())
    return words[found] + because + (args if found == "chat" else "")


def _order(table: Prompts) -> list[str]:
    """What decides which of a source's prompts comes next, where it is not chance alone."""
    return ["curriculum"] * (table.curriculum is not None) + ["adaptive"] * (table.adaptive is not None)


def rewards_line(stage: Stage) -> str:
    """`1 x math (where domain is 'math'; 0 unless think_format >= 0.5) + 0.1 x think_format`."""
    return " + ".join(map(reward_line, stage.reward)) or "none: all that is learnt from is the teacher"


def reward_line(reward: Reward) -> str:
    """`0.1 x think_format`, with what limits it."""
    limits = [f"where {column} is {_either(wanted)}" for column, wanted in reward.when.items()]
    if reward.gate is not None:
        instead = "0" if reward.gate_else == "zero" else "left out"
        limits.append(f"{instead} unless {reward.gate} >= {reward.gate_at:g}")
    return f"{reward.weight:g} x {reward.name}" + (f" ({'; '.join(limits)})" if limits else "")


def _either(wanted: Any) -> str:
    return " or ".join(map(repr, wanted)) if isinstance(wanted, (list, tuple)) else repr(wanted)


def batch_arithmetic(stage: Stage) -> str:
    """`16 prompts x 16 completions = 256 a step, 1 update; 165 steps = 42,240 completions`."""
    r, o, steps = stage.rollout, stage.optimizer, stage.run.steps
    rows, updates = r.prompts_per_step * r.group_size, o.updates_per_batch * o.epochs
    return (
        f"{counted(r.prompts_per_step, 'prompt')} x {counted(r.group_size, 'completion')} = {rows:,} a step, "
        f"{counted(updates, 'update')}; {counted(steps, 'step')} = {counted(rows * steps, 'completion')}"
    )


def models_line(stage: Stage, objective: Objective) -> str:
    """`3 in memory: policy, reference, critic`, and what shares its weights with another one."""
    adapter = stage.policy.lora is not None
    beside = {"reference": objective.needs_reference, "critic": objective.baseline == "critic"}
    own = ["policy", *(name for name, there in beside.items() if there and not adapter)]
    own += [one.name for one in stage.reward if one.use in ("reward_model", "process_model")]
    notes = []
    if adapter and beside["reference"]:
        notes.append("the reference is the base without the adapter that learns")
    if adapter and beside["critic"]:
        notes.append("the critic is an adapter of its own on the same base")
    if beside["critic"] and (alone := stage.critic.warmup_steps):
        notes.append(f"in the first {counted(alone, 'step')} only the critic learns")
    return "; ".join([f"{len(own)} in memory: {', '.join(own)}", *notes])


def memory_line(stage: Stage, objective: Objective, policy: PolicyFacts, prompt: int | None = None) -> str:
    """`about 2.7 GB at the peak`, and what was changed so that it fits."""
    fits = fitted(stage, objective, policy)
    return f"about {memory(fits, objective, policy, prompt).gb:.1f} GB at the peak{fitting_words(stage, fits)}"


def _policy_line(policy: PolicyFacts) -> str:
    share = "" if policy.trained == policy.parameters else f", {magnitude(policy.trained)} of them trained"
    share += f", {policy.adapter}" if policy.adapter else ""
    where = policy.device
    if where == "cpu":
        threads = torch.get_num_threads()
        where = f"cpu, {counted(threads, 'thread')}"
    parameters = f"{magnitude(policy.parameters)} parameters{share}"
    blocks = f", dequantised from {policy.dequantised}" if policy.dequantised else ""
    return f"{policy.name}, {parameters}{blocks}, {policy.compute} on {where}, {policy.path}"


def adapter_line(stage: Stage) -> dict[str, str]:
    """`LoRA of rank 16, scale 2, on all-linear, at a rate of 1e-05: ...`; no line where all weights are trained."""
    lora = stage.policy.lora
    if lora is None:
        return {}
    scale = lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
    parts = [
        f"{'DoRA' if lora.dora else 'LoRA'} of rank {lora.rank}, scale {scale:.3g}",
        f"on {lora.targets if isinstance(lora.targets, str) else ', '.join(lora.targets)}"
        + (f" of layers {', '.join(map(str, lora.layers))}" if lora.layers is not None else ""),
        *([f"beside {', '.join(lora.modules_to_save)} whole"] if lora.modules_to_save else []),
        f"at a rate of {stage.optimizer.learning_rate:g}: {LORA_REASON}",
    ]
    merged = "; an adapter that is there is merged first, and this one put on top" if lora.existing == "merge" else ""
    return {"adapter": ", ".join(parts) + merged}


def ends_line(policy: PolicyFacts) -> str:
    """`<|endoftext|> or <|im_end|> (the chat template's)`: the tokens that end a completion."""
    names = {token: policy.tokenizer.convert_ids_to_tokens(token) for token in policy.eos_ids}
    said = [f"{name} (the chat template's)" if token == policy.turn_end else f"{name}" for token, name in names.items()]
    unheard = f"; the chat template ends a turn with {policy.unheard_end!r}, which is no token: see rollout.stop"
    return " or ".join(said) + (unheard if policy.unheard_end else "")


def _supply(number: int | None, noun: str) -> str:
    return f"unlimited {noun}s" if number is None else counted(number, noun)
