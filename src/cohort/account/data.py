"""What was asked: where prompts come from, how they are chosen, whether held-out ones leaked, what was left out."""

from __future__ import annotations

from typing import Any

from cohort.account.sources import StageFiles
from cohort.record.claims import Claim, gap
from cohort.record.inputs import hub_commit
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
    return files.run.claim("measured" if inputs else "derived", rows, "recipe.toml", "environment.json")


def selection(files: StageFiles) -> Claim:
    """How prompts are chosen from the distribution."""
    task = files.stage.task
    found = {
        "order": "shuffled once an epoch by a seed of the recipe's",
        "curriculum": task.curriculum and task.curriculum.model_dump(),
        "adaptive": task.adaptive and task.adaptive.model_dump(),
        "too_long": task.too_long,
        "resample_cap": files.stage.rollout.resample_cap if _resamples(files) else None,
    }
    dropped = files.total("prompts/too_long")
    found["dropped_as_too_long"] = None if dropped is None else int(dropped)
    kept = {key: value for key, value in found.items() if value is not None}
    return files.run.claim("derived", kept, "recipe.toml", files.path("metrics.jsonl"))


def _resamples(files: StageFiles) -> bool:
    return files.stage.kind == "grpo" and files.objective.zero_std == "resample"


def contamination(files: StageFiles) -> Claim:
    """Whether what is evaluated was trained on."""
    found = files.gate.get("contamination")
    if found:
        return files.run.claim("measured", found, "gate.json")
    return gap("measured", "no comparison of prompts with benchmarks was made")


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
