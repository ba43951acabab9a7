"""The policy of a stage: loaded from a directory or the hub, taken from the caller, or made from nothing; and saved
back as a normal Hugging Face checkpoint.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cohort.policy.adapters import add_lora, find_base, merge_adapter, refuse_other_base, write_base
from cohort.policy.fit import CANNOT_BE_SAVED, SAVEABLE, read_adapter, read_model, refuse_broken, refuse_unlike, unlike
from cohort.policy.gguf import SUFFIX, gguf_in, is_gguf, read_gguf, refuse_other_file
from cohort.policy.gguf_text import read_gguf_tokenizer
from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.remote_code import asks_for_trust
from cohort.seeds import derive_seed
from cohort.settings import Policy as PolicyTable
from cohort.types import UserError
from cohort.wording import one_line, shorten

HOW_READ = ("is_local", "local_files_only")  # transformers writes them: a final that was read back would differ
LEADS_ON = "model.json"  # in the place of a model, where a stage has trained none: which model it leads on to


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stage's weights come from, if its table names no model: the directory that the stage before it left, or
    for `model = "live"` the model and tokenizer that were given in Python.
    """

    directory: str | None = None
    live: tuple[Any, Any] | None = None


def open_policy(
    table: PolicyTable,
    seed: int,
    start: Start,
    texts: Callable[[], Iterable[str]],
    keep: Callable[[Policy], None] = lambda _: None,
) -> Policy:
    """The policy that a stage starts from. `texts` are the stage's own, from which the tokenizer of a policy that is
    made from nothing is learnt; they are read only then. `keep` is given a model whose adapter was merged, before the
    new adapter is put on it, which will look for it under its `name_or_path`. Raises `UserError`.
    """
    if table.scratch is not None:
        if table.lora is not None:
            raise UserError("a policy made from scratch has nothing to adapt: remove policy.lora, or policy.scratch")
        tokenizer = load_tokenizer(table, start) or make_tokenizer(texts(), table.scratch.vocabulary)
        model = make_model(tokenizer, derive_seed(seed, "scratch"), table.scratch)
        return Policy(model, tokenizer, table.compute)
    if table.model == "live":
        if start.live is None:
            raise UserError('policy.model = "live" is for Python: cohort.train(recipe, model=..., tokenizer=...)')
        policy = _live_policy(*start.live, table)
    else:
        policy = _load(table, table.model or start.directory)
    if table.lora is not None:
        revision = table.revision
        if table.lora.existing == "merge" and policy.has_adapter:
            policy, revision = merge_adapter(policy), None
            keep(policy)
        policy = add_lora(policy, table.lora, derive_seed(seed, "lora"), revision)
    if table.model == "live":
        _refuse_unsaveable(policy, table)
    return policy


def starts_from_adapter(table: PolicyTable, start: Start) -> bool:
    """Whether a stage's policy begins with an adapter that has learnt something, and not with a fresh one."""
    if table.lora is not None and table.lora.existing == "merge":
        return False
    if table.model == "live":
        return start.live is not None and hasattr(start.live[0], "disable_adapter")
    where = table.model or start.directory
    return where is not None and Path(locate(where), "adapter_config.json").is_file()


def resumed_policy(table: PolicyTable, directory: Path) -> Policy:
    """The policy in a checkpoint of a stage."""
    return _load(table.model_copy(update={"revision": None}), str(directory))


def load_policy(model: str, *, trainable: bool = True, **fields: Any) -> Policy:
    """A policy from a local directory or a hub id; a directory that holds a LoRA adapter is loaded onto its base.

    `fields` are keys of the recipe's `policy` table that say how to load: `dtype`, `compute`, `device`, `revision` and
    `trust_remote_code`.

    Raises `UserError` for a directory that is not there or is no checkpoint, an architecture that transformers does not
    know, and everything that `Policy` refuses.
    """
    return _load(PolicyTable(**fields), model, trainable)


def load_tokenizer(table: PolicyTable, start: Start) -> Any:
    """The tokenizer that the policy of a table will have; None for one that is learnt from the stage's own texts, or
    that comes with a stage which is not trained yet.
    """
    if table.scratch is not None:
        name = table.scratch.tokenizer
        return None if name is None or name.startswith("stage:") else _tokenizer(name, table)
    if table.model == "live" and start.live is not None:
        return start.live[1]
    model = table.model or start.directory
    return None if model is None or model == "live" else _tokenizer(model, table)


def save_policy(policy: Policy, directory: Path) -> None:
    """Write weights (safetensors), configuration, tokenizer and chat template; with LoRA, the adapter. Who serves the
    model ends its turns where Cohort did. Raises `UserError` for weights that are not finite, and for what would not be
    read back as it is.
    """
    refuse_broken(policy.module)
    policy.refuse_diverged()
    config = getattr(policy.model, "generation_config", None)
    if config is not None and policy.turn_end not in (None, policy.tokenizer.eos_token_id):
        config.eos_token_id = list(policy.eos_ids)
    try:
        policy.module.save_pretrained(directory)
        if policy.has_adapter:
            write_base(policy.module, directory)
        policy.tokenizer.save_pretrained(directory)
    except (ValueError, RuntimeError) as error:  # a generation config that contradicts itself, weights tied by hand
        raise UserError(f"the model cannot be saved: {_first_sentence(error)}") from None
    except Exception as error:  # the library tokenizers has no other for what the system says of a file
        if (said := re.fullmatch(r"(.*) \(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(said[2]), said[1]) from None
    refuse_unlike(policy.module, directory)


def live_dtype(model: Any) -> str:
    """The type of a model object's weights, as policy.dtype has it. Raises `UserError` for any other."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = str(next(model.parameters()).dtype).removeprefix("torch.")
    if name not in ("float32", "bfloat16"):
        raise UserError(
            f"weights are trained in float32 or bfloat16, not {name}: convert the model, as by model.float()"
        )
    return name


def _live_policy(model: Any, tokenizer: Any, table: PolicyTable) -> Policy:
    """The policy of a model object. Raises `UserError` for one that cannot be trained as it is."""
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper has a forward pass that knows no layouts
    for problem, what in (
        (not hasattr(tokenizer, "eos_token_id"), f"tokenizer is a tokenizer object, not {shorten(tokenizer)}"),
        (any(p.is_meta for p in model.parameters()), "the model has no weights (device meta): load them first"),
        (live_dtype(model) != table.dtype, f"the weights of the model object are {live_dtype(model)}, and policy.dtype "
         f"says {table.dtype}: remove policy.dtype, or convert the model"),
        (any(p.is_inference() for p in model.parameters()), "the model was made under torch.inference_mode(), where "
         "weights cannot be trained: make it outside"),
    ):  # fmt: skip
        if problem:
            raise UserError(what)
    policy = Policy(model, tokenizer, table.compute)
    policy.check()
    return policy


def _refuse_unsaveable(policy: Policy, table: PolicyTable) -> None:
    """Save a model object before it is trained, and read it back as a resumed run would. Raises `UserError`."""
    with tempfile.TemporaryDirectory(prefix="cohort-") as place:
        save_policy(policy, Path(place))
        again = resumed_policy(table, Path(place))
    if differs := unlike(policy.module, again.module):
        raise UserError(f"{CANNOT_BE_SAVED}: {differs}. {SAVEABLE}")


def _load(table: PolicyTable, model: str | None, trainable: bool = True) -> Policy:
    if model is None:
        raise UserError("the recipe names no model: set policy.model to a checkpoint directory or a hub id")
    where, dtype = locate(model), getattr(torch, table.dtype)
    options: dict[str, Any] = {"revision": table.revision, "trust_remote_code": table.trust_remote_code}
    tokenizer = _tokenizer(model, table)
    try:
        if Path(where, "adapter_config.json").is_file():
            module = _load_adapter(where, dtype, trainable, table.trust_remote_code)
        elif is_gguf(where):
            module = read_gguf(AutoModelForCausalLM, where, dtype=dtype)
        else:
            module = read_model(AutoModelForCausalLM, where, model, dtype=dtype, **options)
    except UserError:
        raise
    except Exception as error:  # damaged or hostile files make the libraries raise anything
        raise _unloadable(model, error) from None
    policy = Policy(module.to(_device(table.device)), tokenizer, table.compute)
    policy.check()
    return policy


def _tokenizer(model: str, table: PolicyTable) -> Any:
    where = locate(model)
    try:
        if is_gguf(where):
            return read_gguf_tokenizer(AutoTokenizer, where)
        read = AutoTokenizer.from_pretrained(where, revision=table.revision, trust_remote_code=table.trust_remote_code)
        for key in HOW_READ:
            read.init_kwargs.pop(key, None)
        return read
    except UserError:
        raise
    except Exception as error:  # damaged or hostile files make the libraries raise anything
        raise _unloadable(model, error) from None


def _unloadable(model: str, error: Exception) -> UserError:
    missing = "" if Path(model).expanduser().exists() else "no file or directory here has this name, and as a hub id: "
    return UserError(f"cannot load the model '{model}': {missing}{_first_sentence(error)}{asks_for_trust(error)}")


def locate(model: str) -> str:
    """The checkpoint directory or GGUF file that a name stands for; a hub id stays what it is. Raises `UserError`."""
    path = Path(model).expanduser()
    if path.is_file():
        refuse_other_file(path)
        return str(path.resolve())
    if path.is_dir():
        # A run directory stands for its final model, or while it is unfinished for its newest checkpoint.
        for place in (path, path / "final", *sorted(path.glob("checkpoints/step-*"), reverse=True)):
            if (place / "config.json").is_file() or (place / "adapter_config.json").is_file():
                return str(place.resolve())
            if (place / LEADS_ON).is_file():
                return locate(_led_to(place))
        if (file := gguf_in(path)) is not None:
            return str(file.resolve())
        raise UserError(f"'{model}' holds no model: no config.json, no adapter_config.json and no .gguf is in it")
    hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) and not model.startswith(".")
    if not hub_id or model.endswith(SUFFIX):
        raise UserError(
            f"there is no {'file' if model.endswith(SUFFIX) else 'directory'} '{model}'; policy.model is a checkpoint "
            "directory, a GGUF file or a hub id"
        )
    return model


def lead_on(directory: Path, model: str) -> None:
    """Write into a directory of a run, in the place of a model, that `model` is meant: a directory, a file or a hub id.
    A path goes from here, so that it holds where the whole run is moved.
    """
    there = Path(model).expanduser()
    named = os.path.relpath(there.absolute(), directory.absolute()) if there.exists() else model
    (directory / LEADS_ON).write_bytes(orjson.dumps({"model": named}))


def _led_to(directory: Path) -> str:
    """The model that a directory leads on to."""
    file = directory / LEADS_ON
    try:
        named = str(orjson.loads(file.read_bytes())["model"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{file} is damaged: restore it, or name the model itself") from None
    there = directory.resolve() / named
    return str(there) if there.exists() else named


def _load_adapter(directory: str, dtype: torch.dtype, trainable: bool, trust_remote_code: bool) -> torch.nn.Module:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(directory)
    base = config.base_model_name_or_path
    if not base:
        raise UserError(f"the adapter in '{directory}' does not name its base model (adapter_config.json)")
    base = find_base(Path(directory), base)
    try:
        options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": trust_remote_code}
        if is_gguf(base):
            model = read_gguf(AutoModelForCausalLM, base, dtype=dtype)
        else:
            model = read_model(AutoModelForCausalLM, base, dtype=dtype, **options)
    except OSError as error:
        raise UserError(
            f"the adapter in '{directory}' needs its base model '{base}' (adapter_config.json), which cannot be "
            f"loaded: {_first_sentence(error)}"
        ) from None
    refuse_other_base(model, Path(directory), base)
    try:
        return read_adapter(model, directory, trainable)
    except RuntimeError as error:
        raise UserError(
            f"the adapter in '{directory}' does not fit its base model '{base}': {one_line(error)}"
        ) from None


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("policy.device is 'cuda', but torch sees no GPU; use 'auto' or 'cpu'")
    return torch.device(wanted)


def _first_sentence(error: Exception) -> str:
    text = re.split(r"(?<=[a-z])\. (?=[A-Z])", " ".join(str(error).split()))[0] or type(error).__name__
    return text[:300] + ("..." if len(text) > 300 else "")
