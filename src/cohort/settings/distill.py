"""Who teaches a student on its own samples, and what the student learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cohort.settings.table import TOKENS, NoEffect, Resumable, Table, Text, key

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

    divergence: Literal["sampled", "reverse", "forward", "jsd"] = key(
        "sampled", "sampled: the teacher's log-probs of sampled tokens, an advantage; else over the whole vocabulary."
    )
    beta: float = key(0.5, "Share of the teacher in the mixture of jsd.", gt=0, lt=1)
    top_k: Annotated[int, Field(ge=1, le=TOKENS)] | None = key(
        None, "Look only at the teacher's k likeliest words; all of them when not given."
    )
    rest: Literal["bucket", "renormalise", "none"] = key(
        "bucket", "With top_k, what becomes of the other words: one bucket, or left out."
    )


class Teacher(Table):
    """One teacher: a model that is loaded here, or one at a server."""

    place = ("distillation", "teacher", "NAME")

    model: Text = Field(
        description='Directory, hub id, .gguf file or "stage:NAME"; at a server, the name under which it is served.'
    )
    dtype: Literal["float32", "bfloat16"] = key("float32", "Type of weights and arithmetic.")
    url: Resumable[Text | None] = key(
        None, "OpenAI-compatible server that gives prompt_logprobs, as vLLM's does: http://localhost:8000/v1."
    )
    tokenizer: Text | None = key(
        None, "Directory or hub id of the tokenizer of a served model; its name when not given."
    )
    api_key_env: NoEffect[Text | None] = key(None, "Environment variable that holds the server's key.")
    timeout_s: NoEffect[float] = key(120.0, "Seconds that one answer of a server may take.", gt=0)
    retries: NoEffect[int] = key(5, "Times that a server is asked again.", ge=0, le=100)
    concurrency: NoEffect[int] = key(8, "Requests to a server at the same time.", ge=1, le=1024)


class Distill(Divergence):
    """Settings of distill stages: a student samples, and teachers say how likely they find it."""

    place = ("distillation",)

    teacher: dict[str, Teacher] = key({}, "Teachers by name.")
    column: Text | None = key(None, "Column of a prompt that names its teacher; for several teachers.")


class SelfDistill(Divergence):
    """Settings of self_distill stages: the policy is its own teacher, as it is shown more than the student."""

    place = ("self_distillation",)

    teacher: Literal["policy", "reference"] = key(
        "reference", "Who is shown more: the policy as it is, or the [reference], which may follow it."
    )
    context: Literal["sibling", "column"] = key(
        "sibling", "What it is shown: a right completion of the same group, or a column of the row."
    )
    column: Text = key("answer", "The column that it is shown; answer: the gold answer.")
    threshold: float = key(0.5, "Accuracy from which a completion of the group is right.")
    feedback: bool = key(False, "Where no other is right, show why the verifier paid what it did (its label).")
    thoughts: bool = key(False, "Show what another completion has thought (<think>), too.")
    show_solution: Text = key(
        "Here is a correct solution to the problem below:\n\n{}\n\nNow solve the problem yourself.",
        "How a solution is shown before the question; {} stands for it.",
    )
    show_feedback: Text = key(
        "An attempt at the problem below was judged: {}.\n\nNow solve the problem without that mistake.",
        "How feedback is shown before the question; {} stands for it.",
    )
