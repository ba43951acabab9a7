"""Whether a projection is valid: what is wrong with it, None where nothing is, `Absent` where the library that says so
is not installed.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from cohort.account.schema import shipped
from cohort.wording import one_line


class Absent(Exception):  # noqa: N818  (nothing is wrong)
    """The library that could say so is not installed: its name."""


_DIGEST = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}
_SUBJECT = {
    "type": "object",
    "required": ["name", "digest"],
    "properties": {"name": {"type": "string"}, "digest": _DIGEST},
}
STATEMENT: dict[str, Any] = {  # in-toto attestation framework, spec/v1/statement.md, as JSON Schema
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "minItems": 1, "items": _SUBJECT},
        "predicateType": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*:"},
        "predicate": {"type": "object"},
    },
}
_DEPENDENCY = {"type": "object", "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}, {"required": ["name"]}]}
_BUILDER = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
PROVENANCE: dict[str, Any] = {  # slsa.dev/provenance/v1
    "type": "object",
    "required": ["buildDefinition", "runDetails"],
    "properties": {
        "buildDefinition": {
            "type": "object",
            "required": ["buildType", "externalParameters"],
            "properties": {"resolvedDependencies": {"type": "array", "items": _DEPENDENCY}},
        },
        "runDetails": {"type": "object", "required": ["builder"], "properties": {"builder": _BUILDER}},
    },
}


def record(text: str) -> str | None:
    """By the schema that the package ships."""
    return _by_schema(json.loads(text), shipped("record-1"))


def front_matter(text: str) -> str | None:
    """By huggingface_hub."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(text, ignore_metadata_errors=False)
    except (ValueError, TypeError, KeyError) as error:
        return one_line(error)
    return None


def cyclonedx(text: str) -> str | None:
    """By cyclonedx-python-lib, strictly."""
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        raise Absent("cyclonedx-python-lib") from None
    problem = JsonStrictValidator(SchemaVersion.V1_7).validate_str(text)
    return None if problem is None else one_line(ValueError(str(problem)))


def statement(text: str) -> str | None:
    """By the specifications of in-toto and SLSA, written as JSON Schema."""
    found = json.loads(text)
    return _by_schema(found, STATEMENT) or _by_schema(found["predicate"], PROVENANCE)


def training(text: str) -> str | None:
    """By the specification of in-toto, and the schema of the predicate that the package ships."""
    found = json.loads(text)
    return _by_schema(found, STATEMENT) or _by_schema(found["predicate"], shipped("rl-training-1"))


def croissant(text: str) -> str | None:
    """By mlcroissant."""
    try:
        import mlcroissant
    except ImportError:
        raise Absent("mlcroissant") from None
    try:
        mlcroissant.Dataset(jsonld=json.loads(text))
    except (mlcroissant.ValidationError, ValueError) as error:
        return one_line(error)
    return None


def _by_schema(found: Any, schema: dict[str, Any]) -> str | None:
    problem = next(iter(Draft202012Validator(schema).iter_errors(found)), None)
    return None if problem is None else f"{problem.json_path}: {one_line(ValueError(problem.message))}"
