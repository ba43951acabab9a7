"""Is the answer JSON that fits a JSON Schema?

Parsing and validating happen in a process that is killed when they take too much: deep nesting, a pattern that never
ends and `$ref`s in circles cost their time limit and nothing else. Nothing is fetched from the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.rewards.guarded import Ended, guarded
from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, stops_after
from cohort.rewards.verifiers.values import for_row, parsed

__all__ = ["check_schema", "json_schema"]

_MODULE = "cohort.rewards.verifiers.structured.check"
_SCHEMA_S = 5.0
_FENCE = "```"


def check_schema(row: Mapping[str, Any], schema: Any = None, column: str | None = None) -> None:
    """Raise ValueError if there is no usable schema for a row."""
    try:
        problem = guarded(f"{_MODULE}:problem_of_schema", _SCHEMA_S, schema=_schema(row, schema, column))
    except Ended as ended:
        raise ValueError(f"checking the JSON Schema takes too much ({ended.how})") from None
    if problem:
        raise ValueError(f"it has no usable JSON Schema: {problem}")


@stops_after("timeout_s")
@checked_by(check_schema)
def json_schema(
    completion: str,
    row: Mapping[str, Any],
    schema: Any = None,
    column: str | None = None,
    well_formed: float = 0.0,
    timeout_s: float = 2.0,
) -> Scored:
    """1 if the answer is JSON that fits the schema, `well_formed` if it is JSON that does not, else 0.

    `schema` is the JSON Schema for all rows (a table, or a text that holds it), `column` names the column that holds
    each row's own. The answer is what stands in the one `<answer>` pair, else the whole text, without a ``` fence that
    is around it. Labels: valid, invalid, not_json, timeout, memory, crash. Raises ValueError for a schema that is none.
    """
    wanted = _schema(row, schema, column)
    try:
        label = guarded(f"{_MODULE}:judge", timeout_s, text=_answer(completion), schema=wanted)
    except Ended as ended:
        label = ended.how
    if label.startswith("schema: "):
        raise ValueError(f"it has no usable JSON Schema: {label.removeprefix('schema: ')}")
    return Scored({"valid": 1.0, "invalid": well_formed}.get(label, 0.0), label)


def _answer(completion: str) -> str:
    if "<answer>" in completion or "</answer>" in completion:
        before, _, rest = completion.partition("<answer>")
        completion, closing, after = rest.partition("</answer>")
        if not closing or any(tag in part for tag in ("<answer>", "</answer>") for part in (before, completion, after)):
            return ""
    text = completion.strip()
    first, newline, rest = text.partition("\n")
    is_fenced = bool(newline) and text.count(_FENCE) == 2 and text.endswith(_FENCE)
    return rest.removesuffix(_FENCE) if is_fenced and first.rstrip() in (_FENCE, "```json", "```JSON") else text


def _schema(row: Mapping[str, Any], schema: Any, column: str | None) -> Any:
    wanted = parsed(for_row("schema", schema, column, row), "the JSON Schema is")
    if not isinstance(wanted, (Mapping, bool)):
        raise ValueError(f"a JSON Schema is an object, not {type(wanted).__name__}")
    return wanted
