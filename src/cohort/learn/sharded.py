"""The optimizer's averages where several ranks learn: each writes and reads its own shards, and no rank has the whole.

They lie in a folder of safetensors (torch.distributed.checkpoint with its Hugging Face storage, which has no pickles);
any number of ranks reads them, one process as well.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cohort.learn.optimizer import NOT_FINITE
from cohort.learn.ranks import Ranks
from cohort.types import UserError

FOLDER = "optimizer"  # of a checkpoint; in its place one process writes `optimizer.safetensors`


def save_shards(optimizer: torch.optim.Optimizer, directory: Path, ranks: Ranks) -> None:
    """Write this rank's shards. All ranks call it at once. Raises `UserError` for averages that are not finite."""
    import torch.distributed.checkpoint as dcp

    state = optimizer.state_dict()["state"]
    flat: dict[str, Tensor] = {f"{at}.{key}": value for at, entry in state.items() for key, value in entry.items()}
    own = (value.to_local() if hasattr(value, "to_local") else value for value in flat.values())
    if ranks.most(sum(not bool(value.isfinite().all()) for value in own)):
        raise UserError(NOT_FINITE)
    writer = dcp.HuggingFaceStorageWriter(str(directory / FOLDER), save_distributed=True)
    dcp.save(flat, storage_writer=writer)


def load_shards(optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Read what `save_shards` wrote, as the weights are sharded here; bit for bit."""
    import torch.distributed.checkpoint as dcp

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    reader = dcp.HuggingFaceStorageReader(str(directory / FOLDER))
    found: dict[str, Tensor] = {}
    about: Any
    for name, about in reader.read_metadata().state_dict_metadata.items():
        own, shape, kind = parameters[int(name.partition(".")[0])], about.size, about.properties.dtype
        found[name] = torch.zeros_like(own, dtype=kind) if own.shape == shape else torch.zeros(shape, dtype=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one process reads it
        dcp.load(found, storage_reader=reader, no_dist=not dist.is_initialized())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in found.items():
        at, key = name.split(".", 1)
        state.setdefault(int(at), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
