"""`cohort probe`: before anything is trained, how often a model is right, and what to set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.backends.base import open_sampler
from cohort.commands.evaluate import recipe_of
from cohort.commands.model import load_model
from cohort.commands.place import absolute, full_path
from cohort.evaluate import evaluate
from cohort.evaluate.probing import Advice, Probe, advise, probe
from cohort.machine import quiet_libraries
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.recipe import Recipe
from cohort.recipe.loader import found
from cohort.recipe.show import toml_value
from cohort.rewards import RewardPool
from cohort.settings import GROUPS, Stage
from cohort.tasks.prompts import first
from cohort.tasks.render import prompt_limit
from cohort.types import Prompt, UnreadableError, UserError
from cohort.views.console import Console, escape, show_recipe


@dataclass(frozen=True, slots=True)
class Probed:
    """Each temperature, what to set and why, and the same as a part of a recipe."""

    model: str
    probes: tuple[Probe, ...]
    advice: Advice
    recipe: str
    overrides: tuple[str, ...]


def run_probe(
    what: str,
    rest: Sequence[str],
    temperatures: Sequence[float],
    samples: int,
    problems: int,
    seed: int,
    say: Callable[[str], object],
) -> Probed:
    """Sample the training prompts of a recipe, or of a task, from a model as it is, at each temperature. `say` is told
    which recipe it is where that is not plain.
    """
    quiet_libraries()
    task = next((word for word in rest if "=" not in word), None)
    overrides = absolute([word for word in rest if "=" in word])
    if task is None:
        if not found(Path(what), lambda _: None).is_file():
            hint = f"of a model say a task as well: cohort probe {what} train.jsonl"
            raise UnreadableError(f"'{what}' is no recipe; {hint}")
        recipe = Recipe.load(what, overrides, say)
    else:
        recipe = recipe_of(full_path(what), task, overrides, problems)[1]
    stage = next((one for one in reversed(recipe.stages) if one.kind in GROUPS), None)
    if stage is None:
        raise UserError("the recipe has no grpo stage, so there are no groups to probe")
    if stage.policy.model is None:
        raise UserError(
            "the recipe's model is yet to be made: train what makes it, and probe its final/ with policy.model=DIR"
        )
    parts = open_parts(stage, seed)
    with closing(parts.world):
        probes, limit = _probes(stage, parts, temperatures, samples, problems, seed), stage.rollout.max_tokens
    advice = advise(probes, limit, parts.task.train.size is not None)
    overrides = [f"{key}={toml_value(value)}" for key, value in advice.settings.items()]
    return Probed(stage.policy.model, probes, advice, _fragment(advice), tuple(overrides))


def _probes(
    stage: Stage, parts: SamplingParts, temperatures: Sequence[float], samples: int, problems: int, seed: int
) -> tuple[Probe, ...]:
    policy = load_model(str(stage.policy.model), compute=stage.policy.compute, device=stage.policy.device)
    facts, renderer = policy.facts(), parts.task.renderer(policy.tokenizer)
    limit = prompt_limit(facts.context, stage.rollout.max_tokens, stage.task.max_prompt_tokens)
    rendered = [renderer.render(prompt) for prompt in first(parts.task.train, problems)]
    prompts: list[Prompt] = [one for one in rendered if limit is None or len(one.tokens) <= limit]
    if not prompts:
        raise UserError("no training prompt fits the model's context: lower rollout.max_tokens")
    judges = [one.name for one in parts.rewards if one.weight]
    play = parts.world.player(facts.tokenizer, facts.eos_ids, open_sampler(policy, stage.rollout))
    run = stage.run
    with RewardPool(parts.rewards, run.workers, run.retries, pass_environment=run.pass_environment) as pool:
        return tuple(
            probe(
                evaluate(
                    *(play, prompts, pool, replace(stage.rollout.sampling(), temperature=one), samples, seed),
                    judges=judges,
                ).groups,
                one,
                samples,
            )
            for one in temperatures
        )


def _fragment(advice: Advice) -> str:
    """The settings as tables of a recipe, each with its reason."""
    tables: dict[str, list[str]] = {}
    for key, value in advice.settings.items():
        table, _, name = key.rpartition(".")
        line = f"{name} = {toml_value(value)}"
        tables.setdefault(table, []).append(f"{line:<24} # {advice.because[key]}")
    return "\n".join("\n".join([f"[{table}]", *lines, ""]) for table, lines in tables.items())


def show(console: Console, found: Probed) -> None:
    """Tables of pass rates and of signal on standard error, the part of a recipe on standard output."""
    words = Console(file=sys.stderr)
    one = found.probes[0]
    words.say(f"\n  {one.prompts} training prompts x {one.samples} completions of {escape(found.model)}, untrained")
    fifths = ["never", "0-20%", "20-40%", "40-60%", "60-80%", "80-100%", "always"]
    words.table(
        ["temperature", "right", *fifths, "tokens", "distinct-2"],
        [
            [
                f"{p.temperature:g}",
                f"{p.pass_rate.mean:.0%} [{p.pass_rate.low:.0%}, {p.pass_rate.high:.0%}]",
                *map(str, p.histogram),
                f"{p.behaviour['mean_tokens']:.0f}",
                f"{p.behaviour['distinct_2']:.2f}",
            ]
            for p in found.probes
        ],
    )
    words.say("  groups that would carry signal, by their size")
    words.table(
        ["temperature", *map(str, one.signal)],
        [
            [f"{p.temperature:g}", *(f"{m.mean:.0%} [{m.low:.0%}, {m.high:.0%}]" for m in p.signal.values())]
            for p in found.probes
        ],
    )
    show_recipe(console, found.recipe, {})
    words.say(f"  cohort train ... {escape(' '.join(found.overrides))}", fold=False)
    if found.advice.warning:
        words.warn(found.advice.warning)
