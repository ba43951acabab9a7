"""Where the parts of a stage run, when not all of them are in this process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cohort.settings.table import NoEffect, Resumable, Table, Text

Actors = Annotated[int, Field(ge=1, le=4096)]


class Cluster(Table):
    """A Ray cluster for the learner, the sampler and the rewards of a grpo stage. Without an address all is here."""

    address: NoEffect[Text | None] = Field(
        default=None,
        description="auto: the cluster that this machine belongs to; local: one that is begun here; or ray://HOST:PORT.",
    )
    learners: Resumable[Actors] = Field(
        default=1, description="Processes that learn together; the weights of several are sharded (FSDP2)."
    )
    offload: NoEffect[bool] = Field(
        default=False,
        description="Keep what is sharded in the memory of CPUs, and a layer on the GPU while it computes.",
    )
    samplers: Resumable[Actors] = Field(default=1, description="Processes that sample, each with all weights.")
    rewards: NoEffect[Actors] = Field(default=1, description="Actors that score, each with run.workers processes.")
    cpus: NoEffect[float] = Field(default=0.0, ge=0, description="CPU cores that Ray reserves for each actor.")
    gpus: NoEffect[float] = Field(default=0.0, ge=0, description="GPUs that Ray reserves for each learner and sampler.")
    deadline_s: NoEffect[float] = Field(
        default=1800.0, gt=0, description="Seconds that an actor may take for one answer, or a group; then it is lost."
    )
    retries: NoEffect[int] = Field(
        default=3, ge=0, le=100, description="Times in a row that a lost actor is replaced and asked again."
    )
