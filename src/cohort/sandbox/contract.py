"""What executors take and give: limits, the outcome of a run, the isolation reached. They execute; they never judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cohort.types import InfrastructureError, UserError

WALL_PER_CPU = 4.0  # on a busy machine one second of processor time may take so many seconds by the clock

Cases = Sequence[Sequence[Any]]  # the arguments of each call
Status = Literal["ok", "timeout", "memory", "error"]
Level = Literal["process", "filtered", "isolated", "remote"]

LEVELS: Mapping[Level, str] = {
    "process": "only resource limits: the code can read, write and send what this user can",
    "filtered": "Landlock and seccomp: the code reaches no file, no network and no other process",
    "isolated": "Landlock, seccomp and namespaces: the code sees nothing of this machine, and is nobody on it",
    "remote": "another machine's sandbox, as safe as those who run it made it",
}
FEATURES_OF: Mapping[Level, frozenset[str]] = {
    "process": frozenset(),
    "filtered": frozenset({"landlock", "seccomp"}),
    "isolated": frozenset({"landlock", "seccomp", "mount", "pid", "network", "unprivileged"}),
}


class SandboxError(InfrastructureError):
    """The sandbox failed, not the code in it. Never a score."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process of untrusted code may use. Time limits belong to the single call.

    `memory_mb` is address space; `output_kb` is what it prints, or one encoded return value; `files_mb` is all that it
    writes to its directory together.
    """

    memory_mb: int = 1024
    output_kb: int = 1024
    files_mb: int = 16
    threads: int = 32

    def __post_init__(self) -> None:
        least = {"memory_mb": 64, "output_kb": 1, "files_mb": 1, "threads": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= 1 << 20:
                raise UserError(f"the sandbox's {name} is a whole number of at least {smallest}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one program or one function call.

    `ok` says that it ended by itself, not that it is right. `output` is what a program printed, `value` what a function
    returned, as plain built-in types. `message` explains the other statuses in words that may be the candidate's own:
    show it, never trust it. `used_s` is the processor time of a program.
    """

    status: Status
    output: bytes = b""
    value: Any = None
    message: str = ""
    used_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Isolation:
    """What stands between untrusted code and this machine: the level, the features that were seen to work when the
    sandbox started, and why the others are missing.
    """

    level: Level
    reached: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(reached: Sequence[str], missing: Mapping[str, str]) -> Isolation:
        """The highest level whose features are all there."""
        best = [level for level, needs in FEATURES_OF.items() if needs <= set(reached)][-1]  # from low to high
        return Isolation(best, tuple(sorted(reached)), dict(sorted(missing.items())))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a record."""
        return {"level": self.level, "reached": list(self.reached), "missing": dict(self.missing)}


def require(isolation: Isolation, minimum: Level) -> None:
    """Raise UserError when `isolation` is below `minimum`."""
    heights = list(LEVELS)
    if heights.index(isolation.level) >= heights.index(minimum):  # "remote" is the last of them
        return
    lacking = FEATURES_OF[minimum] - set(isolation.reached)
    reasons = "; ".join(f"{feature}: {isolation.missing.get(feature, 'not reached')}" for feature in sorted(lacking))
    raise UserError(
        f"untrusted code needs a sandbox of the level '{minimum}', and this machine reaches '{isolation.level}' "
        f"({LEVELS[isolation.level]}). Missing: {reasons}. Run on Linux 5.13 or newer with Landlock and seccomp, "
        f'name a remote sandbox (args = {{ url = "http://..." }}), or accept the risk '
        f'(args = {{ isolation = "{isolation.level}" }})'
    )


class Executor(Protocol):
    """Runs untrusted Python. Raises SandboxError when the executor fails, and never for the code's sake.

    Times are seconds of processor time, so that what an answer is worth does not depend on how busy the machine is. By
    the clock everything ends after WALL_PER_CPU times as many.
    """

    @property
    def isolation(self) -> Isolation:
        """What the executor reaches."""
        ...

    def run(self, code: str, stdin: str, time_s: float) -> Run:
        """Run a program to its end, `stdin` as its standard input."""
        ...

    def call(
        self, code: str, function: str, cases: Cases, time_s: float, total_s: float, go_on: Callable[[Run], bool]
    ) -> list[Run]:
        """Call `function` (a name that `code` defines, or a method of its class `Solution`) with the arguments of each
        case, in order: `time_s` for one, `total_s` for all. Stops after the first run for which `go_on` is false.
        """
        ...

    def close(self) -> None:
        """Give everything back. The executor may be used again and starts afresh."""
        ...
