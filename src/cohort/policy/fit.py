"""What is read from a checkpoint is all that the model has, and what is written to one is what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

from cohort.types import UserError
from cohort.wording import misfit, refuse_pickled

LARGEST = 1e18  # of a weight; its square is near the end of float32
DIVERGED = "the training has diverged. Lower optimizer.learning_rate and go on from the last checkpoint"
CANNOT_BE_SAVED = "the model cannot be saved as it is trained"
SAVEABLE = (
    "Tensors that share their memory are written once: set config.tie_word_embeddings to what the model does. All "
    "weights have one type. Beside an adapter nothing else is trained, and its base is what its directory holds"
)


def read_model(kind: Any, where: str | Path, named: str = "", **options: Any) -> Any:
    """`kind.from_pretrained(where)`; `named` is what a person calls it. Raises `UserError` unless every tensor of the
    model is in the checkpoint, in its shape, and the other way round: transformers draws what is missing at random.
    Weights that are pickled are refused.
    """
    if "gguf_file" not in options:
        refuse_pickled(where)
        options["use_safetensors"] = True
    module, report = kind.from_pretrained(where, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    if is_classifier(module) and (head := module.get_output_embeddings()) is not None:
        # Read for its body, of which a reward model goes on; whoever wants its head refuses it.
        parameters = module.named_parameters(remove_duplicate=False)
        missing = missing - {name for name, value in parameters if value is head.weight}
        unexpected = unexpected - {"score.weight"}
    if wrong := misfit(missing, unexpected, report["mismatched_keys"]):
        raise UserError(
            f"cannot load the model '{named or where}': its weights do not fit its configuration. {wrong}. Save the "
            "model again, or mend config.json or the names of the tensors"
        )
    if broken := _broken(module):
        raise UserError(f"cannot load the model '{named or where}': {broken}")
    return module


def is_classifier(model: Any) -> bool:
    """Whether a causal language model was read from a checkpoint that is none, but scores whole texts."""
    return any(name.endswith("ForSequenceClassification") for name in model.config.architectures or ())


def read_adapter(model: Any, directory: str, trainable: bool) -> Any:
    """The model with the adapter of peft in `directory`. Raises `UserError` where the two do not fit."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    refuse_pickled(directory)
    module = PeftModel.from_pretrained(model, directory, is_trainable=trainable)
    wanted, found = get_peft_model_state_dict(module, save_embedding_layers=False), load_peft_weights(directory, "cpu")
    # Where an embedding or the head is adapted, peft writes the base's own tensor beside the adapter.
    if wrong := misfit(wanted.keys() - found, found.keys() - wanted.keys() - module.state_dict().keys()):
        raise UserError(f"cannot load the model '{directory}': the adapter does not fit its configuration. {wrong}")
    return module


def refuse_broken(module: torch.nn.Module) -> None:
    """Refuse to keep weights that are not finite, or whose squares are not. Raises `UserError`."""
    if broken := _broken(module):
        raise UserError(f"{broken}, so it is not saved: {DIVERGED}")


@torch.no_grad()
def _broken(module: torch.nn.Module) -> str:
    """Which weights are not finite, or so large that norms make zeros of them, in words."""
    names = [name for name, value in module.named_parameters() if not value.abs().max() <= LARGEST]
    what = f"have values that are not finite or beyond {LARGEST:g} (such as {names[0]})" if names else ""
    return what and f"{len(names)} tensors of the model {what}"


@torch.no_grad()
def refuse_unlike(module: Any, directory: Path) -> None:
    """Read a saved model back and compare it with the one that was trained, bit by bit. Raises `UserError`.

    The first time, transformers builds a model from the files. That tells which tensor every weight is read from; later
    saves of the same class, configuration and tensors need no second model, and are compared tensor by tensor.
    """
    if hasattr(module, "get_base_model"):
        differs = _adapter_differs(module, directory)
    else:
        ours, stored = module.state_dict(), _stored(directory)
        read_as = _read_as(module, directory, ours, stored)
        if read_as in _read_back and all(_equal(ours[name], _tensor(stored, source)) for name, source in read_as[-1]):
            return
        again, report = module.from_pretrained(
            directory, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
        )
        differs = misfit(report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"])
        differs = differs or unlike(module, again)
        if not differs and read_as is not None:
            _read_back.add(read_as)
    if differs:
        raise UserError(f"{CANNOT_BE_SAVED}: {differs}. {SAVEABLE}")


# The class of a model, its config.json, and of every weight the tensor in the files that it is read from.
_ReadAs = tuple[type, bytes, tuple[tuple[str, str], ...]]
_read_back: set[_ReadAs] = set()  # what transformers has built a model from in this process that was the one saved


def _read_as(
    module: Any, directory: Path, ours: Mapping[str, torch.Tensor], stored: Mapping[str, Path]
) -> _ReadAs | None:
    """What decides how a saved model is read. None where a weight has another name in the files, which only
    transformers knows to read; weights that share their memory are there once.
    """
    shared = {value.data_ptr(): name for name, value in ours.items() if name in stored}
    sources = {name: name if name in stored else shared.get(value.data_ptr(), "") for name, value in ours.items()}
    if "" in sources.values() or not stored.keys() <= ours.keys():
        return None
    return type(module), (directory / "config.json").read_bytes(), tuple(sorted(sources.items()))


def _stored(directory: Path) -> dict[str, Path]:
    """The tensors of a saved model, each with its file."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found.update(dict.fromkeys(opened.keys(), file))
    return found


def _tensor(stored: Mapping[str, Path], name: str) -> torch.Tensor:
    with safe_open(stored[name], "pt") as opened:
        return cast("torch.Tensor", opened.get_tensor(name))


def unlike(module: Any, again: Any) -> str:
    """Which weights of a model are others in one that was read back, in words; empty where they are the same."""
    ours, theirs = module.state_dict(), again.state_dict()
    names = [name for name, value in ours.items() if not _equal(value, theirs.get(name))]
    return f"{', '.join(names[:3])} would be read back as something else" if names else ""


def _adapter_differs(module: Any, directory: Path) -> str:
    """What of the trained weights an adapter's directory lacks."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    names = {value.data_ptr(): name for name, value in get_peft_model_state_dict(module).items()}
    found = load_peft_weights(str(directory), "cpu")
    lost = [
        name
        for name, value in module.named_parameters()
        if value.requires_grad and not _equal(value, found.get(names.get(value.data_ptr(), "")))
    ]
    return misfit(lost) if lost else ""


def _equal(ours: torch.Tensor, theirs: torch.Tensor | None) -> bool:
    return theirs is not None and ours.dtype == theirs.dtype and torch.equal(ours.cpu(), theirs.cpu())
