"""Records that nobody wrote, or a newer version did, or that are very long: one sentence and the right exit code."""

from __future__ import annotations

import os
import random
import time
import tracemalloc

import orjson
import pytest
from tests.record.conftest import STANDALONE, verdict
from tests.record.test_tampering import lines, rewrite

from cohort.record.chain import CHAIN, HEADS, Chain
from cohort.record.entries import digest_of, problem, written
from cohort.record.merkle import EMPTY
from cohort.record.verify import verify
from cohort.types import UserError


def test_a_run_without_a_chain_is_refused(run_copy):
    (run_copy / CHAIN).unlink()
    code, failed = verdict(run_copy)
    assert code == 2
    assert "Runs of an older Cohort have none" in failed


@pytest.mark.fault("a run of a newer version, to be continued", "a sentence, and nothing is written")
def test_a_run_of_a_newer_version_is_not_continued(run_copy):
    (run_copy / HEADS).unlink()
    rewrite(run_copy, lambda entries: [entries[0] | {"recipe": entries[0]["recipe"] | {"format": 2}}, *entries[1:]])
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="by a newer Cohort"):
        Chain.open(run_copy, None, print)
    assert before == {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0" * 999, b"[]\n" * 5, b"[" * 100_000 + b"\n", b"\xff\xfe{}\n"])
def test_a_chain_without_entries_is_none(run_copy, content):
    (run_copy / CHAIN).write_bytes(content)
    assert verdict(run_copy)[0] == 2


def test_kinds_of_a_newer_version_are_refused_with_a_sentence(run_copy):
    (run_copy / HEADS).unlink()
    rewrite(run_copy, lambda entries: [*entries, entries[-1] | {"kind": "ceremony"}])
    code, failed = verdict(run_copy)
    assert code == 2
    assert "a newer Cohort has written it" in failed


@pytest.mark.fault("a record of a newer version", "a sentence")
def test_a_newer_format_is_refused_with_a_sentence(run_copy):
    (run_copy / HEADS).unlink()
    rewrite(run_copy, lambda entries: [entries[0] | {"recipe": entries[0]["recipe"] | {"format": 2}}, *entries[1:]])
    assert verdict(run_copy)[0] == 2


@pytest.mark.fault("a record of any bytes", "a verdict or a sentence")
@pytest.mark.parametrize("name", [CHAIN, HEADS, "metrics.jsonl", "environment.json", "log/step-000001.parquet"])
def test_hostile_bytes_end_in_a_verdict(run_copy, name):
    draw, whole = random.Random(name), (run_copy / name).read_bytes()
    for content in (draw.randbytes(5000), b"{" * 50_000, b"\n" * 3000, whole[: len(whole) // 2], whole * 2):
        (run_copy / name).write_bytes(content)
        assert verdict(run_copy)[0] in (1, 2)


HOSTILE = {
    "a path out of the run": {"shards": [{"path": "../../etc/passwd", "sha256": EMPTY, "rows": 1}]},
    "an absolute path": {"shards": [{"path": "/etc/passwd", "sha256": EMPTY, "rows": 1}]},
    "no list": {"shards": None},
    "a number for a table": {"metrics": 3},
    "a huge number": {"n": 1e300},
    "a word for a number": {"metrics": {"step": "1"}},
    "no digest": {"merkle_root": "x"},
    "no time": {"time": "yesterday"},
    "a key that is none": {"recipe": {"key": "abc"}},
    "files that are none": {"policy": {"files": [1]}},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_entries_that_are_none_are_found(run_copy, change):
    rewrite(run_copy, lambda entries: [*entries[:2], entries[2] | change, *entries[3:]])
    assert problem(orjson.loads(lines(run_copy)[2]))
    assert verdict(run_copy)[0] == 1


def test_a_directory_and_a_pipe_in_the_place_of_files_are_no_files(run_copy):
    (run_copy / "recipe.toml").unlink()
    os.mkfifo(run_copy / "recipe.toml")
    (run_copy / "metrics.jsonl").unlink()
    (run_copy / "metrics.jsonl").mkdir()
    assert verdict(run_copy)[0] == 1
    (run_copy / CHAIN).unlink()
    os.mkfifo(run_copy / CHAIN)
    assert verdict(run_copy)[0] == 2


def test_an_anchor_that_is_kept_elsewhere_is_looked_for(tiny_run, run_copy):
    head = digest_of(lines(run_copy)[3])
    assert verify(run_copy, anchor=head).holds
    assert not verify(run_copy, anchor="0" * 64).holds


def test_a_chain_of_20_000_entries_is_read_in_time_and_in_little_memory(tmp_path):
    """Of 20,000 here; five times that takes five times as long, and no more memory for each."""
    (tmp_path / "log").mkdir()
    size, before = 20_000, "0" * 64
    with (tmp_path / CHAIN).open("wb") as chain, (tmp_path / "metrics.jsonl").open("wb") as metrics:
        for seq in range(size):
            line = b'{"step":%d}' % seq
            entry = {
                "seq": seq,
                "kind": "step" if seq else "genesis",
                "prev": before,
                "merkle_root": EMPTY,
                "n": 0,
                "shards": [],
                "policy": {},
                "verifiers": {},
                "time": "2026-01-01T00:00:00+00:00",
                "recipe": {"stage": "rl"} if seq else {"stage": "rl", "place": "", "key": None},
                "metrics": {"step": seq, "sha256": digest_of(line)} if seq else {},
            }
            metrics.write(line + b"\n" if seq else b"")
            content = orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)
            assert seq > 10 or content == written(entry)
            chain.write(content + b"\n")
            before = digest_of(content)
    tracemalloc.start()
    began = time.process_time()
    report = verify(tmp_path)
    spent, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.holds
    assert spent < 30
    assert most < 20e6


def test_the_standalone_verifier_can_be_read_whole_and_needs_nothing_of_ours():
    text = STANDALONE.read_text()
    assert len(text.splitlines()) <= 300
    assert "import cohort" not in text
    assert "from cohort" not in text
    assert "import torch" not in text
