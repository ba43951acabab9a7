"""A tokenizer of single letters, with any special tokens and any chat template."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_MARKS = ("<|im_start|>", "<|im_end|>")


def letters(special=(), plain=(), template=None, eos="<eos>", alphabet=None):
    """`special` and `plain` are added tokens; others are the printable ASCII characters, or those of `alphabet`."""
    signs = [chr(code) for code in range(32, 127)] + ["\n"] if alphabet is None else list(alphabet)
    first = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {token: number for number, token in enumerate([*first, *signs])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (*first, *special)])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token=eos, unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)
