"""Recorded rollouts, to read: what was asked, what was answered, and what it was paid for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape

from cohort.views.console import Console
from cohort.wording import counted


def show_rollouts(console: Console, rows: Iterable[Mapping[str, Any]], traces: str) -> None:
    """Every rollout; those of one prompt under one question. `traces` is how they are shown."""
    before = None
    for row in rows:
        _show(console, row, with_prompt=row["ticket"] != before)
        before = row["ticket"]
    if traces != "exposed":
        console.warn(f"reasoning is {traces}, as [record] traces of the run says; the log has it whole")


def _show(console: Console, row: Mapping[str, Any], with_prompt: bool) -> None:
    """The question (where it is not that of the rollout before), the numbers, and the text or the conversation."""
    if with_prompt:
        console.say(f"\n[bold]step {row['step']}, ticket {row['ticket']}[/]  {counted(row['prompt_tokens'], 'token')}")
        for message in row["messages"] or [{"role": "", "content": _or_erased(row["prompt"])}]:
            _say(console, message.get("role", ""), str(message.get("content") or ""))
        if row["answer"] is not None:
            _say(console, "gold", row["answer"])
    if row["error"]:
        console.say(f"  [yellow]{escape(row['error'])}[/]")
    if row["member"] < 0:
        return
    why = row["labels"]
    scores = ", ".join(
        f"{name} {'-' if score is None else format(score, '.4g')}" + (f" ({why[name]})" if why.get(name) else "")
        for name, score in row["scores"].items()
    )
    numbers = [f"reward {row['reward']:.4g}" if row["reward"] is not None else "no reward"]
    numbers += [f"advantage {row['advantage']:+.3f}"] if row["advantage"] is not None else []
    numbers += [f"{counted(row['tokens'], 'token')}", f"finish {row['finish']}", row["disposition"] or ""]
    console.say(f"  [bold]member {row['member']}[/]  {escape(', '.join(filter(None, numbers)))}")
    console.say(f"  [dim]{escape(scores)}[/]")
    if not row["turns"]:
        _say(console, "", _or_erased(row["text"]))
    for turn in row["turns"]:
        _say(console, "assistant", turn["text"])
        for message in turn["observation"]["messages"]:
            _say(console, message.get("role", "tool"), str(message.get("content") or ""))


def _or_erased(text: str | None) -> str:
    return "(erased)" if text is None else text


def _say(console: Console, who: str, text: str) -> None:
    """A text with its line breaks, each line set in."""
    mark = f"[dim]{escape(who)}[/] " if who else ""
    for line in (text or "(empty)").split("\n"):
        console.say(f"    {mark}{escape(line)}", fold=False)
        mark = ""
