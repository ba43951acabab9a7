"""GGUF files as models: what is read is what the file holds, whole, or it is refused in a sentence."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from cohort.policy.load import add_lora, load_policy, locate, save_policy
from cohort.settings import Lora
from cohort.types import UserError
from gguf_files import write_gguf
from tiny import SIZES, make_tiny

pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'cohort[gguf]'")

TEXT = "Rosa has 12  apples and 3 more."


@pytest.fixture
def written(tmp_path, tokenizer):
    """A tiny Llama, and the file that was made of it."""
    model = make_tiny("llama", tokenizer)
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    return model, tmp_path / "tiny.gguf"


@torch.no_grad()
def logits_of(model, tokenizer):
    return model(input_ids=torch.tensor([tokenizer.encode(TEXT)])).logits


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen2"])
def test_a_file_of_plain_floats_is_the_very_model_it_was_made_of(kind, tmp_path, tokenizer):
    model = make_tiny(kind, tokenizer)
    wanted = logits_of(model, tokenizer)
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    policy = load_policy(str(tmp_path / "tiny.gguf"))
    policy.release()
    assert torch.equal(logits_of(policy.model, tokenizer), wanted)
    assert policy.tokenizer.chat_template == tokenizer.chat_template
    assert policy.eos_ids == (tokenizer.eos_token_id,)
    words = tokenizer.get_vocab()
    assert policy.tokenizer.get_vocab() == words


@pytest.mark.parametrize("stored_as", ["Q4_1", "Q8_0", "F16"])
def test_blocks_become_the_values_that_the_package_gguf_reads_in_them(stored_as, tmp_path, tokenizer):
    model = make_tiny("qwen3", tokenizer)
    read = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, stored_as=stored_as)
    policy = load_policy(str(tmp_path / "tiny.gguf"), dtype="float32")
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
        ("lm_head.weight", "output.weight"),
    ):
        assert np.array_equal(policy.model.state_dict()[ours].numpy(), read[theirs].astype(np.float32))
    assert policy.facts().dequantised == stored_as


def test_it_is_saved_as_a_normal_checkpoint(written, tmp_path):
    policy = load_policy(str(written[1]))
    save_policy(policy, tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = load_policy(str(tmp_path / "saved"))
    ours, theirs = policy.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert again.tokenizer.encode(TEXT) == policy.tokenizer.encode(TEXT)
    assert again.tokenizer.chat_template == policy.tokenizer.chat_template
    assert again.facts().dequantised == ""


def test_an_adapter_finds_its_base_in_the_file(written, tmp_path):
    policy = add_lora(load_policy(str(written[1])), Lora(rank=2), seed=1)
    with torch.no_grad():
        for name, value in policy.module.named_parameters():
            if "lora_B" in name:
                value.normal_()
    save_policy(policy, tmp_path / "adapter")
    again = load_policy(str(tmp_path / "adapter"))
    for one in (policy, again):
        one.release()
    assert torch.equal(logits_of(again.module, again.tokenizer), logits_of(policy.module, policy.tokenizer))


def test_llama_3_has_its_frequencies_in_a_tensor_and_gets_them_back(tmp_path, tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    sizes = dict(SIZES, vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0, bos_token_id=None)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, head_dim=32, rope_parameters=rope)).eval()
    plain = 500000.0 ** -(torch.arange(0, 32, 2) / 32)
    factors = (plain / model.model.rotary_emb.inv_freq).numpy().astype(np.float32)
    file = tmp_path / "tiny.gguf"
    write_gguf(file, model, tokenizer, more={"rope_freqs.weight": factors})
    policy = load_policy(str(file))
    assert policy.config.rope_parameters["rope_type"] == "llama3"
    policy.release()
    torch.testing.assert_close(logits_of(policy.model, tokenizer), logits_of(model, tokenizer))
    write_gguf(file, model, tokenizer, more={"rope_freqs.weight": factors[::-1].copy()})
    with pytest.raises(UserError, match="scales its rotary positions in a way of its own"):
        load_policy(str(file))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"without": "blk.1.ffn_up.weight"}, "no weights for model.layers.1.mlp.up_proj.weight"),
        ({"more": {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}}, "no place for its blk.0.attn_sinks.weight"),
        ({"more": {"blk.0.attn_norm.weight": np.ones(16, np.float32)}}, r"another shape|disagree"),
        ({"settings": {"rope.scaling.type": "yarn"}}, r"scales its rotary positions \(yarn\)"),
        ({"architecture": "mpt"}, "architecture 'mpt', which this version of transformers does not read"),
    ],
)
def test_a_file_that_would_be_read_as_another_model_is_refused(changes, says, tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, make_tiny("llama", tokenizer), tokenizer, **changes)
    with pytest.raises(UserError, match=says):
        load_policy(str(file))


def test_what_changes_the_model_and_is_not_read_is_said(tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, make_tiny("llama", tokenizer), tokenizer, settings={"attention.scale": 0.5}, pre="viking")
    with pytest.warns(UserWarning, match=r"does not read attention\.scale") as said:
        load_policy(str(file))
    assert any("the rule 'viking'" in str(one.message) for one in said)


def test_single_digits_are_split_where_the_file_says_so(tmp_path, tokenizer):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, make_tiny("llama", tokenizer), tokenizer, pre="smollm")
    found = load_policy(str(file)).tokenizer.convert_ids_to_tokens(load_policy(str(file)).tokenizer.encode("  12"))
    assert found[-2:] == ["1", "2"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.9, 0.9999])
def test_a_file_that_was_cut_off_is_refused(share, written):
    _, file = written
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"is no GGUF file|is damaged, or was not copied whole") as refused:
        load_policy(str(file))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("at", [4, 8, 16, 24, 60, 300])
def test_a_damaged_file_is_refused(at, written):
    _, file = written
    data = bytearray(file.read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    file.write_bytes(data)
    with pytest.raises(UserError) as refused:
        load_policy(str(file))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 800


def test_what_is_no_single_gguf_file_is_refused_in_a_sentence(tmp_path, tokenizer, written):
    _, file = written
    assert locate(str(tmp_path)) == str(file.resolve())  # the only one of the directory
    (tmp_path / "other.gguf").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"holds 2 GGUF files \(other.gguf, tiny.gguf\): name one"):
        load_policy(str(tmp_path))
    (tmp_path / "words.txt").write_text("no model")
    with pytest.raises(UserError, match=r"begins with b'no m' and not with b'GGUF'"):
        load_policy(str(tmp_path / "words.txt"))
    with pytest.raises(UserError, match=r"there is no file 'model.gguf'"):
        load_policy("model.gguf")


def test_without_the_package_the_sentence_says_what_to_install(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'cohort\[gguf\]'"):
        load_policy(str(written[1]))
