"""A GGUF file as the model of every command, and as a run's start."""

from __future__ import annotations

import json

import pytest

from gguf_files import write_gguf
from tiny import make_tiny

pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'cohort[gguf]'")


@pytest.fixture
def file(desk, tokenizer):
    """A Llama in blocks of Q8_0."""
    write_gguf(desk / "tiny.gguf", make_tiny("llama", tokenizer), tokenizer, stored_as="Q8_0")
    return "tiny.gguf"


def test_a_run_starts_from_it_stops_goes_on_and_is_whole_without_it(desk, file, cohort):
    code, out, err = cohort("train", "recipe.toml", f"policy.model={file}", "run.steps=1")
    assert code == 0, err
    assert "dequantised from Q8_0" in out + err
    code, out, err = cohort("train", "recipe.toml", f"policy.model={file}", "run.steps=2", "--resume")
    assert code == 0, err
    code, out, err = cohort("eval", "runs/mine", "--against", file, "--problems", "3", "--samples", "0", "--json")
    assert code == 0, err
    assert json.loads(out)["difference"]["greedy"]["problems"] == 3
    recorded = json.loads((desk / "runs/mine/environment.json").read_text())["inputs"]
    assert len(recorded[file]) == 32
    (desk / file).write_bytes((desk / file).read_bytes() + b"\0")
    code, out, err = cohort("train", "recipe.toml", f"policy.model={file}", "run.steps=3", "--resume")
    assert code == 1
    assert f"{file} has changed since this run began" in err
    (desk / file).unlink()
    code, out, err = cohort("sample", "runs/mine", "What is 1 plus 2?")
    assert code == 0, err


@pytest.mark.usefixtures("file", "read_back_here")
def test_the_commands_that_look_at_a_model_take_it(cohort):
    for words in (
        ("check", "recipe.toml", "policy.model=tiny.gguf"),
        ("sample", "tiny.gguf", "What is 1 plus 2?", "--max-tokens", "8"),
        ("export", "tiny.gguf", "--to", "plain"),
        ("sample", "plain", "What is 1 plus 2?", "--max-tokens", "8"),
    ):
        code, out, err = cohort(*words)
        assert code == 0, (words, out + err)


@pytest.mark.usefixtures("file")
def test_init_writes_a_recipe_for_it(cohort):
    code, out, err = cohort("init", "tiny.gguf", "train.jsonl")
    assert code == 0, err
    assert 'name = "tiny"' in out
    assert "max_tokens = 64" in out  # half of the 128 positions that the file says


def test_init_and_check_say_what_is_no_model(desk, cohort):
    (desk / "broken.gguf").write_bytes(b"GGUF\3\0\0\0")
    code, _, err = cohort("check", "recipe.toml", "policy.model=broken.gguf")
    assert code in (1, 2)
    assert "is damaged, or was not copied whole" in err
    assert len(err.strip().splitlines()) < 6, err
    code, _, err = cohort("init", "nowhere.gguf", "train.jsonl")
    assert code in (1, 2)
    assert "there is no file 'nowhere.gguf'" in err


def test_an_architecture_that_nobody_reads_from_a_gguf_is_one_sentence(desk, file, cohort):
    whole = (desk / file).read_bytes()
    (desk / "other.gguf").write_bytes(whole.replace(b"llama", b"lamma"))  # its name, and that of all its settings
    for words in (
        ("check", "recipe.toml", "policy.model=other.gguf"),
        ("train", "recipe.toml", "policy.model=other.gguf"),
        ("sample", "other.gguf", "What is 1 plus 2?"),
        ("export", "other.gguf", "--to", "plain"),
    ):
        code, out, err = cohort(*words)
        assert code in (1, 2), (words, out)
        assert "lamma" in err, (words, err)
        assert "Traceback" not in out + err
    assert not (desk / "plain").exists()
    assert not (desk / "runs/mine/final").exists()
