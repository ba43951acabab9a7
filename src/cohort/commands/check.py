"""`cohort check`: load everything, put the rewards to the test, train nothing."""

from __future__ import annotations

from rich.markup import escape

from cohort.machine import quiet_libraries
from cohort.policy.load import Start, open_policy
from cohort.policy.policy import Policy, PolicyFacts
from cohort.preflight.gate.stage import gate_of_stage
from cohort.preflight.parts import SamplingParts
from cohort.recipe import Recipe
from cohort.settings import Stage
from cohort.tasks.rendered import RenderedPrompts, prompt_limit
from cohort.train.models import waits_for
from cohort.train.run import PreparedStage, prepare
from cohort.views.console import Console
from cohort.views.gate import show_gate

__all__ = ["check_recipe"]

PROMPTS = 20  # scored for each verifier
RENDERED = 200  # looked at for their length


def check_recipe(recipe: Recipe) -> bool:
    """Check every stage; print what was found. False when a verifier cannot tell gold answers from ignorant ones."""
    quiet_libraries()
    console = Console()
    good = True
    policy: Policy | None = None
    for one in prepare(recipe):
        stage, parts = one.stage, one.prepared.parts
        console.say(f"\n[bold]stage {escape(stage.name)}[/] ({stage.kind})")
        policy = _policy(one, policy)
        facts = policy.facts()
        plan = dict(one.kind.plan(stage, one.prepared, facts))
        if parts is None:
            console.lines(plan)
            continue
        parts.world.dialogue(facts.tokenizer, facts.eos_ids)
        console.lines(plan | {"prompts": _lengths(stage, parts, facts)})
        good = _gate(one, parts, console) and good
    return good


def _gate(one: PreparedStage, parts: SamplingParts, console: Console) -> bool:
    """Whether the rewards that can be tested now are good."""
    waiting = waits_for(one.stage)
    for reward, maker in waiting.items():
        console.warn(f"{reward} is not tested: its model is made by the stage '{maker}'")
    parts = parts.without(waiting)
    if not parts.rewards or not parts.verifiers:
        return True
    report = gate_of_stage(one.stage, parts, one.seed, PROMPTS)
    show_gate(console, report)
    return not report.problems


def _policy(one: PreparedStage, before: Policy | None) -> Policy:
    """A later stage without a model of its own continues from the one before; untrained, that is the same policy."""
    table = one.stage.policy
    if before is not None and table.model is None and table.scratch is None and table.lora is None:
        return before
    return open_policy(table, one.seed, Start(), one.prepared.texts)


def _lengths(stage: Stage, parts: SamplingParts, facts: PolicyFacts) -> str:
    """Prompt lengths in tokens, and how many are too long."""
    limit = prompt_limit(facts.context, stage.rollout.max_tokens, stage.task.max_prompt_tokens)
    source = parts.task.train
    count = min(RENDERED, source.size or RENDERED)
    everything = RenderedPrompts(source, parts.task.renderer(facts.tokenizer), 2**31, "error")
    lengths = sorted(len(prompt.tokens) for i in range(count) if (prompt := everything[i]) is not None)
    longer = sum(n > limit for n in lengths)
    return (
        f"{lengths[0]} to {lengths[-1]} tokens in the first {count}, median {lengths[len(lengths) // 2]}; {longer} "
        f'longer than {limit} (task.too_long = "{stage.task.too_long}")'
    )
