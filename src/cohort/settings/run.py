"""How long a stage trains, how often it is measured and saved, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import Count, NoEffect, OneOf, Positive, Resumable, Share, Table, Text

# Where numbers may go, and what takes them there: "module:name" of a `views.trackers.Sink`.
SINKS = {
    "tensorboard": "cohort.views.trackers.tensorboard:TensorBoard",
    "trackio": "cohort.views.trackers.trackio:Trackio",
    "wandb": "cohort.views.trackers.wandb:WandB",
}


class Stop(Table):
    """When a stage stops before its last step."""

    place = ("run", "stop")

    metric: Text = Field(description="A number of metrics.jsonl, such as eval/greedy; of a reward: reward:mean.")
    patience: Positive | None = Field(
        default=None, description="Stop when it has not been better for so many evaluations (of eval/...) or steps."
    )
    threshold: float | None = Field(default=None, description="Stop when it is this good.")
    total: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Stop when its sum over the steps is this much: a budget, as of tokens/sampled."
    )


class Run(Table):
    """How long, how often, and where."""

    steps: Count = Field(default=100, description="Training steps.")
    evaluate_every: Resumable[Count] = Field(
        default=0, description="Steps between evaluations; 0: before and after only."
    )
    keep_best: Text | None = Field(
        default=None,
        description="Held-out metric, such as eval/greedy, whose best step is kept; the last step when not given.",
    )
    stop: Stop | None = Field(
        default=None, description="Stop early: { metric, patience }, { metric, threshold } or { metric, total }."
    )
    save_every: NoEffect[Count] = Field(default=50, description="Steps between checkpoints; 0: at the end only.")
    keep_checkpoints: NoEffect[Positive] = Field(default=2, description="Latest checkpoints to keep.")
    directory: NoEffect[Text] = Field(
        default="runs", description="Directory in which the run gets a directory of its name."
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        default="auto", description="CPU threads; auto: OMP_NUM_THREADS, or the cores there are."
    )
    show_group_every: NoEffect[Count] = Field(
        default=25, description="Steps between groups shown on the console; 0: never."
    )
    workers: NoEffect[int] = Field(default=1, ge=1, le=1024, description="Processes that compute rewards.")
    retries: NoEffect[int] = Field(
        default=2,
        ge=0,
        le=100,
        description="Times that a group is scored again when a worker, sandbox or server failed; a timeout is not.",
    )
    pass_environment: NoEffect[Annotated[tuple[Text, ...], Field(strict=False)]] = Field(
        default=(),
        description="Environment variables that reward workers may see although they look like a key or password.",
    )
    failure_budget: NoEffect[Share] = Field(
        default=0.1, description="Share of the last failure_window groups that may be lost so before the run stops."
    )
    failure_window: NoEffect[Positive] = Field(default=100, description="Groups that the failure budget looks at.")
    gate: NoEffect[Literal["enforce", "warn", "off"]] = Field(
        default="enforce",
        description="Before the first step: check that gold answers pay and junk does not; refuse, warn, or do not.",
    )
    save_rollouts: NoEffect[bool] = Field(default=True, description="Keep every rollout of every step on disk.")
    trackers: NoEffect[Annotated[tuple[Annotated[str, OneOf(SINKS)], ...], Field(strict=False)]] = Field(
        default=(), description="Where the numbers of every step go beside metrics.jsonl."
    )
