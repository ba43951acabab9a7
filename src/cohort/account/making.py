"""record.json of a run: made from what the run has on disk, and written in one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cohort import __version__
from cohort.account.fields import RUN, Field, fields_of
from cohort.account.samples import sampled_groups, series
from cohort.account.sources import RunFiles
from cohort.recipe import Recipe
from cohort.record.claims import BASES, SCHEMA, claims, gap, write_record
from cohort.wording import one_line


def account_for(directory: Path, recipe: Recipe) -> dict[str, Any]:
    """Make and write the record of a run as it lies on disk now."""
    record = make_record(directory, recipe)
    write_record(directory, record)
    return record


def make_record(directory: Path, recipe: Recipe) -> dict[str, Any]:
    """Every field with its claim, the curves and a few groups for the cards, and how complete it all is."""
    run = RunFiles(directory, recipe)
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "name": recipe.name,
        "written": {"at": datetime.now(UTC).isoformat(timespec="seconds"), "cohort": __version__},
        "run": _sections(RUN, run),
        "stages": [],
    }
    for files in run.stages:
        done = files.steps[-1]["step"] if files.steps else 0
        stage = {"name": files.stage.name, "kind": files.stage.kind, "steps": done}
        stage |= _sections(fields_of(files.stage.kind), files)
        found["stages"].append(stage | {"series": series(files), "samples": sampled_groups(files).as_json()})
    return found | {"completeness": completeness(found)}


def _sections(fields: Iterable[Field], files: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for field in fields:
        section, _, name = field.path.partition(".")
        try:
            claim = field.read(files)
        except Exception as error:  # a file that holds something else than it should: a field that failed, and says why
            claim = gap(
                field.basis, f"it could not be worked out ({type(error).__name__}: {one_line(error)})", "failed"
            )
        found.setdefault(section, {})[name] = claim.as_json()
    return found


def completeness(record: Mapping[str, Any]) -> dict[str, Any]:
    """How many of the facts that apply are stated, by basis, and which are gaps."""
    apply = [(at, one) for at, one in claims({"run": record["run"], "stages": record["stages"]}) if _applies(at, one)]
    stated = [(at, one) for at, one in apply if one["value"] is not None]
    return {
        "fields": len(apply),
        "stated": len(stated),
        "share": len(stated) / max(len(apply), 1),
        "by_basis": {
            basis: {
                "fields": sum(one["basis"] == basis for _, one in apply),
                "stated": sum(one["basis"] == basis for _, one in stated),
            }
            for basis in BASES
        },
        "gaps": [at for at, one in apply if one["value"] is None],
    }


def _applies(at: str, claim: Mapping[str, Any]) -> bool:
    return claim["status"] != "not_applicable" and not at.endswith(".samples")
