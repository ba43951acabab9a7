"""What a stop between two writes leaves still holds, is said, and is finished when the run goes on."""

from __future__ import annotations

import shutil

import pytest
from tests.record.conftest import verdict

from cohort.record.chain import CHAIN, HEADS, Chain
from cohort.record.keys import Key, own_key
from cohort.record.verify import verify
from cohort.types import UserError


def said(run) -> str:
    return "\n".join(check.detail for check in verify(run).checks if check.status == "skipped")


def cut(file, count: int) -> None:
    """Take bytes off the end of a file."""
    file.write_bytes(file.read_bytes()[:-count])


def last_line(file) -> int:
    return len(file.read_bytes().splitlines()[-1]) + 1


def waiting(run) -> None:
    (run / "final").rename(run / ".final.tmp")


def reopened(run) -> list[str]:
    words = []
    key = own_key(run)
    assert isinstance(key, Key)
    Chain.open(run, key, words.append)
    return words


def test_a_directory_that_waits_beside_its_place_is_put_there(run_copy):
    waiting(run_copy)
    assert verdict(run_copy) == (0, "")
    assert "final waits beside its place" in said(run_copy)
    reopened(run_copy)
    assert (run_copy / "final/model.safetensors").exists()
    assert said(run_copy) == ""


@pytest.mark.parametrize("torn", [False, True])
def test_a_signature_without_its_entry_gives_the_entry_back(run_copy, torn):
    before = (run_copy / CHAIN).read_bytes()
    cut(run_copy / CHAIN, 10 if torn else last_line(run_copy / CHAIN))
    waiting(run_copy)
    assert verdict(run_copy) == (0, "")
    assert "is signed and not in log/chain.jsonl" in said(run_copy)
    assert ("ends in a line that is torn" in said(run_copy)) == torn
    assert bool(reopened(run_copy)) == torn
    assert (run_copy / CHAIN).read_bytes() == before
    assert verdict(run_copy) == (0, "")


def test_a_torn_signature_is_dropped(run_copy):
    cut(run_copy / CHAIN, last_line(run_copy / CHAIN))
    cut(run_copy / HEADS, 10)
    waiting(run_copy)
    assert verdict(run_copy) == (0, "")
    assert any("heads.jsonl ended in" in words for words in reopened(run_copy))
    assert verdict(run_copy) == (0, "")


def test_a_directory_that_waits_and_is_not_whole_is_no_excuse(run_copy):
    waiting(run_copy)
    (run_copy / ".final.tmp/config.json").write_text("{}")
    assert verdict(run_copy)[0] == 1


def test_a_chain_that_lacks_what_was_signed_is_not_continued(run_copy):
    cut(run_copy / CHAIN, last_line(run_copy / CHAIN))
    cut(run_copy / CHAIN, last_line(run_copy / CHAIN))
    with pytest.raises(UserError, match=r"lacks entries that .* has signed"):
        reopened(run_copy)


def test_a_file_that_was_announced_may_still_be_the_old_one(run_copy):
    from cohort.train.recorder import replace_files

    before = (run_copy / "recipe.toml").read_bytes()
    key = own_key(run_copy)
    assert isinstance(key, Key)
    replace_files(Chain.open(run_copy, key, pytest.fail), {"recipe.toml": before + b"# more\n"})
    assert verdict(run_copy) == (0, "")
    (run_copy / "recipe.toml").write_bytes(before)
    assert verdict(run_copy) == (0, "")
    (run_copy / "recipe.toml").write_bytes(before + b"# less\n")
    assert verdict(run_copy)[0] == 1


def test_a_half_copied_run_is_named(run_copy):
    shutil.rmtree(run_copy / "stages")
    code, failed = verdict(run_copy)
    assert code == 1
    assert "stages/start/final is missing" in failed
