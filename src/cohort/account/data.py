"""What was asked: where prompts come from, how they are chosen, whether held-out ones leaked, what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohort.account.behaviour import pass_rates
from cohort.account.sources import StageFiles
from cohort.record.claims import Claim, gap
from cohort.record.inputs import hub_commit
from cohort.settings import GROUPS
from cohort.tasks.sources.rows import is_hub_id


def prompts(files: StageFiles) -> Claim:
    """The distribution of prompts: its sources, each with the fingerprint of what was read."""
    task, inputs = files.stage.task, files.run.environment.get("inputs", {})
    rows: list[dict[str, Any]] = []
    for name, one in task.mixture.items() or {"": task}.items():
        row: dict[str, Any] = {
            "name": name or None,
            "source": str(one.source),
            "split": one.split,
            "config": one.config,
        }
        on_hub = str(one.source) not in inputs and is_hub_id(str(one.source))
        row |= {"revision": hub_commit(str(one.source), None, "dataset") if on_hub else None}
        row |= {"blake2b": inputs.get(str(one.source)), "levels": one.levels, "limit": one.limit}
        row |= {"held_out": None if one.held_out is None else str(one.held_out), "weight": getattr(one, "weight", None)}
        rows.append({key: value for key, value in row.items() if value is not None})
    rows += [{"name": "history", "source": one, "blake2b": inputs.get(one)} for one in files.stage.preferences.history]
    return files.run.claim("measured" if inputs else "derived", rows, "recipe.toml", "environment.json")


def selection(files: StageFiles) -> Claim:
    """How prompts are chosen from the distribution."""
    task = files.stage.task
    resamples = files.stage.kind in GROUPS and files.objective.zero_std == "resample"
    found = {
        "order": "shuffled once an epoch by a seed of the recipe's",
        "curriculum": task.curriculum and task.curriculum.model_dump(),
        "adaptive": task.adaptive and task.adaptive.model_dump(),
        "too_long": task.too_long,
        "resample_cap": files.stage.rollout.resample_cap if resamples else None,
    }
    dropped = files.total("prompts/too_long")
    found["dropped_as_too_long"] = None if dropped is None else int(dropped)
    kept = {key: value for key, value in found.items() if value is not None}
    return files.run.claim("derived", kept, "recipe.toml", files.path("metrics.jsonl"))


def contamination(files: StageFiles) -> Claim:
    """Whether what is evaluated was trained on: the ids of the held-out prompts that were found before the first step,
    by which layers, whether what held them was left out, and the last accuracy on them and on the others.
    """
    found = files.contamination
    if "flagged" not in found:
        looked = found.get("not_looked")
        why = "; ".join(map(str, looked.values())) if isinstance(looked, dict) else ""
        return gap("measured", f"no comparison of prompts with benchmarks was made{f': {why}' if why else ''}")
    layers = {name: {"questions": one["questions"], "prompts": one["prompts"]} for name, one in found["layers"].items()}
    names = _last_evaluations(files)
    rates = {name: pass_rates(path) for name, path in names.items()}
    accuracy = {name: _accuracy(of, set(found["flagged"])) for name, of in rates.items() if of}
    logs = [files.path(f"log/{path.name}") for path in names.values()]
    return files.run.claim("measured", {**found, "layers": layers, "accuracy": accuracy}, "contamination.json", *logs)


def _last_evaluations(files: StageFiles) -> dict[str, Path]:
    """The completions of the evaluation of held-out problems that is of the kept weights, by how they were sampled."""
    steps = [line["step"] for line in files.until_kept]
    every = [
        (name, files.place / "log" / f"eval-{step:06d}-{name}.parquet")
        for step in steps
        for name in ("greedy", "sampled")
    ]
    return {name: path for name, path in every if path.is_file()}


def _accuracy(rates: Mapping[str, float], flagged: set[str]) -> dict[str, Any]:
    """The mean pass rate of the problems that were found and of the others, and how many they are."""
    sides: dict[str, list[float]] = {"clean": [], "flagged": []}
    for key, rate in rates.items():
        sides["flagged" if key in flagged else "clean"].append(rate)
    return {
        name: {"problems": len(rates), "pass@1": sum(rates) / len(rates) if rates else None}
        for name, rates in sides.items()
    }


def rejected(files: StageFiles) -> Claim:
    """The samples that were not learnt from, counted from the rollouts on disk."""
    tally = files.tally
    if tally is None:
        return gap("measured", "no rollouts were kept (run.save_rollouts)" if files.steps else "no step is done")
    found = {
        "groups_by_disposition": dict(tally.groups),
        "rollouts": dict(tally.rollouts),
        "finishes": dict(tally.finishes),
        "kept_on_disk": files.path("log"),
    }
    why = f"{', '.join(tally.unread[:3])} cannot be read, and is not counted" if tally.unread else None
    return files.run.claim("measured", found, "log/chain.jsonl", files.path("metrics.jsonl"), reason=why)
