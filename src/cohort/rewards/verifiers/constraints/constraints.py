"""Formal constraints: rules that a text keeps or breaks, whatever it means. The rules are in `constraint_rules`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cohort.rewards.calling.per_row import for_row
from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.constraints.rules import rule

__all__ = ["check_rules", "constraints"]


def check_rules(row: Mapping[str, Any], rules: Any = None, column: str | None = None) -> None:
    """Raise ValueError if there are no usable rules for a row, UserError for a predicate that cannot be found."""
    for name, value in _rules(row, rules, column):
        try:
            rule(name).check(value)
        except ValueError as error:
            raise ValueError(f"rule '{name}': {error}") from None


@checked_by(check_rules)
def constraints(
    completion: str,
    row: Mapping[str, Any],
    rules: Any = None,
    column: str | None = None,
    partial: bool = False,
    part: str = "answer",
) -> Scored:
    """1 if the text keeps all rules, else 0; with `partial`, the share of rules that it keeps. A blank text scores 0.

    `rules` are those of all rows, a list of tables such as `{ words = { max = 50 } }`, or `column` names the column
    that holds each row's own: a list, or a text that holds it as JSON. `part` "answer" looks at what comes after the
    last </think>, if there is one; "all" at the whole text. Labels: kept, broken, blank, timeout (of a pattern).
    """
    wanted = _rules(row, rules, column)
    if part not in ("answer", "all"):
        raise ValueError(f'part is "answer" or "all", not {part!r}')
    text = (completion.rpartition("</think>")[2] if part == "answer" else completion).strip()
    if not text:
        return Scored(0.0, "blank")
    try:
        kept = [rule(name).holds(text, value) for name, value in wanted]
    except TimeoutError:
        return Scored(0.0, "timeout")
    score = sum(kept) / len(kept) if partial else float(all(kept))
    return Scored(score, "kept" if all(kept) else "broken")


def _rules(row: Mapping[str, Any], rules: Any, column: str | None) -> list[tuple[str, Any]]:
    wanted = for_row("rules", rules, column, row)
    if isinstance(wanted, str):
        try:
            wanted = json.loads(wanted)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the rules are not JSON: {error}") from None
    tables = [wanted] if isinstance(wanted, Mapping) else wanted
    if not isinstance(tables, (list, tuple)) or not all(isinstance(table, Mapping) for table in tables):
        raise ValueError(f"rules are a list of tables such as {{ words = 50 }}, not {wanted!r:.80}")
    # A Parquet column has every key in every row; those that a row does not use are null there.
    found = [(name, value) for table in tables for name, value in table.items() if value is not None]
    if not found:
        raise ValueError("there is no rule in the list of rules")
    return found
