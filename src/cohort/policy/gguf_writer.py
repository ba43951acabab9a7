"""A model as one GGUF file, as llama.cpp and transformers read it, with its tokenizer and chat template.

Names and shapes are those of llama.cpp's own converter: tensors by the `gguf` package's map, and the rows of a Llama's
queries and keys in pairs, as its rotary embedding turns neighbours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.policy.gguf import names_of
from cohort.policy.policy import Policy
from cohort.types import UserError

FILE = "model.gguf"
ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
QWEN3_HEAD = 128  # what transformers takes for the width of a Qwen3's heads, which it does not read from the file
# How a vocabulary splits text, by a part of the pattern that its tokenizer has for it, under llama.cpp's name.
SPLITS = {
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*": "llama-bpe",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*": "qwen2",
    '"Digits"': "smollm",
}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # kinds of token in a GGUF


def refuse(policy: Policy) -> None:
    """Raise `UserError` for a model that this file cannot write as a GGUF, before anything is computed."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError('a GGUF is written with the package gguf: pip install "cohort[gguf]"') from None
    name, config = type(policy.model).__name__, policy.config
    if name not in ARCHITECTURES:
        raise UserError(f"{name} cannot be written as a GGUF here: {', '.join(ARCHITECTURES)} can")
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind != "default":
        raise UserError(f"its rotary embedding is '{kind}', which is not written to a GGUF here: use --as merged")
    if any(layer != "full_attention" for layer in getattr(config, "layer_types", None) or ()):
        raise UserError("its layers see a window, which is not written to a GGUF here: use --as merged")
    backend = _backend(policy.tokenizer)
    if (backend.get("model") or {}).get("type") != "BPE" or '"ByteLevel"' not in json.dumps(backend["pre_tokenizer"]):
        raise UserError("its tokenizer is no byte-level BPE, which alone is written to a GGUF here: use --as merged")


def rounded(weight: Tensor, kind: str) -> Tensor:
    """The float32 weight as it is after it was written as `kind` and read again."""
    if kind in ("float32", "bfloat16"):
        return weight.to(getattr(torch, kind)).float()
    from gguf.quants import dequantize

    packed, of_file = _packed(weight, kind)
    return torch.from_numpy(dequantize(packed, of_file).copy())


def _packed(weight: Tensor, kind: str) -> tuple[Any, Any]:
    """The weight as its rows are written, and their type. Vectors, and rows that no blocks of 32 fill, stay float32."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    name = {"float32": "F32", "float16": "F16", "q8_0": "Q8_0"}[kind]
    exact = weight.dim() < 2 or (kind == "q8_0" and weight.shape[-1] % 32)
    of_file = GGMLQuantizationType["F32" if exact else name]
    return quantize(weight.float().contiguous().numpy(), of_file), of_file


def unread(policy: Policy) -> dict[str, Any]:
    """What transformers has to be told beside the file: it knows one width of a Qwen3's heads. llama.cpp reads it."""
    width = getattr(policy.config, "head_dim", None)
    return {"head_dim": width} if policy.config.model_type == "qwen3" and width != QWEN3_HEAD else {}


@torch.no_grad()
def write(policy: Policy, directory: Path, kind: str) -> None:
    """Write `model.gguf`. The weights of the policy are then those that were written: rounded to `kind`."""
    import gguf

    config, arch = policy.config, ARCHITECTURES[type(policy.model).__name__]
    writer = gguf.GGUFWriter(directory / FILE, arch)
    _write_sizes(writer, policy, kind)
    _write_tokenizer(writer, policy)
    names = names_of(arch, config.num_hidden_layers)
    for name, parameter in policy.model.named_parameters():
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise UserError(f"a GGUF of the architecture {arch} has no place for {name}: use --as merged")
        packed, of_file = _packed(parameter, kind)
        parameter.copy_(torch.from_numpy(gguf.quants.dequantize(packed, of_file).copy()))
        if arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            packed = packed.reshape(heads, 2, -1, *packed.shape[1:]).swapaxes(1, 2).reshape(packed.shape).copy()
        writer.add_tensor(known, packed, raw_dtype=of_file)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer: Any, policy: Policy, kind: str) -> None:
    """The configuration of the model, in llama.cpp's words."""
    config = policy.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(Path(getattr(policy.model, "name_or_path", "") or "model").name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(policy.vocabulary)
    writer.add_file_type({"float32": 0, "float16": 1, "q8_0": 7}[kind])
    writer.add_quantization_version(2)


def _write_tokenizer(writer: Any, policy: Policy) -> None:
    """Vocabulary, merges, special tokens and the chat template."""
    tokenizer, backend = policy.tokenizer, _backend(policy.tokenizer)
    spelled = {index: token for token, index in tokenizer.get_vocab().items()}
    added = {token["id"]: token for token in backend["added_tokens"]}
    tokens = [spelled.get(index, f"[PAD{index}]") for index in range(policy.vocabulary)]
    kinds = [
        (CONTROL if added[index]["special"] else USER_DEFINED) if index in added else NORMAL if index in spelled else 5
        for index in range(policy.vocabulary)
    ]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in backend["model"]["merges"]]
    split = json.dumps(backend["pre_tokenizer"], ensure_ascii=False).replace("\\\\", "\\")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(next((name for part, name in SPLITS.items() if part in split), "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for put, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if index is not None:
            put(index)
    if policy.turn_end not in (None, tokenizer.eos_token_id):
        writer.add_eot_token_id(policy.turn_end)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _backend(tokenizer: Any) -> dict[str, Any]:
    """What a tokenizer.json would say; empty for a tokenizer that is written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())
    return found
