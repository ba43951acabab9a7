"""The commands. Each loads what it needs when it runs, so `cohort --help` is quick; `commands.door` ends them all."""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohort import __version__
from cohort.commands.door import Answer, argument
from cohort.commands.door import run as run_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cohort.recipe import Recipe


def option(about: str, *names: str, **more: Any) -> Any:
    """An option of a command: what it does, and its names where they are not that of the parameter."""
    return typer.Option(*names, help=about, **more)


def word(about: str, **more: Any) -> Any:
    """An argument of a command."""
    return typer.Argument(help=about, **more)


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
    Path, word("A recipe file (TOML), a run directory, or a recipe that Cohort ships: quickstart.", show_default=False)
]
Overrides = Annotated[
    list[str] | None, word("key=value, e.g. rollout.group_size=4 or STAGE.run.steps=10.", show_default=False)
]
Model = Annotated[str, word("A checkpoint directory, a hub id, or a run directory.")]
Run = Annotated[Path, word("A run directory.", show_default=False)]
Seed = Annotated[int, option("Seed of the sampling.")]
SAY = partial(typer.echo, err=True)
Json = Annotated[bool, option("One JSON object on standard output, words on standard error.", "--json")]


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
    version: Annotated[bool, option("Print the version.", "--version", callback=_say_version, is_eager=True)] = False,
) -> None:
    """Cohort trains language models with GRPO and its family."""


@app.command()
def init(
    model: Annotated[str, word("What to train: a checkpoint directory or a hub id.")],
    data: Annotated[str, word("A file, a directory, a hub id, or a source such as word_problems.")],
    split: Annotated[str, option("Split of a dataset to train on.")] = "train",
    configuration: Annotated[str | None, option("Configuration of a hub dataset.", "--config")] = None,
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
        option("A benchmark to look for in the training prompts: FILE or FILE:question=COLUMN,answer=COLUMN."),
    ] = None,
    probe: Annotated[
        int, option("Questions of each benchmark whose second half the base model has to write.", min=0)
    ] = 0,
    json: Json = False,
) -> Answer:
    """Try the rewards on gold answers and junk; train nothing.

    Loads everything, shows a prompt as the policy sees it, and completions that each reward pays most and least.
    """
    loaded = _load(recipe, overrides)
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
    latex: Annotated[bool, option("The equation as LaTeX.", "--latex")] = False,
    diff: Annotated[str | None, option("What to compare with: a preset (dapo, trl, verl), a recipe or a run.")] = None,
    json: Json = False,
) -> Answer:
    """Say which objective a recipe trains, as an equation.

    Below it what each choice does, the batch plan and the hash.
    """
    from cohort.algorithms.presets import PRESETS
    from cohort.recipe.loader import shipped

    for word in overrides or []:
        if "=" not in word and (word in PRESETS or Path(word).exists() or word.endswith(".toml")):
            raise typer.BadParameter(f"one recipe is explained; to compare it: cohort explain {recipe} --diff {word}")
    loaded = _load(recipe, overrides)
    from cohort.commands.explain import explain_recipe, show, show_latex

    is_path = diff is not None and (Path(diff).exists() or shipped(diff) is not None or bool(re.search(r"[./]", diff)))
    other = _load(diff) if diff is not None and diff not in PRESETS and is_path else None
    return Answer({"stages": explain_recipe(loaded, diff, other)}, show_latex if latex else show)


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[bool, option("Continue the run exactly where it stopped.", "--resume")] = False,
    fork: Annotated[str | None, option("Begin from a checkpoint of another run.", "--from", metavar="RUN@STEP")] = None,
    dry: Annotated[
        bool, option("Say what would be done, where, and how long a step takes; train nothing.", "--dry-run")
    ] = False,
    measured: Annotated[
        Path | None, option("With --dry-run: the run whose times a step is expected to have.", metavar="RUN")
    ] = None,
    json: Json = False,
) -> Answer:
    """Run the stages of a recipe."""
    if resume and fork is not None:
        raise typer.BadParameter("--from begins a run and --resume goes on with one: give one of them")
    if measured is not None and not dry:
        raise typer.BadParameter("--measured is for --dry-run, which trains nothing")
    loaded = _load(recipe, overrides)
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
    prompt: Annotated[str, word("The question.")],
    count: Annotated[int, option("Completions.", "--count", "-n", min=1)] = 8,
    max_tokens: Annotated[int | None, option("Longest completion; the run's own, or 256.", min=1)] = None,
    temperature: Annotated[float | None, option("0 is greedy; the run's own, or 1.", min=0.0)] = None,
    template: Annotated[str | None, option("auto, chat, r1_zero or none; the run's own, or auto.")] = None,
    system: Annotated[str | None, option("The system prompt; the run's own, or none.")] = None,
    answer: Annotated[str | None, option("The gold answer, to score with.")] = None,
    reward: Annotated[str | None, option("Built-in reward or module:function; the run's own, or exact_number.")] = None,
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
    task: Annotated[str, option("word_problems, a file, or a hub id. Default: the run's own task.")] = "",
    overrides: Overrides = None,
    samples: Annotated[int, option("Sampled completions a problem.", min=0)] = 8,
    problems: Annotated[int, option("Held-out problems.", min=1)] = 500,
    against: Annotated[str | None, option("A second model, on the same problems, paired.")] = None,
    best: Annotated[
        bool, option("Also score with all rewards: how right is the best of k?", "--best/--no-best")
    ] = True,
    language: Annotated[str | None, option("Code of the language that completions should be in, such as en.")] = None,
    to: Annotated[Path | None, option("A new directory for all completions; of a run RUN/evals/001 ...")] = None,
    traces: Annotated[
        int, option("Cut, change and exchange the traces of so many: do the answers need them?", min=0)
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
    what: Annotated[str, word("A model, or a recipe that names one.", metavar="MODEL|RECIPE")],
    rest: Annotated[list[str] | None, word("Of a model: what to ask it.", metavar="[TASK] [key=value ...]")] = None,
    temperatures: Annotated[str, option("Temperatures to try, with commas.")] = "0.7,1.0,1.3",
    samples: Annotated[int, option("Completions of each prompt at each temperature.", min=4)] = 16,
    problems: Annotated[int, option("Training prompts to try.", min=1)] = 64,
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

    return Answer(run_probe(what, rest or [], tried, samples, problems, seed, SAY), show)


@app.command()
def compare(
    recipe: RecipePath,
    overrides: Overrides = None,
    controls: Annotated[
        str, option("Other rewards for its GRPO stage, with commas: random,format_only,constant,length.")
    ] = "",
    methods: Annotated[
        str, option("Methods, with commas: grpo,ppo,rloo,reinforce,rft or any preset. The first is the base.")
    ] = "",
    vary: Annotated[
        list[str] | None,
        option("Values of a key; again for another key, for all of their combinations.", metavar="KEY=a,b,c"),
    ] = None,
    seeds: Annotated[int, option("Seeds of each arm: the recipe's own and the next ones.", min=1)] = 1,
    budget: Annotated[
        str, option("What all arms have the same of: steps, or the tokens or seconds of the first.")
    ] = "steps",
    jobs: Annotated[int, option("Runs at a time, where memory allows.", min=1)] = 1,
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
    _say_stages(_load(recipe, typed))
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
    run: Annotated[Path, word("A run directory.", show_default=False)],
    step: Annotated[int | None, option("Show this step, recompute it, say where it differs.", min=1)] = None,
    group: Annotated[int | None, option("Of the step, only this group: its ticket.", min=0)] = None,
    tokens: Annotated[
        bool, option("Of the group, every token: log-probs before and after, entropy.", "--tokens")
    ] = False,
    start: Annotated[
        int | None, option("Learn again from this checkpoint; 0: from the beginning.", "--from", min=0)
    ] = None,
    learn_only: Annotated[
        bool, option("With --from: from the stored rollouts, without sampling.", "--learn-only")
    ] = False,
    steps: Annotated[str, option("With --from: learn from these steps only.", metavar="A..B")] = "",
    stage: Annotated[str, option("The stage, where several sample.")] = "",
    to: Annotated[Path | None, option("With --from: a new directory; beside the run when not given.")] = None,
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
    to: Annotated[str, option("A directory that does not exist yet, or hub:OWNER/NAME.", show_default=False)],
    form: Annotated[Form | None, option("Default: merged where there is an adapter, else as it is.", "--as")] = None,
    kind: Annotated[
        str | None, option("Of the numbers: float32, bfloat16, float16; for gguf also q8_0.", "--type")
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
    cluster: Annotated[str | None, option("Look at the Ray cluster at this address.", "--cluster")] = None,
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
        Path | None, word("A run that was measured, of at least five steps; else the newest in runs/.")
    ] = None,
    gpus: Annotated[list[int] | None, option("How many GPUs; may stand several times.", min=1, max=4096)] = None,
    staleness: Annotated[
        int | None, option("Steps that samplers may be ahead; else the run's.", min=0, max=1000)
    ] = None,
    speed: Annotated[float, option("One GPU, in times of the measured.", min=1e-3, max=1e6)] = 1.0,
    model: Annotated[
        str | None, option("The model that is planned for: its size, such as 8B, or its checkpoint.")
    ] = None,
    larger: Annotated[float | None, option("The same, in times of the run's.", min=1e-3, max=1e9)] = None,
    gpu_gb: Annotated[float, option("Memory of one GPU.", min=1e-3, max=1e6)] = 80.0,
    prompts: Annotated[int | None, option("Prompts of a step; else the run's.", min=1, max=65536)] = None,
    group_size: Annotated[int | None, option("Completions of each; else the run's.", min=1, max=65536)] = None,
    tokens: Annotated[float | None, option("Mean tokens of a completion; else the run's.", min=1, max=1e7)] = None,
    network: Annotated[float, option("GB that a GPU sends in a second.", min=1e-3, max=1e6)] = 10.0,
    hours: Annotated[float | None, option("When it has to be ready.", min=0)] = None,
    failures: Annotated[float, option("Hours between two failures of one GPU.", min=1.0)] = 10000.0,
    json: Json = False,
) -> Answer:
    """Say what a run would take on more GPUs, simulated.

    With the times of a run that was measured; its own step is simulated beside them.
    """
    from cohort.commands.plan import plan_run, show

    if model is not None and larger is not None:
        raise typer.BadParameter("--model and --larger say the same: give one of them")
    counts = gpus or [1, 2, 4, 8, 16, 32, 64]
    how = (staleness, speed, larger, hours, failures, model, gpu_gb, network, prompts, group_size, tokens)
    return Answer(plan_run(run, counts, *how), show)


@config.command("show")
def config_show(
    recipe: RecipePath,
    overrides: Overrides = None,
    origins: Annotated[bool, option("Where each value comes from.", "--origins")] = False,
    json: Json = False,
) -> Answer:
    """Print the resolved recipe."""
    from cohort.commands.config import resolved, show_origins, show_recipe

    return Answer(resolved(_load(recipe, overrides)), show_origins if origins else show_recipe)


@config.command("diff")
def config_diff(
    recipe: RecipePath,
    other: Annotated[Path | None, word("A recipe, a run or a preset; else the defaults.")] = None,
    json: Json = False,
) -> Answer:
    """Print what differs from another recipe, or the defaults.

    The other may be a run or a preset, too.
    """
    from cohort.algorithms.presets import PRESETS
    from cohort.commands.config import compared, show_difference

    against = None if other is None or str(other) in PRESETS else _load(other)
    return Answer(compared(_load(recipe), against, None if other is None else str(other)), show_difference)


@config.command("schema")
def config_schema(json: Json = False) -> Answer:
    """Print the JSON Schema of recipes."""
    from cohort.commands.config import show_schema
    from cohort.recipe import json_schema

    return Answer(json_schema(), show_schema)


@config.command("import")
def config_import(
    file: Annotated[Path, word("TRL: a GRPOConfig or a command line. verl: YAML or overrides.")], json: Json = False
) -> Answer:
    """Write a configuration of TRL or verl as a recipe.

    It goes to standard output; what has no counterpart is said on standard error.
    """
    from cohort.commands.config_import import import_recipe, show

    return Answer(import_recipe(file), show)


@record.command("rollouts")
def record_rollouts(
    run: Run,
    step: Annotated[int | None, option("The training step; the last one when not given.")] = None,
    where: Annotated[str, option("Which ones, e.g. 'reward < 0.5 and finish == \"length\"'.")] = "",
    stage: Annotated[str, option("An earlier stage of the run; the last one when not given.")] = "",
    evaluation: Annotated[str, option("Those of an evaluation: greedy, sampled or traces.", "--eval")] = "",
    limit: Annotated[int, option("The most that are shown.", min=1)] = 20,
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
    level: Annotated[int | None, option("0 form, 1 digests; above, numbers are recomputed.", min=0, max=4)] = None,
    key: Annotated[Path | None, option("The public key of whom you trust; else those known here.")] = None,
    anchor: Annotated[str, option("A head that was kept elsewhere, which must be in the chain.")] = "",
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
    rows: Annotated[str, option("Which rollouts, e.g. 'ticket == 3 and member == 0'.", show_default=False)],
    step: Annotated[int | None, option("Those of one step; of all when not given.")] = None,
    stage: Annotated[str, option("Those of an earlier stage; of all when not given.")] = "",
    reason: Annotated[str, option("Why; it goes into the record.")] = "",
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
    kind: Annotated[str, option("incident, change, monitoring or evaluation.", show_default=False)],
    text: Annotated[str, option("What happened.")] = "",
    file: Annotated[Path | None, option("A file about it, which is copied into the run.")] = None,
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
    to: Annotated[Path, option("A directory that does not exist yet.", show_default=False)],
    text: Annotated[bool, option("Whether texts and tokens go along.", "--with-text/--without-text")] = True,
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
        list[Path] | None, word("Run directories; those in runs/ when none is given.", show_default=False)
    ] = None,
    port: Annotated[int | None, option("The port; else the first free one.", min=0, max=65535)] = None,
    host: Annotated[str, option("The address; another than this machine's own needs a token.")] = "127.0.0.1",
    browser: Annotated[bool, option("Whether a browser is opened.", "--browser/--no-browser")] = True,
    export: Annotated[Path | None, option("Write the run as one HTML file, and serve nothing.")] = None,
    plot: Annotated[Path | None, option("Write its curves as a figure: PNG, PDF, SVG.")] = None,
    tty: Annotated[bool, option("Say the first screen here, and serve nothing.", "--tty")] = False,
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
    host: Annotated[str, option("The address; another than this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, option("The port; 0: a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str | None, option("What the model is called; else its directory's name.")] = None,
    rows: Annotated[int, option("Completions decoded at the same time.", min=1, max=4096)] = 32,
    timeout: Annotated[float, option("Seconds that a request may take.", min=0.1)] = 600.0,
    json: Json = False,
) -> Answer:
    """Serve a model to whatever speaks the OpenAI API.

    Chat completions, completions and models: tools, streaming, log-probs, seeds. What a run has trained is sampled as
    the run samples, unless a request says otherwise.
    """
    from cohort.commands.serve import serve as listen

    listen(model, host, port, name, rows, timeout)
    return Answer({})


def _load(recipe: Path | str, overrides: Sequence[str] | None = None) -> Recipe:
    from cohort.recipe import Recipe

    return Recipe.load(recipe, overrides or (), SAY)


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
