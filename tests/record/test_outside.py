"""Records that name what is outside of their run: nothing there is read, moved or deleted."""

from __future__ import annotations

import pytest
from tests.record.conftest import verdict
from tests.record.test_tampering import rewrite

from cohort.record.chain import HEADS, Chain
from cohort.record.keys import own_key

PATHS = ["../victim", "/{there}/victim", "log/../../victim", "./../victim", "..\\victim"]


@pytest.mark.fault(
    "a record whose last entry names a directory outside of its run", "it is refused, and nothing is moved or deleted"
)
@pytest.mark.parametrize("path", PATHS)
def test_a_chain_that_names_a_directory_outside_of_the_run_moves_nothing(run_copy, path):
    there = run_copy.parent
    (there / "victim").mkdir()
    (there / "victim/mine").write_text("mine")
    (there / ".victim.tmp").mkdir()
    (run_copy / HEADS).unlink()

    def renamed(entries):
        assert entries[-1]["kind"] == "close"
        entries[-1]["policy"] |= {"path": path.format(there=there), "files": {}}
        return entries

    rewrite(run_copy, renamed)
    Chain.open(run_copy, own_key(run_copy), lambda _: None)
    assert (there / "victim/mine").read_text() == "mine"
    assert (there / ".victim.tmp").is_dir()
    assert verdict(run_copy)[0] in (1, 2)


def test_a_log_that_is_a_link_is_no_way_out_for_verifying(run_copy):
    secret = run_copy.parent / "secret.parquet"
    secret.write_text("not yours")
    shard = run_copy / "log/step-000002.parquet"
    shard.unlink()
    shard.symlink_to(secret)
    code, failed = verdict(run_copy)
    assert code == 1
    assert "not yours" not in failed
    assert secret.read_text() == "not yours"
