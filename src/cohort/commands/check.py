"""`cohort check`: load everything, score gold answers and junk with every reward, train nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from cohort.monitor.libraries import quiet_libraries
from cohort.policy.policy import Policy
from cohort.recipe import Recipe, Stage
from cohort.rewards import RewardPool, ScoredGroup, ScoringItem
from cohort.rewards.gate import gold_completions, junk_completions
from cohort.seeds import derive_seed
from cohort.tasks import Prompts
from cohort.train.plan import grpo_plan, sft_plan
from cohort.train.setup import GrpoParts, RenderedPrompts, build_policy, check_grpo, open_stage_demonstrations
from cohort.train.setup import prompt_limit as longest_prompt
from cohort.types import Finish, Prompt

__all__ = ["check_recipe"]

PROMPTS = 20  # scored with every answer
RENDERED = 200  # looked at for their length


def check_recipe(recipe: Recipe) -> bool:
    """Check every stage; print what was found. False when gold answers do not pay more than junk."""
    quiet_libraries()
    console = Console(highlight=False)
    good = True
    policy: Policy | None = None
    for index, stage in enumerate(recipe.stages):
        seed = derive_seed(recipe.seed, "stage", index)
        console.print(f"\n[bold]stage {escape(stage.name)}[/] ({stage.kind})")
        if stage.kind == "sft":
            examples = open_stage_demonstrations(stage, seed)
            policy = _policy(stage, seed, policy)
            _lines(console, sft_plan(stage, policy, 1, examples.size))
        else:
            parts = check_grpo(stage, seed)
            policy = _policy(stage, seed, policy)
            _lines(console, grpo_plan(stage, parts.objective, policy, 1, parts.task.train.size))
            _lengths(console, stage, parts, policy)
            good = _gate(console, parts, seed) and good
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
    console.print(table)


def _lengths(console: Console, stage: Stage, parts: GrpoParts, policy: Policy) -> None:
    """Prompt lengths in tokens, and how many are too long."""
    limit = longest_prompt(stage, policy)
    source = parts.task.train
    count = min(RENDERED, source.size or RENDERED)
    everything = RenderedPrompts(source, parts.task.renderer(policy.tokenizer), 2**31, "error")
    lengths = sorted(len(prompt.tokens) for i in range(count) if (prompt := everything[i]) is not None)
    longer = sum(n > limit for n in lengths)
    console.print(
        f"  [dim]prompts[/]     {lengths[0]} to {lengths[-1]} tokens in the first {count}, median "
        f'{lengths[len(lengths) // 2]}; {longer} longer than {limit} (task.too_long = "{stage.task.too_long}")'
    )


def _gate(console: Console, parts: GrpoParts, seed: int) -> bool:
    """Score gold and junk; the verifier must tell them apart on every prompt looked at."""
    prompts = _first(parts.task.train, PROMPTS)
    labels = [label for label, _ in _answers(prompts[0])]
    gold = {label for label, _ in gold_completions("")}
    rewards = {reward.name: reward for reward in (*parts.rewards, parts.verifier)}
    began = time.perf_counter()
    with RewardPool(list(rewards.values()), workers=1) as pool:
        futures = [pool.submit(_item(prompt, derive_seed(seed, "check", i))) for i, prompt in enumerate(prompts)]
        scored = [future.result() for future in futures]
    spent = time.perf_counter() - began
    console.print("\n  mean scores of answers that should pay, and of the junk that scores best")
    table = Table(box=None)
    table.add_column("answer")
    for name in rewards:
        table.add_column(name, justify="right")
    best = {label: max(_mean(scored, prompts, name, label) for name in rewards) for label in dict.fromkeys(labels)}
    junk_first = sorted((label for label in best if label not in gold), key=lambda label: -best[label])
    for label in [*(label for label in best if label in gold), *junk_first[:6]]:
        means = [_mean(scored, prompts, name, label) for name in rewards]
        table.add_row(("[bold]" if label in gold else "") + escape(label), *(f"{m:.2f}" for m in means))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
    verifier = parts.verifier.name
    pays = max(_mean(scored, prompts, verifier, label) for label in gold)
    junk = {label: _mean(scored, prompts, verifier, label) for label in labels if label not in gold}
    worst = max(junk, key=lambda label: junk[label])
    each = spent / sum(len(group.rewards) for group in scored)
    console.print(f"  {each * 1e3:.1f} ms a completion with all rewards, worker start included")
    good = pays > junk[worst]
    if good:
        console.print(f"  [green]good[/]  {verifier}: gold answers score {pays:.2f}, the best junk {junk[worst]:.2f}")
    else:
        console.print(
            f"  [red]bad[/]   {verifier} cannot tell gold answers ({pays:.2f}) from junk ({junk[worst]:.2f} for "
            f"'{escape(worst)}'), so it cannot say what is right. Check task.answer, or set evaluate.reward."
        )
    return good


def _first(prompts: Prompts, count: int) -> list[Prompt]:
    return [prompts[i] for i in range(min(count, prompts.size or count))]


def _answers(prompt: Prompt) -> list[tuple[str, str]]:
    return [*gold_completions(prompt.answer), *junk_completions(prompt.question, prompt.answer)]


def _item(prompt: Prompt, seed: int) -> ScoringItem:
    texts = tuple(text for _, text in _answers(prompt))
    return ScoringItem(
        prompt=prompt.question,
        completions=texts,
        answer=prompt.answer,
        row=dict(prompt.tags),
        messages=prompt.messages,
        finishes=tuple[Finish, ...]("stop" for _ in texts),
        tokens=tuple(len(text.split()) for text in texts),
        seed=seed,
    )


def _mean(scored: Sequence[ScoredGroup], prompts: Sequence[Prompt], name: str, label: str) -> float:
    """The mean of reward `name` over the answers called `label` (scores that do not apply are left out)."""
    values = [
        score
        for group, prompt in zip(scored, prompts, strict=True)
        for (found, _), score in zip(_answers(prompt), group.scores[name], strict=True)
        if found == label and not math.isnan(score)
    ]
    return sum(values) / len(values) if values else math.nan
