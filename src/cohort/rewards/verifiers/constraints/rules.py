"""Rules that a text either keeps or breaks, in the manner of IFEval (arXiv 2311.07911). Each is a name and a value.

{ contains = ["sun", "moon"] }     { words = { min = 100, max = 120 } }     { ends_with = "Yours, Ada" }
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cohort.rewards.verifiers.pattern import check_pattern, matches
from cohort.wording import did_you_mean, find_function

__all__ = ["RULES", "Rule", "rule"]

_PATTERN_S = 1.0
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+(?=\s|$)|[\u3002\uff01\uff1f]+")
_BULLET = re.compile(r"^[ \t]*(?:[-*+\u2022]|[0-9]{1,3}[.)])[ \t]+\S", re.MULTILINE)
_CASES: Mapping[str, Callable[[str], bool]] = {"lower": str.islower, "upper": str.isupper, "title": str.istitle}


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds(text, value)`: whether a text keeps the rule; `check(value)` raises ValueError where it is none."""

    holds: Callable[[str, Any], bool]
    check: Callable[[Any], None]


def rule(name: str) -> Rule:
    """The rule of that name. Raises ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"there is no rule '{name}'{did_you_mean(str(name), RULES)}; there are {', '.join(RULES)}")
    return RULES[name]


def _has(text: str, part: str) -> bool:
    """Whether `part` occurs, whatever its case, and not as a piece of a longer word."""
    start = r"(?<!\w)" if re.match(r"\w", part) else ""
    end = r"(?!\w)" if re.search(r"\w$", part) else ""
    return re.search(start + re.escape(part.casefold()) + end, text.casefold()) is not None


def _times(text: str, value: Mapping[str, Any]) -> bool:
    return _within(text.casefold().count(value["of"].casefold()), value)


def _counted(count: Callable[[str], int]) -> Rule:
    return Rule(lambda text, value: _within(count(text), value), _check_count)


def _within(count: int, value: int | Mapping[str, Any]) -> bool:
    if isinstance(value, Mapping):
        return value.get("min", 0) <= count <= value.get("max", count)
    return count == value


def _sentences(text: str) -> int:
    return sum(any(map(str.isalnum, part)) for part in _SENTENCE_END.split(text))


def _paragraphs(text: str) -> int:
    return sum(bool(part.strip()) for part in re.split(r"\n[ \t]*\n", text))


def _is_json(text: str, value: bool) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return not value
    return value


def _is_quoted(text: str, value: bool) -> bool:
    return value == (len(text) > 2 and text[0] == text[-1] == '"')


def _agrees(text: str, reference: str) -> bool:
    result = _predicate(reference)(text)
    if not isinstance(result, bool):
        raise TypeError(f"the predicate '{reference}' returned {result!r:.80}; it returns True or False")
    return result


@lru_cache(maxsize=64)
def _predicate(reference: str) -> Callable[..., Any]:
    return find_function(reference, "reward")


def _check_texts(value: Any) -> None:
    if not _texts(value) or not all(isinstance(part, str) and part for part in _texts(value)):
        raise ValueError(f"a text or a list of texts is wanted, not {value!r:.80}")


def _texts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_text(value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"a text is wanted, not {value!r:.80}")


def _check_predicate(value: Any) -> None:
    _check_text(value)
    _predicate(value)


def _check_flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is wanted, not {value!r:.80}")


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


def _check_case(value: Any) -> None:
    if value not in _CASES:
        raise ValueError(f"one of {', '.join(_CASES)} is wanted, not {value!r:.80}")


RULES: Mapping[str, Rule] = {
    "contains": Rule(lambda text, value: all(_has(text, part) for part in _texts(value)), _check_texts),
    "contains_any": Rule(lambda text, value: any(_has(text, part) for part in _texts(value)), _check_texts),
    "avoids": Rule(lambda text, value: not any(_has(text, part) for part in _texts(value)), _check_texts),
    "times": Rule(_times, _check_times),
    "characters": _counted(len),
    "words": _counted(lambda text: len(text.split())),
    "sentences": _counted(_sentences),
    "lines": _counted(lambda text: sum(bool(line.strip()) for line in text.splitlines())),
    "paragraphs": _counted(_paragraphs),
    "bullets": _counted(lambda text: len(_BULLET.findall(text))),
    "starts_with": Rule(lambda text, value: text.startswith(value.strip()), _check_text),
    "ends_with": Rule(lambda text, value: text.endswith(value.strip()), _check_text),
    "case": Rule(lambda text, value: _CASES[value](text), _check_case),
    "quoted": Rule(_is_quoted, _check_flag),
    "json": Rule(_is_json, _check_flag),
    "pattern": Rule(lambda text, value: matches(value, text, False, _PATTERN_S), check_pattern),
    "predicate": Rule(_agrees, _check_predicate),
}
