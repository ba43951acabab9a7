"""`cohort doctor --cluster`: what would end a run on a cluster, found before money is spent."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cohort.backends.cluster.door import Surroundings, connected
from cohort.settings import Run, Stage, Task
from cohort.types import UserError
from cohort.wording import one_line

SENT = 64 * 1024 * 1024  # bytes, to see how fast weights travel
LATE_S, WAIT_S = 1.0, 120.0  # a clock that is further off, and how long a node may take


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster, as it was found."""

    name: str
    cpus: float
    gpus: float
    clock_s: float | None  # how far its clock is ahead of the driver's
    mb_per_s: float | None  # at which what the driver puts into Ray's store comes to it
    would_not_work: tuple[str, ...]


class Probe:
    """What runs on the node. Nothing that differs there may stop it."""

    def look(self, surroundings: Surroundings, mark: str) -> dict[str, Any]:
        """What is wrong there, its time, and a port where it listens."""
        self._listens = socket.create_server(("", 0))
        problem = "" if os.path.exists(mark) else f"it does not see {os.path.dirname(mark)}, which must be shared"
        try:
            surroundings.enter("it")
        except UserError as error:
            problem = str(error)
        return {"problem": problem, "time": time.time(), "port": self._listens.getsockname()[1]}

    def take(self, sent: Any) -> int:
        """How many bytes came."""
        return int(sent.nbytes)


def examine_cluster(address: str) -> tuple[Node, ...]:
    """Every node of the cluster at an address. Raises `UserError` where it cannot be joined."""
    ray = connected(address)
    here = Surroundings.here(Stage(task=Task(source="?"), run=Run(threads=1)))
    mark = Path(f".cohort-doctor-{uuid.uuid4().hex}").absolute()
    mark.touch()
    try:
        sent = ray.put(np.zeros(SENT, np.uint8))
        return tuple(_node(ray, one, replace(here, threads=1), str(mark), sent) for one in ray.nodes() if one["Alive"])
    finally:
        mark.unlink()


def _node(ray: Any, facts: dict[str, Any], here: Surroundings, mark: str, sent: Any) -> Node:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name, has = f"{facts['NodeManagerHostname']} ({facts['NodeManagerAddress']})", facts["Resources"]
    node = Node(name, has.get("CPU", 0.0), has.get("GPU", 0.0), None, None, ())
    there = NodeAffinitySchedulingStrategy(facts["NodeID"], soft=False)
    variables = {"env_vars": here.variables}
    probe = ray.remote(Probe).options(num_cpus=0, scheduling_strategy=there, runtime_env=variables).remote()
    try:
        ray.get(probe.take.remote(np.zeros(1)), timeout=WAIT_S)  # it has begun
        asked = time.time()
        said = ray.get(probe.look.remote(here, mark), timeout=WAIT_S)
        clock = said["time"] - time.time() if said["time"] > time.time() else min(said["time"] - asked, 0.0)
        began = time.perf_counter()
        ray.get(probe.take.remote(sent), timeout=WAIT_S)
        speed = SENT / 1e6 / (time.perf_counter() - began)
    except Exception as error:  # whatever a node that is ill makes Ray raise
        return replace(node, would_not_work=(f"it gave no answer: {one_line(error) or type(error).__name__}",))
    problems = [said["problem"]] * bool(said["problem"])
    problems += [f"its clock is {clock:+.1f} s off the driver's"] * (abs(clock) > LATE_S)
    problems += _unreachable(facts["NodeManagerAddress"], said["port"])
    ray.kill(probe)
    return replace(node, clock_s=clock, mb_per_s=speed, would_not_work=tuple(problems))


def _unreachable(host: str, port: int) -> Iterator[str]:
    """Learners of several ranks listen at any port of their node."""
    try:
        socket.create_connection((host, port), 5).close()
    except OSError as error:
        yield f"its port {port} cannot be reached ({error}): open the ports between the nodes"
