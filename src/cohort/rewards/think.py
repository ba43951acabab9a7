"""The format of DeepSeek-R1: reasoning in <think>, then the answer in <answer>, and nothing else."""

from __future__ import annotations

__all__ = ["think_format"]

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def think_format(completion: str, prompt: str = "", opened: bool | None = None) -> float:
    """1 if the whole text is `<think> ... </think><answer> ... </answer>`, else 0.

    Each tag occurs exactly once; whitespace is free before, between and after; the answer is not blank. `opened` says
    that the prompt already ends in "<think>", so that the completion starts inside it; None looks at the prompt, which
    is enough unless a chat template adds the tag.
    """
    if opened is None:
        opened = prompt.rstrip().endswith("<think>")
    text = ("<think>" + completion if opened else completion).strip()
    if any(text.count(tag) != 1 for tag in _TAGS):
        return 0.0
    if not text.startswith("<think>") or not text.endswith("</answer>"):
        return 0.0
    _, _, after = text.partition("</think>")
    between, found, rest = after.partition("<answer>")
    answer = rest.removesuffix("</answer>")
    return float(bool(found) and not between.strip() and bool(answer.strip()))
