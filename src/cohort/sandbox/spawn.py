"""Starting one confined process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence

from cohort.sandbox.confine import Confinement, confine
from cohort.sandbox.linux.namespaces import forked_into_pid_namespace
from cohort.sandbox.pipes import FAILED, READY, write_frame

__all__ = ["spawn"]

_JOBS, _RESULTS, _FIRST_OTHER = 3, 4, 5
_OUT_OF_THE_WAY = 16


def spawn(how: Confinement, descriptors: Sequence[int], cpu_s: int, task: Callable[[int, int], int]) -> int:
    """Fork a process that confines itself and ends with `task(jobs, results)`; returns its id.

    `descriptors` become the process's standard input, standard output, jobs and results. Its standard error leads
    nowhere, and nothing else is open. Its first frame on `results` is READY, or FAILED with the reason.
    """
    child = forked_into_pid_namespace() if how.namespaces else os.fork()
    if child:
        return child
    status = 70
    try:
        _arrange(descriptors)
        try:
            confine(how, cpu_s)
        except BaseException as error:
            write_frame(_RESULTS, FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        else:
            write_frame(_RESULTS, READY)
            status = task(_JOBS, _RESULTS)
    finally:  # nobody may return into the launcher's loop
        os._exit(status)


def _arrange(descriptors: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    stdin, stdout, jobs, results = (fcntl.fcntl(d, fcntl.F_DUPFD, _OUT_OF_THE_WAY) for d in descriptors)
    null = fcntl.fcntl(null, fcntl.F_DUPFD, _OUT_OF_THE_WAY)
    for target, source in enumerate((stdin, stdout, null, jobs, results)):
        os.dup2(source, target)
    os.closerange(_FIRST_OTHER, os.sysconf("SC_OPEN_MAX"))
