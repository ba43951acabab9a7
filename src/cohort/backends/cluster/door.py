"""Ray behind one door: who connects, starts actors, asks them within a deadline, and says what went wrong.

Nothing else here imports Ray, and nothing outside of this folder knows of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cohort.machine import PACKAGES, describe_machine, quiet_libraries, threads_of
from cohort.settings import Cluster, Stage
from cohort.types import InfrastructureError, UserError
from cohort.wording import one_line

SAME = tuple(name for name in PACKAGES if name in ("cohort", "torch", "transformers", "peft", "numpy"))

# What a cluster that is begun here does without: reports, actors that work at a lower priority than the driver, metrics
# and events that nobody reads, and processes that wait for tasks, of which there are none.
NOT_HERE = (
    *("USAGE_STATS_ENABLED", "worker_niceness", "enable_metrics_collection", "task_events_report_interval_ms"),
    *("event_stats", "prestart_worker_first_driver", "num_workers_soft_limit"),
)

BEGIN_S = 120.0  # that an actor may take to begin, however short its answers have to be


class Lost(Exception):  # noqa: N818  (an event, handled by who asks)
    """An actor has died, or gave no answer in time: another one may do it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an actor has as the driver has it: directory, modules, threads, and the versions of libraries."""

    directory: str
    path: tuple[str, ...]
    threads: int
    versions: dict[str, Any]

    @staticmethod
    def here(stage: Stage) -> Surroundings:
        """Those of this process."""
        return Surroundings(os.getcwd(), tuple(sys.path), threads_of(stage.run.threads), _versions())

    @property
    def variables(self) -> dict[str, str]:
        """What a process must have in its environment before it begins."""
        path = os.pathsep.join(one for one in self.path if one)
        return {"PYTHONPATH": path, "OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}

    def enter(self, who: str) -> None:
        """Make them those of this process. Raises `UserError` where they cannot be."""
        own = _versions()
        if apart := [f"{name} {own[name]} and not {have}" for name, have in self.versions.items() if own[name] != have]:
            raise UserError(f"{who} on {os.uname().nodename} has {apart[0]}, as the driver has: install the same there")
        if not os.path.isdir(self.directory):
            raise UserError(
                f"{who} on {os.uname().nodename} does not see {self.directory}, from which the run was started: share "
                "that directory, as it has the model, the data and the run"
            )
        os.chdir(self.directory)
        sys.path[:] = self.path
        quiet_libraries()
        torch.set_num_threads(self.threads)  # the bits of a result depend on it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _versions() -> dict[str, Any]:
    machine = describe_machine()
    return {"python": machine["python"], **{name: machine["packages"][name] for name in SAME}}


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor and what messages call it."""

    handle: Any
    who: str


class Door:
    """The connection of one stage to its cluster."""

    def __init__(self, stage: Stage):
        self.table, self.surroundings = stage.cluster, Surroundings.here(stage)
        self.ray = _large_enough(self.table)

    def start(self, kind: type, who: str, gpus: bool = True, at_once: int = 1) -> Actor:
        """An actor, which has entered the driver's surroundings."""
        options: dict[str, Any] = {"num_cpus": self.table.cpus, "num_gpus": self.table.gpus if gpus else 0}
        made = self.ray.remote(kind).options(
            **options, max_restarts=0, max_concurrency=at_once, runtime_env={"env_vars": self.surroundings.variables}
        )
        actor = Actor(made.remote(), who)
        self.begin(actor, "enter", self.surroundings, who)
        return actor

    def end(self, actor: Actor) -> None:
        """Kill an actor, if it lives."""
        self.ray.kill(actor.handle, no_restart=True)

    def ask(self, actor: Actor, method: str, *given: Any) -> Any:
        """What an actor answers. Raises `Lost`, or what it raised that is meant for a person or the world's fault."""
        return self.answer(getattr(actor.handle, method).remote(*given), actor.who)

    def begin(self, actor: Actor, method: str, *given: Any) -> Any:
        """The same of an actor that has yet to load its libraries or its model."""
        return self.answer(getattr(actor.handle, method).remote(*given), actor.who, BEGIN_S)

    def all(
        self, actors: Sequence[Actor], method: str, given: Sequence[tuple[Any, ...]], least_s: float = 0
    ) -> list[Any]:
        """The same of several at once, each with what is its own."""
        asked = [getattr(one.handle, method).remote(*own) for one, own in zip(actors, given, strict=True)]
        return [self.answer(ref, one.who, least_s) for ref, one in zip(asked, actors, strict=True)]

    def answer(self, ref: Any, who: str, least_s: float = 0) -> Any:
        """What a reference comes to, within the deadline, or `least_s` seconds where that is shorter."""
        errors, limit = self.ray.exceptions, max(self.table.deadline_s, least_s)
        try:
            return self.ray.get(ref, timeout=limit)
        except errors.GetTimeoutError:
            raise Lost(
                f"the driver waited for {who}, which gave no answer within {limit:g} s (see cluster.deadline_s)"
            ) from None
        except errors.RayTaskError as error:
            if isinstance(error.cause, (UserError, InfrastructureError)):
                raise error.cause from None
            if isinstance(error.cause, (Lost, errors.RayError)):  # the second: what it was to work on has gone
                raise Lost(f"{who}: {one_line(error.cause)}") from None
            raise
        except (errors.RayError, ConnectionError) as error:
            raise Lost(f"{who} died ({type(error).__name__})") from None


def nodes_of(table: Cluster) -> list[tuple[str, float, float]]:
    """The nodes of a cluster, which can hold the actors of the table: name, CPUs, GPUs. Raises `UserError`."""
    there = [one for one in _large_enough(table).nodes() if one["Alive"]]
    return [
        (f"{one['NodeManagerHostname']}", one["Resources"].get("CPU", 0.0), one["Resources"].get("GPU", 0.0))
        for one in there
    ]


def _large_enough(table: Cluster) -> Any:
    """Ray, connected to a cluster that has what the actors ask for. Raises `UserError`."""
    ray = connected(table.address or "local")
    for name, each, count in (
        ("CPU", table.cpus, table.learners + table.samplers + table.rewards),
        ("GPU", table.gpus, table.learners + table.samplers),
    ):
        if each * count > (have := ray.cluster_resources().get(name, 0.0)):
            raise UserError(
                f"the cluster has {have:g} {name}s, and its {count} actors ask for {each * count:g} (cluster."
                f"{name.lower()}s = {each:g} each): add nodes, or ask for fewer"
            )
    return ray


def connected(address: str) -> Any:
    """Ray, connected to the cluster of an address. Raises `UserError`."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError(
            "cluster.address needs Ray, and it is not installed: pip install 'cohort[ray]', or remove [cluster]"
        ) from None
    if ray.is_initialized():
        return ray
    for name in NOT_HERE:
        os.environ.setdefault(f"RAY_{name}", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == "local" else {}
    try:
        ray.init(address=address, **quiet, **own)
    except Exception as error:  # whatever a wrong address, a dead head or another version makes it raise
        none = 'none runs on this machine: begin one with `ray start --head`, or take "local"'
        why = none if address == "auto" and isinstance(error, ConnectionError) else one_line(error)
        raise UserError(f"the Ray cluster at cluster.address = '{address}' cannot be joined: {why}") from None
    return ray
