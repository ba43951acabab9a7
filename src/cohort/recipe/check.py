"""Checks that look at several keys at once and need no model: each problem is one sentence that says what to do."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import Any

from cohort.algorithms.fields import GROUP_BASELINES, GROUP_SCALES
from cohort.recipe.drawn import Found, not_drawn
from cohort.recipe.in_vain import in_vain
from cohort.settings import DETECTORS, GROUPS, SCORERS, Cluster, Prompts, Reward, Stage, Task, named_stage
from cohort.settings.table import Path, as_list
from cohort.settings.words import shown
from cohort.wording import did_you_mean, nearest, said_twice

_NAME = re.compile(r"\w[\w.-]{0,99}")
_IMPORT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:.+", re.DOTALL)


def name_problem(name: str) -> str | None:
    """Why a name cannot be that of a directory, or None."""
    if _NAME.fullmatch(name) and not name.endswith("."):
        return None
    return f"{name!r} cannot name a directory: use letters, digits, '-', '_' and '.', at most 100 of them"


def stage_problems(stage: Stage, *, first: bool, at: str = "") -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Everything that is wrong with the combination of values in a stage, each with the paths that it depends on; `at`
    goes before every sentence.
    """
    for sentence, *keys in _problems(stage, first):
        yield at + sentence, tuple(tuple(key.split(".")) for key in keys)


def _problems(stage: Stage, first: bool) -> Found:
    yield from _policy(stage, first)
    yield from _task(stage)
    for name in said_twice([*filter(None, map(named_stage, (stage.task.source, *stage.preferences.history)))]):
        sentence = (
            f"preferences.history names the pairs of the stage '{name}', which are learnt from already: remove it"
        )
        yield sentence, "preferences.history", "task.source"
    yield from in_vain(stage)
    if "" in stage.rollout.stop:
        yield "rollout.stop has an empty text, which would end every completion: remove it", "rollout.stop"
    yield from _environment(stage)
    yield from _rewards(stage)
    yield from _suites(stage)
    yield from _traces(stage)
    for key in ("actions", "adapt"):
        for name in (one for one in getattr(stage.monitor, key) if one not in DETECTORS):
            sentence = f"monitor.{key}: there is no detector {name!r}{did_you_mean(name, DETECTORS)}"
            yield sentence, f"monitor.{key}"
    cores, threads = os.cpu_count() or 1, stage.run.threads
    if threads != "auto" and threads > 4 * cores:
        sentence = f"run.threads is {threads}, but this machine has {cores} cores: use at most {4 * cores}, or"
        yield sentence + ' "auto"', "run.threads"
    if stage.cluster.address is None and stage.cluster != Cluster():
        yield '[cluster] has no effect without cluster.address: set it to "local", or remove the table', "cluster"
    yield from not_drawn(stage)
    if stage.kind in GROUPS:
        yield from _grpo(stage)
    yield from _optimizer(stage)
    if stage.kind == "distill":
        yield from _distill(stage)
    if stage.kind == "self_distill":
        yield from _self_distill(stage)


def _policy(stage: Stage, first: bool) -> Found:
    policy, scratch = stage.policy, stage.policy.scratch
    both = ("policy.model", "policy.scratch")
    if policy.model and scratch:
        yield "policy has both 'model' and 'scratch': keep the one to start from", *both
    if stage.kind in SCORERS and policy.lora:
        sentence = f"policy.lora is not for {stage.kind} stages, which train all weights and the score: remove it"
        yield sentence, "policy.lora", "kind"
    if first and not policy.model and not scratch:
        yield 'policy.model is missing: give a hub id or a directory, or "live" to pass a model from Python', *both
    if policy.revision and scratch:
        yield "policy.revision belongs to a hub model, but this stage makes its own: remove it", *both
    if scratch and scratch.heads % scratch.kv_heads:
        sentence = f"policy.scratch.kv_heads ({scratch.kv_heads}) must divide policy.scratch.heads ({scratch.heads})"
        yield sentence, "policy.scratch.kv_heads", "policy.scratch.heads"
    if scratch and scratch.head_dim % 2:
        sentence = f"policy.scratch.head_dim must be even (rotary positions turn pairs), not {scratch.head_dim}"
        yield sentence, "policy.scratch.head_dim"


def _task(stage: Stage) -> Found:
    task = stage.task
    yield from _source(task, "task")
    for steps in task.careful if isinstance(task.careful, dict) else ():
        if not re.fullmatch(r"[1-9][0-9]*", steps):
            sentence = "task.careful gives a share for each number of steps, such as { 2 = 0.5 }; "
            yield sentence + f"{steps!r} is no number of steps", "task.careful"
    for key in ("mixture", "curriculum", "adaptive") if stage.kind in ("sft", *SCORERS, "dpo") else ():
        if getattr(task, key):
            yield f"task.{key} is for grpo stages, and this one is {stage.kind}: remove it", f"task.{key}", "kind"
    yield from _mixture(task)


def _source(source: Prompts, where: str) -> Found:
    """What is wrong with a task, or with one source of a mixture, by itself."""
    if source.held_out is not None and source.held_out_split is not None:
        sentence = f"{where} has both 'held_out' and 'held_out_split': keep the one that holds the held-out problems"
        yield sentence, f"{where}.held_out", f"{where}.held_out_split"
    if source.levels is not None and not source.levels:
        yield f"{where}.levels is empty: name at least one level, or leave it out", f"{where}.levels"
    for problem in _not_plain(source.args):
        yield f"{where}.args{problem}", f"{where}.args"


def _mixture(task: Task) -> Found:
    """What is wrong with [task.mixture.NAME] tables, or with what stands beside them."""
    if not task.mixture:
        if task.source == "mixture":
            sentence = "task.source is 'mixture', but no [task.mixture.NAME] table is there: name a source"
            yield sentence, "task.source", "task.mixture"
        return
    if task.source != "mixture":
        yield "task has both 'source' and 'mixture': keep one of them", "task.source", "task.mixture"
    for key in Prompts.model_fields:
        if key != "source" and getattr(task, key) != Prompts.model_fields[key].default:
            sentence = f"task.{key} has no effect beside a mixture: put it into a [task.mixture.NAME] table"
            yield sentence, f"task.{key}", "task.mixture"
    for name, source in task.mixture.items():
        where = f"task.mixture.{name}"
        if source.source == "mixture":
            yield f"{where}.source is 'mixture', but mixtures do not nest: name a source", where
        yield from _source(source, where)
        for step in source.weight if isinstance(source.weight, dict) else ():
            if not re.fullmatch(r"0|[1-9][0-9]*", step):
                yield f"{where}.weight goes by step, such as {{ 0 = 1.0, 200 = 0.5 }}; {step!r} is no step", where


def _environment(stage: Stage) -> Found:
    e, acting = stage.environment, ("environment.tools", "environment.use")
    if e.tools and e.use is not None:
        yield "environment has both 'tools' and 'use': keep the one to act in", *acting
    for use in (*e.tools, e.use):
        if problem := _use_problem(use):
            yield f"environment {problem}", *acting
    yield from _endpoint(stage)
    if e.args and not e.acts:
        yield "environment.args has no effect: name the 'tools' that it is for", "environment.args"
    for problem in _not_plain(e.args):
        yield f"environment.args{problem}", "environment.args"
    if e.format in ("hermes", "llama3") and stage.task.template not in ("auto", "chat"):
        sentence = f"environment.format = {e.format!r} is written by a chat template, but task.template is"
        yield f'{sentence} {stage.task.template!r}: use format = "tags"', "environment.format", "task.template"


def _endpoint(stage: Stage) -> Found:
    """What an agent behind an endpoint cannot go with: its rollouts are drawn call by call, and have several rows."""
    if stage.environment.use != "endpoint":
        if stage.environment.agent is not None:
            yield "environment.agent has no effect: set use = 'endpoint'", "environment.agent"
        return
    if stage.kind != "grpo" or stage.objective.value("baseline") == "critic":
        sentence = "agents behind an endpoint are trained by the kind grpo, without a critic"
        yield f"environment.use is 'endpoint': {sentence}", "environment.use", "kind"
    if not stage.rollout.draws:
        sentence = "environment.use is 'endpoint', whose calls are draws: rollout.groups ="
        yield f"{sentence} {stage.rollout.groups!r} is not", "rollout.groups"


def _rewards(stage: Stage) -> Found:
    names = [reward.name for reward in stage.reward]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        sentence = f"two rewards are called {name!r}: give one of them another 'name', so that metrics can tell"
        yield sentence + " them apart", "reward"
    for reward in stage.reward:
        if problem := name_problem(reward.name):
            yield f"reward name {problem}; give it a 'name'", "reward"
        if problem := _use_problem(reward.use):
            yield f"reward.use {problem}", "reward"
        for problem in _not_plain(reward.args):
            yield f"reward {reward.name!r}: args{problem}", "reward"
        for problem in (*_when(reward), *_domains(reward, stage.task), *_gate(reward, stage.reward)):
            yield f"reward {reward.name!r}: {problem}", "reward"
    if problem := _use_problem(stage.evaluate.reward):
        yield f"evaluate.reward {problem}", "evaluate.reward"


def _suites(stage: Stage) -> Found:
    for name in said_twice([suite.name for suite in stage.suite]):
        yield f"two suites are called {name!r}: give one of them another 'name'", "suite"
    for suite in stage.suite:
        if problem := name_problem(suite.name) or _use_problem(suite.use):
            yield f"suite {suite.name!r}: {problem}", "suite"
        if "/" in suite.name or suite.name in ("greedy", "sampled", "choosing", "confirming"):
            yield f"a suite cannot be called {suite.name!r}: give it another 'name'", "suite"


def _traces(stage: Stage) -> Found:
    """Traces are changed in what was answered greedily, in one turn."""
    if not stage.evaluate.traces:
        return
    if not stage.evaluate.greedy:
        sentence = "evaluate.traces changes the traces of greedy answers: set evaluate.greedy = true, or leave it out"
        yield sentence, "evaluate.traces", "evaluate.greedy"
    if stage.environment.acts:
        sentence = "evaluate.traces is for answers of one turn, and this stage has an [environment]: leave it out"
        yield sentence, "evaluate.traces", "environment"


def _when(reward: Reward) -> Iterator[str]:
    for column, wanted in reward.when.items():
        values = as_list(wanted)
        if not values or not all(isinstance(value, str | bool | int | float) for value in values):
            yield f"when.{column} must be a text, a number, true or false, or a list of these, not {shown(wanted)}"


def _domains(reward: Reward, task: Task) -> Iterator[str]:
    """A domain that no source of the mixture has: the reward would never be asked."""
    for name in as_list(reward.when.get("domain", ())):
        if task.mixture and isinstance(name, str) and name not in task.mixture:
            close = nearest(name, task.mixture)
            hint = f"did you mean {close!r}?" if close else f"there is {', '.join(task.mixture)}"
            yield f"when.domain is {name!r}, which is no source of the mixture; {hint}"


def _gate(reward: Reward, rewards: tuple[Reward, ...]) -> Iterator[str]:
    if reward.gate is None:
        for key in ("gate_at", "gate_else"):
            if getattr(reward, key) != Reward.model_fields[key].default:
                yield f"{key} has no effect without a gate: add gate = NAME, or remove it"
        return
    others = {other.name: other for other in rewards if other.name != reward.name}
    if reward.gate not in others:
        close = nearest(reward.gate, others)
        hint = f"; did you mean {close!r}?" if close else f"; the others are {', '.join(others) or 'none'}"
        yield f"the gate {reward.gate!r} is no other reward{hint}"
    elif others[reward.gate].gate is not None:
        yield f"the gate {reward.gate!r} has a gate itself, and gates do not chain: remove one of the two"


def _use_problem(use: Any) -> str | None:
    if use is None or callable(use) or not (re.search(r"[:/\\]", use) or use.endswith(".py")) or _IMPORT.fullmatch(use):
        return None
    return f"names a function as module:function, such as my_rewards:score, not {shown(use)}"


def _not_plain(value: Any, at: str = "") -> Iterator[str]:
    """What in a value cannot be written into a recipe."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{at} has the key {shown(key)}: keys are text"
            yield from _not_plain(item, f"{at}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _not_plain(item, at)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{at} must be a finite number, not {value}"
    elif not isinstance(value, str | bool | int | float):
        yield f"{at} holds {shown(value)}: use text, numbers, true or false, lists and tables"


def _grpo(stage: Stage) -> Found:
    rollout, optimizer = stage.rollout, stage.optimizer
    if stage.kind != "grpo":
        pass  # what is learnt from may be a teacher alone
    elif not stage.reward:
        yield 'reward is missing: a grpo stage needs one, such as reward = "exact_number"', "reward"
    elif all(reward.weight == 0 for reward in stage.reward):
        yield "reward: every weight is 0, so nothing would be learnt; give one reward a weight", "reward"
    for key, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
        if getattr(rollout, key) != off:
            sentence = f"rollout.{key} must stay {off:g} in a {stage.kind} stage: a truncated distribution is not the"
            yield f"{sentence} policy that is trained; use evaluate.{key} for evaluation", f"rollout.{key}"
    if optimizer.updates_per_batch > rollout.prompts_per_step:
        sentence = (
            f"optimizer.updates_per_batch ({optimizer.updates_per_batch}) is more than rollout.prompts_per_step"
            f" ({rollout.prompts_per_step}): each update needs at least one prompt"
        )
        yield sentence, "optimizer.updates_per_batch", "rollout.prompts_per_step"
    if (alone := stage.critic.warmup_steps) >= stage.run.steps > 0 and stage.objective.value("baseline") == "critic":
        sentence = f"critic.warmup_steps ({alone}) leaves the policy none of run.steps ({stage.run.steps}) to learn in"
        yield f"{sentence}: take fewer, or train longer", "critic.warmup_steps", "run.steps"
    if rollout.group_size == 1 and (stage.kind == "grpo" or stage.rewarded):
        yield from _group_of_one(stage)


def _optimizer(stage: Stage) -> Found:
    o, policy, rounding = stage.optimizer, stage.policy, "optimizer.stochastic_rounding"
    if o.offload and policy.device == "cpu":
        sentence = "optimizer.offload is for weights on a GPU, and policy.device is 'cpu': remove one of them"
        yield sentence, "optimizer.offload", "policy.device"
    if o.stochastic_rounding and policy.dtype == "float32" and policy.model != "live":
        sentence = "optimizer.stochastic_rounding is for bfloat16 weights, and policy.dtype is 'float32'"
        yield f"{sentence}: remove it, or set policy.dtype = 'bfloat16'", rounding, "policy.dtype"
    if o.saves_memory and stage.learners > 1:
        sentence = "optimizer.state, offload and stochastic_rounding are for one learner"
        keys = ("optimizer.state", "optimizer.offload", rounding, "cluster.learners")
        yield f"{sentence}, and cluster.learners is {stage.learners}: leave them out, or take one learner", *keys


def _distill(stage: Stage) -> Found:
    table, path = stage.distillation, "distillation.teacher"
    if not table.teacher:
        yield f'{path} is missing: name one, such as [distillation.teacher.big] with model = "..."', path
    if len(table.teacher) > 1 and table.column is None:
        sentence = "distillation has several teachers: say with column which prompt is whose"
        yield sentence, path, "distillation.column"
    for name, teacher in table.teacher.items():
        one = f"{path}.{name}"
        if teacher.url is None:
            for key in ("tokenizer", "api_key_env"):
                if getattr(teacher, key) is not None:
                    yield f"{one}.{key} is for a server: give its url, or remove it", one
            continue
        if not re.fullmatch(r"https?://[^\s@]+", teacher.url):
            yield f"{one}.url is an address such as http://localhost:8000/v1, without a user or password in it", one
        if table.divergence != "sampled":
            sentence = f"gives no logits, which divergence = '{table.divergence}' needs: load it here, or use"
            yield f'{one} is at a server and {sentence} "sampled"', one, "distillation.divergence"
        if stage.rollout.temperature != 1:
            sentence = f"gives log-probs at temperature 1, but rollout.temperature is {stage.rollout.temperature:g}"
            yield f"{one} is at a server and {sentence}", one, "rollout.temperature"


def _self_distill(stage: Stage) -> Found:
    table = stage.self_distillation
    if table.context == "sibling" and not stage.reward:
        sentence = "a completion is shown if it is right, which a reward must say"
        yield f'reward is missing: {sentence}, such as {{ use = "exact_number", weight = 0 }}', "reward"
    if table.context == "sibling" and stage.rollout.group_size == 1 and not table.feedback:
        sentence = "rollout.group_size is 1, and self_distill shows another completion of the group: use more"
        yield sentence, "rollout.group_size", "self_distillation.context"
    for key in (
        f"self_distillation.{key}" for key in ("show_solution", "show_feedback") if "{}" not in getattr(table, key)
    ):
        yield f"{key} has no {{}}, where what is shown belongs", key
    if stage.environment.acts:
        yield "self_distill is for answers in one turn: remove [environment]", "environment", "kind"


def _group_of_one(stage: Stage) -> Found:
    objective, given = stage.objective, stage.objective.fields()
    baseline, scale, zero_std = (objective.value(name) for name in ("baseline", "scale", "zero_std"))
    keys = ("rollout.group_size", "objective.baseline", "objective.preset", "objective.zero_std")
    keep = "" if zero_std == "zero" else ' and objective.zero_std = "zero"'
    if baseline in GROUP_BASELINES:
        whose = f"baseline {baseline!r}" if "baseline" in given else f"preset {objective.preset!r}"
        yield (
            f"rollout.group_size is 1, but {whose} compares the completions of one prompt with each other: use a"
            f' larger group, or objective.baseline = "batch_mean"{keep}',
            *keys,
        )
    elif scale in GROUP_SCALES:
        yield (
            f"rollout.group_size is 1, but objective.scale = {scale!r} needs several completions of one"
            f' prompt: use a larger group, or objective.scale = "batch_std"{keep}',
            *(*keys, "objective.scale"),
        )
    elif keep:
        whose = f"objective.zero_std = {zero_std!r}" if "zero_std" in given else f"preset {objective.preset!r}"
        yield (
            f"rollout.group_size is 1, but {whose} leaves out every group whose scores are all equal, as those of"
            ' one completion always are: use a larger group, or objective.zero_std = "zero"',
            *keys,
        )
