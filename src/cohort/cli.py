"""The commands. Each loads what it needs when it runs, so `cohort --help` is quick; `commands.door` ends them all."""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cohort import __version__
from cohort.commands.door import Answer, argument
from cohort.commands.door import run as run_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cohort.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Cohort trains language models with GRPO and its family.",
)
config = typer.Typer(no_args_is_help=True, help="The resolved recipe, its differences, its schema.")
app.add_typer(config, name="config")
record = typer.Typer(no_args_is_help=True, help="What a run has written down.")
app.add_typer(record, name="record")

RecipePath = Annotated[
    Path,
    typer.Argument(
        help="A recipe file (TOML), a run directory, or a recipe that Cohort ships: quickstart.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, e.g. rollout.group_size=4 or STAGE.run.steps=10.", show_default=False),
]
Model = Annotated[str, typer.Argument(help="A checkpoint directory, a hub id, or a run directory.")]
Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed of the sampling.")]
SAY = partial(typer.echo, err=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, words on standard error.")]


class Form(StrEnum):
    """How a model is written."""

    merged = "merged"
    adapter = "adapter"
    gguf = "gguf"


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cohort {__version__}")
        raise typer.Exit


@app.callback()
def cohort(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Cohort trains language models with GRPO and its family."""


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="What to train: a checkpoint directory or a hub id.")],
    data: Annotated[str, typer.Argument(help="A file, a directory, a hub id, or a source such as word_problems.")],
    split: Annotated[str, typer.Option(help="Split of a dataset to train on.")] = "train",
    configuration: Annotated[str | None, typer.Option("--config", help="Configuration of a hub dataset.")] = None,
    json: Json = False,
) -> Answer:
    """Write a commented starter recipe from the columns of the data.

    It goes to standard output; what was taken for what is said on standard error.
    """
    from cohort.commands.init import show, starter

    return Answer(starter(model, data, split, configuration), show)


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="A benchmark to look for in the training prompts: FILE or FILE:question=COLUMN,answer=COLUMN."
        ),
    ] = None,
    probe: Annotated[
        int, typer.Option(min=0, help="Questions of each benchmark whose second half the base model has to write.")
    ] = 0,
    json: Json = False,
) -> Answer:
    """Try the rewards on gold answers and junk; train nothing.

    Loads everything, shows a prompt as the policy sees it, and completions that each reward pays most and least.
    """
    from cohort.recipe import Recipe

    loaded = Recipe.load(recipe, overrides or (), SAY)
    _say_stages(loaded)
    from cohort.commands.check import check_recipe
    from cohort.views.console import Console

    stages = check_recipe(loaded, Console(), against or [], probe)
    holds = all(stage.holds for stage in stages)
    return Answer({"holds": holds, "stages": stages}, holds=holds)


@app.command()
def explain(
    recipe: RecipePath,
    overrides: Overrides = None,
    latex: Annotated[bool, typer.Option("--latex", help="The equation as LaTeX.")] = False,
    diff: Annotated[
        str | None, typer.Option(help="What to compare with: a preset (dapo, trl, verl), a recipe or a run.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Say which objective a recipe trains, as an equation.

    Below it what each choice does, the batch plan and the hash.
    """
    from cohort.algorithms.presets import PRESETS
    from cohort.recipe import Recipe
    from cohort.recipe.loader import shipped

    for word in overrides or []:
        if "=" not in word and (word in PRESETS or Path(word).exists() or word.endswith(".toml")):
            raise typer.BadParameter(f"one recipe is explained; to compare it: cohort explain {recipe} --diff {word}")
    loaded = Recipe.load(recipe, overrides or (), SAY)
    from cohort.commands.explain import explain_recipe, show, show_latex

    is_path = diff is not None and (Path(diff).exists() or shipped(diff) is not None or bool(re.search(r"[./]", diff)))
    other = Recipe.load(diff, (), SAY) if diff is not None and diff not in PRESETS and is_path else None
    return Answer({"stages": explain_recipe(loaded, diff, other)}, show_latex if latex else show)


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run exactly where it stopped.")] = False,
    fork: Annotated[
        str | None, typer.Option("--from", metavar="RUN@STEP", help="Begin from a checkpoint of another run.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, where, and how long a step takes; train nothing.")
    ] = False,
    measured: Annotated[
        Path | None, typer.Option(metavar="RUN", help="With --dry-run: the run whose times a step is expected to have.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Run the stages of a recipe."""
    if resume and fork is not None:
        raise typer.BadParameter("--from begins a run and --resume goes on with one: give one of them")
    if measured is not None and not dry:
        raise typer.BadParameter("--measured is for --dry-run, which trains nothing")
    from cohort.recipe import Recipe

    loaded = Recipe.load(recipe, overrides or (), SAY)
    if resume or not Path(loaded.stages[-1].run.directory, loaded.name, "metrics.jsonl").expanduser().exists():
        _say_stages(loaded)  # else it is refused, with that sentence alone
    from cohort.commands.train import outcome
    from cohort.train.place import where_trained
    from cohort.train.run import train as run

    if dry:
        from cohort.commands.dry_run import dry_run
        from cohort.views.console import Console

        return Answer({"stages": dry_run(loaded, Console(), resume=resume, fork=fork, measured=measured)})
    with where_trained(loaded.file.parent) if resume and loaded.file else contextlib.nullcontext():
        return Answer(outcome(run(loaded, resume=resume, fork=fork)))


@app.command()
def sample(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="The question.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Completions.")] = 8,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest completion; the run's own, or 256.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 is greedy; the run's own, or 1.")] = None,
    template: Annotated[str | None, typer.Option(help="auto, chat, r1_zero or none; the run's own, or auto.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt; the run's own, or none.")] = None,
    answer: Annotated[str | None, typer.Option(help="The gold answer, to score with.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Built-in reward or module:function; the run's own, or exact_number.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> Answer:
    """Print a group of completions, of a run as it sampled them.

    With scores, where the gold answer is given.
    """
    from cohort.commands.sample import sample_group, show

    given = {"max_tokens": max_tokens, "temperature": temperature, "template": template, "system": system}
    return Answer(sample_group(model, prompt, count, answer, seed, reward, **given), show)


@app.command("eval")
def evaluate(
    model: Model,
    task: Annotated[str, typer.Option(help="word_problems, a file, or a hub id. Default: the run's own task.")] = "",
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=0, help="Sampled completions a problem.")] = 8,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 500,
    against: Annotated[str | None, typer.Option(help="A second model, on the same problems, paired.")] = None,
    best: Annotated[
        bool, typer.Option("--best/--no-best", help="Also score with all rewards: how right is the best of k?")
    ] = True,
    language: Annotated[
        str | None, typer.Option(help="Code of the language that completions should be in, such as en.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="A new directory for all completions; of a run RUN/evals/001 ..."),
    ] = None,
    traces: Annotated[
        int, typer.Option(min=0, help="Cut, change and exchange the traces of so many: do the answers need them?")
    ] = 0,
    seed: Seed = 0,
    json: Json = False,
) -> Answer:
    """Measure held-out accuracy, with 95% intervals.

    Greedy, pass@k, the vote and the best of k; and behaviour.
    """
    if Path(model).expanduser().exists():
        _say_at_once(f"{model}: loading")
    from cohort.commands.evaluate import run_evaluation, show

    given = (model, task or None, overrides or [], samples, problems, against, seed, best, language, to, traces)
    return Answer(run_evaluation(*given), show)


@app.command()
def probe(
    what: Annotated[str, typer.Argument(metavar="MODEL|RECIPE", help="A model, or a recipe that names one.")],
    rest: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK] [key=value ...]", help="Of a model: what to ask it.")
    ] = None,
    temperatures: Annotated[str, typer.Option(help="Temperatures to try, with commas.")] = "0.7,1.0,1.3",
    samples: Annotated[int, typer.Option(min=4, help="Completions of each prompt at each temperature.")] = 16,
    problems: Annotated[int, typer.Option(min=1, help="Training prompts to try.")] = 64,
    seed: Seed = 0,
    json: Json = False,
) -> Answer:
    """Before training: how often the model is right.

    Which groups would carry signal, and what to set.
    """
    try:
        tried = [float(one) for one in temperatures.split(",")]
    except ValueError:
        tried = []
    if not tried or min(tried) <= 0:
        raise typer.BadParameter("--temperatures takes numbers above 0 with commas, such as 0.7,1.0")
    typer.echo(f"{what}: loading", err=True)  # a part of a recipe goes to standard output
    from cohort.commands.probe import run_probe, show

    return Answer(run_probe(what, rest or [], tried, samples, problems, seed), show)


@app.command()
def compare(
    recipe: RecipePath,
    overrides: Overrides = None,
    controls: Annotated[
        str, typer.Option(help="Other rewards for its GRPO stage, with commas: random,format_only,constant,length.")
    ] = "",
    methods: Annotated[
        str,
        typer.Option(help="Methods, with commas: grpo,ppo,rloo,reinforce,rft or any preset. The first is the base."),
    ] = "",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=a,b,c", help="Values of a key; again for another key, for all of their combinations."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm: the recipe's own and the next ones.")] = 1,
    budget: Annotated[
        str, typer.Option(help="What all arms have the same of: steps, or the tokens or seconds of the first.")
    ] = "steps",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, where memory allows.")] = 1,
    json: Json = False,
) -> Answer:
    """Train a recipe in several ways, from the same weights.

    Beside its controls (what of its gain needs right answers?), by other methods, with other values of a key.
    """
    names, other = (
        list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip())) for text in (controls, methods)
    )
    if not (names or other or vary):
        raise typer.BadParameter(
            "say what to compare with: --controls random,format_only,constant,length; --methods grpo,ppo,rloo; or "
            "--vary rollout.group_size=4,8,16"
        )
    from cohort.recipe import Recipe

    typed = list(overrides or ())
    _say_stages(Recipe.load(recipe, typed, SAY))
    from cohort.commands.compare import run_comparison, show
    from cohort.train.compare.arms import Asked

    def read(more: Sequence[str]) -> Recipe:
        return Recipe.load(recipe, [*typed, *more])

    asked = Asked(names, other, vary or (), seeds, budget, typed)
    return Answer(run_comparison(read, asked, jobs), show)


@app.command()
def diagnose(run: Run, json: Json = False) -> Answer:
    """Say what went wrong in a run, the likeliest cause first.

    Each with the groups that show it, and with what to try.
    """
    from cohort.commands.diagnose import diagnose as found_in
    from cohort.commands.diagnose import show

    return Answer(found_in(run), show)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    step: Annotated[int | None, typer.Option(min=1, help="Show this step, recompute it, say where it differs.")] = None,
    group: Annotated[int | None, typer.Option(min=0, help="Of the step, only this group: its ticket.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Of the group, every token: log-probs before and after, entropy.")
    ] = False,
    start: Annotated[
        int | None, typer.Option("--from", min=0, help="Learn again from this checkpoint; 0: from the beginning.")
    ] = None,
    learn_only: Annotated[
        bool, typer.Option("--learn-only", help="With --from: from the stored rollouts, without sampling.")
    ] = False,
    steps: Annotated[str, typer.Option(metavar="A..B", help="With --from: learn from these steps only.")] = "",
    stage: Annotated[str, typer.Option(help="The stage, where several sample.")] = "",
    to: Annotated[
        Path | None, typer.Option(help="With --from: a new directory; beside the run when not given.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Recompute a recorded step, or train again, and compare.

    Trains again from stored rollouts, with --from N --learn-only.
    """
    again = start is not None
    if (step is not None) == again or learn_only != again:
        raise typer.BadParameter("give --step N; or --from N with --learn-only")
    if (group is not None and again) or ((steps or to) and not again):
        raise typer.BadParameter("--group goes with --step; --steps and --to go with --from")
    if tokens and group is None:
        raise typer.BadParameter("--tokens goes with --step and --group")
    _say_at_once(f"{run}: loading")
    from cohort.commands.replay import replay_from, replay_step, replay_tokens, show, show_again, show_tokens

    if start is not None:
        found = replay_from(run, start, steps, stage, to)
        return Answer(found, show_again, holds=found.same is not False)
    assert step is not None
    if tokens and group is not None:
        return Answer(replay_tokens(run, step, group, stage), show_tokens)
    shown = replay_step(run, step, group, stage)
    return Answer(shown, show, holds=shown["holds"])


@app.command()
def export(
    model: Model,
    to: Annotated[
        str, typer.Option(help="A directory that does not exist yet, or hub:OWNER/NAME.", show_default=False)
    ],
    form: Annotated[
        Form | None, typer.Option("--as", help="Default: merged where there is an adapter, else as it is.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="Of the numbers: float32, bfloat16, float16; for gguf also q8_0.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Write the model of a run for others.

    It is read back in a new process and compared before it is kept.
    """
    from cohort.commands.export import export as write
    from cohort.commands.export import show

    return Answer(write(model, form.value if form else None, to, kind), show)


@app.command()
def doctor(
    cluster: Annotated[str | None, typer.Option("--cluster", help="Look at the Ray cluster at this address.")] = None,
    json: Json = False,
) -> Answer:
    """Say what this machine has, and what would not work.

    And which thread count is fastest. With --cluster the same of its nodes.
    """
    from cohort.commands.doctor import examine, show, show_nodes

    if cluster is not None:
        from cohort.backends.cluster.examine import examine_cluster

        return Answer(
            {"nodes": (nodes := examine_cluster(cluster))}, show_nodes, not any(n.would_not_work for n in nodes)
        )
    return Answer(examine(), show)


@app.command()
def plan(
    run: Annotated[
        Path | None, typer.Argument(help="A run that was measured, of at least five steps; else the newest in runs/.")
    ] = None,
    gpus: Annotated[
        list[int] | None, typer.Option(min=1, max=4096, help="How many GPUs; may stand several times.")
    ] = None,
    staleness: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Steps that samplers may be ahead; else the run's.")
    ] = None,
    speed: Annotated[float, typer.Option(min=1e-3, max=1e6, help="One GPU, in times of the measured.")] = 1.0,
    model: Annotated[
        str | None, typer.Option(help="The model that is planned for: its size, such as 8B, or its checkpoint.")
    ] = None,
    larger: Annotated[float | None, typer.Option(min=1e-3, max=1e9, help="The same, in times of the run's.")] = None,
    gpu_gb: Annotated[float, typer.Option(min=1e-3, max=1e6, help="Memory of one GPU.")] = 80.0,
    prompts: Annotated[int | None, typer.Option(min=1, max=65536, help="Prompts of a step; else the run's.")] = None,
    group_size: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Completions of each; else the run's.")
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(min=1, max=1e7, help="Mean tokens of a completion; else the run's.")
    ] = None,
    network: Annotated[float, typer.Option(min=1e-3, max=1e6, help="GB that a GPU sends in a second.")] = 10.0,
    hours: Annotated[float | None, typer.Option(min=0, help="When it has to be ready.")] = None,
    failures: Annotated[float, typer.Option(min=1.0, help="Hours between two failures of one GPU.")] = 10000.0,
    json: Json = False,
) -> Answer:
    """Say what a run would take on more GPUs, simulated.

    With the times of a run that was measured; its own step is simulated beside them.
    """
    from cohort.commands.plan import plan_run, show

    if model is not None and larger is not None:
        raise typer.BadParameter("--model and --larger say the same: give one of them")
    counts = gpus or [1, 2, 4, 8, 16, 32, 64]
    how = {
        "staleness": staleness,
        "speed": speed,
        "larger": larger,
        "model": model,
        "gpu_gb": gpu_gb,
        "prompts": prompts,
        "group_size": group_size,
        "tokens": tokens,
        "network": network,
        "hours": hours,
        "failures_h": failures,
    }
    return Answer(plan_run(run, counts, **how), show)  # type: ignore[arg-type]


@config.command("show")
def config_show(
    recipe: RecipePath,
    overrides: Overrides = None,
    origins: Annotated[bool, typer.Option("--origins", help="Where each value comes from.")] = False,
    json: Json = False,
) -> Answer:
    """Print the resolved recipe."""
    from cohort.commands.config import resolved, show_origins, show_recipe
    from cohort.recipe import Recipe

    return Answer(resolved(Recipe.load(recipe, overrides or (), SAY)), show_origins if origins else show_recipe)


@config.command("diff")
def config_diff(
    recipe: RecipePath,
    other: Annotated[Path | None, typer.Argument(help="A recipe, a run or a preset; else the defaults.")] = None,
    json: Json = False,
) -> Answer:
    """Print what differs from another recipe, or the defaults.

    The other may be a run or a preset, too.
    """
    from cohort.algorithms.presets import PRESETS
    from cohort.commands.config import compared, show_difference
    from cohort.recipe import Recipe

    loaded = Recipe.load(recipe, (), SAY)
    against = None if other is None or str(other) in PRESETS else Recipe.load(other, (), SAY)
    return Answer(compared(loaded, against, None if other is None else str(other)), show_difference)


@config.command("schema")
def config_schema(json: Json = False) -> Answer:
    """Print the JSON Schema of recipes."""
    from cohort.commands.config import show_schema
    from cohort.recipe import json_schema

    return Answer(json_schema(), show_schema)


@config.command("import")
def config_import(
    file: Annotated[Path, typer.Argument(help="TRL: a GRPOConfig or a command line. verl: YAML or overrides.")],
    json: Json = False,
) -> Answer:
    """Write a configuration of TRL or verl as a recipe.

    It goes to standard output; what has no counterpart is said on standard error.
    """
    from cohort.commands.config_import import import_recipe, show

    return Answer(import_recipe(file), show)


@record.command("rollouts")
def record_rollouts(
    run: Run,
    step: Annotated[int | None, typer.Option(help="The training step; the last one when not given.")] = None,
    where: Annotated[str, typer.Option(help="Which ones, e.g. 'reward < 0.5 and finish == \"length\"'.")] = "",
    stage: Annotated[str, typer.Option(help="An earlier stage of the run; the last one when not given.")] = "",
    evaluation: Annotated[str, typer.Option("--eval", help="Those of an evaluation: greedy, sampled or traces.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="The most that are shown.")] = 20,
    json: Json = False,
) -> Answer:
    """Print sampled completions to read, with scores and why.

    Conversations as such.
    """
    from cohort.commands.record import rollouts, show

    return Answer(rollouts(run, step, where, stage, evaluation, limit), show)


@record.command("verify")
def record_verify(
    run: Run,
    level: Annotated[
        int | None, typer.Option(min=0, max=4, help="0 form, 1 digests; above, numbers are recomputed.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The public key of whom you trust; else those known here.")] = None,
    anchor: Annotated[str, typer.Option(help="A head that was kept elsewhere, which must be in the chain.")] = "",
    json: Json = False,
) -> Answer:
    """Check that a run is as its record says.

    Exit code 0: it is; 1: something is not; 2: it has no record.
    """
    from cohort.commands.verify import checked, show_report

    found = checked(run, level, key, anchor)
    return Answer(found, show_report, holds=found["holds"])


@record.command("redact")
def record_redact(
    run: Run,
    rows: Annotated[str, typer.Option(help="Which rollouts, e.g. 'ticket == 3 and member == 0'.", show_default=False)],
    step: Annotated[int | None, typer.Option(help="Those of one step; of all when not given.")] = None,
    stage: Annotated[str, typer.Option(help="Those of an earlier stage; of all when not given.")] = "",
    reason: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "",
    json: Json = False,
) -> Answer:
    """Erase prompts, completions and their tokens.

    The record says so, and the run still verifies.
    """
    from cohort.commands.verify import redacted, show_entry

    return Answer(redacted(run, rows, step, stage, reason), show_entry)


@record.command("amend")
def record_amend(
    run: Run,
    kind: Annotated[str, typer.Option(help="incident, change, monitoring or evaluation.", show_default=False)],
    text: Annotated[str, typer.Option(help="What happened.")] = "",
    file: Annotated[Path | None, typer.Option(help="A file about it, which is copied into the run.")] = None,
    json: Json = False,
) -> Answer:
    """Append what happened after the run.

    An incident, a change, an observation, an evaluation from elsewhere.
    """
    from cohort.commands.verify import amended, show_entry

    return Answer(amended(run, kind, text, file), show_entry)


@record.command("show")
def record_show(run: Run, json: Json = False) -> Answer:
    """Print the record of a run.

    Every fact with what it rests on, the gaps, and how complete it is.
    """
    from cohort.commands.account import record_of, show_record

    return Answer(record_of(run), show_record)


@record.command("diff")
def record_diff(run: Run, other: Run, json: Json = False) -> Answer:
    """Compare two runs, choice by choice.

    With the consequence of each difference, and what they found.
    """
    from cohort.commands.account import compared, show_difference

    return Answer(compared(run, other), show_difference)


@record.command("export")
def record_export(
    run: Run,
    to: Annotated[Path, typer.Option(help="A directory that does not exist yet.", show_default=False)],
    text: Annotated[bool, typer.Option("--with-text/--without-text", help="Whether texts and tokens go along.")] = True,
    json: Json = False,
) -> Answer:
    """Write the record for other tools, each file checked.

    CycloneDX, in-toto and SLSA, Croissant, cards, crosswalks.
    """
    from cohort.commands.account import export, show_export

    return Answer(export(run, to, text), show_export)


@app.command()
def view(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories; those in runs/ when none is given.", show_default=False),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The port; else the first free one.")] = None,
    host: Annotated[
        str, typer.Option(help="The address; another than this machine's own needs a token.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Whether a browser is opened.")] = True,
    export: Annotated[Path | None, typer.Option(help="Write the run as one HTML file, and serve nothing.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write its curves as a figure: PNG, PDF, SVG.")] = None,
    tty: Annotated[bool, typer.Option("--tty", help="Say the first screen here, and serve nothing.")] = False,
    json: Json = False,
) -> Answer:
    """Show runs in a browser: did it work, and why.

    Reads run directories alone, also of runs that go on; this machine only, offline. --json says the first screen.
    """
    from cohort.commands import view as viewing

    with argument():
        opened = viewing.opened(runs or [])
    if (export or plot) and len(opened) > 1:
        raise typer.BadParameter("--export and --plot take one run")
    if export is not None:
        return Answer(viewing.export(opened[0], export), viewing.show_file)
    if plot is not None:
        return Answer(viewing.plot(opened[0], plot), viewing.show_file)
    if not (tty or json):
        viewing.serve(opened, host, port, browser)
        return Answer({})
    return Answer(viewing.overviews(opened), viewing.show)


@app.command()
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="The address; another than this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What the model is called; else its directory's name.")] = None,
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Completions decoded at the same time.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 600.0,
    json: Json = False,
) -> Answer:
    """Serve a model to whatever speaks the OpenAI API.

    Chat completions, completions and models: tools, streaming, log-probs, seeds. What a run has trained is sampled as
    the run samples, unless a request says otherwise.
    """
    from cohort.commands.serve import serve as listen

    listen(model, host, port, name, rows, timeout)
    return Answer({})


def _say_stages(recipe: Recipe) -> None:
    _say_at_once(f"{recipe.name}: {' -> '.join(stage.name for stage in recipe.stages)}; loading")


def _say_at_once(text: str) -> None:
    """A line before torch is imported, which takes seconds."""
    from cohort.views.console import Console

    Console().plain(f"{text}\n")


def main() -> None:
    """Run the command line and leave the process."""
    run_app(app)


if __name__ == "__main__":
    main()
