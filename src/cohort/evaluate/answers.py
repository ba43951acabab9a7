"""What a completion answers, so that equal answers can be counted."""

from __future__ import annotations

from collections.abc import Hashable

from cohort.rewards.verifiers.final_answer import final_answer
from cohort.rewards.verifiers.number import parse_number


def answer_of(completion: str) -> Hashable | None:
    """The final answer that the text marks, as a number where it is one, else without regard to case and blanks; of a
    text that marks none what follows its reasoning. None where there is nothing.
    """
    marked = final_answer(completion)
    answer = completion.rpartition("</think>")[2] if marked is None else marked
    number = parse_number(answer)
    return number if number is not None else " ".join(answer.split()).casefold() or None
