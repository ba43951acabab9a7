"""Where the parts of a stage run, when not all of them are in this process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cohort.settings.table import NoEffect, Resumable, Table, Text, key

Actors = Annotated[int, Field(ge=1, le=4096)]


class Cluster(Table):
    """A Ray cluster for the learner, the sampler and the rewards of a grpo stage. Without an address all is here."""

    address: NoEffect[Text | None] = key(
        None, "auto: the cluster that this machine belongs to; local: one that is begun here; or ray://HOST:PORT."
    )
    learners: Resumable[Actors] = key(1, "Processes that learn together; the weights of several are sharded (FSDP2).")
    offload: NoEffect[bool] = key(
        False, "Keep what is sharded in the memory of CPUs, and a layer on the GPU while it computes."
    )
    samplers: Resumable[Actors] = key(1, "Processes that sample, each with all weights.")
    rewards: NoEffect[Actors] = key(1, "Actors that score, each with run.workers processes.")
    cpus: NoEffect[float] = key(0.0, "CPU cores that Ray reserves for each actor.", ge=0)
    gpus: NoEffect[float] = key(0.0, "GPUs that Ray reserves for each learner and sampler.", ge=0)
    deadline_s: NoEffect[float] = key(
        1800.0, "Seconds that an actor may take for one answer, or a group; then it is lost.", gt=0
    )
    retries: NoEffect[int] = key(3, "Times in a row that a lost actor is replaced and asked again.", ge=0, le=100)
