"""A short run of bench/scoring.py: nothing is left behind, nothing pays that should not. Either would be seen."""

import importlib.util
import mmap
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from cohort.rewards import RewardTable
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
    assert report.labels["code right"] > 1
    assert report.labels["code timeout"] > 3


def test_hostile_answers_leave_nothing_and_get_nothing(scoring):
    report = scoring.measure("text", 640, workers=1, size=8)
    assert report.problems == []
    assert report.scorings == 640
    assert {label.split()[0] for label in report.labels} == {spec.use for spec in scoring.specs("text")}
    assert report.labels["json_schema timeout"] > 0
    assert report.labels["regex_format paid"] > 0


@pytest.mark.usefixtures("_enough")
def test_a_mix_holds_code_and_text(scoring):
    report = scoring.measure("mixed", 48, workers=1, size=2)
    assert report.problems == []
    seen = Counter(label.split()[0] for label in report.labels.elements())
    assert seen["code"] == 32
    assert len(seen) == 9
    before, after = report.counts
    assert all(after[what] <= before[what] for what in scoring.COUNTED)


def pays_everybody(completion, answer):
    return 1.0


@pytest.mark.usefixtures("_enough")
def test_what_pays_wrongly_is_seen(scoring, monkeypatch):
    monkeypatch.setattr(scoring, "specs", lambda mix: [RewardTable(use=pays_everybody, name=mix)])
    report = scoring.measure("code", 16, workers=1, size=8)
    assert len(report.problems) >= 10
    assert "got 1.0" in report.problems[0]


def leaves_a_file(completion, answer):
    tempfile.mkstemp()
    return 0.0


def test_files_and_processes_that_stay_are_seen(scoring, monkeypatch):
    monkeypatch.setattr(scoring, "specs", lambda mix: [RewardTable(use=leaves_a_file, name="exact_number")])
    report = scoring.measure("exact_number", 16, workers=1, size=8)
    assert any(problem.startswith("temporary files: 0 before, ") for problem in report.problems)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert scoring.census(Path("/nowhere"))["processes"] >= 1
        child.kill()


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


def test_memory_and_descriptors_that_grow_are_seen(scoring):
    before = scoring.holdings()
    kept = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # whatever malloc has kept
    for page in range(0, len(kept), mmap.PAGESIZE):
        kept[page] = 1
    files = [open("/dev/null") for _ in range(20)]  # noqa: SIM115 (closed below)
    problems = scoring.grown(before, scoring.holdings())
    for file in files:
        file.close()
    assert [line.split()[-1] for line in problems] == ["MB", "descriptors"]
    kept.close()
    assert scoring.grown(before, before) == []
