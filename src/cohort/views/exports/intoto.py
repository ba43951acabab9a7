"""in-toto statements, version 1 (spec/v1/statement.md): SLSA provenance v1, and Cohort's predicate for RL training."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cohort.account.schema import PREDICATE
from cohort.record.claims import SCHEMA
from cohort.views.cards.reading import base_of, inside, value
from cohort.views.exports import Bundle

TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD = "urn:cohort:recipe:1"  # the buildType: a recipe of Cohort is run


def provenance(bundle: Bundle) -> dict[str, Any]:
    """How the model was made. What a run on one's own machine proves is SLSA build level 1 at most."""
    record = bundle.record
    identity, software = value(record["run"], "identity.run") or {}, value(record["run"], "identity.software") or {}
    definition = {
        "buildType": BUILD,
        "externalParameters": {"recipe": value(record["run"], "identity.recipe"), "seed": identity.get("seed")},
        "internalParameters": {"threads": software.get("threads"), "recipe_digest": identity.get("recipe_digest")},
        "resolvedDependencies": _dependencies(record, software),
    }
    started = {"startedOn": when} if (when := _utc(identity.get("began"))) else {}
    details = {
        "builder": {"id": "urn:cohort:local", "version": {"cohort": record["written"]["cohort"]}},
        "metadata": {
            "invocationId": f"{record['name']} {identity.get('recipe_digest')}",
            **started,
            "finishedOn": _utc(record["written"]["at"]),
        },
    }
    return _statement(bundle, PROVENANCE, {"buildDefinition": definition, "runDetails": details})


def training(bundle: Bundle) -> dict[str, Any]:
    """The facts of the record, each in its envelope, as a predicate about the trained model."""
    record = bundle.record
    stages = [{k: v for k, v in stage.items() if k not in ("series", "samples")} for stage in record["stages"]]
    found = {"record_schema": SCHEMA, "name": record["name"], "run": record["run"], "stages": stages}
    return _statement(bundle, PREDICATE, found)


def _statement(bundle: Bundle, kind: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    files = inside(bundle.last, "policies.result", "files") or {}
    subject = [{"name": f"final/{name}", "digest": {"sha256": digest}} for name, digest in files.items()]
    if not subject:  # the run is not finished: what there is of it is what it was asked to do
        recipe = bundle.record["run"]["identity"]["recipe"]["evidence"]
        subject = [{"name": one["path"], "digest": {"sha256": one["sha256"]}} for one in recipe]
    return {"_type": TYPE, "subject": subject, "predicateType": kind, "predicate": predicate}


def _dependencies(record: Mapping[str, Any], software: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The base model, the data, the verifiers and the libraries. Digests that are not of one file are annotations."""
    base = base_of(record, len(record["stages"]) - 1)
    found = [{"name": f"base model {base.get('name') or base.get('kind')}", "annotations": base}]
    if base.get("kind") == "hub":
        found[0] |= {"uri": f"https://huggingface.co/{base['name']}"}
        found[0] |= {"digest": {"gitCommit": base["revision"]}} if base.get("revision") else {}
    for stage in record["stages"]:
        found += [
            {"name": f"prompts {row['source']}", "annotations": row} for row in value(stage, "data.prompts") or []
        ]
        rows = value(stage, "rewards.verifier") or []
        found += [{"name": f"verifier {row['name']}", "annotations": row} for row in rows]
    packages = software.get("packages", {})
    found += [{"name": name, "uri": f"pkg:pypi/{name}@{version}"} for name, version in packages.items() if version]
    return found


def _utc(moment: Any) -> str | None:
    with contextlib.suppress(TypeError, ValueError):
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return None
