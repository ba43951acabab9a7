"""Is the answer to a reasoning-gym problem right in full?

The final answer is found by the one rule of `verifiers.final_answer`; nothing is paid for an answer that is in the text
somewhere, for part of an answer, or for an answer with words around it. How it is judged goes with the prompt (column
`gym`, see `cohort.integrations.reasoning_gym.source`):

* `text`: equal to the gold answer. Spacing does not count, 72.0 equals 72, and lists are compared as JSON.
* `words`: as `text`, and upper and lower case and a full stop at the end do not count either.
* `expression`: arithmetic over the given numbers that comes to the target (`cohort.integrations.reasoning_gym.verify`).
* `one_of`: equal, as `text`, to one of the problem's valid answers.
* `verifier`: reasoning-gym's own scorer gives it full marks, for tasks with many right answers. It sees only texts of
  the task's form (`form`, a regular expression), in a process that is killed when it takes too long.

No text of the policy is ever executed. The tasks whose own scorers would are in `EXECUTES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cohort.rewards.guarded import Ended, guarded
from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, stops_after
from cohort.rewards.verifiers.final_answer import final_answer

SCORINGS = ("text", "words", "expression", "one_of", "verifier")
# reasoning-gym 0.1.25: these scorers call eval or sympy.parse_expr on the answer.
EXECUTES = frozenset(
    {"binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24"}
    | {"simple_integration", "spiral_matrix", "string_insertion"}
)
_VERIFY = "cohort.integrations.reasoning_gym.verify:verify"
_LONGEST = 20_000  # characters
_NUMBER = re.compile(r"[-+]?[0-9]{1,400}(?:\.[0-9]{1,400})?")


def check_problem(row: Mapping[str, Any]) -> None:
    """Raise ValueError for a row whose problem cannot be scored safely."""
    problem = row.get("gym")
    if problem is None:
        return
    scoring = problem.get("scoring") if isinstance(problem, Mapping) else None
    if scoring not in SCORINGS:
        raise ValueError(f"its column 'gym' has the scoring {scoring!r}, not {' or '.join(SCORINGS)}")
    if scoring == "verifier" and problem.get("task") in EXECUTES:
        raise ValueError(f"reasoning-gym's scorer of {problem['task']} executes the answer, so it is never called")


@stops_after("limit_s")
@checked_by(check_problem)
def reasoning_gym(
    completion: str, answer: Any, prompt: str, row: Mapping[str, Any], limit_s: float = 2.0
) -> Scored | None:
    """1 if the final answer is right in full, else 0; None where the prompt is no reasoning-gym problem.

    `limit_s` bounds the processor time of one answer, for tasks whose answers have to be worked through.
    """
    problem = row.get("gym")
    if problem is None:
        return None
    check_problem(row)
    found = final_answer(completion, _LONGEST)
    if found is None or len(found) > _LONGEST:
        return Scored(0.0, "no_answer" if found is None else "too_long")
    if problem["scoring"] == "text":
        return Scored(float(same(found, str(answer))))
    if problem["scoring"] == "words":
        return Scored(float(same(_plain(found), _plain(str(answer)))))
    if (form := problem.get("form")) and not re.fullmatch(form, found.strip()):
        return Scored(0.0, "not_of_the_form")
    try:
        right = guarded(_VERIFY, limit_s, problem=dict(problem), question=prompt, found=found)
    except Ended as ended:
        return Scored(0.0, ended.how)
    return Scored(float(right))


def same(found: str, gold: str) -> bool:
    """Whether two answers are equal as texts without regard to spacing, as numbers, or as lists."""
    found, gold = _spaced(found), _spaced(gold)
    if not gold:
        return False  # an empty answer states nothing
    if found == gold:
        return True
    if _NUMBER.fullmatch(found) and _NUMBER.fullmatch(gold):
        return Decimal(found) == Decimal(gold)
    return gold.startswith("[") and found.startswith("[") and _list(gold) is not None and _list(found) == _list(gold)


def _spaced(text: str) -> str:
    """The lines that hold something, each with single spaces."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").casefold()


def _list(text: str) -> str | None:
    """A JSON list written in one way, so that 1, 1.0 and true stay apart; None for what is none.

    reasoning-gym writes lists of texts as Python does, in single quotes: ['97.0', '95.0'].
    """
    try:
        return json.dumps(json.loads(text if '"' in text else text.replace("'", '"')))
    except (ValueError, RecursionError):
        return None
