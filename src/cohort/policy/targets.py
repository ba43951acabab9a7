"""Which linear layers of a model an adapter can sit on: those that do what a linear layer does, and that are called.

peft takes every `nn.Linear`, and adds its product to whatever that returns. A router that is a subclass returns choices
too, a grouped product has another shape, and where a model reads a layer's weight past the layer, no adapter acts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

LINEAR = (nn.Linear, Conv1D)


def linear_layers(model: Any, run: Callable[[], Tensor]) -> tuple[list[str], dict[str, str]]:
    """The linear layers of a model but its head: those that can have an adapter; those that cannot, with the reason.
    `run` is a forward pass, from whose logits is seen what the layers do.
    """
    layers = _layers(model)
    called, unlike, read = _seen(layers, run)
    fit: list[str] = []
    unfit: dict[str, str] = {}
    for name, layer in layers.items():
        kind = type(layer)
        if kind not in LINEAR and unlike.get(kind, True):
            unfit[name] = f"{kind.__name__} does more than a linear layer"
        elif name in read and name not in called:
            unfit[name] = "the model reads its weights past it"
        elif refused := _refused(model, name):
            unfit[name] = refused
        else:
            fit.append(name)
    return fit, unfit


def _layers(model: Any) -> dict[str, Any]:
    """Every linear layer but the head, also beneath an adapter that is there, by its name in the model without it."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    head, inside = model.get_output_embeddings(), "\n"
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if name.startswith(inside):
            continue
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            inside = f"{name}."
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if isinstance(base, LINEAR) and module is not head:
            found[name] = base
    return found


def _seen(layers: dict[str, Any], run: Callable[[], Tensor]) -> tuple[set[str], dict[type, bool], set[str]]:
    """Of one forward pass: the layers that were called, the subclasses of `nn.Linear` (whether one of them returned
    something else than its product), and the layers whose weights had a part in the logits.
    """
    called: set[str] = set()
    unlike: dict[type, bool] = {}

    def note(name: str) -> Any:
        def hook(layer: Any, given: tuple[Any, ...], out: Any) -> None:
            called.add(name)
            if type(layer) not in LINEAR:
                product = F.linear(given[0], layer.weight, layer.bias) if given else torch.empty(0)
                same = (
                    isinstance(out, Tensor) and out.shape == product.shape and torch.allclose(out, product, atol=1e-4)
                )
                unlike[type(layer)] = unlike.get(type(layer), False) or not same

        return hook

    trained = {weight: weight.requires_grad for layer in layers.values() for weight in layer.parameters()}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        for weight in trained:
            weight.requires_grad_(True)
        with torch.enable_grad():
            leaves = _leaves(run())
    finally:
        for hook in hooks:
            hook.remove()
        for weight, was in trained.items():
            weight.requires_grad_(was)
    return called, unlike, {name for name, layer in layers.items() if id(layer.weight) in leaves}


def _leaves(value: Tensor) -> set[int]:
    """The ids of the tensors that a value was computed from and that could be trained."""
    found: set[int] = set()
    seen: set[Any] = set()
    todo: list[Any] = [value.grad_fn]
    while todo:
        if (node := todo.pop()) is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.add(id(leaf))
        todo += [before for before, _ in node.next_functions]
    return found


def _refused(model: Any, name: str) -> str:
    """Why peft takes no adapter on a layer, such as those whose weights Mamba's kernels read; empty where it does."""
    from peft import LoraConfig
    from peft.tuners import tuners_utils

    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", None)  # a later peft may refuse nothing
    try:
        if check is not None:
            check(LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return f"peft takes none on it in {model.config.model_type}"
    return ""


def in_words(unfit: dict[str, str]) -> str:
    """`router (Llama4Router does more than a linear layer), ...`: the layers by the last part of their names."""
    by_name = {name.rpartition(".")[2]: why for name, why in unfit.items()}
    return ", ".join(f"{name} ({why})" for name, why in by_name.items())
