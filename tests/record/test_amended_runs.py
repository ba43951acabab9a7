"""Texts are erased and words appended, signed, and the run still verifies."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from tests.record.conftest import verdict

from cohort.commands.verify import amended, redacted
from cohort.record.leaves import SENSITIVE
from cohort.record.rollouts import read_rows
from cohort.types import UnreadableError, UserError

SHARD = "log/step-000002.parquet"


def test_erased_texts_are_gone_and_the_tree_still_holds(run_copy):
    before = (run_copy / SHARD).read_bytes()
    word = pq.read_table(run_copy / SHARD)["text"].to_pylist()[0]
    found = redacted(run_copy, "step == 2 and member == 0", None, "", "the person asked for it")
    assert found["erased"] == {SHARD: [0, 2]}
    assert verdict(run_copy) == (0, "")
    rows = read_rows(run_copy / SHARD)
    assert all(rows[at][name] is None for at in (0, 2) for name in (*SENSITIVE, "salt"))
    assert rows[1]["text"] is not None
    assert rows[0]["reward"] is not None
    assert word not in {row["text"] for row in (rows[0], rows[2])}
    entry = json.loads((run_copy / "log/chain.jsonl").read_bytes().splitlines()[-1])
    assert (entry["kind"], entry["metrics"]["text"]) == ("amend", "the person asked for it")
    (run_copy / SHARD).write_bytes(before)  # the entry stands, and nothing came after it: it was not carried out
    assert verdict(run_copy) == (0, "")
    amended(run_copy, "change", "a later entry", None)
    assert verdict(run_copy)[0] == 1
    with pytest.raises(UserError, match="not as it was recorded, so nothing is erased"):
        redacted(run_copy, "member == 1", None, "", "")


def test_a_commitment_says_nothing_of_another_row(run_copy):
    table = pq.read_table(run_copy / SHARD)
    assert len(set(table["salt"].to_pylist())) == table.num_rows


def test_nothing_to_erase_is_said(run_copy):
    with pytest.raises(UserError, match="no row matches"):
        redacted(run_copy, "step == 99", None, "", "")


@pytest.mark.parametrize("kind", ["incident", "change", "monitoring", "evaluation"])
def test_words_and_files_are_appended(run_copy, tmp_path, kind):
    (tmp_path / "note 1.txt").write_text("what happened")
    amended(run_copy, kind, "it gave the wrong answer", tmp_path / "note 1.txt")
    assert verdict(run_copy) == (0, "")
    attached = next((run_copy / "log/attached").iterdir())
    attached.write_text("what did not happen")
    code, failed = verdict(run_copy)
    assert code == 1
    assert attached.name in failed
    attached.unlink()
    assert verdict(run_copy)[0] == 1


def test_what_cannot_be_appended_is_refused(run_copy, tmp_path):
    with pytest.raises(UnreadableError, match="--kind praise is none of incident"):
        amended(run_copy, "praise", "well done", None)
    with pytest.raises(UnreadableError, match="nothing to append"):
        amended(run_copy, "change", "", None)
    with pytest.raises(UnreadableError, match="is no run with a record"):
        amended(tmp_path, "change", "x", None)
    assert not list(tmp_path.glob(".lock"))
