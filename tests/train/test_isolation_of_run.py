"""The record of a run says in what its policy's code was run."""

from __future__ import annotations

import io
import json

import orjson
import pytest

from cohort.sandbox import Isolation, RemoteSandbox, Sandbox, SandboxError
from cohort.types import UserError
from cohort.views.console import Console

TESTS = {"fn_name": "f", "inputs": [[1], [7]], "outputs": [2, 14]}


@pytest.fixture
def coding(rows):
    """Changes of the small recipe: its task is to write code."""
    lines = [{"question": f"Double it ({i}).", "tests": json.dumps(TESTS)} for i in range(24)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = {"isolation": "process", "memory_mb": 256}
    return {
        "task": {"answer": "tests"},
        "reward": [{"use": "code", "args": args}],
        "run": {"steps": 1, "save_every": 1, "gate": "off"},
        "evaluate": {"problems": 0},
    }


def recorded(done):
    return orjson.loads((done.directory / "environment.json").read_bytes())["sandbox"]


def test_it_holds_the_isolation_that_this_machine_reaches(run, coding):
    with Sandbox(minimum="process") as sandbox:
        here = sandbox.isolation
    (name, found), *others = recorded(run(**coding)).items()
    assert (name, others) == ("code", [])
    assert (found["level"], found["reached"]) == (here.level, list(here.reached))
    assert set(found["missing"]) == set(here.missing)


def test_a_continued_run_says_when_it_is_another(run, coding, monkeypatch):
    before = recorded(run(**coding))
    monkeypatch.setattr("cohort.preflight.isolation._reached", lambda url: Isolation("remote"))
    text = io.StringIO()
    done = run(**coding, resume=True, console=Console(file=text, width=300))
    assert "the sandbox of code was '" in text.getvalue()
    assert "is 'remote'" in text.getvalue()
    assert recorded(done) == before


def test_runs_that_execute_nothing_start_no_sandbox(run, monkeypatch):
    monkeypatch.setattr("cohort.preflight.isolation.Sandbox", None)  # calling it would raise
    assert recorded(run(run={"steps": 1}, evaluate={"problems": 0})) == {}


def test_tools_and_remote_sandboxes_have_their_place(run, coding, monkeypatch):
    python = {"processes": 1, "memory_mb": 256, "isolation": "process"}
    coding["reward"][0]["args"]["url"] = "http://127.0.0.1:9"
    monkeypatch.setattr("cohort.train.run.train_stage", lambda *_: None)  # nobody is there
    done = run(**coding, environment={"tools": ["python"], "args": {"python": python}, "format": "tags"})
    found = recorded(done)
    assert list(found) == ["code", "python"]
    assert found["code"] == RemoteSandbox("http://127.0.0.1:9").isolation.as_dict()
    assert found["python"]["level"] in ("process", "filtered", "isolated")


def test_a_sandbox_that_does_not_start_stops_the_run(run, coding, monkeypatch):
    def broken(self):
        raise SandboxError("no processes left")

    monkeypatch.setattr(Sandbox, "isolation", property(broken))
    with pytest.raises(UserError, match=r"no processes left.*cohort doctor"):
        run(**coding)
