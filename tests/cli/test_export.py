"""`cohort export`: what is written is what was trained, read back by others' code, or nothing is there."""

from __future__ import annotations

import errno
import functools
import json
import shutil
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cohort.commands import export
from cohort.policy.adapters import add_lora
from cohort.policy.load import load_policy, save_policy
from cohort.recipe import Recipe
from cohort.settings import Lora
from cohort.train import train
from cohort.views.console import Console
from hub_server import running_hub
from tiny import make_tiny


@pytest.fixture
def adapter(desk):
    """An adapter that changes what its base says, on disk."""
    adapted(load_policy(str(desk / "base")), ("q_proj", "down_proj"), desk / "adapted")


def adapted(base, targets, where, **keys):
    policy = add_lora(base, Lora(rank=2, targets=targets, **keys), seed=3)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name or "modules_to_save" in name or "lora_embedding" in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    save_policy(policy, where)


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 20)[None]).logits


@pytest.mark.usefixtures("adapter")
def test_an_adapter_is_merged_into_a_checkpoint_of_its_own(desk, cohort):
    wanted = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(desk / "base"), desk / "adapted"))
    code, out, err = cohort("export", "adapted", "--to", "whole")
    assert code == 0, err
    assert "read back in a new process" in out
    assert "the adapter is in it: 4 matrices differ from those of the base" in out
    shutil.rmtree(desk / "base")
    shutil.rmtree(desk / "adapted")
    whole = AutoModelForCausalLM.from_pretrained(desk / "whole")
    torch.testing.assert_close(logits(whole), wanted, atol=1e-4, rtol=1e-4)
    assert not hasattr(load_policy(str(desk / "whole")).module, "disable_adapter")


@pytest.mark.usefixtures("read_back_here")
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


@pytest.mark.usefixtures("read_back_here")
def test_dora_and_a_head_that_is_saved_whole_are_merged(desk, cohort):
    adapted(load_policy(str(desk / "base")), ("q_proj",), desk / "adapted", dora=True, modules_to_save=("lm_head",))
    wanted = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(desk / "base"), desk / "adapted"))
    code, out, err = cohort("export", "adapted", "--to", "whole", "--json")
    assert code == 0, err
    assert json.loads(out)["merged"] == 3
    whole = AutoModelForCausalLM.from_pretrained(desk / "whole")
    torch.testing.assert_close(logits(whole), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("adapter", "read_back_here")
def test_an_adapter_stays_one_where_that_is_asked(desk, cohort):
    code, out, err = cohort("export", "adapted", "--as", "adapter", "--to", "again", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["form"], found["base"], found["rollouts"]) == ("adapter", str(desk / "base"), 0)
    assert found["difference"] < 1e-4
    assert found["tensors"] > found["merged"] == 0
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(desk / "base"), desk / "again")


@pytest.mark.usefixtures("adapter", "read_back_here")
def test_coarse_numbers_are_said_and_checked_as_they_are(desk, cohort):
    code, out, err = cohort("export", "adapted", "--to", "half", "--type", "bfloat16", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert 0 < found["difference"] < found["rounding"]
    assert AutoModelForCausalLM.from_pretrained(desk / "half", dtype="auto").dtype == torch.bfloat16


@pytest.mark.usefixtures("read_back_here")
def test_a_whole_model_goes_as_it_is(desk, cohort):
    code, _, err = cohort("export", "base", "--to", "copy")
    assert code == 0, err
    assert logits(AutoModelForCausalLM.from_pretrained(desk / "copy")).isfinite().all()


@pytest.mark.usefixtures("read_back_here")
def test_a_run_is_compared_on_its_own_rollouts(desk, cohort):
    assert cohort("train", "recipe.toml", "policy.lora.rank=2", "run.steps=1", "optimizer.learning_rate=0.01")[0] == 0
    code, out, err = cohort("export", "runs/mine", "--as", "adapter", "--to", "x", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["rollouts"] == 8
    assert found["tokens"] > 8
    for place in ("final/adapter_model.safetensors", "log/step-000001.parquet"):
        file = desk / "runs" / "mine" / place
        kept = file.read_bytes()
        file.write_bytes(kept[:-40])
        code, _, err = cohort("export", "runs/mine", "--to", "y")
        assert (code, "damaged" in err or "cannot be read" in err) == (2 if "final" in place else 1, True), err
        file.write_bytes(kept)
        assert not [*desk.glob("y"), *desk.glob(".y*")]


@pytest.mark.usefixtures("read_back_here")
@pytest.mark.parametrize(("kind", "type"), [("llama", "float32"), ("llama", "q8_0"), ("qwen2", "float16"),
                                            ("qwen3", "float16"), ("qwen3", "q8_0")])  # fmt: skip
def test_a_gguf_is_read_by_transformers(desk, cohort, tokenizer, kind, type):
    pytest.importorskip("gguf")
    model = make_tiny(kind, tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 8)  # as many models have it
    model.save_pretrained(desk / kind)
    tokenizer.save_pretrained(desk / kind)
    adapted(load_policy(str(desk / kind)), "all-linear", desk / "adapted")
    code, out, err = cohort("export", "adapted", "--as", "gguf", "--type", type, "--to", "one", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["difference"] < 1e-2
    assert (found["rounding"] > 0) == (type != "float32")
    assert [file.name for file in (desk / "one").iterdir()] == ["model.gguf"]
    again = AutoTokenizer.from_pretrained(desk / "one", gguf_file="model.gguf")
    text = "<|user|>Ann has 12 plums.\n\n  17 + 25 = 42, isn't it?<|end|>"
    assert again.encode(text) == AutoTokenizer.from_pretrained(desk / kind).encode(text)
    assert again.chat_template == tokenizer.chat_template


@pytest.mark.usefixtures("read_back_here")
def test_a_gguf_of_another_architecture_is_refused(desk, cohort, tokenizer):
    make_tiny("gemma3", tokenizer).save_pretrained(desk / "gemma")
    tokenizer.save_pretrained(desk / "gemma")
    code, _, err = cohort("export", "gemma", "--as", "gguf", "--to", "one")
    assert (code, "Gemma3ForCausalLM cannot be written as a GGUF here" in err) == (1, True), err
    assert not (desk / "one").exists()


def test_what_cannot_be_exported_leaves_nothing(desk, cohort):
    (desk / "empty").mkdir()
    for words, said, code in (
        (["base", "--as", "adapter", "--to", "x"], "has no adapter", 1),
        (["base", "--to", "base"], "exists", 1),
        (["base", "--to", "empty"], "exists", 1),
        (["base", "--to", "no/such/place"], "make it first", 1),
        (["nowhere/at/all", "--to", "x"], "nowhere", 2),
        (["base", "--as", "onnx", "--to", "x"], "onnx", 2),
        (["base", "--type", "q8_0", "--to", "x"], "not q8_0", 1),
    ):
        found, _, err = cohort("export", *words)
        assert (found, said in err) == (code, True), err
        assert not (desk / "x").exists()


@pytest.mark.usefixtures("adapter", "read_back_here")
@pytest.mark.parametrize("form", ["merged", "adapter", "gguf"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(desk, cohort, monkeypatch, form):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "save_policy", full)
    monkeypatch.setattr(export.gguf_writer, "write", full)
    code, _, err = cohort("export", "adapted", "--as", form, "--to", "whole")
    assert (code, "cannot write to 'whole' (No space left on device)" in err) == (1, True), err
    assert not list(desk.glob("*whole*"))


@pytest.mark.usefixtures("adapter", "read_back_here")
@pytest.mark.parametrize("form", ["merged", "adapter", "gguf"])
def test_a_disk_that_ends_in_the_middle_of_a_file_is_one_sentence_too(desk, cohort, form):
    """Really: no file of this process may grow beyond a few kilobytes."""
    resource = pytest.importorskip("resource", reason="limits of files are of POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        code, out, err = cohort("export", "adapted", "--as", form, "--to", "whole")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, "cannot write to 'whole'" in err) == (1, True), err
    assert "Traceback" not in out + err
    assert not list(desk.glob("*whole*"))


@pytest.mark.usefixtures("adapter", "read_back_here")
@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_adapter_of_another_base_is_one_sentence(desk, cohort, tokenizer, form):
    make_tiny("llama", tokenizer).save_pretrained(desk / "other")
    named = json.loads((desk / "adapted/adapter_config.json").read_text())
    named["base_model_name_or_path"] = str(desk / "other")
    (desk / "adapted/adapter_config.json").write_text(json.dumps(named))
    code, out, err = cohort("export", "adapted", "--as", form, "--to", "whole")
    assert (code, "was trained on another model than" in err) == (2, True), err
    assert "Traceback" not in out + err
    assert not list(desk.glob("*whole*"))


@pytest.mark.usefixtures("adapter", "read_back_here")
def test_a_merge_that_merges_nothing_is_found_out(desk, cohort, monkeypatch):
    monkeypatch.setattr(export, "merge_adapter", lambda policy: load_policy(str(desk / "base")))
    code, _, err = cohort("export", "adapted", "--to", "whole")
    assert (code, "4 of them are the base's in the merged model" in err) == (1, True), err
    assert not list(desk.glob("*whole*"))


@pytest.mark.usefixtures("adapter", "read_back_here")
def test_a_model_that_reads_back_differently_is_not_kept(desk, cohort, monkeypatch):
    def spoilt(policy, directory):
        save_policy(policy, directory)
        with torch.no_grad():
            next(policy.module.parameters()).add_(0.5)

    monkeypatch.setattr(export, "save_policy", spoilt)
    code, _, err = cohort("export", "adapted", "--to", "whole")
    assert (code, "read back as something else" in err) == (1, True), err
    assert not list(desk.glob("*whole*"))


@pytest.mark.usefixtures("adapter", "read_back_here")
def test_the_hub_gets_what_was_checked(cohort, monkeypatch):
    calls: list[tuple[str, Any]] = []

    class Api:
        def create_repo(self, name, **options):
            calls.append((name, options))
            if name == "me/there":
                raise OSError("409: it exists")

        def upload_folder(self, repo_id, folder_path, **_):
            calls.append((repo_id, sorted(file.name for file in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    code, out, err = cohort("export", "adapted", "--to", "hub:me/new", "--json")
    assert code == 0, err
    assert json.loads(out)["to"] == "hub:me/new"
    assert calls[0] == ("me/new", {"private": True, "exist_ok": False})
    assert "model.safetensors" in calls[1][1]
    code, _, err = cohort("export", "adapted", "--to", "hub:me/there")
    assert (code, "cannot upload to hub:me/there: 409" in err) == (1, True), err


@pytest.mark.usefixtures("read_back_here")
def test_the_hub_gets_model_card_and_evaluations_of_a_run(desk, cohort, monkeypatch):
    recipe = Recipe(
        name="mine",
        policy={"model": "base", "lora": {"rank": 2}},
        task={"source": "word_problems"},
        rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 6},
        reward="exact_number",
        evaluate={"problems": 4},
        run={"steps": 1, "threads": 1},
    )
    final = train(recipe, console=Console(quiet=True)).directory / "final"
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its protocol is not spoken here
        api = functools.partial(HfApi, endpoint=hub.address, token="hf_x")
        monkeypatch.setattr("huggingface_hub.HfApi", api)
        code, _, err = cohort("export", "runs/mine", "--to", "hub:me/new")
        assert code == 0, err
        files = hub.repositories["me/new"]
        assert hub.private["me/new"]
        assert cohort("export", "runs/mine", "--to", "hub:me/new")[0] == 1  # nothing is written over
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", ".eval_results/held_out.yaml"} <= set(
        files
    )
    assert files[".eval_results/held_out.yaml"] == (final / ".eval_results/held_out.yaml").read_bytes()
    (desk / "got").mkdir()
    (desk / "got/model.safetensors").write_bytes(files["model.safetensors"])
    assert load_file(desk / "got/model.safetensors").keys() > {"model.norm.weight"}
    card, before = ModelCard(files["README.md"].decode()), ModelCard((final / "README.md").read_text())
    assert (before.data.get("library_name"), card.data.get("library_name")) == ("peft", "transformers")
    assert card.text == before.text
