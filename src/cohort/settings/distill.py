"""Who teaches a student on its own samples, and what the student learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cohort.settings.table import TOKENS, NoEffect, Resumable, Table, Text

# What these kinds of stage optimise where their recipe names no preset: the reverse KL of the sampled tokens, with the
# importance weight that the source of each has, without a clip or, in the second, cut at 2.
_PLAIN = {"scale": "none", "clip_low": "off", "clip_high": "off", "kl_coef": 0.0, "aggregation": "token_mean"}
OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "distill": _PLAIN,
    "self_distill": {**_PLAIN, "surrogate": "truncated", "ratio_max": 2.0},
}
TEACHER_COEF = 1.0  # in these kinds, whatever the preset


class Divergence(Table):
    """What is learnt from a teacher."""

    divergence: Literal["sampled", "reverse", "forward", "jsd"] = Field(
        default="sampled",
        description="sampled: the teacher's log-probs of sampled tokens, an advantage; else over the whole vocabulary.",
    )
    beta: float = Field(default=0.5, gt=0, lt=1, description="Share of the teacher in the mixture of jsd.")
    top_k: Annotated[int, Field(ge=1, le=TOKENS)] | None = Field(
        default=None, description="Look only at the teacher's k likeliest words; all of them when not given."
    )
    rest: Literal["bucket", "renormalise", "none"] = Field(
        default="bucket", description="With top_k, what becomes of the other words: one bucket, or left out."
    )


class Teacher(Table):
    """One teacher: a model that is loaded here, or one at a server."""

    place = ("distillation", "teacher", "NAME")

    model: Text = Field(
        description='Directory, hub id, .gguf file or "stage:NAME"; at a server, the name under which it is served.'
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of weights and arithmetic.")
    url: Resumable[Text | None] = Field(
        default=None,
        description="OpenAI-compatible server that gives prompt_logprobs, as vLLM's does: http://localhost:8000/v1.",
    )
    tokenizer: Text | None = Field(
        default=None, description="Directory or hub id of the tokenizer of a served model; its name when not given."
    )
    api_key_env: NoEffect[Text | None] = Field(
        default=None, description="Environment variable that holds the server's key."
    )
    timeout_s: NoEffect[float] = Field(default=120.0, gt=0, description="Seconds that one answer of a server may take.")
    retries: NoEffect[int] = Field(default=5, ge=0, le=100, description="Times that a server is asked again.")
    concurrency: NoEffect[int] = Field(default=8, ge=1, le=1024, description="Requests to a server at the same time.")


class Distill(Divergence):
    """Settings of distill stages: a student samples, and teachers say how likely they find it."""

    place = ("distillation",)

    teacher: dict[str, Teacher] = Field(default={}, description="Teachers by name.")
    column: Text | None = Field(
        default=None, description="Column of a prompt that names its teacher; for several teachers."
    )


class SelfDistill(Divergence):
    """Settings of self_distill stages: the policy is its own teacher, as it is shown more than the student."""

    place = ("self_distillation",)

    teacher: Literal["policy", "reference"] = Field(
        default="reference",
        description="Who is shown more: the policy as it is, or the [reference], which may follow it.",
    )
    context: Literal["sibling", "column"] = Field(
        default="sibling", description="What it is shown: a right completion of the same group, or a column of the row."
    )
    column: Text = Field(default="answer", description="The column that it is shown; answer: the gold answer.")
    threshold: float = Field(default=0.5, description="Accuracy from which a completion of the group is right.")
    feedback: bool = Field(
        default=False, description="Where no other is right, show why the verifier paid what it did (its label)."
    )
    thoughts: bool = Field(default=False, description="Show what another completion has thought (<think>), too.")
    show_solution: Text = Field(
        default="Here is a correct solution to the problem below:\n\n{}\n\nNow solve the problem yourself.",
        description="How a solution is shown before the question; {} stands for it.",
    )
    show_feedback: Text = Field(
        default="An attempt at the problem below was judged: {}.\n\nNow solve the problem without that mistake.",
        description="How feedback is shown before the question; {} stands for it.",
    )
