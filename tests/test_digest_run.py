"""The digests of a run see every number of its result, and nothing of how fast it was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "digest_run.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("digest_run", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_run(directory: Path, weights: bytes = b"w", **metrics: float) -> Path:
    for place, step in ((directory / "stages" / "first", 1), (directory, 2)):
        (place / "final").mkdir(parents=True)
        (place / "final" / "model.safetensors").write_bytes(weights)
        (place / "metrics.jsonl").write_text(json.dumps({"step": step, "loss": 0.5, **metrics}) + "\n")
    return directory


def said(tool, capsys, run: Path) -> list[str]:
    tool.main(run)
    return capsys.readouterr().out.splitlines()


def test_times_and_memory_are_no_part_of_a_result(tool, capsys, tmp_path):
    fast = said(tool, capsys, a_run(tmp_path / "fast", **{"time/step_s": 1.0, "tokens_per_s": 9.0}))  # type: ignore[arg-type]
    slow = said(tool, capsys, a_run(tmp_path / "slow", **{"time/step_s": 2.0, "memory/peak_gb": 3.0}))  # type: ignore[arg-type]
    assert fast == slow
    assert [line.split()[0] for line in fast] == ["first", "first", "last", "last"]


def test_weights_and_metrics_are(tool, capsys, tmp_path):
    one = said(tool, capsys, a_run(tmp_path / "one"))
    other_weights = said(tool, capsys, a_run(tmp_path / "weights", weights=b"v"))
    other_metrics = said(tool, capsys, a_run(tmp_path / "metrics", grad_norm=1.0))
    assert [a == b for a, b in zip(one, other_weights, strict=True)] == [False, True, False, True]
    assert [a == b for a, b in zip(one, other_metrics, strict=True)] == [True, False, True, False]
