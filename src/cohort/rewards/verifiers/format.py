"""What a completion looks like, whatever it says: a pattern of one's own, exactly one answer, R1's two tags.

Regular expressions are those of the `regex` package, which reads what Python's `re` reads and stops at a time limit:
people write them, models write the text, and some never end together.
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex

from cohort.rewards.items import Labelled, Scored
from cohort.rewards.marks import checked_by, stops_after
from cohort.rewards.verifiers.characters import visible
from cohort.rewards.verifiers.final_answer import final_answer

__all__ = ["FORMS", "check_pattern", "matches", "one_answer", "regex_format", "think_format"]

FORMS = ("any", "tags", "boxed", "hashes")
_R1 = re.compile(r"<think>.*</think>\s*<answer>\s*\S.*</answer>", re.DOTALL)
_TAGS = re.compile(r"</?answer>")
_HASHES = re.compile(r"(?<!#)####(?!#)")


def matches(pattern: str, text: str, whole: bool, timeout_s: float) -> bool:
    """Whether `pattern` matches `text`, all of it or a part; `.` matches a newline only with (?s).

    Raises TimeoutError after `timeout_s` seconds of processor time, ValueError for a pattern that is none.
    """
    compiled = _compiled(pattern)
    found = compiled.fullmatch(text, timeout=timeout_s) if whole else compiled.search(text, timeout=timeout_s)
    return found is not None


def check_pattern(pattern: object) -> None:
    """Raise ValueError if `pattern` is no regular expression."""
    if not isinstance(pattern, str):
        raise ValueError(f"a pattern is a text, not {pattern!r:.80}")
    _compiled(pattern)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern!r:.80} is no regular expression: {error}") from None


@stops_after("timeout_s")
@checked_by(check_pattern)
def regex_format(completion: str, pattern: str, whole: bool = True, timeout_s: float = 1.0, begun: str = "") -> Scored:
    """1 if the regular expression `pattern` matches the completion (with `whole`, all of it), else 0.

    Where the rendered prompt has `begun` the completion, as templates do that end in `<think>`, a match with that
    beginning counts, too. A pattern that has not decided after `timeout_s` seconds of processor time does not match
    (label "timeout").
    """
    try:
        texts = dict.fromkeys((completion, begun + completion))
        return Scored(float(any(matches(pattern, text, whole, timeout_s) for text in texts)))
    except TimeoutError:
        return Scored(0.0, "timeout")


def check_form(form: str) -> None:
    """Raise ValueError if there is no such form of an answer."""
    if form not in FORMS:
        raise ValueError(f"form is one of {', '.join(FORMS)}, not {form!r}")


@checked_by(check_form)
def one_answer(completion: str, form: str = "any") -> Labelled:
    """1 if the text marks exactly one answer and that is not blank, else 0.

    Labels: kept; no_answer; unpaired (of the tags one is missing, or the end comes first); several; other_form; blank.

    `form`: "tags" (`<answer> ... </answer>`), "boxed" (`\\boxed{ ... }`), "hashes" (`#### ...`), or "any" of them. A
    box inside the tags is part of that answer; any other second mark is a second answer.
    """
    check_form(form)
    completion = visible(completion)
    tags, boxes, hashes = _TAGS.findall(completion), completion.count("\\boxed{"), len(_HASHES.findall(completion))
    both = ["<answer>", "</answer>"]
    if tags:
        found = "tags"
        inside = completion.partition("<answer>")[2].partition("</answer>")[0]
        one = tags == both and not hashes and boxes <= 1 and boxes == inside.count("\\boxed{")
    elif boxes:
        found, one = "boxed", boxes == 1 and not hashes
    else:
        found, one = "hashes", hashes == 1
    answer = final_answer(completion, longest=len(completion))
    for problem, label in (
        (tags != both and len(set(tags)) == len(tags) > 0, "unpaired"),
        (answer is None, "no_answer"),
        (not one, "several"),
        (form not in ("any", found), "other_form"),
        (not (answer or "").strip(), "blank"),
    ):
        if problem:
            return Labelled(0.0, label)
    return Labelled(1.0, "kept")


def think_format(completion: str, prompt: str = "", opened: bool | None = None, begun: str = "") -> Labelled:
    """1 if the whole text is `<think> ... </think><answer> ... </answer>`, the format of DeepSeek-R1, else 0.

    Labels: kept, no_tags (one is missing), tags_twice, order (other text, another order, or a blank answer).

    Each tag occurs exactly once; whitespace is free before, between and after; the answer is not blank. `opened` says
    that the prompt already ends in "<think>", so that the completion starts inside it; None looks at the prompt, and at
    what the chat template has `begun` of the completion.
    """
    if opened is None:
        opened = not begun and prompt.rstrip().endswith("<think>")
        completion = begun + completion
    text = visible("<think>" + completion if opened else completion).strip()
    counts = [text.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")]
    if counts != [1, 1, 1, 1]:
        return Labelled(0.0, "no_tags" if 0 in counts else "tags_twice")
    kept = _R1.fullmatch(text) is not None
    return Labelled(float(kept), "kept" if kept else "order")
