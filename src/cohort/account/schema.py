"""The JSON Schemas of record.json and of the predicate for RL training, made from the table of fields. They are shipped
as files beside this one, so that others can read them without Cohort; tools/record_fields_page.py writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import orjson

from cohort.account.fields import RUN, STAGE, Field
from cohort.record.claims import BASES, SCHEMA, STATUSES

PREDICATE = "urn:cohort:rl-training:1"  # the predicateType of in-toto statements about a training run
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def record_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of record.json."""
    gaps = {"type": "array", "items": {"type": "string"}, "description": "Paths of facts that apply and are not known."}
    count = {"type": "integer", "minimum": 0}
    completeness = {
        "type": "object",
        "required": ["fields", "stated", "share", "by_basis", "gaps"],
        "properties": {"fields": count, "stated": count, "share": {"type": "number"}, "gaps": gaps},
    }
    own = {"schema": {"const": SCHEMA}, "written": {"type": "object"}, "completeness": completeness}
    return _schema(SCHEMA, "Record of a training run", own, {"series": {"type": "object"}, "samples": _CLAIM})


def predicate_schema() -> dict[str, Any]:
    """JSON Schema of the predicate of an in-toto statement: the facts of a record, without curves and groups."""
    return _schema(PREDICATE, "Predicate for RL training", {"record_schema": {"const": SCHEMA}}, {})


def shipped(name: str) -> dict[str, Any]:
    """A schema as its file in the package has it: `record-1` or `rl-training-1`."""
    found: dict[str, Any] = orjson.loads((files("cohort.account") / f"{name}.schema.json").read_bytes())
    return found


FILES = {"record-1": record_schema, "rl-training-1": predicate_schema}

_CLAIM = {"$ref": "#/$defs/claim"}


def _schema(name: str, title: str, own: Mapping[str, Any], of_stage: Mapping[str, Any]) -> dict[str, Any]:
    stage = _sections(STAGE)
    head = {"name": {"type": "string"}, "kind": {"type": "string"}, "steps": {"type": "integer"}}
    stage |= {"required": ["name", "kind", *of_stage], "properties": {**head, **stage["properties"], **of_stage}}
    properties = {**own, "name": {"type": "string"}, "run": _sections(RUN), "stages": {"type": "array", "items": stage}}
    claim = {
        "type": "object",
        "description": "One fact: what it rests on, whether it was looked at, why there is none, where to check.",
        "required": ["value", "basis", "status", "reason", "evidence"],
        "properties": {
            "value": {},
            "basis": {"enum": list(BASES)},
            "status": {"enum": list(STATUSES)},
            "reason": {"type": ["string", "null"]},
            "evidence": {"type": "array", "items": {"$ref": "#/$defs/evidence"}},
        },
    }
    evidence = {
        "type": "object",
        "required": ["path", "sha256"],
        "properties": {"path": {"type": "string"}, "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
    }
    return {
        "$schema": DRAFT,
        "$id": name,
        "title": title,
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "$defs": {"claim": claim, "evidence": evidence},
    }


def _sections(fields: Iterable[Field]) -> dict[str, Any]:
    """Sections, and in each its facts. One that a newer Cohort adds is no mistake."""
    found: dict[str, Any] = {}
    for field in fields:
        section, _, name = field.path.partition(".")
        of = found.setdefault(section, {"type": "object", "properties": {}})
        of["properties"][name] = {"$ref": "#/$defs/claim", "description": field.title}
    return {"type": "object", "properties": found}
