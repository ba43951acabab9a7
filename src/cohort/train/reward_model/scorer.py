"""The reward model while it learns: the body of a causal language model under one linear score, read at the end token.

A pair's prompt is computed once for both answers, in the policy's packed rows. What is saved is an ordinary Hugging
Face sequence classifier that reads the same score at the same token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cohort.policy.attention import PackedGroups
from cohort.policy.fit import is_classifier, read_model, refuse_broken, refuse_unlike
from cohort.policy.load import save_policy
from cohort.policy.policy import Policy
from cohort.rewards.models.text import FORM_KEY, Form
from cohort.types import UserError

HEAD = "head.safetensors"


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A preference pair as tokens; both answers end with the end token."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    margin: float

    @property
    def tokens(self) -> int:
        """What a forward pass over the pair costs."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


class Scorer:
    """A policy's body and a score. `form` says how prompts look, and is saved along. With `steps` what is saved is a
    token classifier of two labels, wrong and right, whose log-odds are the score.

    Raises `UserError` for an architecture that has no sequence classifier in transformers, and for a tokenizer without
    a token to pad with: a classifier reads its score at the last token that is not padding.
    """

    def __init__(self, policy: Policy, form: Form, steps: bool = False):
        self.policy = _plain(policy)
        self.form, self.steps = form, steps
        width = self.policy.model.get_output_embeddings().weight.shape[1]
        self.head = nn.Linear(width, 1, bias=False, device=self.policy.device, dtype=self.policy.model.dtype)
        nn.init.zeros_(self.head.weight)  # every answer starts with the same score
        self.module = nn.ModuleDict({"body": self.policy.model.base_model, "head": self.head})
        self._classifier()  # what cannot be saved is refused before it is trained

    def scores(self, pairs: Sequence[EncodedPair]) -> Tensor:
        """`[n, 2]` float32: the scores of the chosen and the rejected answers."""
        answers = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
        owners = [owner for owner in range(len(pairs)) for _ in range(2)]
        ends = [(row, len(answer) - 1) for row, answer in enumerate(answers)]
        return self.at([pair.prompt for pair in pairs], answers, owners, ends).view(-1, 2)

    def at(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        owners: Sequence[int],
        places: Sequence[tuple[int, int]],
    ) -> Tensor:
        """`[n]` float32: the scores at `places`, (answer, index of its token) each; `owners` say which prompt an answer
        follows.
        """
        # A packed row leaves out its last token, as nothing is predicted from it: one more, and the end token is read.
        rows, device = [[*answer, answer[-1]] for answer in answers], self.policy.device
        layout = PackedGroups(prompts, rows, owners, device)
        hidden = self.policy.hidden(layout.tokens, layout.positions, layout)
        row, token = torch.tensor(places, device=device).unbind(1)
        ends = hidden.index_select(0, layout.predictors(row, token + 1))
        return F.linear(ends.float(), self.head.weight.float())[:, 0]

    def take_head(self, revision: str | None = None) -> None:
        """Go on with the score of the classifier that the policy's weights were read from, if it was one."""
        model = self.policy.model
        if not is_classifier(model):
            return
        if self.steps:
            raise UserError(f"'{model.name_or_path}' scores whole answers; a process_model stage starts from a policy")
        kind, dtype = AutoModelForSequenceClassification, self.head.weight.dtype
        score = read_model(kind, model.name_or_path, dtype=dtype, revision=revision).score.weight
        if score.shape != self.head.weight.shape:
            raise UserError(
                f"the classifier '{model.name_or_path}' has {score.shape[0]} labels; only one with a single score can "
                "be trained on as a reward model"
            )
        with torch.no_grad():
            self.head.weight.copy_(score)

    def save(self, directory: Path) -> None:
        """Write the classifier and its tokenizer."""
        refuse_broken(self.module)
        made = self._classifier()
        made.save_pretrained(directory)
        refuse_unlike(made, directory)
        self.policy.tokenizer.save_pretrained(directory)

    def save_state(self, directory: Path) -> None:
        """Write what `load_state` reads: the whole causal model, and the score."""
        refuse_broken(self.head)
        save_policy(self.policy, directory)
        save_file({"weight": self.head.weight.detach().contiguous()}, directory / HEAD)

    def load_state(self, directory: Path) -> None:
        """Take the score of a checkpoint whose model the policy was loaded from."""
        self.head.load_state_dict(load_file(directory / HEAD))

    def _classifier(self) -> Any:
        """The classifier of these weights, sharing them."""
        config = copy.deepcopy(self.policy.model.config)
        config.num_labels = 2 if self.steps else 1
        config.pad_token_id = self.policy.tokenizer.pad_token_id
        setattr(config, FORM_KEY, self.form.as_dict())
        name = type(self.policy.model).__name__
        try:
            with torch.device("meta"):
                auto = AutoModelForTokenClassification if self.steps else AutoModelForSequenceClassification
                made = auto.from_config(config)
            body = self.policy.model.base_model.state_dict()
            state = {f"{made.base_model_prefix}.{key}": value for key, value in body.items()}
            made.load_state_dict({**state, **self._score()}, assign=True)
        except (ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())[:200]
            raise UserError(
                f"a reward model cannot be made of {name}: transformers has no {'token' if self.steps else 'sequence'} "
                f"classifier that takes its weights ({text})"
            ) from None
        return made

    def _score(self) -> dict[str, Tensor]:
        """The weights of the classifier's own layer. Of two labels the log-odds are the difference of their logits."""
        weight = self.head.weight.detach()
        if not self.steps:
            return {"score.weight": self.head.weight}
        both = torch.cat([torch.zeros_like(weight), weight])
        return {"score.weight": both, "score.bias": both.new_zeros(2)}


def _plain(policy: Policy) -> Policy:
    """The policy with an adapter merged in, all weights trainable, and a padding token that ends no answer."""
    module, tokenizer = policy.module, copy.deepcopy(policy.tokenizer)
    if hasattr(module, "merge_and_unload"):
        module = module.merge_and_unload()
    module.requires_grad_(True)
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token, at which a reward model reads its score")
    ends = {tokenizer.eos_token_id, *policy.eos_ids}
    special = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids)
    free = [token for token in special if token is not None and token not in ends]
    if not free:
        raise UserError(
            "the tokenizer has no token to pad with but the one that ends a text: add one with "
            'tokenizer.add_special_tokens({"pad_token": "<|pad|>"}) and model.resize_token_embeddings(len(tokenizer)), '
            "and save both"
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free[0])
    return Policy(module, tokenizer, policy.compute_name)
