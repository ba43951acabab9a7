"""JSON against a JSON Schema. This runs in a guarded child: see `cohort.rewards.guarded`."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

from jsonschema import FormatChecker
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from cohort.rewards.verifiers.values import once

# Keywords such as `required` say nothing about values that are no objects.
_CONSTANTS: tuple[Any, ...] = (None, 0, "", [])


def judge(text: str, schema: Any) -> str:
    """ "valid", "invalid", "not_json", or "schema: PROBLEM"."""
    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return "not_json"
    try:
        return "valid" if _validator(json.dumps(schema)).is_valid(value) else "invalid"
    except (RecursionError, ArithmeticError):
        # The answer is nested deeper, the schema runs in circles on it, or a number in it is too large to be looked at.
        return "invalid"
    except (SchemaError, Unresolvable, ValueError, TypeError) as error:
        return f"schema: {_sentence(error)}"


def problem_of_schema(schema: Any) -> str:
    """What is wrong with a schema, "" if nothing is."""
    try:
        validator = _validator(json.dumps(schema))
        if all(validator.is_valid(value) for value in _CONSTANTS):
            return 'null, 0, "" and [] fit it alike; say which type it wants, e.g. type = "object"'
    except RecursionError:
        return "it is nested too deeply, or refers to itself without end"
    except (SchemaError, Unresolvable, ValueError, TypeError) as error:
        return _sentence(error)
    return ""


@lru_cache(maxsize=64)
def _validator(schema_text: str) -> Any:
    schema = json.loads(schema_text)
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    return kind(schema, registry=Registry(), format_checker=FormatChecker())  # an empty registry fetches nothing


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is larger than any that JSON's readers can hold")
    return value


def _sentence(error: Exception) -> str:
    text = error.message if isinstance(error, SchemaError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:200]
