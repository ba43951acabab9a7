"""How long a stage trains, how often it is measured and saved, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import Count, NoEffect, OneOf, Positive, Resumable, Share, Table, Text, key

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
    patience: Positive | None = key(
        None, "Stop when it has not been better for so many evaluations (of eval/...) or steps."
    )
    threshold: float | None = key(None, "Stop when it is this good.")
    total: Annotated[float, Field(gt=0)] | None = key(
        None, "Stop when its sum over the steps is this much: a budget, as of tokens/sampled."
    )


class Run(Table):
    """How long, how often, and where."""

    steps: Count = key(100, "Training steps.")
    evaluate_every: Resumable[Count] = key(0, "Steps between evaluations; 0: before and after only.")
    keep_best: Text | None = key(
        None, "Held-out metric, such as eval/greedy, whose best step is kept; the last step when not given."
    )
    stop: Stop | None = key(None, "Stop early: { metric, patience }, { metric, threshold } or { metric, total }.")
    save_every: NoEffect[Count] = key(50, "Steps between checkpoints; 0: at the end only.")
    keep_checkpoints: NoEffect[Positive] = key(2, "Latest checkpoints to keep.")
    directory: NoEffect[Text] = key("runs", "Directory in which the run gets a directory of its name.")
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = key(
        "auto", "CPU threads; auto: OMP_NUM_THREADS, or the cores there are."
    )
    show_group_every: NoEffect[Count] = key(25, "Steps between groups shown on the console; 0: never.")
    workers: NoEffect[int] = key(1, "Processes that compute rewards.", ge=1, le=1024)
    retries: NoEffect[int] = key(
        2, "Times that a group is scored again when a worker, sandbox or server failed; a timeout is not.", ge=0, le=100
    )
    pass_environment: NoEffect[Annotated[tuple[Text, ...], Field(strict=False)]] = key(
        (), "Environment variables that reward workers may see although they look like a key or password."
    )
    failure_budget: NoEffect[Share] = key(
        0.1, "Share of the last failure_window groups that may be lost so before the run stops."
    )
    failure_window: NoEffect[Positive] = key(100, "Groups that the failure budget looks at.")
    gate: NoEffect[Literal["enforce", "warn", "off"]] = key(
        "enforce", "Before the first step: check that gold answers pay and junk does not; refuse, warn, or do not."
    )
    save_rollouts: NoEffect[bool] = key(True, "Keep every rollout of every step on disk.")
    trackers: NoEffect[Annotated[tuple[Annotated[str, OneOf(SINKS)], ...], Field(strict=False)]] = key(
        (), "Where the numbers of every step go beside metrics.jsonl."
    )
