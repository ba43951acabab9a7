"""The tokenizer of a GGUF file, with its chat template: what the file says, token by token, or refused."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cohort.policy.gguf import known, parts_of, read_header
from cohort.types import UserError

_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
_GPT2_SPLITS = ("default", "gpt-2", "gpt2")  # transformers' plain byte-level one
_DIGITS_FIRST = ("smollm", "starcoder", "refact", "command-r", "codeshell")  # single digits, then as GPT-2


def read_gguf_tokenizer(kind: Any, file: str) -> Any:
    """The tokenizer of a GGUF file with its chat template, by the class `kind`. Raises `UserError` where it is not what
    the file says.
    """
    header = read_header(file)
    if "ggml.tokens" not in header.tokenizer:
        raise UserError(f"the GGUF file '{file}' holds no tokenizer: name the model's original checkpoint")
    directory, name = parts_of(file)
    with known(header, file):
        tokenizer = _without_additions(kind.from_pretrained(directory, gguf_file=name), header.tokenizer)
    _settle_splits(tokenizer, str(header.tokenizer.get("ggml.pre", "default")), file)
    wrong = _tokenizer_differs(tokenizer, header.tokenizer)
    if wrong:
        raise UserError(f"cannot load the model '{file}': its tokenizer is read as another one: {wrong}")
    tokenizer.name_or_path = file
    return tokenizer


def _without_additions(tokenizer: Any, said: Mapping[str, Any]) -> Any:
    """The tokenizer with the tokens of the file alone. Where a file names no token for unknown text or for the begin of
    one, transformers adds one of its own behind the last, which the model has no embedding for.
    """
    tokens = said["ggml.tokens"]
    if len(tokenizer) == len(tokens):
        return tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] < len(tokens)]
    backend["model"]["unk_token"] = None
    ids = {name: said.get(f"ggml.{key}_token_id") for name, key in _SPECIAL.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        chat_template=said.get("chat_template"),
        **{f"{name}_token": None if index is None else tokens[index] for name, index in ids.items()},
    )


def _settle_splits(tokenizer: Any, name: str, file: str) -> None:
    """Have a text split before it is encoded as the file says, where transformers has only GPT-2's way."""
    splits: tuple[str, ...] = ()
    with contextlib.suppress(ImportError):  # versions without it split every text as GPT-2 does
        from transformers.integrations.gguf import gguf_tokenizer_mapping

        splits = tuple(gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS)
    backend = tokenizer.backend_tokenizer
    if name in _DIGITS_FIRST:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif name not in (*_GPT2_SPLITS, *splits):
        warnings.warn(
            f"the tokenizer of '{file}' splits texts by the rule '{name}', which transformers does not know: they are "
            "split as GPT-2 does, so some become other tokens than the model has learnt",
            stacklevel=2,
        )


def _tokenizer_differs(tokenizer: Any, said: Mapping[str, Any]) -> str:
    """In what a tokenizer is another one than a file describes, in words; empty where in nothing."""
    tokens, kinds = said["ggml.tokens"], said.get("ggml.token_type", ())
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) != len(tokens):
        return f"it has {len(vocabulary):,} tokens, not {len(tokens):,}"
    moved = [
        token
        for index, token in enumerate(tokens)
        if kinds[index : index + 1] == [3] and vocabulary.get(token) != index
    ]
    if moved:
        return f"{moved[0]!r} is another token"
    for key, name in (("ggml.bos_token_id", "bos"), ("ggml.eos_token_id", "eos")):
        if (wanted := said.get(key)) is not None and getattr(tokenizer, f"{name}_token_id") != wanted:
            return f"its {name} token is {getattr(tokenizer, f'{name}_token_id')}, not {wanted}"
    if tokenizer.chat_template != said.get("chat_template"):
        return "it has another chat template"
    return ""
