"""Load a policy from a directory or the hub, and save it back as a normal Hugging Face checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from cohort.policy.policy import Policy
from cohort.types import UserError

__all__ = ["add_lora", "load_policy", "save_policy"]


def load_policy(
    model: str,
    *,
    dtype: str = "float32",
    compute: str = "float32",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    trainable: bool = True,
) -> Policy:
    """A policy from a local directory or a hub id; a directory that holds a LoRA adapter is loaded onto its base.

    Raises `UserError` for a directory that is not there or is no checkpoint, an architecture that transformers does not
    know, and everything that `Policy` refuses.
    """
    where = _locate(model)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    adapter = Path(where, "adapter_config.json").is_file()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        if adapter:
            module = _load_adapter(where, getattr(torch, dtype), trainable, trust_remote_code)
        else:
            module = AutoModelForCausalLM.from_pretrained(where, dtype=getattr(torch, dtype), **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot load the model '{model}': {_first_sentence(error)}") from None
    policy = Policy(module.to(_device(device)), tokenizer, compute)
    policy.check()
    return policy


def add_lora(
    policy: Policy, rank: int, alpha: float, targets: str | Sequence[str], seed: int, revision: str | None = None
) -> Policy:
    """The policy with a fresh LoRA adapter of peft: only the adapter is trained. Its random half depends on `seed`.

    A policy that has an adapter already continues with it. Raises `UserError` for a base that has no name: an adapter
    is saved without its base, and would be lost without it.
    """
    from peft import LoraConfig, get_peft_model

    if policy.has_adapter:
        return policy
    if not getattr(policy.model, "name_or_path", ""):
        raise UserError(
            "LoRA saves only the adapter, and this base model is nowhere on disk: save it first and name its directory "
            "in policy.model, or remove policy.lora"
        )
    config = LoraConfig(
        revision=revision,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = get_peft_model(policy.module, config)
        except ValueError as error:
            raise UserError(
                f"LoRA cannot be added: {_first_sentence(error)} (policy.lora.targets = {targets!r})"
            ) from None
    return Policy(module, policy.tokenizer, policy.compute_name)


def save_policy(policy: Policy, directory: Path) -> None:
    """Write weights (safetensors), configuration, tokenizer and chat template; with LoRA, the adapter."""
    policy.module.save_pretrained(directory)
    policy.tokenizer.save_pretrained(directory)


def _locate(model: str) -> str:
    """A hub id stays what it is; anything that looks like a path must be a checkpoint directory."""
    path = Path(model).expanduser()
    if path.is_dir():
        # A run directory stands for its final model, or while it is unfinished for its newest checkpoint.
        for place in (path, path / "final", *sorted(path.glob("checkpoints/step-*"), reverse=True)):
            if (place / "config.json").is_file() or (place / "adapter_config.json").is_file():
                return str(place.resolve())
        raise UserError(f"'{model}' holds no model: neither config.json nor adapter_config.json is in it")
    hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) and not model.startswith(".")
    if not hub_id:
        raise UserError(f"there is no directory '{model}'; policy.model is a checkpoint directory or a hub id")
    return model


def _load_adapter(directory: str, dtype: torch.dtype, trainable: bool, trust_remote_code: bool) -> torch.nn.Module:
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(directory)
    base = config.base_model_name_or_path
    if not base:
        raise UserError(f"the adapter in '{directory}' does not name its base model (adapter_config.json)")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, revision=config.revision, trust_remote_code=trust_remote_code
        )
    except OSError as error:
        raise UserError(
            f"the adapter in '{directory}' needs its base model '{base}' (adapter_config.json), which cannot be "
            f"loaded: {_first_sentence(error)}"
        ) from None
    return PeftModel.from_pretrained(model, directory, is_trainable=trainable)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("policy.device is 'cuda', but torch sees no GPU; use 'auto' or 'cpu'")
    return torch.device(wanted)


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] + ("..." if len(text) > 300 else "")
