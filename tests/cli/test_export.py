"""`cohort export`: what is written is what was trained, as one checkpoint that needs nothing else."""

from __future__ import annotations

import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from cohort.policy.load import add_lora, load_policy, save_policy
from cohort.settings import Lora


@pytest.fixture
def adapter(desk):
    """An adapter that changes what its base says, on disk."""
    adapted(load_policy(str(desk / "base")), ("q_proj", "down_proj"), desk / "adapted")


def adapted(base, targets, where):
    policy = add_lora(base, Lora(rank=2, targets=targets), seed=3)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    save_policy(policy, where)


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 20)[None]).logits


@pytest.mark.usefixtures("adapter")
def test_an_adapter_is_merged_into_a_checkpoint_of_its_own(desk, cohort):
    wanted = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(desk / "base"), desk / "adapted"))
    code, out, err = cohort("export", "adapted", "--to", "whole")
    assert code == 0, err
    assert "read back" in out
    shutil.rmtree(desk / "base")
    shutil.rmtree(desk / "adapted")
    whole = AutoModelForCausalLM.from_pretrained(desk / "whole")
    torch.testing.assert_close(logits(whole), wanted, atol=1e-4, rtol=1e-4)
    assert not hasattr(load_policy(str(desk / "whole")).module, "disable_adapter")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_tied_matrices_is_merged_into_that_one(desk, cohort, target):
    base = load_policy(str(desk / "base"))
    assert base.model.config.tie_word_embeddings
    adapted(base, (target,), desk / "adapted")
    wanted = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(desk / "base"), desk / "adapted"))
    code, _, err = cohort("export", "adapted", "--to", "whole")
    assert code == 0, err
    whole = AutoModelForCausalLM.from_pretrained(desk / "whole")
    torch.testing.assert_close(logits(whole), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("adapter")
def test_an_adapter_stays_one_where_that_is_asked(desk, cohort):
    code, out, err = cohort("export", "adapted", "--as", "adapter", "--to", "again", "--json")
    assert code == 0, err
    assert '"form":"adapter"' in out
    assert (desk / "again" / "adapter_config.json").is_file()


def test_a_whole_model_goes_as_it_is(desk, cohort):
    code, _, err = cohort("export", "base", "--to", "copy")
    assert code == 0, err
    assert logits(AutoModelForCausalLM.from_pretrained(desk / "copy")).isfinite().all()


def test_what_cannot_be_exported_leaves_nothing(desk, cohort, monkeypatch):
    for words, said, code in (
        (["base", "--as", "adapter", "--to", "x"], "has no adapter", 1),
        (["base", "--to", "base"], "exists", 1),
        (["nowhere/at/all", "--to", "x"], "nowhere", 2),
        (["base", "--as", "gguf", "--to", "x"], "gguf", 2),
    ):
        found, _, err = cohort("export", *words)
        assert (found, said in err) == (code, True), err
        assert not (desk / "x").exists()


@pytest.mark.usefixtures("adapter")
def test_a_model_that_reads_back_differently_is_not_kept(desk, cohort, monkeypatch):
    from cohort.commands import export

    def spoilt(policy, directory):
        with torch.no_grad():
            next(policy.module.parameters()).add_(0.5)
        save_policy(policy, directory)

    monkeypatch.setattr(export, "save_policy", spoilt)
    code, _, err = cohort("export", "adapted", "--to", "whole")
    assert code == 1
    assert "differs" in err
    assert not (desk / "whole").exists()
    assert not list(desk.glob(".whole*"))
