"""What this machine has, how many threads are fastest on it right now, and libraries that keep quiet on it."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import platform
import statistics
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from cohort.kernels.library import why_not
from cohort.sandbox.linux.cgroups import MOUNT, OWN, memberships

ROUNDS = 5  # of the thread timings, after one that warms up
PACKAGES = ("cohort", "torch", "transformers", "tokenizers", "peft", "datasets", "numpy", "pyarrow")


def threads_of(wanted: int | Literal["auto"]) -> int:
    """What `run.threads` comes to. "auto" is torch's own number, which honours OMP_NUM_THREADS and the cores that this
    process is bound to, but no more than a container's share of the machine: the same in every start here, so that two
    runs of a recipe have the same bits.
    """
    if wanted != "auto":
        return wanted
    both = (limits_of_groups("cpu", "cpu.max", f"cpu.cfs_{what}_us") for what in ("quota", "period"))
    limits = ((quota.split()[0], period.split()[-1]) for quota, period in zip(*both))  # version 2 has both in a line
    shares = [math.ceil(int(quota) / int(period)) for quota, period in limits if quota.isdigit()]
    return max(1, min([torch.get_num_threads(), *shares]))


def limits_of_groups(controller: str, name: str, older: str, mount: Path = MOUNT, own: Path = OWN) -> list[str]:
    """What the file `name` says in this process's control group, and in each above it; where the kernel's interface is
    of version 1, the file `older` of a controller. Empty where there is none.
    """
    with contextlib.suppress(OSError):  # not Linux
        mine, second = memberships(own.read_text("utf-8")), (mount / "cgroup.controllers").exists()
        root, file = (mount, name) if second else (mount / controller, older)
        here = root / mine.get("" if second else controller, "").strip("/")
        places = [place / file for place in (here, *here.parents) if place.is_relative_to(root)]
        return [text for place in places if place.is_file() and (text := place.read_text("utf-8").strip())]
    return []


def fastest_threads() -> tuple[int, dict[int, float]]:
    """The number of torch threads with the shortest median time on a small training-like workload, and all medians in
    seconds. More threads are not always faster: on a busy machine they wait for each other.

    The candidates take turns, so that a burst of other work hits them alike. torch's own setting is restored.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    candidates = sorted(count for count in {1, 2, cores // 2, cores} if 1 <= count <= cores)
    before = torch.get_num_threads()
    times: dict[int, list[float]] = {c: [] for c in candidates}
    try:
        for _ in range(ROUNDS + 1):
            for count in candidates:
                torch.set_num_threads(count)
                times[count].append(_workload())
    finally:
        torch.set_num_threads(before)
    medians = {count: statistics.median(spent[1:]) for count, spent in times.items()}  # the first round warms up
    return min(medians, key=lambda count: medians[count]), medians


def _workload() -> float:
    """Matrix products of a small model's shapes, forward and backward, and some element-wise work."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2048, 128, generator=generator)
    w1 = torch.randn(128, 384, generator=generator, requires_grad=True)
    w2 = torch.randn(384, 128, generator=generator, requires_grad=True)
    began = time.perf_counter()
    for _ in range(2):
        y = torch.nn.functional.silu(x @ w1) @ w2
        y.square().mean().backward()
        w1.grad = w2.grad = None
    return time.perf_counter() - began


def peak_memory_gb() -> float:
    """The most memory that this process has had resident, in GB (1e9 bytes); on a GPU, the most allocated there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    with contextlib.suppress(OSError, StopIteration):  # getrusage's peak begins with that of who started this process
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e9
    try:
        import resource
    except ImportError:  # Windows, which has no such number
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: of Python, NumPy, or torch on whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
    return isinstance(error, RuntimeError) and any(one in said for one in words)


def describe_machine() -> dict[str, Any]:
    """Versions and hardware, for the record and for `cohort doctor`."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernels": why_not() or "compiled",
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def version_of(name: str) -> str | None:
    """The version of a package that is installed."""
    try:
        return _version(name)
    except metadata.PackageNotFoundError:
        return None


@functools.cache  # what has been imported stays as it is; what is not there is looked for again
def _version(name: str) -> str:
    return metadata.version(name)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()


def lock_file(descriptor: int) -> bool:
    """Lock an open file for this process alone, until it is closed; False where another process has done so."""
    try:
        try:
            import fcntl
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def quiet_libraries() -> None:
    """Switch off progress bars, notices and retry messages of transformers, peft, datasets and the hub client: Cohort
    says what it does itself, and theirs would break its lines.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
