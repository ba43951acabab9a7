"""A training process that is killed, or whose disk fails, at an operation of a certain number, or at a moment.

Processes are forked from a server that has imported the libraries, so that starting one takes a fraction of a second.
What is counted is what reaches the disk: files that are opened for writing, renamed, deleted and synced, directories
that are made and removed.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from cohort.record.leaves import OWN
from cohort.record.metrics import is_timing, read_metrics
from cohort.record.verify import verify

LONGEST = 400.0  # seconds that a training process of this folder may take, where others keep the processors busy
MOVING = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["cohort.train", "cohort.train.grpo", "transformers.models.qwen3", __name__])


@dataclass(frozen=True)
class Fault:
    """What befalls a process."""

    at: int | None = None  # the number of the operation before which it happens
    kind: str | None = None  # the same, for the first operation of a kind
    number: int | None = None  # the error with which this operation, and all after it, fail; without one, SIGKILL
    after_s: float | None = None  # SIGKILL after so many seconds
    largest: int | None = None  # bytes that a file may have: what is longer is cut off there, by the system
    clock: bool = False  # whoever asks for the time gets another year each time
    also: tuple[tuple[int, str], ...] = ()  # what befalls it besides, of `DEEDS`, by the number of an operation


class Training(_server.Process):  # type: ignore[name-defined]
    """A process that trains `recipe.toml` of a directory, resuming; what it says goes to `console.log` there."""

    def __init__(self, where: Path, fault: Fault | None = None):
        super().__init__(target=_train, args=(str(where), fault))
        self.where = where

    def run_to_end(self, within_s: float | None = LONGEST) -> int:
        """Start it, wait for its end, and return how it ended; nothing that it started is left then."""
        self.start()
        self.join(within_s)
        assert self.exitcode is not None, f"still running after {within_s:g} s: {self.said()}"
        assert not left_of(self.pid), "processes that it started are still there"
        return self.exitcode

    def said(self) -> str:
        """What all processes of this directory have said so far."""
        return (self.where / "console.log").read_text("utf-8")

    @property
    def operations(self) -> list[str]:
        """The kinds of the operations of the last process that ended by itself, in their order."""
        return json.loads((self.where / "operations").read_text("utf-8"))


def left_of(session: int, within_s: float = 60.0) -> list[psutil.Process]:
    """Processes that belonged to a session and do not end by themselves."""
    found: list[psutil.Process] = []
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and (found := list(_in_session(session))):
        time.sleep(0.05)
    return found


def _in_session(session: int) -> Iterator[psutil.Process]:
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if session in (os.getsid(one.pid), one.ppid()) and one.status() != psutil.STATUS_ZOMBIE:
                yield one


def _train(where: str, fault: Fault | None) -> None:
    os.setsid()
    os.chdir(where)
    Path("hang").unlink(missing_ok=True)
    if Path("tmp").is_dir():  # where it is looked for what it left
        tempfile.tempdir = os.environ["TMPDIR"] = f"{where}/tmp"
    sys.path.insert(0, where)
    log = os.open("console.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    fault = fault or Fault()
    counted = _count(where, fault)
    from cohort.recipe import Recipe
    from cohort.train import train
    from cohort.types import UserError

    if fault.clock:
        clock_jumps()
    if fault.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, resource.RLIM_INFINITY))
    code, said = 0, ""
    try:
        train(Recipe.load("recipe.toml"), resume=True)
    except UserError as error:
        code, said = 1, f"error: {error}"
    except BaseException:
        code, said = 70, traceback.format_exc()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kinds, counted.active = counted.kinds, False
    Path("operations").write_text(json.dumps(kinds), "utf-8")
    print(f"{said}\n{time.process_time():.1f} s of processor time", flush=True)
    os._exit(code)


class _Counted:
    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.active, self.failing = True, 0  # the number of the error with which all operations fail


def _count(where: str, fault: Fault) -> _Counted:
    """Count what reaches the disk below `where`, and let the fault happen."""
    counted, fsync = _Counted(), os.fsync

    def one_more(event: str, path: str) -> None:
        kind = f"{event} {re.sub('[0-9]+', 'N', path.removeprefix(f'{where}/runs/'))}"
        if not counted.active or not path.startswith(f"{where}/runs/"):
            return
        counted.kinds.append(kind)
        for _, deed in (one for one in fault.also if one[0] == len(counted.kinds)):
            DEEDS[deed](counted)
        if len(counted.kinds) == fault.at or kind == fault.kind:
            if fault.number is None:
                os.kill(os.getpid(), signal.SIGKILL)
            counted.failing = fault.number
        if counted.failing and event not in ("os.remove", "os.rmdir"):  # which help where a disk is full
            raise OSError(counted.failing, os.strerror(counted.failing), path)

    def hear(event: str, args: tuple[Any, ...]) -> None:
        writes = event in MOVING
        if event == "open":
            writes = isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and isinstance(args[0], str | bytes | os.PathLike):
            one_more(event, os.path.abspath(os.fsdecode(args[0])))

    def counting(handle: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            one_more("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    os.fsync = counting
    sys.addaudithook(hear)
    if fault.after_s is not None:
        _killed_soon(fault.after_s)
    return counted


def _no_space(counted: _Counted) -> None:
    counted.failing = errno.ENOSPC


def _kill(module: str) -> None:
    """SIGKILL for the processes beneath this one that are of a module, and for those that they started."""
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(module in part for part in one.cmdline()):
                one.kill()


def _killed_soon(seconds: float) -> None:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _hang() -> None:
    """The next reward of a module that looks for this file takes it away and does not return."""
    Path("hang").touch()

    def then_killed() -> None:
        while Path("hang").exists():
            time.sleep(0.05)
        _killed_soon(1.0)

    threading.Thread(target=then_killed, daemon=True).start()


# What may befall a process besides; the first ones end it.
ENDING: dict[str, Callable[[_Counted], None]] = {
    "the trainer is killed before an operation on the disk": lambda counted: os.kill(os.getpid(), signal.SIGKILL),
    "the trainer is killed at a moment": lambda counted: _killed_soon(0.001 * (len(counted.kinds) % 100)),
    "the disk is full (ENOSPC)": _no_space,
    "a reward hangs, and the trainer is killed then": lambda counted: _hang(),
}
PASSING: dict[str, Callable[[_Counted], None]] = {
    "the reward worker is killed": lambda counted: _kill("cohort.rewards.workers"),
    "the sandbox is killed": lambda counted: _kill("cohort.sandbox"),
    "the clock jumps": lambda counted: clock_jumps(),
}
DEEDS = ENDING | PASSING


def clock_jumps() -> None:
    """Every module of Cohort that asks for the date, or for seconds since 1970, is told another year each time."""
    draw, seconds = random.Random(), time.time
    if time.time.__name__ == "<lambda>":  # it does so already
        return

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return super().now(tz) + datetime.timedelta(days=draw.randint(-9000, 9000))

    for name, module in list(sys.modules.items()):
        if name.startswith("cohort") and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = Jumping  # type: ignore[attr-defined]
    time.time = lambda: seconds() + draw.uniform(-1e9, 1e9)


ADAPTER = "adapter_config.json"


def same_runs(whole: Path, other: Path) -> None:
    """Final models, metrics (no timings, no second tries), rollouts and data of every stage are equal, bit for bit."""
    names = [sorted(p.relative_to(x) for p in _compared(x)) for x in (whole, other)]
    assert names[0] == names[1]
    for name in names[0]:
        ours, theirs = whole / name, other / name
        if name.suffix == ".safetensors":
            weights, others = load_file(ours), load_file(theirs)
            assert weights.keys() == others.keys()
            assert all(torch.equal(weights[key], others[key]) for key in weights), name
        elif name.name == "metrics.jsonl":
            lines, others = (
                [
                    {k: v for k, v in line.items() if not (is_timing(k) or k.endswith("/retries"))}
                    for line in read_metrics(x)
                ]
                for x in (ours, theirs)
            )
            assert lines == others, name
        elif name.suffix == ".parquet":
            rows, others = (pq.read_table(x).drop_columns(list(OWN)).to_pylist() for x in (ours, theirs))
            assert repr(rows) == repr(others), name  # numbers that are NaN are equal here
        elif name.name == "manifest.json":  # an adapter names its base, which is in its own run
            digests, others = (json.loads(x.read_bytes())["sha256"] for x in (ours, theirs))
            assert digests | {ADAPTER: others.get(ADAPTER)} == others | {ADAPTER: others.get(ADAPTER)}, name
        else:
            assert ours.read_bytes() == theirs.read_bytes(), name
    assert verify(other).holds


def _compared(run: Path) -> Iterator[Path]:
    for path in run.rglob("*"):
        if "checkpoints" not in path.parts and (
            path.name in ("metrics.jsonl", "data.jsonl", "pairs.jsonl", "model.safetensors")
            or path.suffix == ".parquet"
            or (path.name == "manifest.json" and path.parent.name == "final")  # the digests of all of its files
        ):
            yield path
