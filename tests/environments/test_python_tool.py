"""The Python tool: what a program prints, what goes wrong in it, and several at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cohort.environments import build_tools
from cohort.environments.python import python_tool
from cohort.sandbox import Sandbox, SandboxError
from cohort.types import InfrastructureError, UserError


@pytest.fixture(scope="module")
def python():
    (tool,) = build_tools(["python"], {"python": {"time_s": 2.0, "processes": 2, "memory_mb": 256}}, 5.0)
    yield tool
    tool.close()


def test_a_program_answers_with_what_it_prints(python):
    assert python.call({"code": "for i in range(3): print(i ** 2)"}).result == "0\n1\n4"
    assert python.call({"code": "x = 1"}).result == "(it printed nothing)"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print('so far')\n1 / 0", "ZeroDivisionError"),
        ("while True: pass", "timeout"),
        ("def", "SyntaxError"),
        ("open('/etc/passwd')", "Error"),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "Error"),
    ],
)
def test_what_goes_wrong_in_it_is_told(python, code, says):
    done = python.call({"code": code})
    assert done.failed
    assert says in done.result
    assert ("so far" in done.result) == ("so far" in code)


def test_programs_keep_nothing_and_run_at_the_same_time(python):
    programs = [f"import os\ntry: print(seen)\nexcept NameError: seen = {i}; print({i})" for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda code: python.call({"code": code}).result, programs))
    assert results == [str(i) for i in range(8)]


def test_a_sandbox_that_fails_is_no_answer(python, monkeypatch):
    def failing(*_):
        raise SandboxError("no process could be started")

    monkeypatch.setattr(Sandbox, "run", failing)
    with pytest.raises(InfrastructureError, match="the tool 'python' failed: no process could be started"):
        python.call({"code": "1"})


def test_a_machine_that_cannot_isolate_is_refused_at_once(monkeypatch):
    def weak(self):
        raise UserError("untrusted code needs a sandbox of the level 'isolated'")

    monkeypatch.setattr(Sandbox, "isolation", property(weak))
    with pytest.raises(UserError, match="needs a sandbox"):
        python_tool(isolation="isolated")
