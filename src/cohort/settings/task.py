"""Where prompts and gold answers come from, and how a question becomes a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cohort.settings.rows import Data
from cohort.settings.table import Count, Positive, Share, Table, Text, Texts, Tokens, Weight, key


class Curriculum(Table):
    """Levels that rise with the success rate, for sources that have levels."""

    place = ("task", "curriculum")

    raise_at: float = key(0.8, "Mean pass rate of the window's prompts at which the next level begins.", gt=0, le=1)
    lower_at: float | None = key(
        None, "Mean pass rate at which it goes back a level; never when not given.", ge=0, lt=1
    )
    window: Positive = key(32, "Last prompts of the level that are looked at; a new level starts anew.")
    review: float = key(0.0, "Share of the prompts that are from easier levels.", ge=0, lt=1)


class Adaptive(Table):
    """Prompts that were all right or all wrong rest for some epochs, for sources with an end."""

    place = ("task", "adaptive")

    solved: float = key(1.0, "Pass rate from which a prompt counts as solved.", gt=0, le=1)
    hopeless: float = key(0.0, "Pass rate up to which a prompt counts as hopeless.", ge=0, lt=1)
    after: Positive = key(1, "Visits in a row that were so before the prompt rests.")
    rest: Positive = key(1, "Epochs it rests at first; twice as many each next time.")
    longest_rest: Positive = key(8, "Epochs after which every prompt is asked again.")


class Prompts(Table):
    """What a task and a source of a mixture have in common."""

    source: Data = Field(
        description="word_problems, arithmetic, reasoning_gym:TASK, verifiers:PACKAGE, a file, a directory, a hub id, "
        "module:function."
    )
    prompt: Text = key("prompt", "Column that holds the question, as text or as messages; a.b is b inside of a.")
    answer: Text = key("answer", "Column that holds the gold answer; a.b is b inside of a.")
    messages: Text | None = key(None, "Column that holds a chat (a list of messages), used as prompt.")
    split: Text = key("train", "Split of the source to train on.")
    held_out: Annotated[float, Field(gt=0, lt=1)] | Data | None = key(
        None, "Problems to evaluate on: another source, or a share of this one such as 0.1."
    )
    held_out_split: Text | None = key(None, "Split of the source to evaluate on.")
    config: Text | None = key(None, "Configuration of a hub dataset.")
    answer_format: Literal["plain", "gsm8k"] = key("plain", "How the answer is written; gsm8k: what follows ####.")
    levels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] | None = key(
        None, "Levels of word_problems, arithmetic (else 1 and 2) or reasoning_gym (else its own settings)."
    )
    args: dict[str, Any] = key(
        {}, "Settings of a reasoning_gym task (over its level's), a verifiers package or your own source."
    )
    limit: Positive | None = key(None, "Use only the first so many prompts.")
    curriculum: Curriculum | None = key(None, "Let the level rise with the success rate.")
    adaptive: Adaptive | None = key(None, "Let prompts without signal rest.")


class Source(Prompts):
    """One source of a mixture."""

    place = ("task", "mixture", "NAME")

    weight: Weight | dict[str, Weight] = key(
        1.0, "Its share of the prompts, relative to the others: a number, or by step: { 0 = 1, 200 = 3 }."
    )


class Task(Prompts):
    """Where prompts and gold answers come from."""

    completion: Text = key("completion", "Column that holds the demonstration, in supervised stages.")
    chosen: Text = key("chosen", "Column that holds the better answer, in reward_model stages.")
    rejected: Text = key("rejected", "Column that holds the worse answer, in reward_model stages.")
    margin: Text | None = key(None, "Column that says by how much the better answer should score higher, at least.")
    template: Literal["auto", "chat", "r1_zero", "none"] = key(
        "auto", "How a question is shown: chat template, R1-Zero, as it is; auto: chat, or none without one."
    )
    template_args: dict[str, bool | int | float | str | Texts] = key(
        {}, "Arguments of the chat template, such as { enable_thinking = false }."
    )
    system: str | None = key(None, "System message put before every question.")
    special_tokens: bool = key(
        False, "Texts of prompts such as <|im_end|> become special tokens; else they are broken up: < |im_end|>."
    )
    max_prompt_tokens: Tokens | None = key(
        None, "Longest prompt; when not given, what the context leaves beside rollout.max_tokens."
    )
    too_long: Literal["error", "drop", "truncate_left"] = key(
        "error", "What to do with a longer prompt; demonstrations and pairs of dpo must fit whole."
    )
    careful: Share | dict[str, Share] = key(
        1.0, "word_problems, arithmetic: share of demonstrations that show their working, or one by steps."
    )
    careful_first: Count = key(0, "word_problems, arithmetic: the first so many demonstrations all show their working.")
    sloppy_right: Share = key(0.2, "word_problems, arithmetic: share of the guesses without working that are right.")
    decontaminate: Literal["off", "warn", "drop"] = key(
        "warn", "Training prompts that hold a held-out question: not looked for, said and written down, left out."
    )
    mixture: dict[str, Source] = key(
        {}, "Several sources by name, which becomes the prompts' column domain, instead of one."
    )

    @model_validator(mode="before")
    @classmethod
    def _say_mixture(cls, given: Any) -> Any:
        """The source of a task with a mixture needs not be written."""
        if isinstance(given, Mapping) and given.get("mixture") and given.get("source") is None:
            return {**given, "source": "mixture"}
        return given
