"""The JSON Schema of a recipe file, for editors that complete and check TOML."""

from __future__ import annotations

from typing import Any

from cohort.recipe.resolve import LARGEST_SEED
from cohort.settings import Stage


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the TOML form, with the description and the default of every key."""
    made = Stage.model_json_schema()
    tables = {name: _tidy(table) for name, table in made["$defs"].items()}
    tables["Task"].pop("required", None)  # the source may stand outside the stages, or come from the command line
    keys = {key: _tidy(value) for key, value in made["properties"].items()}
    for key, value in keys.items():
        value["description"] = Stage.model_fields[key].description
        if "$ref" in value:
            value["default"] = {}  # every key in it at its own default
        if key == "reward":
            table = {"$ref": "#/$defs/Reward"}
            one = [{"type": "string"}, table]
            keys[key] = {
                "description": value["description"] + " A name, a table, or a list of these.",
                "default": [],
                "anyOf": [*one, {"type": "array", "items": {"anyOf": one}}],
            }
    stage = {"type": "object", "description": Stage.__doc__, "additionalProperties": False, "properties": keys}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cohort recipe",
        "description": "What to train and how. Keys outside [[stage]] are the defaults of every stage.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "default": "run",
                "description": "Name of the run and of its directory; the name of the file when not given.",
            },
            "seed": {
                "type": "integer",
                "minimum": 0,
                "maximum": LARGEST_SEED,
                "default": 0,
                "description": "Every random choice of the run follows from it.",
            },
            "stage": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": "#/$defs/Stage"},
                "default": [{}],
                "description": "Stages in order; without any, the recipe is one stage.",
            },
            **{key: value for key, value in keys.items() if key != "name"},
        },
        "$defs": {**tables, "Stage": stage},
    }


def _tidy(node: Any) -> Any:
    """Without pydantic's titles, which only repeat the keys, and without null, which TOML does not have."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    choices = [choice for choice in tidy.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del tidy["anyOf"]
        return {**choices[0], **tidy}
    return {**tidy, "anyOf": choices} if choices else tidy
