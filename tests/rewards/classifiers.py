"""Tiny random checkpoints of the kinds that people score with."""

from __future__ import annotations

import torch
import transformers as t

from tiny import SIZES


def save_decoder(where, tokenizer, labels=1, pad=True, seed=5, **changes):
    """A Qwen3 with a score, as reward models usually are."""
    torch.manual_seed(seed)
    config = t.Qwen3Config(  # type: ignore[call-arg]
        **(SIZES | {"num_hidden_layers": 2} | changes),
        head_dim=8,
        vocab_size=len(tokenizer),
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(t.Qwen3ForSequenceClassification(config), where, tokenizer)


def save_encoder(where, texts, labels=2, **changes):
    """A BERT classifier with its own tokenizer: [CLS] question [SEP] answer [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=made, **names)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    torch.manual_seed(5)
    config = t.BertConfig(  # type: ignore[call-arg]
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, num_labels=labels, pad_token_id=0, **changes,
    )  # fmt: skip
    return _save(t.BertForSequenceClassification(config), where, tokenizer)


def _save(model, where, tokenizer):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.15)
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return str(where)
