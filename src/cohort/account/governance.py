"""What a run belongs to: who answers for it, the papers it is tied to, how its traces are shown, what it ran on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cohort.account.sources import RunFiles
from cohort.record.claims import Claim, gap


def declared(key: str) -> Callable[[RunFiles], Claim]:
    """What a person declared under this key of [record]."""

    def read(run: RunFiles) -> Claim:
        value = getattr(run.declared, key)
        if value is None:
            return gap("declared", f"[record] {key} is not given")
        return run.claim("declared", value, "recipe.toml")

    return read


def identity(run: RunFiles) -> Claim:
    """Which run it is."""
    environment = run.environment
    found = {
        "name": run.recipe.name,
        "seed": run.recipe.seed,
        "stages": [f"{one.name} ({one.kind})" for one in run.recipe.stages],
        "began": environment.get("began"),
        "recipe_digest": environment.get("recipe_digest"),
    }
    return run.claim("measured", found, "recipe.toml", "environment.json")


def recipe(run: RunFiles) -> Claim:
    """The resolved recipe, whole."""
    file = run.directory / "recipe.toml"
    return run.claim("measured", file.read_text("utf-8"), "recipe.toml")


def software(run: RunFiles) -> Claim:
    """What it ran on: versions, machine, threads, kernels, how code was isolated."""
    kept = ("python", "platform", "processor", "cores", "gpu", "threads", "kernels", "packages", "sandbox")
    found = {name: run.environment[name] for name in kept if name in run.environment}
    return run.claim("measured", found, "environment.json") if found else gap("measured", "environment.json is missing")


def parent(run: RunFiles) -> Claim:
    """The run that it was forked from."""
    found = run.environment.get("parent")
    if not found:
        return gap("measured", "the run was not forked from another", "not_applicable")
    return run.claim("measured", found, "environment.json")


def outcome(run: RunFiles) -> Claim:
    """How far it came."""
    found: dict[str, Any] = {"finished": run.finished}
    found["steps"] = {one.stage.name: one.steps[-1]["step"] if one.steps else 0 for one in run.stages}
    return run.claim("measured", found, "metrics.jsonl")


def traces(run: RunFiles) -> Claim:
    """How reasoning traces are handled."""
    value = run.declared.traces
    if value is None:
        why = "[record] traces is not given: they are shown whole"
        return run.claim("derived", "exposed", "recipe.toml", reason=why)
    return run.claim("declared", value, "recipe.toml")


def card(run: RunFiles) -> Claim:
    """The model's card, and that of the system that it serves."""
    found = {"model_card": "final/README.md" if run.finished else "card.md", "system_card": run.declared.system_card}
    why = None if run.declared.system_card else "[record] system_card is not given"
    return run.claim("derived", found, reason=why)


def audit_trail(run: RunFiles) -> Claim:
    """The log of the run, and its last entry."""
    if not run.chain:
        return gap("measured", "there is no log/chain.jsonl")
    last = run.chain[-1]
    found = {
        "entries": len(run.chain),
        "last": last.get("kind"),
        "signed": (run.directory / "log/heads.jsonl").is_file(),
    }
    return run.claim("measured", found, "log/chain.jsonl", "log/heads.jsonl")


def after_the_run(run: RunFiles) -> Claim:
    """Incidents, changes and monitoring that were appended since; not what the run's own detectors noted in it."""
    entries = [one for one in run.chain if one.get("kind") in ("amend", "incident")]
    amended = [one for one in entries if (one.get("metrics") or {}).get("name") != "incidents"]
    if not amended:
        return gap("declared", "nothing was appended: `cohort record amend` does", "not_applicable")
    keys = ("seq", "kind", "time", "metrics", "text", "amendment")
    return run.claim("declared", [{k: one[k] for k in keys if k in one} for one in amended], "log/chain.jsonl")


def data_provenance(run: RunFiles) -> Claim:
    """The fingerprints of what was read, and the paper that says where it comes from."""
    inputs, paper = run.environment.get("inputs", {}), run.declared.data_provenance
    if not inputs and paper is None:
        return gap("declared", "[record] data_provenance is not given, and the run read no files")
    found = {"declared": paper, "files": inputs}
    why = None if paper else "[record] data_provenance is not given: these are the files that the run read"
    return run.claim("declared" if paper else "measured", found, "recipe.toml", "environment.json", reason=why)


def evaluation_file(run: RunFiles) -> Claim:
    """Where every answer of every evaluation is kept."""
    files = sorted(path.relative_to(run.directory).as_posix() for path in run.directory.glob("log/eval-*.parquet"))
    if not files:
        return gap("measured", "no evaluation was kept on disk")
    return run.claim("measured", files, files[0], files[-1])
