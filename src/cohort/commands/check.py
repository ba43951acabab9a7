"""`cohort check`: load everything, put the rewards to the test, train nothing."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from cohort.monitor.console import Console
from cohort.monitor.gate import show_gate
from cohort.monitor.libraries import quiet_libraries
from cohort.policy.policy import Policy
from cohort.recipe import Recipe
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.train.gate import gate_of_stage, without
from cohort.train.plan import grpo_plan, reward_model_plan, sft_plan
from cohort.train.reward_model_pairs import check_reward_model
from cohort.train.setup import GrpoParts, RenderedPrompts, build_policy, check_grpo, open_stage_demonstrations
from cohort.train.setup import prompt_limit as longest_prompt
from cohort.train.stage_models import waits_for, with_stage_models

__all__ = ["check_recipe"]

PROMPTS = 20  # scored for each verifier
RENDERED = 200  # looked at for their length


def check_recipe(recipe: Recipe) -> bool:
    """Check every stage; print what was found. False when a verifier cannot tell gold answers from ignorant ones."""
    quiet_libraries()
    console = Console()
    good = True
    policy: Policy | None = None
    for index, stage in enumerate(recipe.stages):
        seed = derive_seed(recipe.seed, "stage", index)
        console.say(f"\n[bold]stage {escape(stage.name)}[/] ({stage.kind})")
        if stage.kind == "sft":
            examples = open_stage_demonstrations(stage, seed)
            policy = _policy(stage, seed, policy)
            _lines(console, sft_plan(stage, policy, 1, examples.size))
        elif stage.kind == "reward_model":
            pairs = check_reward_model(stage).pairs
            held_out = 0 if pairs.held_out is None else pairs.held_out.size
            _lines(console, reward_model_plan(stage, _policy(stage, seed, policy), 1, pairs.train.size, held_out))
        else:
            parts = check_grpo(with_stage_models(recipe, index), seed)
            policy = _policy(stage, seed, policy)
            parts.world.dialogue(policy.tokenizer, policy.eos_ids)
            plan = grpo_plan(stage, parts.objective, policy, 1, parts.task.train.size)
            _lines(console, plan | {"prompts": _lengths(stage, parts, policy)})
            waiting = waits_for(stage)
            for reward, maker in waiting.items():
                console.warn(f"{reward} is not tested: its model is made by the stage '{maker}'")
            parts = without(parts, waiting)
            if not parts.rewards or not parts.verifiers:
                continue
            report = gate_of_stage(stage, parts, seed, PROMPTS)
            show_gate(console, report)
            good = good and not report.problems
    return good


def _policy(stage: Stage, seed: int, before: Policy | None) -> Policy:
    """A later stage without a model of its own continues from the one before; untrained, that is the same policy."""
    if before is not None and stage.policy.model is None and stage.policy.scratch is None and stage.policy.lora is None:
        return before
    return build_policy(stage, seed, None)


def _lines(console: Console, lines: dict[str, str]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row("  " + name, escape(text))
    console.rich.print(table)


def _lengths(stage: Stage, parts: GrpoParts, policy: Policy) -> str:
    """Prompt lengths in tokens, and how many are too long."""
    limit = longest_prompt(stage, policy)
    source = parts.task.train
    count = min(RENDERED, source.size or RENDERED)
    everything = RenderedPrompts(source, parts.task.renderer(policy.tokenizer), 2**31, "error")
    lengths = sorted(len(prompt.tokens) for i in range(count) if (prompt := everything[i]) is not None)
    longer = sum(n > limit for n in lengths)
    return (
        f"{lengths[0]} to {lengths[-1]} tokens in the first {count}, median {lengths[len(lengths) // 2]}; {longer} "
        f'longer than {limit} (task.too_long = "{stage.task.too_long}")'
    )
