"""Training processes that are forked, and a limit of time, because others may keep the processors busy."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.faults.injury import Training
from tests.faults.roads import prepare

MINUTES = 6.5  # after so many no further test begins
_began = time.monotonic()
_made: dict[str, Training] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() - _began > MINUTES * 60 and not item.config.getoption("keyword"):
        pytest.skip(f"{MINUTES} minutes have passed: this machine is too busy for all of them")


@pytest.fixture
def whole(request, tmp_path_factory) -> Training:
    """The run of a road that nothing befell; one for all tests of that road."""
    road = request.param
    if road not in _made:
        made = Training(prepare(tmp_path_factory.mktemp("whole"), road))
        assert made.run_to_end() == 0, made.said()
        _made[road] = made
    return _made[road]


@pytest.fixture
def begun(request, whole: Training, tmp_path) -> Path:
    """A directory for another run of the same road."""
    return prepare(tmp_path / "begun", request.node.callspec.params["whole"])
