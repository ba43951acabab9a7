"""The command `cohort` in a process of its own, without the 5 seconds of importing PyTorch and transformers.

Processes are forked from a server that has imported the libraries. They have what those of `python -m cohort` have: a
directory, an environment, output, signals and an exit code of their own. They share the seed of the hashes of strings
with one another, so where two runs are compared one is begun as `python -m cohort`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["cohort.cli", "cohort.train", "cohort.train.grpo", "cohort.train.sft", "transformers.models.qwen3"]
)


class Cohort:
    """`cohort WORDS` in a directory. What it says is added to the file `log`, or is what `communicate` returns. The
    names are those of subprocess.Popen.
    """

    def __init__(self, *words: str, cwd: str | Path, log: Path | None = None) -> None:
        self._kept = None if log else tempfile.TemporaryDirectory(prefix="cohort-said-")
        files = [log, log] if log else [Path(self._kept.name, name) for name in ("out", "err")]
        self._files = [str(file) for file in files]
        arguments = (words, str(cwd), *self._files, dict(os.environ))
        self._process = _server.Process(target=_be_cohort, args=arguments)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """How it ended: the number of a signal is negative."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("cohort", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written to its output and as errors, when it has ended."""
        self.wait(timeout)
        out, err = (Path(file).read_text("utf-8") for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._process.pid, number)


def printed(code: str, **environment: str) -> str:
    """What `python -c CODE` prints where these variables are in the environment. It must end well."""
    with tempfile.TemporaryDirectory(prefix="cohort-said-") as place:
        file = Path(place, "out")
        process = _server.Process(target=_run, args=(code, place, str(file), {**os.environ, **environment}))
        process.start()
        process.join(120)
        said = file.read_text("utf-8")
        assert process.exitcode == 0, said
        return said


def _run(code: str, where: str, out: str, environment: dict[str, str]) -> None:
    _begin(where, out, out, environment)
    exec(code, {})


def _be_cohort(words: tuple[str, ...], where: str, out: str, err: str, environment: dict[str, str]) -> None:
    _begin(where, out, err, environment)
    sys.argv[:] = ["cohort", *words]
    sys.path.insert(0, where)
    try:
        runpy.run_module("cohort", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()


def _begin(where: str, out: str, err: str, environment: dict[str, str]) -> None:
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environment)
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
