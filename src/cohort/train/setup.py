"""From a stage of a recipe to the parts that run it. What can be refused without a model is, before one loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from cohort.algorithms import objectives
from cohort.algorithms.objectives import Objective
from cohort.learn.optimizer import AdamW
from cohort.learn.schedule import learning_rate
from cohort.policy.load import add_lora, load_policy
from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.rewards import Gate, Reward, RewardSpec, resolve, resolve_all
from cohort.rewards.gold import check_gold
from cohort.seeds import derive_seed
from cohort.settings import Reward as RewardTable
from cohort.settings import Stage
from cohort.tasks import Demonstrations, Mixture, Renderer, Task, fit, open_examples, open_prompts
from cohort.tasks import Prompts as TaskPrompts
from cohort.train.player import World, open_world
from cohort.train.process import refuse_process
from cohort.train.reward_model_pairs import check_reward_model
from cohort.types import Prompt, Sampling, UserError
from cohort.wording import did_you_mean

__all__ = [
    "GrpoParts",
    "RenderedPrompts",
    "accuracy_name",
    "build_objective",
    "build_policy",
    "bypasses",
    "check_grpo",
    "evaluation_sampling",
    "held_out_prompts",
    "open_stage_demonstrations",
    "open_stage_task",
    "optimizer_settings",
    "prompt_limit",
    "rate_at",
    "refuse_long_prompts",
    "resumed_policy",
    "training_sampling",
    "up_to_the_first_for_all",
]

TEXTS_FOR_TOKENIZER = 4000
LENGTHS_CHECKED = 20_000  # prompts whose length is looked at before the first step

HasWhen = TypeVar("HasWhen", Reward, RewardTable)


@dataclass(frozen=True, slots=True)
class GrpoParts:
    """Everything of a GRPO stage that needs no model."""

    task: Task
    objective: Objective
    rewards: tuple[Reward, ...]
    verifiers: tuple[Reward, ...]  # in evaluations the first of them that applies to a prompt decides what is right
    world: World | None = None  # None: a completion is the whole rollout

    @property
    def verifier_name(self) -> str:
        """What tables call whoever decides."""
        return " or ".join(verifier.name for verifier in self.verifiers)


def check_grpo(stage: Stage, seed: int) -> GrpoParts:
    """Open the task, find the rewards and settle the objective. Raises `UserError` for whatever is wrong with them."""
    objective = build_objective(stage)
    refuse_process(stage, objective)
    task, world = open_stage_task(stage, seed), open_world(stage)
    _refuse_missing_turns(stage, task)
    if world is not None:
        task = replace(task, tools=world.schemas(stage))
    size = task.train.size
    if size is not None and size < stage.rollout.prompts_per_step:
        raise UserError(
            f"the task has {size} training prompts, fewer than one step takes (rollout.prompts_per_step = "
            f"{stage.rollout.prompts_per_step}). Lower prompts_per_step to {size} or less, or bring more prompts."
        )
    columns = [name for name in task.columns if name not in (stage.task.prompt, "answer")]
    has_answer = stage.task.answer in task.columns
    rewards = resolve_all([_spec(table) for table in stage.reward], columns, has_answer=has_answer)
    verifiers = up_to_the_first_for_all(rewards)
    if stage.evaluate.reward is not None:
        known = {table.name: reward for table, reward in zip(stage.reward, rewards, strict=True)}
        name = stage.evaluate.reward
        verifiers = (
            known[name] if isinstance(name, str) and name in known else resolve(RewardSpec(name), columns, has_answer),
        )
    _check_gold_column(stage, task)
    check_gold({reward.name: reward for reward in (*rewards, *verifiers)}.values(), task.rows())
    # What is right does not depend on what else is rewarded, so a verifier has no gate.
    return GrpoParts(task, objective, rewards, tuple(replace(verifier, gate=None) for verifier in verifiers), world)


def _refuse_missing_turns(stage: Stage, task: Task) -> None:
    """Refuse to end a conversation of a verifiers environment after its first reply."""
    sources = [source.train for source in task.train.sources] if isinstance(task.train, Mixture) else [task.train]
    for prompts in sources:
        row = prompts[0].tags.get("verifiers") if prompts.size else None
        if isinstance(row, dict) and row.get("one_turn") is False and stage.environment.use != "verifiers":
            raise UserError(f'{row["id"]!r} has turns of its own: let it play, with environment.use = "verifiers"')


def _check_gold_column(stage: Stage, task: Task) -> None:
    column, columns = stage.evaluate.gold, [name for name in task.columns if name != stage.task.prompt]
    if column is not None and column not in columns:
        raise UserError(
            f"evaluate.gold names the column '{column}'{did_you_mean(column, columns)}, which the task does not have; "
            f"it has {', '.join(columns)}"
        )


def open_stage_task(stage: Stage, seed: int) -> Task:
    """The prompts of a stage."""
    return open_prompts(stage.task, derive_seed(seed, "task"))


def open_stage_demonstrations(stage: Stage, seed: int) -> Demonstrations:
    """The examples of a supervised stage."""
    examples = open_examples(stage.task, derive_seed(seed, "task"))
    wanted = stage.supervised.examples_per_step
    if examples.size is not None and examples.size < wanted:
        raise UserError(
            f"the task has {examples.size} demonstrations, fewer than one step takes (supervised.examples_per_step = "
            f"{wanted}). Lower examples_per_step to {examples.size} or less, or bring more."
        )
    return examples


def build_policy(stage: Stage, seed: int, start: str | None, live: tuple[Any, Any] | None = None) -> Policy:
    """The policy that a stage starts from: a new one, `start` (the stage before), or the recipe's model."""
    p = stage.policy
    if p.scratch is not None:
        policy = _from_scratch(stage, seed)
    elif p.model == "live":
        if live is None:
            raise UserError('policy.model = "live" is for Python: cohort.train(recipe, model=..., tokenizer=...)')
        policy = Policy(live[0], live[1], p.compute)
        policy.check()
    else:
        model = p.model or start
        if model is None:
            raise UserError("the recipe names no model: set policy.model to a checkpoint directory or a hub id")
        policy = load_policy(
            model,
            dtype=p.dtype,
            compute=p.compute,
            device=p.device,
            revision=p.revision,
            trust_remote_code=p.trust_remote_code,
        )
    if p.lora is not None:
        if p.scratch is not None:
            raise UserError("a policy made from scratch has nothing to adapt: remove policy.lora, or policy.scratch")
        targets = p.lora.targets if isinstance(p.lora.targets, str) else list(p.lora.targets)
        policy = add_lora(policy, p.lora.rank, p.lora.alpha, targets, derive_seed(seed, "lora"), p.revision)
    return policy


def up_to_the_first_for_all(rewards: Sequence[HasWhen]) -> tuple[HasWhen, ...]:
    """The rewards of which the first that applies decides: none that comes after one for every prompt has a say."""
    last = next((index for index, reward in enumerate(rewards) if not reward.when), len(rewards))
    return tuple(rewards[: last + 1])


def accuracy_name(stage: Stage) -> str:
    """The reward whose spread says whether a group carries signal: of those that pay at all the first that applies."""
    return " or ".join(table.name for table in up_to_the_first_for_all([t for t in stage.reward if t.weight]))


def bypasses(stage: Stage) -> bool:
    """Whether the ratio is taken against the sampler's own log-probs: ScaleRL's single ratio."""
    chosen = stage.objective.bypass
    return stage.objective.preset == "scale_rl" if chosen is None else chosen


def resumed_policy(stage: Stage, path: Path) -> Policy:
    """The policy in a checkpoint of this stage."""
    p = stage.policy
    return load_policy(
        str(path), dtype=p.dtype, compute=p.compute, device=p.device, trust_remote_code=p.trust_remote_code
    )


def optimizer_settings(stage: Stage) -> AdamW:
    """The optimizer that the recipe asks for."""
    o = stage.optimizer
    return AdamW(o.betas, o.eps, o.weight_decay, o.gradient_clip)


def rate_at(stage: Stage, step: int) -> float:
    """The learning rate of a step, counted from 1."""
    o = stage.optimizer
    return learning_rate(step - 1, stage.run.steps, o.learning_rate, o.warmup_steps, o.schedule)


def prompt_limit(stage: Stage, policy: Policy, evaluating: bool = False) -> int:
    """The longest prompt that leaves room for a completion (no limit is known: 2**31)."""
    context = policy.max_context
    longest, key = stage.rollout.max_tokens, "rollout.max_tokens"
    if evaluating and stage.evaluate.max_tokens is not None:
        longest, key = stage.evaluate.max_tokens, "evaluate.max_tokens"
    room = 2**31 if context is None else context - longest
    if room < 1:
        raise UserError(
            f"{key} = {longest} leaves no room for a prompt: the model has {context} positions. Lower {key}."
        )
    return min(room, stage.task.max_prompt_tokens or room)


class RenderedPrompts:
    """A task's prompts as one model sees them; None where the `too_long` rule drops one."""

    def __init__(self, prompts: TaskPrompts, renderer: Renderer, limit: int, too_long: Any):
        self._prompts, self._renderer = prompts, renderer
        self._limit, self._too_long = limit, too_long

    def __getitem__(self, index: int) -> Prompt | None:
        """The prompt with its tokens."""
        return fit(self._renderer.render(self._prompts[index]), self._limit, self._too_long)


def refuse_long_prompts(prompts: RenderedPrompts, source: TaskPrompts) -> None:
    """Look at the prompts' lengths before the first step, rather than meet a long one hours later. With
    `too_long = "error"`, reading a prompt that is too long raises.
    """
    known = source.ends() if isinstance(source, Mixture) else range(source.size or 0)
    for index in islice(known, LENGTHS_CHECKED):
        prompts[index]


def held_out_prompts(stage: Stage, task: Task, policy: Policy) -> tuple[list[Prompt], int]:
    """What evaluations ask: the first `evaluate.problems` held-out prompts, no question twice; and how many were left
    out as too long (whatever training does with such ones, unless it cuts them).
    """
    source, wanted = task.held_out, stage.evaluate.problems
    if source is None or not wanted:
        return [], 0
    rule = "drop" if stage.task.too_long == "error" else stage.task.too_long
    limit = prompt_limit(stage, policy, evaluating=True)
    prompts = RenderedPrompts(source, task.renderer(policy.tokenizer), limit, rule)
    found: dict[str, Prompt] = {}
    too_long = 0
    for index in range(source.size if source.size is not None else 20 * wanted):
        prompt = prompts[index]
        if prompt is None:
            too_long += 1
        else:
            found.setdefault(prompt.id, prompt)
        if len(found) == wanted:
            break
    return list(found.values()), too_long


def training_sampling(stage: Stage) -> Sampling:
    """How training rollouts are drawn."""
    r = stage.rollout
    return Sampling(r.max_tokens, r.temperature, r.top_p, r.top_k, r.min_p, tuple(r.stop))


def evaluation_sampling(stage: Stage, greedy: bool) -> Sampling:
    """How evaluation completions are drawn."""
    e, stop = stage.evaluate, tuple(stage.rollout.stop)
    limit = e.max_tokens or stage.rollout.max_tokens
    return (
        Sampling(limit, 0.0, stop=stop) if greedy else Sampling(limit, e.temperature, e.top_p, e.top_k, e.min_p, stop)
    )


def build_objective(stage: Stage) -> Objective:
    """The objective of a stage. Raises `UserError` for one that makes no sense, or that training cannot do yet."""
    try:
        objective = objectives.preset(stage.objective.preset, **stage.objective.fields())
    except ValueError as error:
        raise UserError(f"[objective] {error}") from None
    if objective.rewards == "normalise_then_sum" and objective.kl_coef and objective.kl_place == "reward":
        raise UserError(
            "[objective] rewards that are normalised one by one (GDPO) leave no place for a KL among them: "
            'set kl_place = "loss", or kl_coef = 0'
        )
    if objective.baseline == "critic" and stage.policy.lora is not None:
        raise UserError("a critic cannot be made for a policy with LoRA: remove policy.lora, or use a group baseline")
    if bypasses(stage) and objective.correction != "off":
        raise UserError(
            f"[objective] with bypass the ratio is taken against the sampler itself, so correction = "
            f"'{objective.correction}' has nothing to correct: set correction = \"off\", or bypass = false"
        )
    if stage.objective.pass_at_k is not None and objective.kl_coef and objective.kl_place == "reward":
        raise UserError(
            "[objective] pass_at_k is defined for rewards of 0 and 1, so a KL cannot be taken off them: set kl_place = "
            '"loss", or kl_coef = 0'
        )
    k, size = stage.objective.pass_at_k, stage.rollout.group_size
    if k is not None and (k > size or objective.baseline == "critic" or objective.rewards == "normalise_then_sum"):
        raise UserError(
            f"[objective] pass_at_k = {k} replaces the advantages of a group: it must be at most rollout.group_size "
            f"({size}), and goes with neither a critic nor GDPO"
        )
    moves = stage.reference.update_every or stage.reference.ema is not None
    if objective.needs_reference and stage.policy.lora is not None and moves:
        raise UserError("with LoRA the reference is the base model and stays so: remove the [reference] table")
    return objective


def _spec(table: RewardTable) -> RewardSpec:
    gate = None if table.gate is None else Gate(table.gate, table.gate_at, table.gate_else)
    name = table.name or None
    return RewardSpec(
        *(table.use, table.weight, name, table.style, table.args, table.timeout_s, gate, table.when),
        split=table.split,
        fold=table.fold,
    )


def _from_scratch(stage: Stage, seed: int) -> Policy:
    s = stage.policy.scratch
    assert s is not None
    tokenizer = make_tokenizer(_texts(stage, seed), s.vocabulary)
    sizes = s.model_dump(exclude={"architecture", "vocabulary"})
    return Policy(make_model(tokenizer, derive_seed(seed, "scratch"), **sizes), tokenizer, stage.policy.compute)


def _texts(stage: Stage, seed: int) -> list[str]:
    """What the tokenizer of a new policy is learnt from: the stage's own text, its first few thousand examples."""
    if stage.kind == "reward_model":
        pairs = check_reward_model(stage).pairs.train
        found = [pairs[i] for i in range(min(pairs.size, TEXTS_FOR_TOKENIZER))]
        return [f"{pair.prompt.question} {pair.chosen} {pair.rejected}" for pair in found]
    if stage.kind == "sft":
        examples = open_stage_demonstrations(stage, seed)
        count = min(examples.size or TEXTS_FOR_TOKENIZER, TEXTS_FOR_TOKENIZER)
        return [f"{examples[i].prompt.question} {examples[i].completion}" for i in range(count)]
    prompts = open_stage_task(stage, seed).train
    return [prompts[i].question for i in range(min(prompts.size or TEXTS_FOR_TOKENIZER, TEXTS_FOR_TOKENIZER))]
