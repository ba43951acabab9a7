"""Hugging Face datasets: on the hub, in the local cache, or as objects in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from cohort.tasks.sources.files import TableRows
from cohort.types import UserError

__all__ = ["dataset_rows", "open_hub"]

HUB_PATIENCE_S = 10.0


def dataset_rows(dataset: Any, name: str) -> TableRows:
    """The rows of a `datasets.Dataset`: Arrow, memory-mapped by the library."""
    return TableRows(name, tuple(dataset.column_names), len(dataset), dataset.__getitem__)


def open_hub(name: str, split: str, config: str | None, revision: str | None) -> TableRows:
    """A dataset of the hub (or of the local cache), memory-mapped by the library."""
    import datasets
    import huggingface_hub as hub

    try:
        hub.HfApi().dataset_info(name, revision=revision, timeout=HUB_PATIENCE_S)
        offline = False
    except hub.errors.RepositoryNotFoundError as error:
        raise hub_error(name, "the hub has no public dataset of that name") from error
    except hub.errors.RevisionNotFoundError as error:
        raise hub_error(name, f"it has no revision {revision!r}") from error
    except Exception:  # no network: the library would retry for half a minute before it looks into the cache
        offline = True
    try:
        with hub_offline() if offline else nullcontext():
            return dataset_rows(datasets.load_dataset(name, config, split=split, revision=revision), name)
    except (OSError, ValueError, RuntimeError) as error:  # not in the cache, a wrong split or config
        reason = " ".join(str(error).split("\n")[0].split())
        raise hub_error(name, "the hub cannot be reached, and it is not in the cache" if offline else reason) from error


@contextmanager
def hub_offline() -> Iterator[None]:
    """Make the libraries look into their cache only."""
    import datasets
    import huggingface_hub as hub

    before = datasets.config.HF_HUB_OFFLINE, hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.constants.HF_HUB_OFFLINE = before


def hub_error(name: str, reason: str) -> UserError:
    """The error for a dataset that does not come."""
    return UserError(
        f"{name!r} is neither a file here nor a dataset that could be loaded from the hub ({reason}). "
        "Check the name, the split, the config and the network, or give a path."
    )
