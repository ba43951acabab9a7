"""Which GRPO exactly: how groups are sampled, the loss, the clip, the KL, and the budget."""

from __future__ import annotations

from cohort.account.sources import StageFiles
from cohort.algorithms.explain import meaning, one_line, sentences
from cohort.monitor.watcher import read_incidents
from cohort.preflight.objective import equation_of, hash_of
from cohort.record.claims import Claim, gap

NO_KL = "there is no KL term"


def sampling(files: StageFiles) -> Claim:
    """The distribution that completions are drawn from."""
    names = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "sampler"]
    if not files.stage.rollout.draws:
        names += ["groups", "length_penalty", "beam_groups", "diversity_penalty"]
    return files.set_by({name: getattr(files.stage.rollout, name) for name in names}, _changed(files, "temperature"))


def group_size(files: StageFiles) -> Claim:
    """Completions of one prompt."""
    return files.set_by(files.stage.rollout.group_size)


def loss(files: StageFiles) -> Claim:
    """The loss variant: a line, the equation, what every choice does, and the hash that two runs share or not."""
    stage, o = files.stage, files.objective
    found = {
        "preset": stage.objective.preset,
        "line": one_line(o, stage.rollout.draws),
        "equation": equation_of(stage, o, latex=False),
        "choices": dict(sentences(o)),
        "hash": hash_of(stage, o),
    }
    return files.set_by(found)


def clipping(files: StageFiles) -> Claim:
    """How far a ratio may move, and how often the clip acted."""
    o = files.objective
    found: dict[str, object] = {
        name: {"value": getattr(o, name), "says": meaning(o, name)}
        for name in ("clip_low", "clip_high", "ratio_max", "dual_clip")
        if getattr(o, name) is not None
    }
    for name in ("policy/clip_low", "policy/clip_high"):
        values = [line[name] for line in files.steps if isinstance(line.get(name), float)]
        if values:
            found[f"mean_share_{name[7:]}"] = sum(values) / len(values)
    return files.run.claim("derived", found, "recipe.toml", files.path("metrics.jsonl"))


def kl(files: StageFiles) -> Claim:
    """How the policy is held to the reference."""
    o = files.objective
    found = {name: getattr(o, name) for name in ("kl_coef", "kl_estimator", "kl_place", "kl_gradient")}
    return files.set_by(found, _changed(files, "kl_coef")) if o.kl_coef else files.set_by({"kl_coef": 0.0}, NO_KL)


def optimizer(files: StageFiles) -> Claim:
    """How the weights move."""
    return files.set_by(files.stage.optimizer.model_dump(), _changed(files, "learning_rate"))


def _changed(files: StageFiles, setting: str) -> str | None:
    """What detectors have made of a setting while the stage trained."""
    values = [
        (one.step, value) for one in read_incidents(files.place) if (value := one.did.get("adapt", {}).get(setting))
    ]
    found = ", ".join(f"{value:g} after step {step}" for step, value in values)
    return f"detectors have changed {setting}, as [monitor.adapt] says: {found}" if found else None


def budget(files: StageFiles) -> Claim:
    """What the stage was given and what it has used."""
    if not files.steps:
        return gap("measured", "no step is done")
    found = {
        "steps": files.steps[-1]["step"],
        "planned_steps": files.stage.run.steps,
        "groups": files.total("groups/sampled"),
        "tokens_sampled": files.total("tokens/sampled"),
        "tokens_trained": files.total("tokens/trained"),
        "seconds": files.total("time/step_s"),
        "peak_memory_gb": max(
            (line["memory/peak_gb"] or 0 for line in files.steps if "memory/peak_gb" in line), default=None
        ),
    }
    return files.claim("measured", {k: v for k, v in found.items() if v is not None}, "metrics.jsonl")
