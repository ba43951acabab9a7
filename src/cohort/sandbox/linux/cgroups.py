"""A control group for a launcher and what it starts: one bound on the memory and the tasks of them all.

The group catches what the limits of the single process do not count. Both versions of the kernel's interface are known.
Where no group can be made (no root rights, nothing delegated) the sandbox works without one and says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "cohort-"  # of the groups' names
_YOUNG_S = 10.0
OWN, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The directories of one group: one in version 2, one for each controller in version 1."""

    directories: tuple[Path, ...]

    def join(self) -> None:
        """Move this process in; its children are born there."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(os.getpid()), "utf-8")

    def remove(self, patience_s: float = 5.0) -> None:
        """Remove the group once its last process has ended."""
        deadline = time.monotonic() + patience_s
        for directory in self.directories:
            while directory.exists():
                try:
                    directory.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)


def create(name: str, memory_bytes: int, tasks: int, own: Path = OWN, mount: Path = MOUNT) -> Cgroup:
    """Make a group with these limits. Raises OSError where that is not possible."""
    mine = memberships(own.read_text("utf-8"))
    if (mount / "cgroup.controllers").exists():
        wanted = [(mount, mine[""], {"memory.max": memory_bytes, "pids.max": tasks})]
    elif "memory" in mine and "pids" in mine:
        wanted = [
            (mount / "memory", mine["memory"], {"memory.limit_in_bytes": memory_bytes}),
            (mount / "pids", mine["pids"], {"pids.max": tasks}),
        ]
    else:
        raise OSError("no control groups with memory and pids are mounted")
    made: list[Path] = []
    try:
        for root, path, limits in wanted:
            made.append(_make(root, path.strip("/"), name, limits))
    except OSError:
        for directory in made:
            directory.rmdir()
        raise
    for directory in made:
        _take_away_what_the_killed_left(directory)
    return Cgroup(tuple(made))


def _take_away_what_the_killed_left(directory: Path) -> None:
    """A keeper that is killed cannot remove its group. One that lives has processes in its own, or starts just now."""
    for other in directory.parent.glob(f"{PREFIX}[0-9]*"):
        with suppress(OSError):
            if (
                other != directory
                and other.name.removeprefix(PREFIX).isdigit()
                and time.time() - other.stat().st_mtime > _YOUNG_S
            ):
                other.rmdir()  # which the kernel refuses while there are processes in it


def memberships(text: str) -> Mapping[str, str]:
    """`/proc/self/cgroup`: the path of each controller; that of version 2 has the name ""."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return {controller: path for _, names, path in lines for controller in names.split(",")}


def _make(root: Path, path: str, name: str, limits: Mapping[str, int]) -> Path:
    """Beneath our own group, or the nearest one above it that allows it and hands the controllers down."""
    problems: list[OSError] = []
    here = root / path
    for place in (here, *here.parents[: len(Path(path).parts)]):  # up to `root`
        try:
            return _limited(place / name, limits)
        except OSError as error:
            problems.append(error)
    raise problems[0]


def _limited(directory: Path, limits: Mapping[str, int]) -> Path:
    directory.mkdir()
    try:
        for file, value in limits.items():
            _set(directory / file, value)
    except OSError:
        directory.rmdir()
        raise
    with suppress(OSError):  # where there is no swap there is no such file
        _set(directory / "memory.swap.max", 0)
    return directory


def _set(file: Path, value: int) -> None:
    """Write to a file that the kernel has made: never create one."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)
