"""`cohort export`: the model of a run for others. It is written to a temporary place, read back in a new process by the
libraries that others will use, compared with the model that was trained, and only then moved to where it was asked for.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cohort.commands.model import load_model
from cohort.commands.place import full_path
from cohort.learn.forward import batch_logprobs
from cohort.machine import quiet_libraries
from cohort.policy import gguf_writer
from cohort.policy.adapters import changed_modules, merge_adapter
from cohort.policy.load import locate, save_policy
from cohort.policy.policy import Policy
from cohort.record.files import new_directory, write_bytes
from cohort.record.manifest import EVALUATIONS
from cohort.record.rollouts import read_rows
from cohort.train.place import where_trained
from cohort.train.sft import supervised_batch
from cohort.types import UserError
from cohort.views.console import Console
from cohort.wording import one_line

PROBE = "What is 17 + 25? Show your work, then write the answer.\n17 + 25 = 42\n"
TOLERANCE = 1e-3  # of a log-prob in float32: two programs add up in different orders, and merging rounds each weight
ROWS, LONGEST = 8, 1024  # recorded rollouts that are compared, and the tokens of one of them
TYPES = {"merged": ("float32", "bfloat16", "float16"), "adapter": ("float32",), "gguf": ("float16", "float32", "q8_0")}
HUB = "hub:"

Row = tuple[Sequence[int], list[int]]  # a prompt and a completion, in tokens


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how it was compared."""

    form: str
    type: str  # of the numbers
    to: str
    base: str | None  # the model that an adapter belongs to
    tensors: int  # that were read back bit for bit
    merged: int  # matrices into which an adapter was merged; each differs from the base's
    rollouts: int  # recorded ones that were compared; 0: a probe text
    tokens: int
    difference: float  # the largest in a log-prob, between what was written and what it should be
    rounding: float  # and between that and the model that was trained


def export(model: str, form: str | None, to: str, kind: str | None = None) -> Exported:
    """Write a model to the directory `to`, or `hub:OWNER/NAME`: "merged", "adapter", "gguf", or (None) merged where
    there is an adapter, else as it is; with numbers of the type `kind`. Raises `UserError` when the model that was
    written says something else; nothing is then left at `to`.
    """
    quiet_libraries()
    if to.startswith(HUB):
        with tempfile.TemporaryDirectory(prefix="cohort-") as room:
            found = _export_to(model, form, Path(room, "export"), kind, to)
            _upload(Path(room, "export"), to.removeprefix(HUB))
        return found
    place = Path(to).expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise UserError(f"{to!r} exists: name a directory that does not, so that nothing is written over")
    if not place.parent.is_dir():
        raise UserError(f"there is no directory {str(place.parent)!r} to write into: make it first")
    return _export_to(model, form, place, kind, to)


def _export_to(model: str, form: str | None, place: Path, kind: str | None, named: str) -> Exported:
    model = full_path(model)
    with where_trained(model):  # from where an adapter finds its base
        return _export(model, form, place, kind, named)


def _export(model: str, form: str | None, place: Path, kind: str | None, named: str) -> Exported:
    policy = load_model(model, device="cpu")
    if form == "adapter" and not policy.has_adapter:
        raise UserError(f"{model} has no adapter: it was trained whole. Leave out --as")
    policy.refuse_classifier()
    write = form or ("merged" if policy.has_adapter else "as it is")
    types = TYPES.get(write, TYPES["merged"])
    kind = kind or types[0]
    if kind not in types:
        raise UserError(f"numbers of a {write} export are {', '.join(types)}, not {kind}")
    if write == "gguf":
        gguf_writer.refuse(policy)
    recorded = _recorded(model, policy)
    rows = recorded or [_probe(policy)]
    trained, base, touched = _logprobs(policy, rows), None, 0
    if write == "adapter":
        base = policy.module.peft_config[policy.module.active_adapter].base_model_name_or_path
        if str(base).endswith(".gguf"):
            raise UserError(
                f"the adapter's base is the file {base}, which peft cannot read: leave out --as to merge it"
            )
    elif policy.has_adapter:
        changed = changed_modules(policy.module)
        before = {name: _rounded_digest(weight, kind) for name, weight in changed.items()}
        policy = merge_adapter(policy)
        _refuse_unchanged(policy, before, kind)
        touched = len(before)
    with _disk_errors(named), new_directory(place) as directory:
        if write == "gguf":
            gguf_writer.write(policy, directory, kind)
        else:
            _round_weights(policy, getattr(torch, kind))
            save_policy(policy, directory)
            _round_weights(policy, torch.float32)
        wanted = trained if kind == "float32" else _logprobs(policy, rows)
        tensors, difference = _read_back(policy, directory, write, rows, wanted)
        _copy_cards(Path(locate(model)), directory, write)
    rounding = (wanted - trained).abs().max().item()
    return Exported(write, kind, named, base, tensors, touched, len(recorded), len(trained), difference, rounding)


def show(console: Console, found: Exported) -> None:
    """Where it is, and how it was checked."""
    console.saved(found.form, Path(found.to))
    what = f"{found.rollouts} recorded rollouts" if found.rollouts else "a probe text"
    console.say(
        f"read back in a new process: {found.tensors} tensors bit for bit, and the log-probs of {found.tokens} tokens "
        f"of {what} differ by at most {found.difference:.1e}"
    )
    if found.merged:
        console.say(f"the adapter is in it: {found.merged} matrices differ from those of the base")
    if found.base is not None:
        console.say(f"it belongs to the model {found.base}")
    if found.type != "float32":
        console.say(
            f"numbers of type {found.type} move log-probs by at most {found.rounding:.1e} from those of the run"
        )


# --- what is compared


def _recorded(model: str, policy: Policy) -> list[Row]:
    """Some of the newest recorded rollouts of the run that a model is of; none for a model from elsewhere."""
    here = Path(model)
    logs = (sorted((place / "log").glob("*.parquet")) for place in (here, *list(here.parents)[:2]))
    files = next((found for found in logs if found), []) if here.is_dir() else []
    limit = min(policy.max_context or LONGEST, LONGEST)
    for file in reversed(files):
        found = [(row["prompt_tokens"], row["tokens"]) for row in read_rows(file) if row["tokens"]]
        found = [(p, c[: limit - len(p)]) for p, c in found if 0 < len(p) < limit]
        if found:
            return found[:: max(1, len(found) // ROWS)][:ROWS]
    return []


def _probe(policy: Policy) -> Row:
    first, *rest = policy.tokenizer.encode(PROBE)
    return [first], rest


def _logprobs(policy: Policy, rows: Sequence[Row]) -> Tensor:
    """The log-probs of all completions, end to end, as the learner computes them."""
    batch = supervised_batch([(prompt, list(tokens), [True] * len(tokens)) for prompt, tokens in rows])
    return batch_logprobs(policy, batch, batch.mask, LONGEST, 1.0)


def _read_back(policy: Policy, directory: Path, form: str, rows: Sequence[Row], wanted: Tensor) -> tuple[int, float]:
    """Read an export in a new process. Returns how many tensors are bit for bit those of the policy, and the largest
    difference of a log-prob. Raises `UserError` where either is not as it should be.
    """
    ours = {name: _digest(value) for name, value in policy.module.named_parameters()}
    texts = [policy.tokenizer.decode([*p, *c]) for p, c in rows]
    job = {
        "directory": str(directory),
        "form": form,
        "file": gguf_writer.FILE,
        "config": gguf_writer.unread(policy) if form == "gguf" else {},
        "trust_remote_code": bool(getattr(policy.model.config, "auto_map", None)),
        "revision": getattr(policy.module.peft_config["default"], "revision", None) if policy.has_adapter else None,
        "rows": [(len(p), [*p, *c]) for p, c in rows],
        "texts": texts,
        "threads": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory(prefix="cohort-") as room:
        job_file, result = Path(room, "job.json"), Path(room, "result.safetensors")
        job_file.write_text(json.dumps(job), "utf-8")
        program = Path(__file__).with_name("read_back.py")
        done = _in_new_process([sys.executable, "-P", program, job_file, result])
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"what was written cannot be read by others, so nothing is kept: {last[:300]}")
        with safe_open(result, "pt") as found:
            theirs, said = found.get_tensor("logprobs"), found.metadata()
    read = json.loads(said["sha256"])
    if differ := sorted(name for name in ours.keys() | read.keys() if ours.get(name) != read.get(name)):
        raise UserError(
            f"{len(differ)} of {len(ours)} tensors are read back as something else, such as {differ[0]}: nothing "
            "is kept"
        )
    _refuse_other_tokens(policy, texts, said)
    difference = (theirs - wanted).abs().max().item()
    most = TOLERANCE * max(1.0, wanted.abs().max().item() / 16)  # rounding grows with the numbers
    if not difference <= most:
        raise UserError(
            f"the model as it was written differs by {difference:.2g} in a log-prob, over {most:.2g}: nothing is kept"
        )
    return len(ours), difference


def _round_weights(policy: Policy, dtype: torch.dtype) -> None:
    """Give the weights a type. Buffers, such as rotary frequencies, keep theirs: readers make them anew."""
    for parameter in policy.module.parameters():
        parameter.data = parameter.data.to(dtype)


def _in_new_process(words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace")


def _refuse_other_tokens(policy: Policy, texts: Sequence[str], said: dict[str, str]) -> None:
    """Raise `UserError` where the tokenizer that was read back is another one."""
    tokenizer = policy.tokenizer
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    for what, mine, theirs in (
        ("splits a recorded text into other tokens", ours, json.loads(said["texts"])),
        ("has another chat template", tokenizer.chat_template, json.loads(said["template"])),
        ("has another end token", tokenizer.eos_token_id, json.loads(said["ends"])),
    ):
        if mine != theirs:
            raise UserError(f"the tokenizer as it is read back {what} than that of the run: nothing is kept")


def _digest(value: Tensor) -> str:
    return hashlib.sha256(value.detach().float().numpy().tobytes()).hexdigest()


def _rounded_digest(weight: Tensor, kind: str) -> str:
    return _digest(gguf_writer.rounded(weight.detach().float(), kind))


def _refuse_unchanged(policy: Policy, before: dict[str, str], kind: str) -> None:
    """Raise `UserError` where a matrix with an adapter in it is still the base's."""
    after = dict(policy.model.named_parameters(remove_duplicate=False))
    same = [name for name, digest in before.items() if _rounded_digest(after[name], kind) == digest]
    if same:
        why = "" if kind == "float32" else f"; numbers of type {kind} are too coarse for it: use --type float32"
        raise UserError(
            f"the adapter changes {len(before)} matrices, and {len(same)} of them are the base's in the merged model, "
            f"such as {same[0]}: nothing is kept{why}"
        )


# --- where it goes


def _copy_cards(source: Path, directory: Path, form: str) -> None:
    """The card and the evaluations of the run beside the model, as the hub reads them. Of what was merged or quantised
    the card no longer says that it is an adapter.
    """
    card = source / "README.md"
    if not card.is_file():
        return
    from huggingface_hub import ModelCard

    text = ModelCard(card.read_text("utf-8"), ignore_metadata_errors=True)
    if form in ("merged", "gguf"):
        text.data["library_name"] = {"merged": "transformers", "gguf": "gguf"}[form]
        if "base_model" in text.data:
            text.data["base_model_relation"] = "finetune"
    write_bytes(directory / "README.md", str(text).encode())
    for file in (source / EVALUATIONS).glob("*"):
        write_bytes(directory / EVALUATIONS / file.name, file.read_bytes())


@contextmanager
def _disk_errors(named: str) -> Iterator[None]:
    """A full disk, and rights that are missing, are something a person can mend."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"cannot write to {named!r} ({what}); nothing was left there") from None


def _upload(directory: Path, name: str) -> None:
    """Upload a checked export as a new private repository of the Hugging Face hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().create_repo(name, private=True, exist_ok=False)
        HfApi().upload_folder(repo_id=name, folder_path=directory, commit_message="Export by Cohort")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"cannot upload to {HUB}{name}: {one_line(error)}") from None
