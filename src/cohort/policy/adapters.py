"""Adapters of peft: put on a model, compared with one that is there, merged into it; and the model they belong to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import nn

from cohort.policy.attention import ATTENTION
from cohort.policy.policy import Policy
from cohort.policy.proof import MOST_APART, apart, probed
from cohort.policy.targets import in_words, linear_layers
from cohort.settings import Lora
from cohort.types import UserError
from cohort.wording import misfit, one_line

BASE = "base.json"  # beside an adapter: what the model that it belongs to looks like
SAMPLE = 64  # values of each matrix that a fingerprint reads


def add_lora(policy: Policy, lora: Lora, seed: int, revision: str | None = None) -> Policy:
    """The policy with a fresh LoRA adapter of peft: only the adapter is trained. Its random half depends on `seed`.

    A policy that has this adapter already continues with it. Raises `UserError` for one that has another, for keys that
    name nothing in the model, and for a base that has no name: an adapter is saved without its base, and would be lost
    without it.
    """
    from peft import get_peft_model

    targets, unfit = _targets(policy, lora)
    config = _config(policy.model, lora, targets, revision)
    if policy.has_adapter:
        if differs := _unlike(policy.module, config):
            raise UserError(
                f"the policy has an adapter already, and it is another one than policy.lora describes: {differs}. "
                'Remove policy.lora to go on with it as it is, or set policy.lora.existing = "merge", which merges it '
                "and puts the new one on top"
            )
        return policy
    if not getattr(policy.model, "name_or_path", ""):
        raise UserError(
            "LoRA saves only the adapter, and this base model is nowhere on disk: save it first and name its directory "
            "in policy.model, or remove policy.lora"
        )
    policy.release()  # so that the new one knows which attention is the model's own
    with torch.no_grad():
        before = probed(policy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = get_peft_model(policy.module, config)
        except ValueError as error:
            raise UserError(
                f"LoRA cannot be added: {one_line(error)} (policy.lora.targets = {lora.targets!r})"
            ) from None
    _refuse_unmatched(module, lora)
    _refuse_moved(policy, before, lora)
    policy.model.without_adapter = in_words(unfit)
    return Policy(module, policy.tokenizer, policy.compute_name, policy.mode)


def _targets(policy: Policy, lora: Lora) -> tuple[str | list[str], dict[str, str]]:
    """What peft is told to put adapters on, and the linear layers that `all-linear` leaves out, with the reason."""
    if not isinstance(lora.targets, str):
        return list(lora.targets), {}
    policy.release()
    try:
        fit, unfit = linear_layers(policy.model, lambda: probed(policy))
    finally:
        if policy.mode is None:
            policy.set_attention(ATTENTION)
    if lora.layers is not None:  # peft takes no pattern for all of them beside chosen layers
        beneath = tuple(f"{_layers(policy.model)[0]}.{layer}." for layer in lora.layers)
        return [name for name in fit if any(f".{part}" in f".{name}" for part in beneath)], unfit
    return (fit if unfit else lora.targets), unfit  # peft's own all-linear would take those that are unfit, too


def _refuse_moved(policy: Policy, before: torch.Tensor, lora: Lora) -> None:
    """Raise `UserError` where a new adapter, which adds 0, changes what the model says, or breaks it: a module is named
    that does something else than a linear layer.
    """
    try:
        with torch.no_grad():
            worst = apart(probed(policy), before)
        why = f"log-probs move by {worst:.2g} although a new adapter adds nothing" if not worst <= MOST_APART else ""
    except Exception as error:  # a model may raise anything at what an adapter returns
        why = one_line(error)
    if why:
        raise UserError(
            f"the model does not run with adapters on policy.lora.targets = {lora.targets!r}: {why}. Leave out modules "
            'that are no plain linear layers, such as routers, or set policy.lora.targets = "all-linear"'
        )


def _config(model: Any, lora: Lora, targets: str | list[str], revision: str | None) -> Any:
    """The table as peft has it."""
    from peft import LoraConfig

    if both := {*targets} & {*lora.modules_to_save} if isinstance(targets, list) else ():
        raise UserError(f"policy.lora has {min(both)!r} in targets and in modules_to_save: keep it in one of them")
    which: dict[str, Any] = {}
    if lora.layers is not None:
        name, count = _layers(model)
        if max(lora.layers) >= count:
            raise UserError(f"policy.lora.layers names layer {max(lora.layers)}, and the model has {count}, from 0 on")
        if not isinstance(lora.targets, str):
            which = {"layers_to_transform": sorted({*lora.layers}), "layers_pattern": [name]}
    return LoraConfig(
        revision=revision,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        target_modules=targets,
        modules_to_save=list(lora.modules_to_save) or None,
        task_type="CAUSAL_LM",
        **which,
    )


def _layers(model: Any) -> tuple[str, int]:
    """What the list of a model's layers is called, and how many it has."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name.rpartition(".")[2], count
    raise UserError(f"{type(model).__name__} has no list of {count} layers: remove policy.lora.layers")


def _refuse_unmatched(module: Any, lora: Lora) -> None:
    """Raise `UserError` for a name to which no module answers: peft passes over it as long as another one does."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    named = () if isinstance(lora.targets, str) else lora.targets
    for key, kind, wanted in (
        ("targets", BaseTunerLayer, named),
        ("modules_to_save", ModulesToSaveWrapper, lora.modules_to_save),
    ):
        found = [f".{name}" for name, one in module.named_modules() if isinstance(one, kind)]
        for name in wanted:
            if not any(one.endswith(f".{name}") for one in found):
                where = " in policy.lora.layers" if lora.layers is not None and key == "targets" else ""
                raise UserError(f"policy.lora.{key} names {name!r}, and the model has no such module{where}")


def _unlike(module: Any, wanted: Any) -> str:
    """In what an adapter differs from the one that a configuration would make, in words; empty where in nothing."""
    from peft import get_peft_model, get_peft_model_state_dict

    have, model = module.peft_config[module.active_adapter], module.get_base_model()
    keys = {"r": "rank", "lora_alpha": "alpha", "rank_pattern": "rank_pattern", "alpha_pattern": "alpha_pattern"}
    keys |= {key: key for key in ("peft_type", "use_rslora", "use_dora", "modules_to_save")}
    of_both = [(name, getattr(have, key, None), getattr(wanted, key)) for key, name in keys.items()]
    if differs := [f"{name} is {ours}, not {theirs}" for name, ours, theirs in of_both if ours != theirs]:
        return ", ".join(differs)
    with torch.device("meta"):
        fresh = get_peft_model(type(model)(model.config), wanted)
    ours, theirs = (get_peft_model_state_dict(one, save_embedding_layers=False).keys() for one in (module, fresh))
    return misfit(theirs - ours, ours - theirs)


def changed_modules(module: Any) -> dict[str, torch.Tensor]:
    """The base's own weights that an adapter changes, by their names in the model without it: where a LoRA is not zero,
    and where a module that is saved whole is no longer the base's.
    """
    found = {}
    for name, one in module.get_base_model().named_modules():
        for kind in ("lora_", "lora_embedding_"):  # one of the two halves starts at zero
            first, second = (getattr(one, f"{kind}{half}", {}) for half in "AB")
            if any(all(bool(getattr(of[key], "weight", of[key]).any()) for of in (first, second)) for key in first):
                found[f"{name}.weight"] = one.base_layer.weight
        if hasattr(one, "modules_to_save"):
            own = dict(one.modules_to_save[one.active_adapters[0]].named_parameters())
            for key, weight in one.original_module.named_parameters():
                if key in own and not torch.equal(weight, own[key]):
                    found[f"{name}.{key}"] = weight
    return found


def merge_adapter(policy: Policy) -> Policy:
    """The policy as one model, its adapter added to the weights. Raises `UserError` for an adapter that is no change of
    weights. The policy that is given is used up.
    """
    if not hasattr(policy.module, "merge_and_unload"):
        kind = policy.module.peft_config[policy.module.active_adapter].peft_type
        raise UserError(f"an adapter of the kind {kind} is no change of weights, so it cannot be merged")
    policy.release()
    head, embedding = policy.model.get_output_embeddings(), policy.model.get_input_embeddings()
    ours, theirs = (getattr(module, "base_layer", module) for module in (head, embedding))
    if ours.weight is theirs.weight and (ours is not head or theirs is not embedding):
        # One matrix serves as both, and an adapter sits on one of them: merged, it would change the other, too.
        ours.weight = nn.Parameter(ours.weight.detach().clone())
    model = policy.module.merge_and_unload()
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        model.config.get_text_config().tie_word_embeddings = False
    return Policy(model.requires_grad_(True), policy.tokenizer, policy.compute_name, policy.mode)


def fingerprint(module: Any) -> str:
    """64 hex digits that tell a model from others, without its adapter and whatever type it was read in: SHA-256 of the
    names and shapes of its matrices and of some values of each, as bfloat16.
    """
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    own = (getattr(getattr(module, "base_model", None), "prefix", "lora_"), "modules_to_save.", "trainable_tokens_")
    digest = hashlib.sha256()
    for name, value in base.named_parameters():
        if value.dim() < 2 or any(part in name for part in own):
            continue
        plain = name.replace(".base_layer.", ".").replace(".original_module.", ".").replace(".token_adapter.", ".")
        some = value.detach().flatten()[:: max(1, value.numel() // SAMPLE)]
        digest.update(f"{plain}{list(value.shape)}".encode())
        digest.update(some.to(torch.bfloat16).cpu().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def write_base(module: Any, directory: Path) -> None:
    """Beside a saved adapter, write down which model it belongs to."""
    (directory / BASE).write_bytes(orjson.dumps({"fingerprint": fingerprint(module)}))


def refuse_other_base(model: Any, directory: Path, base: str) -> None:
    """Raise `UserError` where `model` is not the one that the adapter in `directory` was trained on. An adapter from
    elsewhere does not say.
    """
    if (wanted := _written(directory)) is not None and wanted != fingerprint(model):
        raise UserError(
            f"the adapter in '{directory}' was trained on another model than '{base}' holds (its fingerprint in {BASE} "
            "is another): restore that model, or set base_model_name_or_path in adapter_config.json to where it is"
        )


def find_base(directory: Path, base: str) -> str:
    """Where the base of an adapter is: as the adapter names it or, where a run was moved with its base in it, at the
    same place beneath a directory that the adapter is in.
    """
    named = Path(base)
    if not named.is_absolute() or named.exists() or _written(directory) is None:
        return base
    tails = [Path(*named.parts[start:]) for start in range(1, len(named.parts))]
    found = (above / tail for above in Path(directory).absolute().parents for tail in tails)
    return str(next((place for place in found if place.is_file() or (place / "config.json").is_file()), base))


def _written(directory: Path) -> str | None:
    """The fingerprint beside an adapter, if there is one."""
    file = Path(directory, BASE)
    try:
        return str(orjson.loads(file.read_bytes())["fingerprint"]) if file.is_file() else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{file} is damaged: restore it, or delete it to use the adapter unchecked") from None
