"""CycloneDX 1.7 (ECMA-424): a bill of materials of the trained model."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from cohort.settings import GROUPS
from cohort.views.cards.reading import MEASURES, base_in_words, base_of, inside, measures, said, value
from cohort.views.exports import Bundle

MODEL = "model"


def bom(bundle: Bundle) -> dict[str, Any]:
    """The model with its card, what it was made from, the stages as a formulation, the evaluations as claims."""
    record = bundle.record
    digest = inside(record["run"], "identity.run", "recipe_digest")
    at = record["written"]["at"].replace("+00:00", "Z")
    tool = {"type": "application", "name": "cohort", "version": str(record["written"]["cohort"])}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"urn:cohort:{record['name']}:{digest}:{at}").urn,
        "version": 1,
        "metadata": {"timestamp": at, "tools": {"components": [tool]}, "component": _model(bundle)},
        "components": _components(record),
        "dependencies": [{"ref": MODEL, "dependsOn": [one["bom-ref"] for one in _components(record)]}],
        "formulation": [{"bom-ref": "formula", "workflows": [_workflow(stage) for stage in record["stages"]]}],
        "declarations": _declarations(bundle),
    }


def _model(bundle: Bundle) -> dict[str, Any]:
    record, stage = bundle.record, bundle.last
    performance = value(stage, "behaviour.performance")
    metrics = []
    for name in measures(performance):
        after = performance["after"]
        metric = {"type": f"accuracy, {MEASURES[name]}", "value": str(after[name]), "slice": "held-out problems"}
        low, high = after.get(f"{name}_low"), after.get(f"{name}_high")
        ends = {} if low is None else {"confidenceInterval": {"lowerBound": str(low), "upperBound": str(high)}}
        metrics.append(metric | ends)
    limits = [*(inside(stage, "rewards.brittle", "declared") or [])]
    out = value(record["run"], "use.out_of_scope")
    considerations: dict[str, Any] = {
        "useCases": [found] if (found := value(record["run"], "use.intended")) else [],
        "technicalLimitations": [*limits, *([out] if out else [])],
    }
    if kwh := inside(stage, "compute.energy", "kwh"):
        cost = {"value": kwh, "unit": "kWh"}
        provider = {"organization": {"name": "not known"}, "energySource": "unknown", "energyProvided": cost}
        energy = {"activity": "fine-tuning", "energyProviders": [provider], "activityEnergyCost": cost}
        considerations["environmentalConsiderations"] = {"energyConsumptions": [energy]}
    prompts = [{"ref": one["bom-ref"]} for one in _components(record) if one["type"] == "data"]
    kind = "reinforcement-learning" if stage["kind"] in GROUPS else "supervised"
    properties = {
        "cohort:objective:line": inside(stage, "objective.loss", "line"),
        "cohort:objective:hash": inside(stage, "objective.loss", "hash"),
        "cohort:objective:equation": inside(stage, "objective.loss", "equation"),
        "cohort:flops": inside(stage, "compute.operations", "total"),
        "cohort:completeness": record["completeness"]["share"],
    }
    parameters = {"approach": {"type": kind}, "task": "text-generation", "datasets": prompts}
    if named := inside(stage, "policies.trained", "name"):
        parameters["modelArchitecture"] = named
    files = inside(stage, "policies.result", "files") or {}
    weights = [digest for name, digest in files.items() if name.endswith(".safetensors")]
    license_ = value(record["run"], "use.license")
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": record["name"],
        "description": f"Trained by Cohort from {base_in_words(record, len(record['stages']) - 1)}",
        **({"hashes": [{"alg": "SHA-256", "content": digest} for digest in weights]} if weights else {}),
        **({"licenses": [{"license": {"name": license_}}]} if license_ else {}),
        "modelCard": {
            "bom-ref": "card",
            "modelParameters": parameters,
            "quantitativeAnalysis": {"performanceMetrics": metrics},
            "considerations": {key: found for key, found in considerations.items() if found},
            "properties": [{"name": k, "value": str(v)} for k, v in properties.items() if v is not None],
        },
    }


def _components(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The base model, the sources of prompts and the libraries."""
    base = base_of(record, len(record["stages"]) - 1)
    named = {"type": "machine-learning-model", "bom-ref": "base", "name": str(base.get("name") or base.get("kind"))}
    found: dict[str, dict[str, Any]] = {"base": named | ({"version": base["revision"]} if base.get("revision") else {})}
    for stage in record["stages"]:
        for row in value(stage, "data.prompts") or []:
            name = f"prompts:{row['source']}"
            found[name] = {"type": "data", "bom-ref": name, "name": row["source"], "description": said(row)}
    packages = inside(record["run"], "identity.software", "packages") or {}
    for name, version in packages.items():
        if version:
            purl = f"pkg:pypi/{name}@{version}"
            found[purl] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return list(found.values())


def _workflow(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage: what it does, and what it was set to."""
    set_to = {name: value(stage, name) for name in ("objective.optimizer", "sampling.distribution", "compute.budget")}
    return {
        "bom-ref": f"stage:{stage['name']}",
        "uid": stage["name"],
        "name": f"{stage['name']} ({stage['kind']})",
        "taskTypes": ["other"],
        "description": inside(stage, "objective.loss", "line") or f"a stage of kind {stage['kind']}",
        "properties": [{"name": f"cohort:{name}", "value": said(found)} for name, found in set_to.items() if found],
    }


def _declarations(bundle: Bundle) -> dict[str, Any]:
    """The evaluations as claims about the model, each with the files that show it."""
    claims, evidence = [], []
    for name, one in bundle.last.get("behaviour", {}).items():
        if one["value"] is None:
            continue
        refs = [f"evidence:{name}:{number}" for number, _ in enumerate(one["evidence"])]
        for ref, file in zip(refs, one["evidence"], strict=True):
            contents = {"url": file["path"]}
            about = f"{file['path']}, SHA-256 {file['sha256']}"
            evidence.append(
                {"bom-ref": ref, "description": about, "data": [{"name": file["path"], "contents": contents}]}
            )
        predicate = f"{name.replace('_', ' ')}: {said(one['value'])}"
        reasoning = f"{one['basis']}; {one['status'].replace('_', ' ')}" + (
            f"; {one['reason']}" if one["reason"] else ""
        )
        claim = {"bom-ref": f"claim:{name}", "target": MODEL, "predicate": predicate, "reasoning": reasoning}
        claims.append(claim | ({"evidence": refs} if refs else {}))
    return {"claims": claims, "evidence": evidence} if claims else {}
