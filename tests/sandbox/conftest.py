"""Sandboxes, and what must be as it was when a test is over."""

import pytest
from launchers import SMALL

from cohort.sandbox import Sandbox, local
from leaks import left_behind, nothing_more_than


@pytest.fixture(scope="session")
def level():
    """What this machine reaches."""
    with Sandbox(minimum="process") as sandbox:
        return sandbox.isolation.level


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(SMALL, minimum="process") as sandbox:
        yield sandbox


@pytest.fixture
def no_leaks():
    before = left_behind()
    yield
    nothing_more_than(before)


@pytest.fixture
def launcher_with(monkeypatch):
    """Run some lines in the launcher before it starts: a machine that is not like this one."""

    def patch(lines):
        real = local._command

        def command(channel):
            *options, run = real(channel)
            setup, found, rest = run.partition("; sys.path.insert")
            assert found
            path, found, rest = (found + rest).partition("; del sys.path[0]")
            return [*options, f"{setup}{path}\n{lines}\n{rest.removeprefix('; ')}"]

        monkeypatch.setattr(local, "_command", command)

    return patch
