"""What a stage begins with, by digest: its model, its data, the code of its rewards, and what it is planned to cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import cohort
from cohort.machine import describe_machine, version_of
from cohort.policy.load import locate
from cohort.record.chain import CHAIN, read_lines
from cohort.record.code import files_of
from cohort.record.entries import FORMAT, digest_of, written
from cohort.record.files import write_bytes
from cohort.record.inputs import hub_commit, hub_folder
from cohort.record.manifest import NAME, digests_in, sha256_of
from cohort.record.metrics import lines_after
from cohort.record.rollouts import shards_after
from cohort.settings import Stage
from cohort.tasks.sources.rows import is_hub_id
from cohort.train.inputs import code_of_stages, functions_of
from cohort.train.stage import Context, Prepared, kind_of

# Files of the run that the genesis of a stage names.
OF_RUN = ("recipe.toml", "environment.json", "gate.json", "contamination.json")
LIBRARIES = ("jsonschema", "mpmath", "py3langid", "rapidfuzz", "reasoning-gym", "regex", "verifiers")  # of verifiers


def begin(context: Context, prepared: Prepared, recorded: int, environment: bytes | None) -> None:
    """Enter the genesis of a stage; where it has begun already, what it goes on with and what it abandons: all after
    the step `recorded`. `environment` is the new environment.json, if it is another, which is written here.
    """
    stage, recorder, chain = context.stage, context.recorder, context.recorder.chain
    run, directory = chain.run, context.recorder.directory
    kept = {name: run / name for name in OF_RUN} | {path.name: path for path in run.glob("data*.jsonl")}
    files = {name: sha256_of(path) for name, path in kept.items() if path.is_file()}
    if environment is not None:
        files["environment.json"] = hashlib.sha256(environment).hexdigest()
    sources = [table for one in (stage.task, *stage.task.mixture.values()) for table in (one.source, one.held_out)]
    sources += stage.preferences.history
    objective = getattr(prepared, "objective", None)
    recipe = {
        "stage": stage.name,
        "place": directory.relative_to(run).as_posix() if directory != run else "",
        "files": files,
        "format": FORMAT,
        "cohort": cohort.__version__,
        "name": context.recipe.name,
        "kind": stage.kind if isinstance(stage.kind, str) else code_name(stage.kind),
        "objective": None if objective is None else objective.hash,
        "budget": budget_of(stage),
        "hub": {
            source: hub_commit(source, revision := getattr(table, "revision", None), "dataset") or revision
            for table in (stage.task, *stage.task.mixture.values())
            if isinstance(source := table.source, str) and is_hub_id(source)
        },
        "inputs": _digests((source for source in sources if isinstance(source, str)), run),
    }
    verifiers = verifiers_of(context)
    recorder.same = {
        "recipe": {"stage": stage.name, "sha256": files["recipe.toml"]},
        "verifiers": {"sha256": digest_of(written(verifiers))},
    }
    if environment is not None and not chain.size:  # nothing says yet what it was before
        write_bytes(run / "environment.json", environment)
    if stage.name not in chain.stages:
        chain.append("genesis", policy=policy_of(context), verifiers=verifiers, recipe=recipe)
    else:
        shards = [
            {"path": chain.relative(path), "sha256": sha256_of(path), "rows": None}
            for path in shards_after(directory / "log", recorded)
        ]
        lines = lines_after(directory / "metrics.jsonl", recorded)
        abandoned = {"abandoned": [digest_of(line) for line in lines]}
        policy = {"after": recorded}
        chain.append("resume", shards=shards, policy=policy, verifiers=verifiers, recipe=recipe, metrics=abandoned)
    if environment is not None:
        write_bytes(run / "environment.json", environment)


def policy_of(context: Context) -> dict[str, Any]:
    """Where the weights come from: the stage before, a directory with all its files, a revision of the hub, an object,
    or nothing but the seed.
    """
    table, start, chain = context.stage.policy, context.start, context.recorder.chain
    found: dict[str, Any] = {"model": table.model, "seed": str(context.recipe.seed)}
    if (origin := context.parent) is not None:  # a checkpoint of another run
        manifest = sha256_of(origin.path / NAME) if (origin.path / NAME).is_file() else None
        return found | {"parent": {"checkpoint": str(origin.path), "step": origin.step, "manifest": manifest}}
    if table.scratch is not None:
        return found | {"scratch": True}
    if table.model == "live" and start.live is not None:
        return found | {"weights": _of_tensors(start.live[0].state_dict())}
    if table.model is None:
        return found | {"parent": {"stage": context.follows, "head": chain.stages.get(context.follows)}}
    if not Path(table.model).expanduser().exists():
        revision = hub_commit(table.model, table.revision) or table.revision
        return found | {"revision": revision, "hub": _of_hub(table.model, revision)}
    where = Path(table.model).expanduser()
    where = Path(locate(table.model)) if where.is_dir() else where
    for line in read_lines(where.parent / CHAIN):
        found["parent"] = {"run": str(where.parent), "head": digest_of(line)}
    return found | {"inputs": _digests([str(where)], chain.run)}


def verifiers_of(context: Context) -> dict[str, Any]:
    """The rewards, the files in which those of the person's own are written, and the libraries of the built-in ones."""
    recipe, stage = context.recipe, context.stage
    own = {path for name, _, thing in functions_of(recipe) if name == stage.name for path in files_of(thing)}
    machine = describe_machine()
    return {
        "rewards": {reward.name: {"use": code_name(reward.use), "weight": reward.weight} for reward in stage.reward},
        "code": {what: of for what, of in code_of_stages(recipe).items() if what.endswith(f"of stage {stage.name}")},
        "inputs": {_shown(path): sha256_of(path) for path in sorted(own)},
        "libraries": machine["packages"] | {name: version_of(name) for name in LIBRARIES},
        "kernels": machine["kernels"],
    }


def budget_of(stage: Stage) -> dict[str, int]:
    """What the stage is planned to take at most."""
    steps, tables, found = stage.run.steps, kind_of(stage).tables, {"steps": stage.run.steps}
    if "objective" in tables:
        completions = steps * stage.rollout.prompts_per_step * stage.rollout.group_size
        found |= {"completions": completions, "tokens": completions * stage.rollout.max_tokens}
    if "supervised" in tables:
        found["examples"] = steps * stage.supervised.examples_per_step
    return found


def code_name(use: Any) -> str:
    """A name for what a recipe calls: the one that it is given there, or that of the function."""
    return (
        use if isinstance(use, str) else f"{getattr(use, '__module__', '')}:{getattr(use, '__qualname__', type(use))}"
    )


def _of_hub(name: str, revision: str | None) -> dict[str, str]:
    snapshot = hub_folder(name) / "snapshots" / str(revision)
    return digests_in(snapshot) if snapshot.is_dir() else {}


def _digests(sources: Iterable[str], run: Path) -> dict[str, str]:
    """The SHA-256 of every file that the sources are or hold here, but of files of the run itself."""
    found: dict[str, str] = {}
    for path in (Path(source).expanduser() for source in sources):
        files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
        outside = (file for file in files if file.is_file() and not file.absolute().is_relative_to(run.absolute()))
        found |= {_shown(file): sha256_of(file) for file in outside}
    return found


def _shown(path: Path) -> str:
    """A path relative to the current directory where it lies below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()


def _of_tensors(state: Mapping[str, torch.Tensor]) -> str:
    """One digest of all tensors of a model, by their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
