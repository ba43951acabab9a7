"""Whatever is changed in a run is found and named, by Cohort and by the standalone verifier alike."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.record.conftest import made, verdict

from cohort.record.chain import CHAIN, HEADS
from cohort.record.entries import UNSIGNED, digest_of, written
from cohort.record.keys import Key

PROJECTIONS = {".lock", "rewards.log", "record.json", "card.md", "card.html", "README.md"}


def files(run: Path) -> list[str]:
    """The files that the record speaks of."""
    names = (path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return sorted(name for name in names if Path(name).name not in PROJECTIONS and ".eval_results" not in name)


def test_a_run_that_nobody_touched_holds(tiny_run):
    assert verdict(tiny_run) == (0, "")


def flip(file: Path, at: int) -> bytes:
    """Change the byte at a place, and return the content as it was."""
    content = file.read_bytes()
    file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    return content


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_flipped_byte_of_every_file_is_found_and_each_file_is_named(run_copy, share):
    names = [name for name in files(run_copy) if name not in (CHAIN, HEADS)]
    assert {"metrics.jsonl", "recipe.toml", "environment.json", "gate.json", "stages/start/metrics.jsonl"} < set(names)
    for name in names:
        flip(run_copy / name, round(share * ((run_copy / name).stat().st_size - 1)))
    code, failed = verdict(run_copy)
    assert code == 1
    assert [name for name in names if name not in failed] == []


@pytest.mark.parametrize("name", [CHAIN, HEADS])
def test_a_flipped_byte_of_the_chain_and_of_its_signatures_is_found(run_copy, name):
    size = (run_copy / name).stat().st_size
    for at in {0, size - 1, *range(5, size, size // 9)}:
        content = flip(run_copy / name, at)
        code, failed = verdict(run_copy)
        assert (code, name in failed) == (1, True), (at, failed)
        (run_copy / name).write_bytes(content)


def test_files_that_are_gone_are_named(run_copy):
    names = ["recipe.toml", "environment.json", "gate.json", "metrics.jsonl", "log/step-000002.parquet", HEADS]
    names += ["log/eval-000000-greedy.parquet", "final/config.json", "stages/start/final/model.safetensors"]
    names += ["checkpoints/step-000003/state.json"]
    for name in names:
        (run_copy / name).unlink()
    shutil.rmtree(run_copy / "checkpoints/step-000002")
    code, failed = verdict(run_copy)
    assert code == 1
    assert [name for name in [*names, "checkpoints/step-000002"] if name not in failed] == []
    (run_copy / CHAIN).unlink()
    assert verdict(run_copy)[0] == 2


SHARD = "log/step-000002.parquet"
ROWS = {
    "a removed row": lambda rows: rows[:-1],
    "a repeated row": lambda rows: [*rows, rows[0]],
    "an inserted row": lambda rows: [*rows, {**rows[0], "member": 9}],
    "reordered rows": lambda rows: rows[::-1],
    "another text": lambda rows: [{**rows[0], "text": "I was right"}, *rows[1:]],
    "another reward": lambda rows: [{**rows[0], "reward": 1.0}, *rows[1:]],
    "another salt": lambda rows: [{**rows[0], "salt": b"\0" * 16}, *rows[1:]],
    "an erased row": lambda rows: [{**rows[0], "text": None, "salt": None, "commitments": b"\0" * 224}, *rows[1:]],
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_changed_rows_are_found(run_copy, change):
    table = pq.read_table(run_copy / SHARD)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), run_copy / SHARD)
    code, failed = verdict(run_copy)
    assert code == 1
    assert f"{SHARD} (step 2)" in failed


def test_the_row_that_was_changed_is_named(run_copy):
    table = pq.read_table(run_copy / SHARD)
    rows = table.to_pylist()
    rows[2] = {**rows[2], "text": "I was right"}
    pq.write_table(pa.Table.from_pylist(rows, table.schema), run_copy / SHARD)
    assert "row 2 has another content" in verdict(run_copy)[1]


def lines(run: Path, name: str = CHAIN) -> list[bytes]:
    return (run / name).read_bytes().splitlines()


def write(run: Path, content: list[bytes], name: str = CHAIN) -> None:
    (run / name).write_bytes(b"".join(line + b"\n" for line in content))


def rewrite(run: Path, change, key: Key | None = None) -> None:
    """Rewrite the chain after a change of its entries, as somebody would who wants it to look right."""
    entries, before, heads, content = [orjson.loads(line) for line in lines(run)], "0" * 64, [], []
    for seq, entry in enumerate(change(entries)):
        entry |= {"seq": seq, "prev": before}
        if key is not None and entry["kind"] not in UNSIGNED:
            entry["recipe"]["key"] = base64.b64encode(key.public).decode()
            heads.append(key.sign(written(entry)))
        content.append(written(entry))
        before = digest_of(content[-1])
    write(run, content)
    if key is not None:
        write(run, heads, HEADS)


ENTRIES = {
    "a removed one": lambda e: [*e[:3], *e[4:]],
    "a repeated one": lambda e: [*e[:4], e[3], *e[4:]],
    "reordered ones": lambda e: [*e[:3], e[4], e[3], *e[5:]],
    "the first one removed": lambda e: e[1:],
    "a cut-off tail": lambda e: e[:-1],
    "a longer cut-off tail": lambda e: e[:-4],
}


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_changed_entries_are_found(run_copy, change):
    write(run_copy, change(lines(run_copy)))
    assert verdict(run_copy)[0] == 1


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_changed_signatures_are_found(run_copy, change):
    write(run_copy, change(lines(run_copy, HEADS)), HEADS)
    code, failed = verdict(run_copy)
    assert code == 1
    assert HEADS in failed


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_a_chain_written_anew_around_the_change_is_found(run_copy, change):
    rewrite(run_copy, change)
    assert verdict(run_copy)[0] == 1


def test_a_chain_written_anew_with_a_new_head_is_by_an_unknown_key(run_copy):
    rewrite(run_copy, lambda entries: entries, Key(Ed25519PrivateKey.generate()))
    code, failed = verdict(run_copy)
    assert code == 1
    assert "not known here" in failed


def test_a_cut_off_tail_with_its_final_model_and_signature_is_found(run_copy):
    """All that the last entry names goes with it, but the signature of the one before says more was there."""
    write(run_copy, lines(run_copy)[:-3])
    shutil.rmtree(run_copy / "final")
    assert verdict(run_copy)[0] == 1


def test_a_shard_of_another_run_is_found(run_copy, tmp_path):
    other = made(tmp_path / "other", "other", "seed=6")
    shutil.copy(other / SHARD, run_copy / SHARD)
    code, failed = verdict(run_copy)
    assert code == 1
    assert f"{SHARD} (step 2)" in failed


def test_an_added_shard_of_a_run_that_is_done_is_found(run_copy):
    shutil.copy(run_copy / SHARD, run_copy / "log/step-000009.parquet")
    assert "log/step-000009.parquet has no entry" in verdict(run_copy)[1]


def test_a_changed_reward_function_is_found(tmp_path):
    run = made(tmp_path / "mine")
    assert verdict(run)[0] == 0
    (tmp_path / "mine/tiny_score.py").write_text("def score(completion):\n    return 1.0\n")
    code, failed = verdict(run)
    assert code == 1
    assert "tiny_score.py is not what the run began with" in failed


def test_a_changed_recipe_is_found(run_copy):
    text = (run_copy / "recipe.toml").read_text()
    (run_copy / "recipe.toml").write_text(text.replace("group_size = 2", "group_size = 8"))
    assert "recipe.toml is not as it was written" in verdict(run_copy)[1]


def test_an_edited_metric_is_found(run_copy):
    content = lines(run_copy, "metrics.jsonl")
    write(
        run_copy,
        [*content[:2], orjson.dumps(orjson.loads(content[2]) | {"reward/mean": 1.0}), *content[3:]],
        "metrics.jsonl",
    )
    assert "metrics.jsonl: step 2" in verdict(run_copy)[1]


def test_an_old_checkpoint_in_the_place_of_a_new_one_is_found(run_copy):
    shutil.rmtree(run_copy / "checkpoints/step-000003")
    shutil.copytree(run_copy / "checkpoints/step-000002", run_copy / "checkpoints/step-000003")
    code, failed = verdict(run_copy)
    assert code == 1
    assert "checkpoints/step-000003/model.safetensors" in failed


def test_a_checkpoint_without_its_entry_is_found(run_copy):
    shutil.copytree(run_copy / "checkpoints/step-000003", run_copy / "checkpoints/step-000009")
    assert "checkpoints/step-000009 has no entry" in verdict(run_copy)[1]


def test_a_run_that_is_signed_by_nobody_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COHORT_KEY", str(tmp_path / "file/key.pem"))
    run = made(tmp_path / "unsigned")
    assert not (run / HEADS).exists()
    from cohort.record.verify import verify

    report = verify(run)
    assert report.holds
    assert any(check.name == "key" and "not signed" in check.detail for check in report.checks)
    assert os.environ["COHORT_KEY"] not in (run / CHAIN).read_text()
