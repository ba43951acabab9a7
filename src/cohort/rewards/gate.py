"""What `cohort check` feeds to every reward: answers that must pay, and junk that must not."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["gold_completions", "junk_completions"]

GoldStyle = Literal["all", "r1", "boxed", "hashes"]
_CONSTANTS = ("0", "1", "42")


def gold_completions(answer: Any, style: GoldStyle = "all") -> list[tuple[str, str]]:
    """`(label, text)` of the gold answer in the ways that answers are written: R1 tags, \\boxed{} and ####."""
    gold = _bare(answer)
    wrapped = {
        "r1": ("gold in R1 tags", f"<think> The answer follows. </think>\n<answer> {gold} </answer>"),
        "boxed": ("gold in a box", f"The answer is \\boxed{{{gold}}}."),
        "hashes": ("gold after ####", f"The answer follows.\n#### {gold}"),
    }
    return list(wrapped.values()) if style == "all" else [wrapped[style]]


def junk_completions(prompt: str, answer: Any = None) -> list[tuple[str, str]]:
    """`(label, text)` of texts that know nothing of the answer. Constants that happen to be right are left out."""
    junk = [
        ("empty", ""),
        ("whitespace", " \n\t "),
        ("the prompt", prompt),
        ("empty tags", "<think></think><answer></answer>"),
        ("empty box", "\\boxed{}"),
        ("an opener", "Let's solve this problem step by step."),
    ]
    gold = _bare(answer)
    for constant in _CONSTANTS:
        if constant != gold:
            junk.append((f"always {constant}", constant))
            junk += [
                (f"always {constant}, {label.removeprefix('gold ')}", text)
                for label, text in gold_completions(constant)
            ]
    return junk


def _bare(answer: Any) -> str:
    """The answer alone: of a GSM8K solution, what follows ####."""
    return str(answer).rpartition("####")[2].strip()
