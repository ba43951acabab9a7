"""`cohort record verify`, `redact` and `amend` as a person uses them: words, JSON, exit codes."""

from __future__ import annotations

import json

import pytest
from tests.record.conftest import made


@pytest.fixture
def run(tmp_path):
    return made(tmp_path / "mine", "tiny", "start.run.steps=1", "rl.run.steps=1")


def test_a_run_is_checked_erased_and_added_to(cohort, run, tmp_path):
    code, out, _ = cohort("record", "verify", run)
    assert code == 0
    assert "holds    files" in out
    assert "record holds, up to level" in " ".join(out.split())

    code, out, err = cohort("record", "redact", run, "--rows", "step == 1 and ticket == 0", "--reason", "asked for")
    assert code == 0
    assert "log/step-000001.parquet: erased row 0, 1" in out + err
    code, out, err = cohort("record", "rollouts", run, "--step", 1)
    assert code == 0
    assert "erased" in out

    (tmp_path / "note.txt").write_text("what happened")
    code, out, err = cohort(
        "record", "amend", run, "--kind", "incident", "--text", "bad", "--file", tmp_path / "note.txt"
    )
    assert code == 0
    code, out, err = cohort("record", "verify", run, "--json")
    found = json.loads(out)
    assert [check for check in found["checks"] if check["status"] == "failed"] == []
    assert code == 0
    assert found["holds"]
    assert {check["status"] for check in found["checks"]} <= {"holds", "skipped"}
    assert cohort("record", "verify", run, "--anchor", found["head"])[0] == 0

    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes().replace(b'"step":1', b'"step":2'))
    code, out, _ = cohort("record", "verify", run)
    assert code == 1
    assert "FAILED   metrics" in out
    code, out, _ = cohort("record", "verify", run, "--json", "--level", 0)
    assert code == 0
    assert json.loads(out)["level"] == 0


def test_what_has_no_record_is_a_wrong_argument(cohort, tmp_path):
    for words in (("verify",), ("amend", "--kind", "change", "--text", "x"), ("redact", "--rows", "step == 1")):
        code, out, err = cohort("record", words[0], tmp_path, *words[1:])
        assert code == 2
        assert "is no run with a record" in " ".join((out + err).split())
