"""Small GGUF files, written by the package gguf as llama.cpp's converter would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PROJECTIONS = ("attn_q", "attn_k")  # llama.cpp stores the rows of Llama's in another order


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    *,
    architecture: str | None = None,
    stored_as: str = "F32",
    without: str = "",
    more: Mapping[str, np.ndarray] | None = None,
    settings: Mapping[str, Any] | None = None,
    pre: str = "gpt-2",
) -> dict[str, np.ndarray]:
    """Write a Llama or Qwen model; returns the values that a reader of the file should get, by their GGUF names.

    Every setting that the file has too much or too little is one keyword: a tensor left out, more of them, other keys.
    """
    import gguf

    config = model.config
    architecture = architecture or config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    width = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    for key, value in (settings or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{architecture}.{key}", value)
    _add_tokenizer(writer, tokenizer, pre)
    kind = gguf.GGMLQuantizationType[stored_as]
    read = {}
    for name, values in {**_tensors(model, gguf), **(more or {})}.items():
        if name == without:
            continue
        if values.ndim == 2 and stored_as != "F32":
            blocks = gguf.quants.quantize(values, kind)
            writer.add_tensor(name, blocks, raw_dtype=kind)
            values = gguf.quants.dequantize(blocks, kind)
        else:
            writer.add_tensor(name, values)
        read[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


def _tensors(model: Any, gguf: Any) -> dict[str, np.ndarray]:
    """The tensors of a model by their GGUF names, in the order of rows that llama.cpp has."""
    config = model.config
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    found = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values, known = value.float().numpy(), names.get_name(name, try_suffixes=(".weight", ".bias"))
        if config.model_type == "llama" and any(f".{part}." in known for part in PROJECTIONS):
            heads = config.num_attention_heads if ".attn_q." in known else config.num_key_value_heads
            values = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:]).swapaxes(1, 2)
            values = values.reshape(value.shape)
        found[known] = np.ascontiguousarray(values)
    return found


def _add_tokenizer(writer: Any, tokenizer: Any, pre: str) -> None:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = {token["content"]: 3 if token["special"] else 4 for token in backend["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in backend["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([special.get(token, 1) for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
