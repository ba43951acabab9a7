"""Which models: the base, what was trained of it, the reference, the old policy, the result."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.account.sources import StageFiles
from cohort.preflight.determinism import as_it_went
from cohort.preflight.objective import asks_reference, reference_of
from cohort.record.claims import Claim, gap
from cohort.record.inputs import hub_commit


def base(files: StageFiles) -> Claim:
    """Where the weights of a stage come from, and the code that came with them and was run."""
    run, policy = files.run, files.stage.policy
    code = run.environment.get("remote_code", {}).get(files.stage.name)
    came = {"code": {name: digest for digest, name in code.items()}} if code else {}
    if policy.scratch is not None:
        made = {"kind": "scratch", **policy.scratch.model_dump()}
        return run.claim("derived", made, "recipe.toml", reason="made from nothing by this run")
    number = files.begins_with
    if policy.model is None or number is not None:
        before = run.recipe.stages[number or 0].name
        made = {"kind": "stage", "name": before}
        return run.claim("derived", made, "recipe.toml", f"stages/{before}/final/manifest.json")
    inputs = run.environment.get("inputs", {})
    if policy.model in inputs:
        found = {"kind": "directory", "name": policy.model, "blake2b": inputs[policy.model], **came}
        return run.claim("measured", found, "environment.json")
    if policy.model == "live":
        named = {"kind": "live", "name": files.size.get("name")}
        because = "a model object that a program gave: it has no digest"
        return run.claim("declared", named, "recipe.toml", reason=because)
    commit = hub_commit(policy.model, policy.revision)
    found = {"kind": "hub", "name": policy.model, "revision": commit or policy.revision, **came}
    why = None if commit else "the commit is not known: the hub's cache of this machine does not hold the model"
    return run.claim("measured" if commit else "declared", found, "recipe.toml", reason=why)


def trained(files: StageFiles) -> Claim:
    """What was trained of the model, and how it was computed."""
    policy = files.stage.policy
    if not files.size:
        return gap("measured", "the run did not write down the size of its policy")
    lora: dict[str, Any] | None = None if policy.lora is None else policy.lora.model_dump()
    found = {**files.size, "lora": lora, "dtype": policy.dtype}
    if "determinism" in found:
        found["determinism"] = as_it_went(found["determinism"], files.steps)
    return files.run.claim("measured", found, "environment.json")


def tokenizer(files: StageFiles) -> Claim:
    """How a question becomes tokens."""
    templates, probes = (files.run.environment.get(name, {}) for name in ("templates", "probes"))
    if files.stage.name not in templates:
        return gap("measured", "the stage has not begun")
    task = files.stage.task
    found = {"template": templates[files.stage.name], "system": task.system, "template_args": task.template_args}
    found["prompt_blake2b"] = probes.get(files.stage.name)
    return files.run.claim("measured", found, "environment.json")


def result(files: StageFiles) -> Claim:
    """The trained model."""
    if not (files.place / "final").is_dir():
        return gap("measured", "the stage is not finished")
    manifest = files.place / "final" / "manifest.json"
    listed = orjson.loads(manifest.read_bytes())["sha256"] if manifest.is_file() else {}
    found = {"path": files.path("final"), "step": files.steps[-1]["step"] if files.steps else None, "files": listed}
    if files.chosen:
        found |= {"step": files.chosen["step"], "chosen": files.chosen}
    return files.claim("measured", found, "final/manifest.json")


def reference(files: StageFiles) -> Claim:
    """What the KL term compares with, or who teaches."""
    if not asks_reference(files.stage, files.objective):
        return gap("derived", "kl_coef is 0: the objective compares with no reference policy", "not_applicable")
    return files.set_by({"policy": reference_of(files.stage), **files.stage.reference.model_dump()})


def teachers(files: StageFiles) -> Claim:
    """Who says how likely the student's samples are, and what is learnt from that."""
    taught = files.stage.taught
    return gap("derived", "nobody teaches", "not_applicable") if taught is None else files.set_by(taught.model_dump())


def old_policy(files: StageFiles) -> Claim:
    """The snapshot whose probabilities the ratio divides by."""
    stage = files.stage
    bypass = stage.objective.bypasses
    found = {
        "snapshot": "the sampler's own log-probs" if bypass else "the weights at the start of each training step",
        "version": "the number of the step before; every rollout names its own",
        "max_staleness": stage.rollout.max_staleness,
        "updates_per_batch": stage.optimizer.updates_per_batch * stage.optimizer.epochs,
    }
    gaps = [line["policy/mismatch"] for line in files.steps if isinstance(line.get("policy/mismatch"), float)]
    if gaps:
        found["mean_mismatch_nats"] = sum(gaps) / len(gaps)
    return files.claim("measured" if gaps else "derived", found, "metrics.jsonl")
