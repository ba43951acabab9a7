"""`cohort export`: the model of a run as a checkpoint for others, read back and compared before it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.commands.model import load_model
from cohort.commands.place import full_path, where_trained
from cohort.machine import quiet_libraries
from cohort.policy.attention import PackedGroups
from cohort.policy.load import load_policy, save_policy
from cohort.policy.policy import Policy
from cohort.record.files import new_directory
from cohort.types import UserError
from cohort.views.console import Console

PROBE = "What is 17 + 25? Show your work, then write the answer.\n17 + 25 = 42\n"
TOLERANCE = 1e-3  # of a log-prob in float32: merging rounds each weight once


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how far its log-probs are from the model's that it was made of."""

    form: str
    directory: str
    difference: float
    tokens: int


def export(model: str, form: str | None, to: Path) -> Exported:
    """Write a model to the directory `to`: "merged", "adapter", or (None) merged where there is an adapter, else as it
    is. Raises `UserError` when the model that was written says something else; nothing is then left at `to`.
    """
    if to.exists():
        raise UserError(f"{str(to)!r} exists: name a directory that does not, so that nothing is written over")
    quiet_libraries()
    to, model = to.absolute(), full_path(model)
    with where_trained(model):  # from where an adapter finds its base
        return _export(model, form, to)


def _export(model: str, form: str | None, to: Path) -> Exported:
    policy = load_model(model, device="cpu")
    if form == "adapter" and not policy.has_adapter:
        raise UserError(f"{model} has no adapter: it was trained whole. Leave out --as")
    before = _logprobs(policy)
    form = form or ("merged" if policy.has_adapter else "as it is")
    if form == "merged" and policy.has_adapter:
        _untie(policy.model)
        policy = Policy(policy.module.merge_and_unload(), policy.tokenizer)
    with new_directory(to) as directory:
        save_policy(policy, directory)
        after = _logprobs(load_policy(str(directory), trainable=False, device="cpu"))
        difference = (after - before).abs().max().item()
        if not difference <= TOLERANCE:
            raise UserError(
                f"the model as it was written differs by {difference:.2g} in a log-prob, over {TOLERANCE:g}: nothing "
                "was kept"
            )
    return Exported(form, str(to), difference, len(before))


def show(console: Console, found: Exported) -> None:
    """Where it is, and how it was checked."""
    console.saved(found.form, Path(found.directory))
    console.say(
        f"read back: log-probs of {found.tokens} tokens differ by at most {found.difference:.1e} from the model's that "
        "was exported"
    )


def _untie(model: Any) -> None:
    """Where the head shares its matrix with the embedding, and an adapter sits on one of them, give the head one of its
    own: a merged adapter would change both.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    ours, theirs = (getattr(module, "base_layer", module) for module in (head, embedding))
    if ours.weight is theirs.weight and (ours is not head or theirs is not embedding):
        ours.weight = torch.nn.Parameter(ours.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = False


@torch.no_grad()
def _logprobs(policy: Policy) -> Tensor:
    """`[T, vocabulary]`: the log-probs after every token of the probe."""
    layout = PackedGroups([policy.tokenizer.encode(PROBE)], device=policy.device)
    hidden = policy.hidden(layout.tokens, layout.positions, layout)
    return policy.logits(hidden).float().log_softmax(-1)
