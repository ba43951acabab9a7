"""`cohort eval`: what a model does on held-out problems, alone or paired with another on the same ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import orjson

from cohort.backends.base import open_sampler
from cohort.chat import template_for
from cohort.commands.door import argument
from cohort.commands.model import load_model
from cohort.commands.place import absolute, full_path, told_apart
from cohort.evaluate import Accuracy, Measure, evaluate
from cohort.evaluate.behaviour import behaviour
from cohort.evaluate.compare import Paired, among, paired
from cohort.evaluate.traces import TraceUse, use_of_traces
from cohort.machine import quiet_libraries
from cohort.monitor.names import BEHAVIOUR
from cohort.policy.text import reader
from cohort.preflight.parts import SamplingParts, open_parts
from cohort.preflight.suites import open_suites
from cohort.recipe import Recipe
from cohort.record.files import write_bytes
from cohort.record.manifest import EVALS
from cohort.record.rollouts import write_groups
from cohort.rewards import RewardPool
from cohort.settings import Stage
from cohort.tasks.guess import guess_source
from cohort.train.directory import as_it_lies
from cohort.train.evaluation import held_out
from cohort.train.place import where_trained
from cohort.types import UnreadableError, UserError
from cohort.views.console import Console, escape
from cohort.views.traces import need_of_traces

T = TypeVar("T")
M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What each model does on held-out problems, judged by `verifier`: its `eval/` metrics, its `measures` with
    intervals and its `behaviour`; and the first one minus the other, greedy and sampled, where there are two. `data`
    says what was taken from a file whose columns nobody named, `files` where the completions are.
    """

    data: str
    verifier: str
    problems: int
    models: dict[str, dict[str, float]]
    measures: dict[str, dict[str, Measure]]
    behaviour: dict[str, dict[str, float]]
    difference: dict[str, Paired]
    files: list[Path]


def run_evaluation(
    model: str,
    task: str | None,
    overrides: Sequence[str],
    samples: int,
    problems: int,
    against: str | None,
    seed: int,
    best: bool = True,
    language: str | None = None,
    to: Path | None = None,
    traces: int = 0,
) -> Evaluation:
    """Measure a model, and with `against` another one on the same problems. With `best` the run's rewards score as
    well, and say which sample is the best; with `traces`, whether the answers of so many problems need theirs. What was
    sampled is kept in `to`, a new directory; of a run that is evaluated on its own problems, by default, in one of the
    run's own.
    """
    if model == against:
        raise UserError("--against names the model itself; name another one")
    if to is not None and to.exists():
        raise UserError(f"{to} exists already: name a directory that does not, for what this evaluation writes")
    quiet_libraries()
    names = {name: full_path(name) for name in (model, against) if name is not None}
    overrides = [f"evaluate.traces={traces}", *overrides] if traces else overrides
    to, overrides = None if to is None else to.absolute(), absolute(overrides)  # before the process goes elsewhere
    with where_trained(names[model]) if task is None else contextlib.nullcontext():
        data, recipe = recipe_of(names[model], task, overrides, problems)
        asked = _asked(recipe, model, seed)
        templates: dict[str, str] = {}
        measured = {name: _measure(path, asked, samples, seed, best, templates) for name, path in names.items()}
    found = {name: accuracies for name, (accuracies, _) in measured.items()}
    every: dict[str, dict[str, Accuracy | TraceUse]] = {name: {**of, **uses} for name, (of, uses) in measured.items()}
    verifier = " or ".join(dict.fromkeys(parts.verifier_name for _, parts in asked.values()))
    difference: dict[str, Paired] = {}
    if against is not None:
        margin = recipe.stages[-1].evaluate.margin
        pairs = {
            name: paired(ours.per_problem, found[against][name].per_problem, margin, ours.clusters)
            for name, ours in found[model].items()
        }
        for kind in ("greedy", "sampled"):  # of one kind the held-out problems and the suites are several tasks
            difference |= among({name: one for name, one in pairs.items() if name.endswith(kind)})

    def short(one: Accuracy | TraceUse) -> dict[str, float]:
        return {key.removeprefix("eval/"): value for key, value in one.metrics().items()}

    result = Evaluation(
        data,
        verifier,
        max(len(one.scored) for of in found.values() for one in of.values()),
        {name: {f"eval/{k}": v for k, v in _gathered(of, short).items()} for name, of in every.items()},
        {name: _gathered(of, Accuracy.measures) for name, of in found.items()},
        {name: _behaviour(of, language) for name, of in found.items()},
        difference,
        [],
    )
    try:
        place = to or (_place_of(Path(names[model])) if task is None else None)
        return result if place is None else replace(result, files=_kept(place, every, result))
    except OSError as error:  # what was measured is said all the same
        Console().warn(f"what was sampled is not kept: {error}")
        return result


def _place_of(run: Path) -> Path:
    """The next free directory for evaluations of a run."""
    number = 1
    while (place := run / EVALS / f"{number:03d}").exists():
        number += 1
    return place


def _gathered(of: Mapping[str, M], what: Callable[[M], Mapping[str, T]]) -> dict[str, T]:
    """What all measurements say, those of a suite below its name."""
    found: dict[str, T] = {}
    for name, one in of.items():
        place = name.rpartition("/")[0]
        found |= {f"{place}/{key}" if place else key: value for key, value in what(one).items()}
    return found


def _behaviour(of: Mapping[str, Accuracy], language: str | None) -> dict[str, float]:
    """Of the sampled completions, where there are any: they vary."""
    last = {f"{name.rpartition('/')[0]}/": one for name, one in of.items()}
    return _gathered(last, lambda one: behaviour(one.groups, language))


def show(console: Console, found: Evaluation) -> None:
    """A column for each model: accuracies with intervals, then how it behaves; and the difference of two."""
    if found.data:
        console.say(f"[dim]data[/]  {escape(found.data)}")
    console.say(f"\n  {found.problems} held-out problems by {escape(found.verifier)}, with 95% intervals")
    models = list(found.models)
    names = told_apart(models)
    rows = [[name, *(_with_interval(found.measures[one].get(name)) for one in models)] for name in _all(found.measures)]
    for name in (name for name in _all(found.behaviour) if name in BEHAVIOUR):  # those of suites are in the JSON
        known = BEHAVIOUR[name]
        values = [found.behaviour[one].get(name, math.nan) for one in models]
        if not all(map(math.isnan, values)):
            rows.append([known.heading, *("" if math.isnan(value) else known.form.format(value) for value in values)])
    console.table(["", *map(escape, names)], rows)
    for model, name in zip(models, names, strict=True):
        if said := need_of_traces(found.models[model]):
            console.say(escape(f"  {name}: {said}"))
    for name, one in found.difference.items():
        console.say(escape(f"  {name}: {' minus '.join(names)} is {in_words(one)}"))
    for file in found.files:
        console.saved("kept", file)


def in_words(one: Paired) -> str:
    """`+4.0% [+1.1%, +7.2%] on 500 problems: improved (better on 31, worse on 11; p = 0.003)`."""
    interval = f"{one.mean:+.1%} [{one.low:+.1%}, {one.high:+.1%}] on {one.problems} problems"
    p = f"p = {one.p:.2g}" + (f", {one.p_holm:.2g} among all tasks" if one.p_holm != one.p else "")
    least = "too few problems to find any" if one.detectable is None else f"{one.detectable:.1%} could have been found"
    words = {"non_inferior": f"non-inferior by a margin of {one.margin:.1%}"}.get(one.verdict, one.verdict)
    return f"{interval}: {words} (better on {one.better}, worse on {one.worse}; {p}; {least})"


def recipe_of(model: str, task: str | None, overrides: Sequence[str], problems: int) -> tuple[str, Recipe]:
    """The run's own recipe, when a run was given and no other task; else a recipe made of what was said, and what was
    taken for it.
    """
    saved = Path(model, "recipe.toml")
    if saved.is_file() and task is None:
        return "", as_it_lies(Recipe.load(saved, [f"evaluate.problems={problems}", *overrides]))
    if task is None and not Path(model).exists():
        raise UnreadableError(f"there is no run '{model}' here; of a hub id say --task, what to evaluate on")
    if task is None:
        raise UserError(
            f"'{model}' is not a run, so it does not say what to evaluate on; say --task word_problems or a file"
        )
    pairs = [override.partition("=") for override in overrides]
    named = {key.removeprefix("task."): value for key, _, value in pairs if key.startswith("task.")}
    with argument():
        found = guess_source(task, named.get("split", "train"), named.get("config"), named, "grpo")
    reward = found.reward or {"use": "exact_number"}
    tables = {
        "name": "evaluation",
        "policy": {"model": model},
        "task": {"source": task, "held_out": task, **found.task},
        "rollout": {"max_tokens": 256, "prompts_per_step": 1},
        "reward": reward,
        "evaluate": {"problems": problems},
    }
    return "; ".join([*found.took, f"the reward {reward['use']}"]), Recipe.from_tables(tables, overrides)


def _asked(recipe: Recipe, model: str, seed: int) -> dict[str, tuple[Stage, SamplingParts]]:
    """What the last stage of a recipe evaluates on: its held-out problems as "", its suites by their names."""
    stage = recipe.stages[-1]
    asked: dict[str, tuple[Stage, SamplingParts]] = {}
    if stage.reward or stage.evaluate.reward is not None:
        parts = open_parts(stage, seed)
        if parts.task.held_out is not None:
            asked[""] = stage, parts
        elif not stage.suite:
            raise UserError(
                "this task has no held-out problems: add task.held_out=FILE (or a share such as task.held_out=0.1)"
            )
    elif not stage.suite:
        raise UserError(
            f"the last stage of {model} ({stage.kind}) has no reward that says what is right; say --task, "
            "or evaluate.reward=NAME"
        )
    asked |= {suite.table.name: (suite.stage, suite.parts) for suite in open_suites(stage, seed)}
    for of, parts in asked.values():
        if (column := of.evaluate.cluster) is not None and column not in parts.task.columns:
            has = ", ".join(parts.task.columns)
            raise UserError(f"evaluate.cluster names the column '{column}', which the task does not have; it has {has}")
    return asked


def _measure(
    model: str,
    asked: Mapping[str, tuple[Stage, SamplingParts]],
    samples: int,
    seed: int,
    best: bool,
    templates: dict[str, str],
) -> tuple[dict[str, Accuracy], dict[str, TraceUse]]:
    """One model: `greedy` and `sampled`, and below the name of each suite the same; and `traces`, where some are asked
    for.
    """
    first = next(iter(asked.values()))[0]
    policy = load_model(model, compute=first.policy.compute, device=first.policy.device)
    facts, found, uses = policy.facts(), dict[str, Accuracy](), dict[str, TraceUse]()
    read = reader(facts.tokenizer, facts.eos_ids)
    for name, (stage, parts) in asked.items():
        _refuse_other_template(templates, name, model, template_for(stage.task.template, facts.tokenizer))
        prompts, _ = held_out(stage, parts, facts)
        if not prompts:
            raise UserError(f"no held-out prompt fits {model}: lower rollout.max_tokens")
        judges = [one.name for one in parts.verifiers]
        others = [one for one in parts.rewards if one.name not in judges] if best and samples > 1 else []
        # A verifier that pays nothing in the run says what is right, and has no say in which sample is the best.
        pays = {one.name for one in parts.rewards}
        rewards = [one if one.name in pays else replace(one, weight=0.0) for one in parts.verifiers]
        run = stage.run
        pool = RewardPool([*rewards, *others], run.workers, run.retries, pass_environment=run.pass_environment)
        play = parts.world.player(facts.tokenizer, facts.eos_ids, open_sampler(policy, stage.rollout))
        with closing(parts.world), pool:
            for greedy, count in ((True, 1), (False, samples)):
                if count:
                    sampling, kind = stage.evaluate.sampling(stage.rollout, greedy), "greedy" if greedy else "sampled"
                    of, asks = f"{name}/" if name else "", judges if others else ()
                    one = evaluate(
                        *(play, prompts, pool, sampling, count, seed), judges=asks, cluster=stage.evaluate.cluster
                    )
                    found[of + kind] = one
                    if greedy and stage.evaluate.traces:
                        uses[f"{of}traces"] = use_of_traces(
                            *(one, stage.evaluate.traces, play, pool, sampling, seed, read, facts.tokenizer),
                            judges=asks,
                        )
    return found, uses


def _refuse_other_template(templates: dict[str, str], name: str, model: str, template: str) -> None:
    """Refuse to pair models that are not asked the same."""
    first = templates.setdefault(name, template)
    if first != template:
        of = f"of suite '{name}' " if name else ""
        raise UserError(
            f"the questions {of}would be shown to {model} by the template {template}, and to the other model by "
            f"{first}: they cannot be paired; say task.template=none, or another that both have"
        )


def _kept(to: Path, every: Mapping[str, Mapping[str, Accuracy | TraceUse]], result: Evaluation) -> list[Path]:
    """Write every completion, a file for each model and kind, and the numbers."""
    to.mkdir(parents=True)
    files = []
    for number, of in enumerate(every.values()):
        for name, one in of.items():
            if one.groups:
                files.append(to / f"eval-{'ab'[number]}-{name.replace('/', '-')}.parquet")
                write_groups(files[-1], one.groups, 0)
    files.append(to / "eval.json")
    write_bytes(files[-1], orjson.dumps(replace(result, files=files), default=str, option=orjson.OPT_INDENT_2))
    return files


def _all(columns: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The names that any of several models has, in order."""
    return list(dict.fromkeys(name for one in columns.values() for name in one))


def _with_interval(one: Measure | None) -> str:
    return "" if one is None else f"{one.mean:.1%} [{one.low:.1%}, {one.high:.1%}]"
