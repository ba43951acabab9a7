"""What a completion looks like, whatever it says: a pattern of one's own, exactly one answer, R1's two tags."""

from __future__ import annotations

import re

from cohort.rewards.items import Scored
from cohort.rewards.marks import checked_by, stops_after
from cohort.rewards.verifiers.final_answer import final_answer
from cohort.rewards.verifiers.pattern import check_pattern, matches

__all__ = ["FORMS", "one_answer", "regex_format", "think_format"]

FORMS = ("any", "tags", "boxed", "hashes")
_THINKING = ("<think>", "</think>", "<answer>", "</answer>")
_TAGS = re.compile(r"</?answer>")
_HASHES = re.compile(r"(?<!#)####(?!#)")


@stops_after("timeout_s")
@checked_by(check_pattern)
def regex_format(completion: str, pattern: str, whole: bool = True, timeout_s: float = 1.0) -> Scored:
    """1 if the regular expression `pattern` matches the completion (with `whole`, all of it), else 0.

    A pattern that has not decided after `timeout_s` seconds of processor time does not match (label "timeout").
    """
    try:
        return Scored(float(matches(pattern, completion, whole, timeout_s)))
    except TimeoutError:
        return Scored(0.0, "timeout")


def check_form(form: str) -> None:
    """Raise ValueError if there is no such form of an answer."""
    if form not in FORMS:
        raise ValueError(f"form is one of {', '.join(FORMS)}, not {form!r}")


@checked_by(check_form)
def one_answer(completion: str, form: str = "any") -> float:
    """1 if the text marks exactly one answer and that is not blank, else 0.

    `form`: "tags" (`<answer> ... </answer>`), "boxed" (`\\boxed{ ... }`), "hashes" (`#### ...`), or "any" of them. A
    box inside the tags is part of that answer; any other second mark is a second answer.
    """
    check_form(form)
    tags, boxes, hashes = _TAGS.findall(completion), completion.count("\\boxed{"), len(_HASHES.findall(completion))
    if tags:
        found = "tags"
        inside = completion.partition("<answer>")[2].partition("</answer>")[0]
        one = tags == ["<answer>", "</answer>"] and not hashes and boxes <= 1 and boxes == inside.count("\\boxed{")
    elif boxes:
        found, one = "boxed", boxes == 1 and not hashes
    else:
        found, one = "hashes", hashes == 1
    answer = final_answer(completion, longest=len(completion)) or ""
    return float(one and form in ("any", found) and bool(answer.strip()))


def think_format(completion: str, prompt: str = "", opened: bool | None = None) -> float:
    """1 if the whole text is `<think> ... </think><answer> ... </answer>`, the format of DeepSeek-R1, else 0.

    Each tag occurs exactly once; whitespace is free before, between and after; the answer is not blank. `opened` says
    that the prompt already ends in "<think>", so that the completion starts inside it; None looks at the prompt, which
    is enough unless a chat template adds the tag.
    """
    if opened is None:
        opened = prompt.rstrip().endswith("<think>")
    text = ("<think>" + completion if opened else completion).strip()
    if any(text.count(tag) != 1 for tag in _THINKING):
        return 0.0
    if not text.startswith("<think>") or not text.endswith("</answer>"):
        return 0.0
    _, _, after = text.partition("</think>")
    between, found, rest = after.partition("<answer>")
    answer = rest.removesuffix("</answer>")
    return float(bool(found) and not between.strip() and bool(answer.strip()))
