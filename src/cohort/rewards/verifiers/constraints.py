"""Formal constraints: rules that a text keeps or breaks, whatever it means, in the manner of IFEval (arXiv 2311.07911).
Each is a name and a value.

{ contains = ["sun", "moon"] }     { words = { min = 100, max = 120 } }     { ends_with = "Yours, Ada" }
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by
from cohort.rewards.verifiers.characters import visible
from cohort.rewards.verifiers.format import check_pattern, matches
from cohort.rewards.verifiers.values import for_row, parsed
from cohort.wording import did_you_mean, find_function

__all__ = ["RULES", "check_rules", "constraints"]

_PATTERN_S = 1.0
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+(?=\s|$)|[\u3002\uff01\uff1f]+")
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
_BULLET = re.compile(r"^[ \t]*(?:[-*+\u2022]|[0-9]{1,3}[.)])[ \t]+\S", re.MULTILINE)
_CASES: Mapping[str, Callable[[str], bool]] = {"lower": str.islower, "upper": str.isupper, "title": str.istitle}


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds(text, value)`: whether a text keeps the rule; `check(value)` raises ValueError where it is none."""

    holds: Callable[[str, Any], bool]
    check: Callable[[Any], None]


def _has(text: str, part: str) -> bool:
    """Whether `part` occurs, whatever its case, and not as a piece of a longer word."""
    start = r"(?<!\w)" if re.match(r"\w", part) else ""
    end = r"(?!\w)" if re.search(r"\w$", part) else ""
    return re.search(start + re.escape(part.casefold()) + end, text.casefold()) is not None


def _counted(count: Callable[[str], int]) -> Rule:
    return Rule(lambda text, value: _within(count(text), value), _check_count)


def _within(count: int, value: int | Mapping[str, Any]) -> bool:
    if isinstance(value, Mapping):
        return value.get("min", 0) <= count <= value.get("max", count)
    return count == value


def _sentences(text: str) -> int:
    return sum(any(map(str.isalnum, part)) for part in _SENTENCE_END.split(text))


def _is_json(text: str, value: bool) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return not value
    return value


def _agrees(text: str, reference: str) -> bool:
    result = _predicate(reference)(text)
    if not isinstance(result, bool):
        raise TypeError(f"the predicate '{reference}' returned {result!r:.80}; it returns True or False")
    return result


@lru_cache(maxsize=64)
def _predicate(reference: str) -> Callable[..., Any]:
    return find_function(reference, "reward")


def _texts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _wants(what: str, fits: Callable[[Any], bool]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not fits(value):
            raise ValueError(f"{what} is wanted, not {value!r:.80}")

    return check


_check_text = _wants("a text", lambda value: isinstance(value, str) and bool(value.strip()))
_check_texts = _wants(
    "a text or a list of texts",
    lambda value: bool(_texts(value)) and all(isinstance(part, str) and part for part in _texts(value)),
)
_check_flag = _wants("true or false", lambda value: isinstance(value, bool))
_check_case = _wants(f"one of {', '.join(_CASES)}", lambda value: isinstance(value, str) and value in _CASES)


def _check_predicate(value: Any) -> None:
    _check_text(value)
    _predicate(value)


def _check_count(value: Any) -> None:
    bounds = value if isinstance(value, Mapping) else {"min": value}
    if not bounds or not set(bounds) <= {"min", "max"} or not all(_is_count(bound) for bound in bounds.values()):
        raise ValueError(f"a number is wanted, or {{ min = ..., max = ... }}, not {value!r:.80}")
    if bounds.get("min", 0) > bounds.get("max", bounds.get("min", 0)):
        raise ValueError(f"min is above max in {value!r:.80}")


def _check_times(value: Any) -> None:
    if not isinstance(value, Mapping) or not isinstance(value.get("of"), str) or not value["of"]:
        raise ValueError(f'{{ of = "text", min = ..., max = ... }} is wanted, not {value!r:.80}')
    _check_count({key: bound for key, bound in value.items() if key != "of"})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


RULES: Mapping[str, Rule] = {
    "contains": Rule(lambda text, value: all(_has(text, part) for part in _texts(value)), _check_texts),
    "contains_any": Rule(lambda text, value: any(_has(text, part) for part in _texts(value)), _check_texts),
    "avoids": Rule(lambda text, value: not any(_has(text, part) for part in _texts(value)), _check_texts),
    "times": Rule(lambda text, value: _within(text.casefold().count(value["of"].casefold()), value), _check_times),
    "characters": _counted(len),
    "words": _counted(lambda text: len(text.split())),
    "sentences": _counted(_sentences),
    "lines": _counted(lambda text: sum(bool(line.strip()) for line in text.splitlines())),
    "paragraphs": _counted(lambda text: sum(bool(part.strip()) for part in _PARAGRAPH_END.split(text))),
    "bullets": _counted(lambda text: len(_BULLET.findall(text))),
    "starts_with": Rule(lambda text, value: text.startswith(value.strip()), _check_text),
    "ends_with": Rule(lambda text, value: text.endswith(value.strip()), _check_text),
    "case": Rule(lambda text, value: _CASES[value](text), _check_case),
    "quoted": Rule(lambda text, value: value == (len(text) > 2 and text[0] == text[-1] == '"'), _check_flag),
    "json": Rule(_is_json, _check_flag),
    "pattern": Rule(lambda text, value: matches(value, text, False, _PATTERN_S), check_pattern),
    "predicate": Rule(_agrees, _check_predicate),
}


def check_rules(row: Mapping[str, Any], rules: Any = None, column: str | None = None) -> None:
    """Raise ValueError if there are no usable rules for a row, UserError for a predicate that cannot be found."""
    for name, value in _rules(row, rules, column):
        try:
            _rule(name).check(value)
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
    text = visible(completion.rpartition("</think>")[2] if part == "answer" else completion).strip()
    if not text:
        return Scored(0.0, "blank")
    try:
        kept = [_rule(name).holds(text, value) for name, value in wanted]
    except TimeoutError:
        return Scored(0.0, "timeout")
    score = sum(kept) / len(kept) if partial else float(all(kept))
    return Scored(score, "kept" if all(kept) else "broken")


def _rules(row: Mapping[str, Any], rules: Any, column: str | None) -> list[tuple[str, Any]]:
    wanted = parsed(for_row("rules", rules, column, row), "the rules are")
    tables = [wanted] if isinstance(wanted, Mapping) else wanted
    if not isinstance(tables, (list, tuple)) or not all(isinstance(table, Mapping) for table in tables):
        raise ValueError(f"rules are a list of tables such as {{ words = 50 }}, not {wanted!r:.80}")
    # A Parquet column has every key in every row; those that a row does not use are null there.
    found = [(name, value) for table in tables for name, value in table.items() if value is not None]
    if not found:
        raise ValueError("there is no rule in the list of rules")
    return found


def _rule(name: str) -> Rule:
    """The rule of that name. Raises ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"there is no rule '{name}'{did_you_mean(str(name), RULES)}; there are {', '.join(RULES)}")
    return RULES[name]
