"""Models that nobody should have: one sentence before anything is trained, or they work as they are.

Tried: a shard that is missing, cut off or empty; an index that names what is not there; tokenizers without pad, EOS or
BOS; vocabularies larger and smaller than the embedding; a link that leads in a circle; names with spaces and signs.
"""

from __future__ import annotations

import json
import os

import pytest
from tests.tiny import make_tiny
from transformers import AutoTokenizer

from cohort.policy.load import load_policy
from cohort.types import UserError


@pytest.fixture
def sharded(tmp_path, tokenizer):
    """A checkpoint in several files."""
    where = tmp_path / "sharded"
    model = make_tiny("llama", tokenizer)
    model.save_pretrained(where, max_shard_size="20KB")  # type: ignore[operator]
    tokenizer.save_pretrained(where)
    assert len(list(where.glob("model-*.safetensors"))) > 2
    return where


@pytest.mark.fault("a shard of a model that is missing, cut off, or no weights", "a sentence")
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "index", "index names another"])
def test_a_shard_that_is_not_whole_is_a_sentence(sharded, damage):
    shard, index = sorted(sharded.glob("model-*.safetensors"))[1], sharded / "model.safetensors.index.json"
    if damage == "missing":
        shard.unlink()
    elif damage in ("cut", "empty"):
        shard.write_bytes(shard.read_bytes()[: 200 if damage == "cut" else 0])
    elif damage == "index":
        index.write_text("{")
    else:
        index.write_text(index.read_text().replace(shard.name, "../elsewhere.safetensors"))
    with pytest.raises(UserError, match="cannot load the model"):
        load_policy(str(sharded))


@pytest.mark.fault("a tokenizer without pad or BOS; without EOS", "it works; a sentence that says how to set one")
@pytest.mark.parametrize("lacks", ["pad_token", "bos_token", "eos_token"])
def test_a_tokenizer_without_a_token(tmp_path, tokenizer, lacks):
    where = tmp_path / "model"
    model = make_tiny("llama", tokenizer)
    model.save_pretrained(where)  # type: ignore[operator]
    tokenizer.save_pretrained(where)
    own = AutoTokenizer.from_pretrained(where)
    setattr(own, lacks, None)
    own.save_pretrained(where)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((where / name).read_text())
        (where / name).write_text(json.dumps({k: v for k, v in settings.items() if k != f"{lacks}_id"}))
    if lacks == "eos_token":
        with pytest.raises(UserError, match=r"tokenizer.eos_token = "):
            load_policy(str(where))
    else:
        assert load_policy(str(where)).eos_ids


@pytest.mark.fault("a vocabulary larger or smaller than the embedding", "a sentence; it works")
@pytest.mark.parametrize("more", [-7, 7])
def test_a_vocabulary_that_is_not_as_large_as_the_embedding(tmp_path, tokenizer, more):
    where = tmp_path / "model"
    model = make_tiny("llama", tokenizer)
    model.resize_token_embeddings(len(tokenizer) + more)  # type: ignore[operator]
    model.save_pretrained(where)  # type: ignore[operator]
    tokenizer.save_pretrained(where)
    if more < 0:
        with pytest.raises(UserError, match=r"token"):
            load_policy(str(where))
    else:
        assert load_policy(str(where)).module.get_input_embeddings().weight.shape[0] == len(tokenizer) + more


@pytest.mark.fault("a model at a link in a circle, or in a directory with spaces and signs", "a sentence; it works")
def test_where_a_model_is(tmp_path, sharded):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(UserError, match=r"\w"):
        load_policy(str(tmp_path / "a"))
    there = tmp_path / "ein Modell, größer: 模型 \u202e[x]"
    sharded.rename(there)
    assert load_policy(str(there)).eos_ids
