"""The command line. Every command loads what it needs when it runs, so `cohort --help` is quick."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cohort.types import UserError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Cohort trains language models with GRPO and its family.",
)
config = typer.Typer(no_args_is_help=True, help="The resolved recipe, its differences from the defaults, its schema.")
app.add_typer(config, name="config")

INTERRUPTED = 130  # what typer makes of Ctrl-C, as shells do

RecipePath = Annotated[
    Path,
    typer.Argument(
        help="A recipe file (TOML), a run directory, or a recipe that Cohort ships: quickstart.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, e.g. rollout.group_size=4 or STAGE.run.steps=10.", show_default=False),
]


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run exactly where it stopped.")] = False,
) -> None:
    """Run the stages of a recipe."""
    loaded = _load(recipe, overrides)
    from cohort.train import train as run

    run(loaded, resume=resume)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint directory, a hub id, or a run directory.")],
    task: Annotated[str, typer.Option(help="word_problems, a file, or a hub id. Default: the run's own task.")] = "",
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=0, help="Sampled completions a problem.")] = 8,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 500,
    against: Annotated[str | None, typer.Option(help="A second model, on the same problems, paired.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
) -> None:
    """Measure held-out accuracy: greedy, and sampled with pass@k, with 95% intervals."""
    from cohort.commands.evaluate import run_evaluation

    run_evaluation(model, task or None, overrides or [], samples, problems, against, seed)


@app.command()
def explain(
    recipe: RecipePath,
    overrides: Overrides = None,
    latex: Annotated[bool, typer.Option("--latex", help="The equation as LaTeX.")] = False,
    diff: Annotated[str | None, typer.Option(help="A preset to compare with, e.g. dapo, trl, verl.")] = None,
) -> None:
    """Say which objective a recipe trains: the equation, what each choice does, the batch plan, the hash."""
    loaded = _load(recipe, overrides)
    from cohort.commands.explain import explain_recipe

    explain_recipe(loaded, latex, diff)


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Load everything, score gold answers and junk with every reward, and train nothing."""
    loaded = _load(recipe, overrides)
    from cohort.commands.check import check_recipe

    raise typer.Exit(0 if check_recipe(loaded) else 1)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="A checkpoint directory, a hub id, or a run directory.")],
    prompt: Annotated[str, typer.Argument(help="The question.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Completions.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    template: Annotated[str, typer.Option(help="chat, r1_zero or none.")] = "chat",
    answer: Annotated[str | None, typer.Option(help="The gold answer, to score with.")] = None,
    reward: Annotated[str, typer.Option(help="Built-in reward or module:function.")] = "exact_number",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
) -> None:
    """Print a group of completions, with scores when the gold answer is given."""
    from cohort.commands.sample import sample_group

    sample_group(model, prompt, count, max_tokens, temperature, template, answer, reward, seed)


@app.command()
def doctor() -> None:
    """Say what this machine has, which thread count is fastest, and what would not work here and why."""
    from cohort.commands.doctor import examine

    examine()


@config.command("show")
def config_show(
    recipe: RecipePath,
    overrides: Overrides = None,
    origins: Annotated[bool, typer.Option("--origins", help="Where each value comes from.")] = False,
) -> None:
    """Print the resolved recipe."""
    loaded = _load(recipe, overrides)
    from cohort.recipe import to_toml

    if origins:
        width = max(map(len, loaded.origins))
        for path, origin in loaded.origins.items():
            typer.echo(f"{path:<{width}}  {origin}")
    else:
        typer.echo(to_toml(loaded), nl=False)


@config.command("diff")
def config_diff(
    recipe: RecipePath,
    other: Annotated[Path | None, typer.Argument(help="Another recipe; the defaults when not given.")] = None,
) -> None:
    """Print what differs from the defaults, or from another recipe."""
    loaded = _load(recipe, None)
    from cohort.recipe import against_defaults, differences

    found = differences(_load(other, None), loaded) if other else against_defaults(loaded)
    for path, theirs, mine in found:
        typer.echo(f"{path}: {mine!r} here, {theirs!r} {f'in {other}' if other else 'by default'}")
    if not found:
        typer.echo("no differences")


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of recipes."""
    import orjson

    from cohort.recipe import json_schema

    typer.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2).decode())


def _load(path: Path, overrides: list[str] | None):  # type: ignore[no-untyped-def]  # Recipe is imported late
    from cohort.recipe import Recipe
    from cohort.recipe.loader import shipped

    ours = shipped(str(path))
    if ours is not None and path.exists():
        typer.echo(f"recipe {path}: the path here, not the recipe of that name that Cohort ships", err=True)
    elif ours is not None:
        typer.echo(f"recipe {path}: the one that Cohort ships, {ours}", err=True)
        path = ours
    if (path / "recipe.toml").is_file():
        path = path / "recipe.toml"  # a run says what it ran
    return Recipe.load(path, overrides or [])


def main() -> None:
    """Run the command line; what a person can mend is one message and exit code 1, never a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code = 0
    try:
        code = app(standalone_mode=False) or 0
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        code = 1
    except TyperException as error:  # a wrong option or argument
        print(f"error: {error.format_message()}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # `cohort explain ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    if code == INTERRUPTED:
        print("stopped; `cohort train` continues with --resume", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
