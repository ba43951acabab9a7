"""A short run of bench/scoring.py: nothing is left behind, nothing pays that should not. Either would be seen."""

import importlib.util
import sys
import tempfile
from pathlib import Path

import pytest

from cohort.sandbox import Sandbox
from leaks import left_behind, nothing_more_than

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def scoring():
    spec = importlib.util.spec_from_file_location("bench_scoring", ROOT / "bench" / "scoring.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def _enough():
    with Sandbox(minimum="process") as sandbox:
        if sandbox.isolation.level == "process":
            pytest.skip("this machine has no Landlock and seccomp")


@pytest.mark.usefixtures("_enough")
def test_hostile_code_leaves_nothing_and_gets_nothing(scoring):
    report = scoring.measure("code", 96, workers=2, size=8)
    assert report.problems == []
    assert report.scorings == 96
    assert report.labels["right"] > 3
    assert report.labels["timeout"] > 3


@pytest.mark.parametrize("mix", ["math", "exact_number"])
def test_hostile_answers_leave_nothing_and_get_nothing(scoring, mix):
    report = scoring.measure(mix, 240, workers=2, size=8)
    assert report.problems == []
    assert report.scorings == 240


def pays_everybody(completion, answer):
    return 1.0


@pytest.mark.usefixtures("_enough")
def test_what_pays_wrongly_is_seen(scoring, monkeypatch):
    monkeypatch.setattr(scoring, "RewardSpec", lambda name, args: _spec(name))
    report = scoring.measure("code", 16, workers=1, size=8)
    assert len(report.problems) >= 10
    assert "got 1.0" in report.problems[0]


def _spec(name):
    from cohort.rewards import RewardSpec

    return RewardSpec(pays_everybody, name=name)


def test_what_is_left_behind_is_seen():
    before = left_behind()
    with Sandbox(minimum="process") as sandbox:
        sandbox.run("", "", 5.0)
        with pytest.raises(AssertionError, match="processes"):
            nothing_more_than(before, patience_s=0.1)
    nothing_more_than(before)
    with (
        tempfile.TemporaryDirectory(prefix="cohort-sandbox-4194304-"),
        pytest.raises(AssertionError, match="directories"),
    ):
        nothing_more_than(before, patience_s=0.1)
    with open("/dev/null"), pytest.raises(AssertionError, match="descriptors"):
        nothing_more_than(before, patience_s=0.1)


def test_memory_that_grows_is_seen(scoring):
    before = scoring.memory_mb()
    kept = bytearray(100_000_000)
    assert any("has grown" in line for line in scoring.grown(before, scoring.memory_mb()))
    assert len(kept)
    assert scoring.grown(before, before) == []
