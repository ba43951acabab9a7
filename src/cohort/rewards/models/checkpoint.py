"""Loading a classifier in a reward worker, and the batches that it reads. Imports torch when it is first called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.chat import specials
from cohort.remote_code import asks_for_trust
from cohort.types import UserError
from cohort.wording import misfit, refuse_pickled

Row = Mapping[str, Sequence[int]]  # input_ids, and token_type_ids where the tokenizer has them


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """The arguments that every reward which is a classifier has; `reward_model` says what they mean."""

    model: str
    template: str = "auto"
    label: str | int | None = None
    max_tokens: int = 0
    too_long: str = "error"
    tokens_at_once: int = 16384
    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False

    def open(self, kind: str, owner: str, templates: Sequence[str]) -> Classifier:
        """The checkpoint by the transformers class `kind`, ready to score, with one thread on a CPU.

        `model` is a directory, a run directory (its final model) or a hub id. Raises UserError, which names `owner`,
        for a value that there is not, and for what is no such checkpoint, a causal language model among them:
        transformers would give it random scores and only warn.
        """
        if self.template not in templates:
            raise UserError(f"{owner}'s template is one of {', '.join(templates)}, not {self.template!r}")
        if self.too_long not in ("error", "truncate_left"):
            raise UserError(f'{owner}\'s too_long is "error" or "truncate_left", not {self.too_long!r}')
        if self.max_tokens < 0 or self.tokens_at_once < 1:
            raise UserError(f"{owner}'s max_tokens is 0 or more, and its tokens_at_once 1 or more")
        where = _located(self.model)  # before torch is imported, which takes seconds
        refuse_pickled(where)
        import torch
        import transformers

        dtype, device = self.dtype, self.device
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise UserError(f"the reward model's dtype is auto, float32, bfloat16 or float16, not {dtype!r}")
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"the reward model's device is auto, cpu or cuda, not {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("the reward model's device is 'cuda', but torch sees no GPU; use 'auto' or 'cpu'")
        torch.set_num_threads(1)  # the other cores belong to the trainer
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        wanted = "float32" if dtype == "auto" and place == "cpu" else dtype
        options: dict[str, Any] = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
            read = getattr(transformers, kind).from_pretrained
            options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
            made, about = read(where, dtype=wanted, **options)
        except Exception as error:  # damaged or hostile files make the libraries raise anything
            text = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"cannot load the reward model '{self.model}': {text[:300]}{asks_for_trust(error)}"
            ) from None
        # Another head beside its own, as of the language model that it was, changes no score.
        more = [name for name in about["unexpected_keys"] if name.startswith(f"{made.base_model_prefix}.")]
        if wrong := misfit(about["missing_keys"], more, about["mismatched_keys"]):
            raise UserError(f"'{self.model}' is no reward model of this kind, so its scores would be random: {wrong}")
        return Classifier(self, made.to(place).eval().requires_grad_(False), tokenizer, specials(tokenizer))


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded checkpoint with what it is asked by. `special` matches any special token of the tokenizer."""

    settings: ClassifierSettings
    model: Any
    tokenizer: Any
    special: re.Pattern[str]

    @property
    def limit(self) -> int:
        """How many tokens are read at most: `max_tokens`, and what the model or its tokenizer says that it takes."""
        known = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        return int(min(self.settings.max_tokens or 2**31, known, self.tokenizer.model_max_length))

    def scores(self, rows: Sequence[Row], column: int) -> list[Any]:
        """What the logits say of the label `column`, for each of the `rows`, which are scored batch by batch: a number
        of a whole text, one a token of a text whose tokens have labels.
        """
        import torch

        config = self.model.config.get_text_config()
        pad = own = config.pad_token_id
        if pad is None:  # any token will do that none of the rows contains
            used = {token for row in rows for token in row["input_ids"]}
            pad = next((token for token in range(config.vocab_size) if token not in used), None)
        at_once = 1 if pad is None else self.settings.tokens_at_once
        found: list[Any] = [None] * len(rows)
        for part in batches([len(row["input_ids"]) for row in rows], at_once):
            # A model of whole texts reads its score at the last token that is not what its configuration calls padding.
            config.pad_token_id = pad
            with torch.inference_mode():
                logits = self.model(**_padded([rows[i] for i in part], pad, self.model.device)).logits.float()
            config.pad_token_id = own
            if logits.shape[-1] > 1:  # several labels: what counts is the probability of one
                several = self.model.config.problem_type == "multi_label_classification"
                logits = logits.sigmoid() if several else logits.softmax(-1)
            for index, said in zip(part, logits[..., column].tolist()):
                found[index] = said
        return found


def _located(model: str) -> str:
    path = Path(model).expanduser()
    for place in (path / "final", path):
        if (place / "config.json").is_file():
            return str(place.resolve())
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"'{model}' holds no reward model: there is no config.json in it")
    return model


def label_column(config: Any, label: str | int | None, model: str) -> int:
    """The logit that belongs to a label, given by name or number. Raises UserError where that is not clear."""
    names = {int(number): str(name) for number, name in config.id2label.items()}
    for number, name in names.items():
        if label in (number, name):
            return number
    if label is None and len(names) == 1:
        return 0
    listed = ", ".join(repr(names[number]) for number in sorted(names))
    problem = (
        "say with label = ... whose probability is the reward" if label is None else f"there is no label {label!r}"
    )
    raise UserError(f"the reward model '{model}' has several labels: {problem}; they are {listed}")


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of rows of similar length, so that no batch has more than `tokens` padded tokens (or only one row)."""
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):  # the first of a part is its longest
        if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def _padded(rows: Sequence[Row], pad: int | None, device: Any) -> dict[str, Any]:
    """A batch, padded on the right. Without a token for it the rows must be equally long."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0 if pad is None else pad, "token_type_ids": 0}
    inputs = {
        name: torch.tensor([[*row[name], *[fill[name]] * (width - len(row[name]))] for row in rows], device=device)
        for name in rows[0]
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows], device=device)
    inputs["attention_mask"] = (torch.arange(width, device=device) < lengths[:, None]).long()
    return inputs
