"""`cohort check`: load everything, put the rewards to the test, train nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from cohort.commands.contamination import Benchmarks
from cohort.commands.model import play_group
from cohort.machine import quiet_libraries, threads_of
from cohort.policy.load import Start, open_policy
from cohort.policy.policy import Policy, PolicyFacts
from cohort.preflight.gate.stage import gate_of_stage
from cohort.preflight.parts import SamplingParts
from cohort.recipe import Recipe
from cohort.rewards import RewardPool, ScoringItem
from cohort.seeds import derive_seed
from cohort.settings import Stage, named_stage
from cohort.tasks.render import prompt_limit
from cohort.train.models import begins_with, data_file, waits_for
from cohort.train.run import PreparedStage, prepare
from cohort.types import InfrastructureError, Prompt
from cohort.views.console import Console, escape, excerpt
from cohort.views.gate import show_gate
from cohort.views.plan import about
from cohort.wording import counted

PROMPTS = 20  # scored for each verifier
SAMPLED, LONGEST = 8, 256  # completions of the first prompt that are shown, and their tokens
RENDERED = 200  # looked at for their length


@dataclass(frozen=True, slots=True)
class Example:
    """What the policy wrote, and what a reward gave for it."""

    score: float
    text: str


@dataclass(frozen=True, slots=True)
class CheckedStage:
    """What was found about a stage. `untested` are rewards whose model has yet to be trained, by the stage that does
    it; `gate` is None where no reward could be put to the test. `prompt` is the first one, decoded from its tokens;
    `contamination` has by benchmark what of it is in the training prompts (see `cohort.commands.contamination`), and
    `examples` by reward the best and the worst of some completions of it, with their scores.
    """

    stage: str
    kind: str
    plan: dict[str, str]
    untested: dict[str, str]
    gate: dict[str, Any] | None
    holds: bool
    contamination: dict[str, Any]
    prompt: str = ""
    examples: dict[str, dict[str, Example]] = field(default_factory=dict)


def check_recipe(recipe: Recipe, console: Console, against: Sequence[str] = (), finish: int = 0) -> list[CheckedStage]:
    """Check every stage, and say what was found as soon as it is. A stage does not hold when one of its verifiers
    cannot tell gold answers from ignorant ones, or when a question of a benchmark that it is checked `against` is among
    its training prompts. The base model is asked to `finish` so many questions of each benchmark.
    """
    benchmarks = Benchmarks.of(against, finish)
    found: list[CheckedStage] = []
    for index, (one, policy) in enumerate(start_policies(recipe)):
        file = data_file(recipe, index)
        waits = named_stage(recipe.stages[index].task.source) if file is not None and not file.is_file() else None
        found.append(_check(one, policy, console, benchmarks, waits))
    return found


def start_policies(recipe: Recipe) -> Iterator[tuple[PreparedStage, Policy]]:
    """Every stage, prepared, with the policy that it would start from were those before it not to train."""
    quiet_libraries()
    policies: list[Policy] = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(recipe.stages[-1].run.threads))  # as the run will, so that the plan is true
    try:
        for index, one in enumerate(prepare(recipe)):
            start = begins_with(recipe, index)
            policies.append(_policy(one, None if start is None else policies[start]))
            yield one, policies[-1]
    finally:
        torch.set_num_threads(before)


def _check(
    one: PreparedStage, policy: Policy, console: Console, benchmarks: Benchmarks, waits: str | None
) -> CheckedStage:
    """`waits` is the stage that has yet to make the data of this one, if any: how many there will be is not known."""
    stage, parts, facts = one.stage, one.prepared.parts, policy.facts()
    console.say(f"\n[bold]stage {escape(stage.name)}[/] ({stage.kind})")
    plan = {**one.kind.plan(stage, one.prepared, facts), **about(stage, stage.suite, facts.device)}
    if waits is not None:
        plan |= {"task": f"what stage '{waits}' will keep", "batch": plan.get("batch", "").partition(" = ")[0]}
    if parts is not None:
        parts.world.dialogue(facts.tokenizer, facts.eos_ids)
        plan["prompts"] = _lengths(stage, parts, facts)
    console.lines(plan)
    first = None if parts is None else parts.task.renderer(facts.tokenizer).render(parts.task.train[0])
    prompt = "" if first is None else _marked(first, facts)
    if prompt:
        console.say("  a prompt, as the policy sees it; special tokens in ⟨ ⟩")
        console.say("    " + escape(prompt).replace("\n", "\n    "), fold=False)
    untested = waits_for(stage) if parts is not None else {}
    for reward, maker in untested.items():
        console.warn(f"{reward} is not tested: its model is made by the stage '{maker}'")
    report = None
    examples: dict[str, dict[str, Example]] = {}
    if parts is not None and first is not None and (own := parts.without(untested)).rewards and own.verifiers:
        report = gate_of_stage(stage, own, one.seed, PROMPTS, facts.tokenizer, console.warn)
        examples = _examples(one, own, first, policy, console)
        show_gate(console, report)
    contamination, clean = benchmarks.look(one, policy, console)
    gate = None if report is None else report.to_dict()
    holds = clean and (report is None or not report.problems)
    return CheckedStage(stage.name, stage.kind, plan, untested, gate, holds, contamination, prompt, examples)


def _examples(
    one: PreparedStage, parts: SamplingParts, prompt: Prompt, policy: Policy, console: Console
) -> dict[str, dict[str, Example]]:
    """By reward the best and the worst of some completions of a prompt, by the policy as it is. Shows them."""
    stage, seed = one.stage, derive_seed(one.seed, "check")
    shorter = replace(stage.rollout.sampling(), max_tokens=min(stage.rollout.max_tokens, LONGEST))
    given = stage.run.pass_environment
    with closing(parts.world), RewardPool(parts.rewards, 1, 1, pass_environment=given, say=console.warn) as pool:
        try:
            sampling, played = play_group(policy, stage, parts.world, prompt, SAMPLED, seed, shorter)
            scores = pool.submit(ScoringItem.of(prompt, played, seed)).result().scores
        except InfrastructureError as error:
            console.warn(f"no completion could be scored: {error}")
            return {}
    longest = counted(sampling.max_tokens, "token")
    console.say(f"\n  {SAMPLED} completions of it, of at most {longest}, by the policy as it is")
    found: dict[str, dict[str, Example]] = {}
    for name, values in scores.items():
        order = sorted((i for i, value in enumerate(values) if not math.isnan(value)), key=lambda i: -values[i])
        ends = {"best": order[0], "worst": order[-1]} if order else {}
        found[name] = {
            end: Example(values[i], excerpt(played[i], stage.record.traces, prompt)) for end, i in ends.items()
        }
        alike = bool(order) and values[order[0]] == values[order[-1]]
        shown = {"all": found[name]["best"]} if alike else found[name]
        lines = {f"{end} of {name}": f"{of.score:.3g}\n{of.text}" for end, of in shown.items()}
        console.lines(lines or {name: "applies to none of them"}, indent=4)
    return found


def _policy(one: PreparedStage, before: Policy | None) -> Policy:
    """A later stage without a model of its own continues from one before it; untrained, that is the same policy."""
    table = one.stage.policy
    if before is not None and table.lora is None:
        return before
    return open_policy(table, one.seed, Start(), one.prepared.texts)


def _marked(prompt: Prompt, facts: PolicyFacts) -> str:
    """A prompt, decoded from its tokens, with the special ones marked."""
    added = getattr(facts.tokenizer, "added_tokens_decoder", {})
    special = {*facts.tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
    decode = facts.tokenizer.decode
    runs = [(is_special, [*run]) for is_special, run in groupby(prompt.tokens, key=special.__contains__)]
    return "".join("".join(f"⟨{decode([t])}⟩" for t in run) if is_special else decode(run) for is_special, run in runs)


def _lengths(stage: Stage, parts: SamplingParts, facts: PolicyFacts) -> str:
    """Prompt lengths in tokens, and how many are too long."""
    limit = prompt_limit(facts.context, stage.rollout.max_tokens, stage.task.max_prompt_tokens)
    source = parts.task.train
    count = min(RENDERED, source.size or RENDERED)
    renderer = parts.task.renderer(facts.tokenizer)
    lengths = sorted(len(renderer.render(source[index]).tokens) for index in range(count))
    longer = f'{sum(n > limit for n in lengths)} longer than {limit} (task.too_long = "{stage.task.too_long}")'
    middle = lengths[len(lengths) // 2]
    return f"{lengths[0]} to {counted(lengths[-1], 'token')} in the first {count}, median {middle}; {longer}"
