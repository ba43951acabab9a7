"""From a recipe to a finished run: the run directory, the stages in order, the final model."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError

from cohort.monitor.console import Console
from cohort.monitor.libraries import quiet_libraries
from cohort.monitor.machine import describe_machine, fastest_threads
from cohort.policy.load import save_policy
from cohort.policy.policy import Policy
from cohort.recipe import Recipe, digest, to_toml
from cohort.record.files import new_directory, write_bytes
from cohort.record.inputs import fingerprints
from cohort.record.metrics import read_metrics
from cohort.seeds import derive_seed
from cohort.settings import Stage
from cohort.train.card import model_card
from cohort.train.checkpoint import latest_checkpoint
from cohort.train.gate import pass_gate, read_gate, without
from cohort.train.grpo import run_grpo
from cohort.train.isolation import isolation_of
from cohort.train.reward_model import run_reward_model
from cohort.train.reward_model_card import reward_model_card
from cohort.train.reward_model_pairs import RewardModelParts, check_reward_model
from cohort.train.setup import GrpoParts, check_grpo, open_stage_demonstrations
from cohort.train.sft import run_sft
from cohort.train.stage_models import run_directory, stage_directory, waits_for, with_stage_models
from cohort.train.stage_run import StageRun
from cohort.types import UserError

__all__ = ["Run", "train"]

# Keys that may change between a run and its continuation: they do not touch what is computed.
MAY_CHANGE = {
    *("save_every", "evaluate_every", "keep_checkpoints", "show_group_every", "workers", "directory", "save_rollouts"),
    *("retries", "failure_budget", "failure_window", "gate"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    directory: Path

    @property
    def final(self) -> Path:
        """The trained model: a Hugging Face checkpoint."""
        return self.directory / "final"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The steps of the last stage."""
        return read_metrics(self.directory / "metrics.jsonl")


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    console: Console | None = None,
    model: Any = None,
    tokenizer: Any = None,
) -> Run:
    """Run all stages of a recipe.

    With `resume` a run that was interrupted goes on, exactly; one that is finished is only shown; one that was never
    begun is begun. `model` and `tokenizer` serve a recipe whose policy.model is "live".

    Raises `UserError` for everything that a person can mend, most of it before any model loads.
    """
    quiet_libraries()
    console = console or Console()
    checked = [_check(recipe, index) for index in range(len(recipe.stages))]
    directory = run_directory(recipe)
    _refuse_existing(directory, recipe, resume)
    with _locked(directory):
        if not _begun(directory):
            pass_gate(directory, _to_test(recipe, checked), console)
        threads = _settle(directory, recipe, console, isolation_of(_grpo_stages(recipe, checked)))
        with _deterministic(threads):
            start: str | None = None
            for index, parts in enumerate(checked):
                run = _stage_run(recipe, index, threads, console, start, (model, tokenizer))
                if not _finished(run):
                    with _disk_errors(directory):
                        _run_stage(run, parts, recipe, read_gate(directory, run.stage.name))
                if run.stage.kind != "reward_model":  # it scores what a policy writes, and is none itself
                    start = str(run.final)
    last = checked[-1]
    _summary(recipe, directory, last.verifier_name if isinstance(last, GrpoParts) else "", console)
    return Run(directory)


def _check(recipe: Recipe, index: int) -> Any:
    """Everything of a stage that can be checked before a model loads."""
    stage, seed = with_stage_models(recipe, index), _seed(recipe, index)
    if index == 0 and stage.policy.model is None and stage.policy.scratch is None:
        raise UserError(
            "the recipe names no model: set policy.model to a checkpoint directory or a hub id, or give policy.scratch"
        )
    if stage.kind == "reward_model":
        return check_reward_model(stage)
    return check_grpo(stage, seed) if stage.kind == "grpo" else open_stage_demonstrations(stage, seed)


def _to_test(recipe: Recipe, checked: Sequence[Any]) -> list[tuple[Stage, GrpoParts, int]]:
    """The stages whose rewards go through the gate; without the rewards whose models have yet to be trained."""
    return [
        (recipe.stages[index], without(parts, waits_for(recipe.stages[index])), _seed(recipe, index))
        for index, parts in enumerate(checked)
        if isinstance(parts, GrpoParts)
    ]


def _grpo_stages(recipe: Recipe, checked: Sequence[Any]) -> list[tuple[Stage, GrpoParts]]:
    pairs = zip(recipe.stages, checked, strict=True)
    return [(stage, parts) for stage, parts in pairs if isinstance(parts, GrpoParts)]


def _seed(recipe: Recipe, index: int) -> int:
    return derive_seed(recipe.seed, "stage", index)


def _stage_run(
    recipe: Recipe,
    index: int,
    threads: int,
    console: Console,
    start: str | None,
    live: tuple[Any, Any],
) -> StageRun:
    stage, count, where = recipe.stages[index], len(recipe.stages), stage_directory(recipe, index)
    title = recipe.name if count == 1 else f"{recipe.name}: stage {index + 1} of {count}, {stage.name}"
    return StageRun(
        stage, title, _seed(recipe, index), where, threads, console, start, live if live[0] is not None else None
    )


def _finished(run: StageRun) -> bool:
    """Whether the stage has its final model, and no more steps were asked for since."""
    last = latest_checkpoint(run.directory / "checkpoints")
    return run.final.exists() and (last is None or last.step >= run.stage.run.steps)


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    """A full or failing disk is something a person can mend."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, SafetensorError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise UserError(
                f"cannot write to {directory} ({error}); free some space and continue with --resume"
            ) from None
        raise


def _run_stage(run: StageRun, parts: Any, recipe: Recipe, gate: dict[str, Any]) -> None:
    if isinstance(parts, RewardModelParts):
        scorer = run_reward_model(run, parts)
        with new_directory(run.final) as final:
            scorer.save(final)
            (final / "README.md").write_text(reward_model_card(recipe, run), encoding="utf-8")
        return
    policy: Policy = run_grpo(run, parts) if isinstance(parts, GrpoParts) else run_sft(run, parts)
    with new_directory(run.final) as final:
        save_policy(policy, final)
        (final / "README.md").write_text(model_card(recipe, run, gate), encoding="utf-8")
    policy.release()


def _begun(directory: Path) -> bool:
    """Whether a run got as far as its first evaluation or step. A start that failed before leaves nothing to keep."""
    return any((directory / name).exists() for name in ("metrics.jsonl", "checkpoints", "final", "stages"))


def _refuse_existing(directory: Path, recipe: Recipe, resume: bool) -> None:
    """A run is never overwritten, and never continued with another recipe."""
    saved = directory / "recipe.toml"
    if not _begun(directory) or not saved.exists():
        return
    if not resume:
        raise UserError(
            f"{directory} already holds a run. Continue it with --resume, start another with name=OTHER, "
            "or delete the directory."
        )
    try:
        before, now = (_flat(tomllib.loads(text)) for text in (saved.read_text(), to_toml(recipe)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{saved} is damaged ({error}); restore it, or start another run with name=OTHER") from None
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    changed = [key for key in changed if not _may_change(key, before.get(key), now.get(key), recipe)]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed[:5])
        raise UserError(
            f"{directory} was begun with another recipe, so it cannot be continued with this one: {listed}. "
            "Restore the recipe, or start another run with name=OTHER."
        )


def _may_change(key: str, before: Any, now: Any, recipe: Recipe) -> bool:
    """Whether a run may go on with another value of this key: what was done so far would have been the same."""
    table, _, name = key.rpartition(".")
    last = recipe.stages[-1]
    if table == "run" or table.endswith(".run"):
        of_last = table == "run" or table == f"stage.{len(recipe.stages) - 1}.run"
        if name == "steps":  # more steps, where the learning rate does not depend on how many there are
            return of_last and last.optimizer.schedule == "constant" and isinstance(before, int) and now > before
        return name in MAY_CHANGE
    return name == "timeout_s"


def _flat(tables: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tables, dict):
        return {k: v for key, value in tables.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    if isinstance(tables, list) and tables and isinstance(tables[0], dict):
        return {k: v for i, value in enumerate(tables) for k, v in _flat(value, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): tables}


@contextlib.contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Every sum in a fixed order, as bit-exact resume needs it; torch's settings are the caller's again afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for cuBLAS, which reads it when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written, so torch need not fill it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process a run. The lock goes with the process, however it ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot write to {directory}: {error.strerror}; choose another with run.directory=DIR"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {directory}; wait for it or choose name=OTHER") from None
        yield


def _settle(directory: Path, recipe: Recipe, console: Console, sandbox: Mapping[str, Any]) -> int:
    """Write the resolved recipe and the environment once, with what `isolation_of` says. A continued run keeps its
    number of threads: sums over other numbers of threads have other last bits.
    """
    file = directory / "environment.json"
    now = describe_machine()
    if file.exists() and _begun(directory):
        before = orjson.loads(file.read_bytes())
        _refuse_changed_inputs(before.get("inputs", {}), recipe)
        changed = [k for k, v in now["packages"].items() if before["packages"].get(k) != v]
        if changed:
            console.warn(f"other versions than when the run began ({', '.join(changed)}): the last bits may differ")
        if before.get("kernels") != now["kernels"]:
            console.warn(f"kernels were '{before.get('kernels')}', are '{now['kernels']}': the last bits may differ")
        for name, isolation in sandbox.items():
            level = before.get("sandbox", {}).get(name, {}).get("level")
            if level != isolation["level"]:
                console.warn(f"the sandbox of {name} was '{level}' when the run began, and is '{isolation['level']}'")
        write_bytes(directory / "recipe.toml", to_toml(recipe).encode())
        return int(before["threads"])
    wanted = recipe.stages[-1].run.threads
    threads = fastest_threads()[0] if wanted == "auto" else int(wanted)
    read = fingerprints(_inputs(recipe))
    facts = {**now, "threads": threads, "recipe_digest": digest(recipe), "inputs": read, "sandbox": sandbox}
    write_bytes(file, orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    write_bytes(directory / "recipe.toml", to_toml(recipe).encode())
    return threads


def _inputs(recipe: Recipe) -> list[str | None]:
    """What the stages read from this disk, if it is there."""
    sources = []
    for stage in recipe.stages:
        for table in (stage.task, *stage.task.mixture.values()):
            sources += [table.source, table.held_out if isinstance(table.held_out, str) else None]
        sources.append(stage.policy.model)
        models = (reward.args.get("model") for reward in stage.reward)
        sources += [model for model in models if isinstance(model, str)]
    return sources


def _refuse_changed_inputs(before: dict[str, str], recipe: Recipe) -> None:
    now = fingerprints(_inputs(recipe))
    for path, value in before.items():
        if now.get(path) != value:
            state = "has changed" if path in now else "is gone"
            raise UserError(
                f"{path} {state} since this run began, so it cannot be continued exactly. Restore it, or start "
                "another run with name=OTHER."
            )


def _summary(recipe: Recipe, directory: Path, verifier: str, console: Console) -> None:
    """Before and after, and where everything is."""
    metrics = directory / "metrics.jsonl"
    lines = read_metrics(metrics) if metrics.exists() else []
    evaluated = [line for line in lines if any(k.startswith("eval/") for k in line)]
    if evaluated and recipe.stages[-1].kind != "reward_model":
        last = recipe.stages[-1].run.steps
        labels = {0: "before", last: "after"}
        rows = [(labels.get(line["step"], f"step {line['step']}"), line) for line in evaluated]
        console.accuracy_table(rows, verifier)
    console.saved("model", directory / "final")
    console.saved("metrics", metrics)
    if (directory / "log").exists():
        console.saved("rollouts", directory / "log")
