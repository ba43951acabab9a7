"""Models in a GGUF file, of any architecture that transformers maps: dequantised, checked against the file, and from
then on a model like any other.

transformers leaves out in silence what it has no place for: tensors, settings of the architecture, the rule by which a
text is split before it becomes tokens. Whatever changes a log-prob is compared here with the file itself.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.integrations import GGUF_CONFIG_MAPPING

from cohort.policy.fit import read_model
from cohort.types import UserError
from cohort.wording import misfit, one_line

SUFFIX = ".gguf"
_MAGIC = b"GGUF"

# Settings of a file that change what a model computes, by transformers' names. Which of them transformers reads itself
# depends on the architecture; the others are set here.
_SETTINGS: Mapping[str, str] = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "embedding_scale": "embedding_multiplier",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale",
    "residual_scale": "residual_multiplier",
    "rope.freq_base": "rope_theta",
}
_SHAPES = ("num_key_value_heads", "head_dim", "moe_intermediate_size", "shared_expert_intermediate_size")  # say it, too
# Settings that change nothing.
_HARMLESS = ("attention.causal", "attention.value_length", "tensor_data_layout", "use_parallel_residual", "vocab_size")
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # of all of them
_FACTORS = "rope_freqs.weight"  # by what Llama 3's frequencies are divided: settings that became a tensor


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself. The arrays of its tokenizer are kept as lists."""

    architecture: str
    settings: Mapping[str, Any]  # of its architecture, without its name in front: "rope.freq_base"
    tokenizer: Mapping[str, Any]  # the keys behind "tokenizer."
    tensors: Mapping[str, str]  # name -> the type it is stored as, such as Q4_1
    sizes: Mapping[str, int]  # name -> number of values
    factors: tuple[float, ...]  # of the tensor rope_freqs; empty without one

    @property
    def stored_as(self) -> str:
        """The type that most of the weights are stored as."""
        counts: Counter[str] = Counter()
        for name, kind in self.tensors.items():
            counts[kind] += self.sizes[name]
        return counts.most_common(1)[0][0]

    @property
    def context(self) -> int | None:
        """The positions that the model was made for, if the file says so."""
        found = self.settings.get("context_length")
        return int(found) if isinstance(found, int) else None


def is_gguf(where: str | Path) -> bool:
    """Whether a path is that of a GGUF file; one that is no file is none."""
    return Path(where).is_file()


def gguf_in(directory: Path) -> Path | None:
    """The one GGUF file of a directory, None where there is none. Raises `UserError` where there are several."""
    found = sorted(directory.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        raise UserError(f"'{directory}' holds {len(found)} GGUF files ({names}): name one of them in policy.model")
    return found[0] if found else None


def refuse_other_file(file: Path) -> None:
    """Raise `UserError` for a file that is no GGUF: other models are directories."""
    try:
        with file.open("rb") as handle:
            start = handle.read(len(_MAGIC))
    except OSError as error:
        raise UserError(f"cannot read '{file}': {error.strerror}") from None
    if start != _MAGIC:
        found = "is empty" if not start else f"begins with {start!r} and not with {_MAGIC!r}"
        raise UserError(
            f"'{file}' {found}, so it is no GGUF file: name one, the directory of a checkpoint, or a hub id"
        )


def read_header(file: str | Path) -> Header:
    """Raises `UserError` where the package `gguf` is missing, and for a file that is none, is damaged, or is one part
    of several.
    """
    path = Path(file)
    refuse_other_file(path)
    _library()
    changed = path.stat()
    return _header(str(path), changed.st_mtime_ns, changed.st_size)


def read_gguf(kind: Any, file: str, **options: Any) -> Any:
    """The model of a GGUF file by the transformers class `kind`, its weights dequantised: what `fit.read_model` says of
    a checkpoint holds of it, and nothing in the file was left over. Raises `UserError`.
    """
    header, (directory, name) = read_header(file), parts_of(file)
    config = _config(directory, name, file, header)
    options |= {"gguf_file": name, "config": config, **_dequantised()}
    with contextlib.redirect_stderr(io.StringIO()):  # a bar for its tensors, which nothing switches off
        module = read_model(kind, directory, file, **options)
    _refuse_left_over(module, header, file)
    # From here on it is a model like any other. transformers would not save it, as it remembers where it came from.
    for owner, name in (
        (module, "hf_quantizer"),
        (module, "quantization_method"),
        (module.config, "quantization_config"),
    ):
        if hasattr(owner, name):
            delattr(owner, name)
    module.is_quantized = False
    module.config.name_or_path = module.name_or_path = file  # an adapter finds its base by this
    module.dequantised_from = header.stored_as
    return module


def _dequantised() -> dict[str, Any]:
    """What tells transformers to unpack the blocks. Versions without the class always do."""
    try:
        from transformers.utils.quantization_config import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError(
            "a GGUF file is read with the package gguf, which is not installed: pip install 'cohort[gguf]'"
        ) from None
    return gguf


@lru_cache(maxsize=4)
def _header(file: str, changed: int, size: int) -> Header:
    try:
        reader = _library().GGUFReader(file)
        fields = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        factors = tuple(float(x) for tensor in reader.tensors if tensor.name == _FACTORS for x in tensor.data)
        architecture = fields["general.architecture"]
    except Exception as error:  # a file of any bytes makes the reader raise anything
        raise UserError(
            f"the GGUF file '{file}' is damaged, or was not copied whole ({type(error).__name__}: {one_line(error)}): "
            "get it again"
        ) from None
    if (parts := fields.get("split.count", 0)) > 1:
        raise UserError(
            f"'{file}' is one of {parts} parts of a GGUF file: put them together with llama.cpp's llama-gguf-split "
            "--merge, and name the whole"
        )
    if not tensors:
        raise UserError(f"the GGUF file '{file}' holds no tensors, as one with a vocabulary alone")
    own, texts = f"{architecture}.", "tokenizer."
    return Header(
        architecture,
        {key.removeprefix(own): value for key, value in fields.items() if key.startswith(own)},
        {key.removeprefix(texts): value for key, value in fields.items() if key.startswith(texts)},
        tensors,
        sizes,
        factors,
    )


@contextlib.contextmanager
def known(header: Header, file: str) -> Iterator[None]:
    """Raise `UserError` where transformers does not read an architecture, or a kind of tokenizer, from a GGUF."""
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in ("not supported", "Cannot build", "Cannot rebuild")):
            raise
        raise UserError(
            f"'{file}' is a GGUF of the architecture '{header.architecture}', which this version of transformers does "
            f"not read from one ({one_line(error)}): name the model's original checkpoint"
        ) from None


def _config(directory: str, name: str, file: str, header: Header) -> Any:
    """The configuration, with what transformers does not read of every architecture and the file says."""
    with known(header, file):
        config = AutoConfig.from_pretrained(directory, gguf_file=name)
    _settle(config.get_text_config(), header, file)
    return config


def _settle(config: Any, header: Header, file: str) -> None:
    """Set what transformers does not read for this architecture. Raises `UserError` for what it cannot compute."""
    read: Any = GGUF_CONFIG_MAPPING.get(config.model_type, GGUF_CONFIG_MAPPING.get(header.architecture))
    if read is None:  # of the newer ones transformers reads all that there is
        return
    if header.factors:
        config.rope_parameters = _llama3(config, header.factors, file)
    elif header.settings.get("rope.scaling.type", "none") != "none":
        raise UserError(
            f"'{file}' scales its rotary positions ({header.settings['rope.scaling.type']}), which transformers leaves "
            "out when it reads a GGUF: name the model's original checkpoint"
        )
    unread = {key: value for key, value in header.settings.items() if key not in read and key not in _HARMLESS}
    unknown = []
    for key, value in unread.items():
        name = _SETTINGS.get(key)
        if name == "rope_theta" and set(config.rope_parameters) >= {"rope_theta"}:
            config.rope_parameters["rope_theta"] = value
        elif name is not None and hasattr(config, name):
            setattr(config, name, value)
        elif name not in _SHAPES and not (key.startswith("rope.") and value in (_width(header), "none")):
            unknown.append(key)
    if unknown:
        warnings.warn(
            f"transformers does not read {', '.join(sorted(unknown))} of '{file}': compare a few completions with what "
            "llama.cpp writes before you train",
            stacklevel=2,
        )


def _width(header: Header) -> int | None:
    """Of a head. All of it is rotated, where a file does not say otherwise."""
    key, settings = "attention.key_length", header.settings
    if key in settings or not settings.get("attention.head_count"):
        return settings.get(key)
    return int(settings["embedding_length"] // settings["attention.head_count"])


def _llama3(config: Any, factors: Sequence[float], file: str) -> dict[str, Any]:
    """The settings by which Llama 3 slows its rotary frequencies down, from the factors that a GGUF has instead."""
    theta, half = config.rope_parameters["rope_theta"], len(factors)
    found = {"rope_type": "llama3", "rope_theta": theta, "factor": max(factors), **_LLAMA3}
    low, high, original = _LLAMA3.values()
    for index, factor in enumerate(factors):
        turns = original / (2 * math.pi * theta ** (index / half))  # in the context that it was first trained with
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        if not math.isclose(factor, 1 / ((1 - smooth) / found["factor"] + smooth), rel_tol=1e-3):
            raise UserError(f"'{file}' scales its rotary positions in a way of its own: name the original checkpoint")
    return found


def _refuse_left_over(module: Any, header: Header, file: str) -> None:
    """Every tensor of the model came from the file (`read_model`); here the other way round. transformers passes over
    what it has no name for, so the values are counted.
    """
    state = module.state_dict(keep_vars=True)
    layers = module.config.get_text_config().num_hidden_layers
    spare = (_FACTORS, f"blk.{layers}.")  # settings by now; a layer that drafts, which transformers has no use for
    ours = sum(value.numel() for value in {id(value): value for value in state.values()}.values())
    theirs = sum(size for name, size in header.sizes.items() if not name.startswith(spare))
    if ours != theirs:
        known = names_of(header.architecture, layers)
        named = {known.get_name(name, try_suffixes=(".weight", ".bias")) for name in state}
        over = [name for name in header.tensors if name not in named and not name.startswith(spare)]
        raise UserError(
            f"cannot load the model '{file}': the file holds {theirs:,} values and the model {ours:,}, so transformers "
            f"would leave out a part of it. {misfit((), over) or 'Its tensors and its settings disagree'}. Name the "
            "model's original checkpoint"
        )


def names_of(architecture: str, layers: int) -> Any:
    """The package gguf's map of tensor names, for an architecture of so many layers."""
    gguf = _library()
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(number, layers)


def parts_of(file: str) -> tuple[str, str]:
    """The directory and the name, as transformers takes them."""
    return str(Path(file).parent), Path(file).name
