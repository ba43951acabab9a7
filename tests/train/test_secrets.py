"""Secrets of the environment stay where they are: a run with planted ones has none of them anywhere.

Looked at: every file of the run's directory, rollouts and exports as they are read, what a reward in a worker sees and
prints, what code in the sandbox sees, what a tracker is given, and what is said.
"""

from __future__ import annotations

import io
import os

import pyarrow.parquet as pq
import pytest

from cohort.commands.account import export
from cohort.sandbox import Sandbox
from cohort.views.console import Console

CANARY = "canary-5f1e"
PLANTED = {
    **dict.fromkeys(("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "MY_KEY"), f"{CANARY}-1"),
    **dict.fromkeys(("GITHUB_PAT", "WANDB_API_KEY", "SESSION_COOKIE", "SENTRY_DSN"), f"{CANARY}-2"),
    "DATABASE_URL": f"postgres://me:{CANARY}-3@db/x",
}
GIVEN = []


def tells_all(completion):
    """Prints whatever it can see of the environment, and raises none of it."""
    print(dict(os.environ))
    with open(f"/proc/{os.getpid()}/environ", "rb") as file:
        print(file.read())
    return float(len(completion))


class Remembers:
    """A tracker."""

    def begin(self, config):
        GIVEN.append(dict(config))

    def write(self, step, metrics):
        GIVEN.append(dict(metrics))

    def samples(self, step, rows):
        GIVEN.append(list(rows))

    def close(self):
        pass


def remember(directory, last):
    """Open it."""
    return Remembers()


@pytest.mark.fault(
    "secrets in the environment, and a reward that prints all that it sees", "none is in any file, or on its way out"
)
def test_planted_secrets_are_nowhere(run, tmp_path, monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    said = io.StringIO()
    trackers = [f"{__name__}:remember"]
    done = run(
        console=Console(file=said, width=200), reward=[{"use": tells_all, "name": "tells"}],
        run={"steps": 2, "trackers": trackers},
    )  # fmt: skip
    export(done.directory, tmp_path / "out", with_text=True)
    read = 0
    for place in (done.directory, tmp_path / "out"):
        for file in (file for file in place.rglob("*") if file.is_file()):
            assert CANARY.encode() not in file.read_bytes(), file
            if file.suffix == ".parquet":
                assert CANARY not in str(pq.read_table(file).to_pylist()), file
            read += 1
    assert read > 20
    assert "environ" not in said.getvalue()
    assert CANARY not in said.getvalue()
    assert len(GIVEN) >= 3
    assert CANARY not in str(GIVEN)
    assert "PATH" in (done.directory / "rewards.log").read_text()  # it has printed what it saw
    with Sandbox() as sandbox:
        seen = sandbox.run("import os\nprint(dict(os.environ))", stdin="", time_s=5.0)
    assert seen.status == "ok"
    assert CANARY.encode() not in seen.output
