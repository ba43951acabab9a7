"""What a stage that keeps samples leaves: they as rows to learn from, pairs of them, and a count of all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from cohort.backends.base import Backend
from cohort.policy.load import lead_on
from cohort.record.manifest import NAME as MANIFEST
from cohort.record.manifest import sha256_of
from cohort.record.rollouts import read_groups
from cohort.rewards import Combination
from cohort.rewards.calling.steps import cut, pieces, splitter
from cohort.settings import Reward
from cohort.train.models import DATA, PAIRS, STEPS
from cohort.train.reject.selection import Sample, Selection, judge, select
from cohort.train.stage import Context
from cohort.types import RIGHT, Group, UserError
from cohort.views.console import escape
from cohort.wording import another, counted, resuming

COUNTS = "selection.json"  # how many samples were kept, and how many refused for which reason
_TAKEN = ("prompt", "answer", "completion", "chosen", "rejected", "messages", "provenance")  # columns of the rows


def selected(context: Context, combination: Combination, last: int | None = None) -> Selection:
    """What is kept of all that the stage has sampled up to the step `last`, from its log. Raises `UserError` where
    nothing is.
    """
    table, groups = context.stage.reject, _groups(context, last)
    found = select((one for step, group in groups for one in judge(group, table, combination, step)), table)
    if not found.kept:
        raise UserError(
            f"stage '{context.stage.name}' keeps nothing of {found.sampled:,} samples: "
            f"{', '.join(f'{count:,} {why}' for why, count in found.refused.items()) or 'none could be scored'}. Go on "
            f"with more steps (run.steps, with {resuming()}), or begin another run with {another()}: with a lower "
            "reject.least, a larger rollout.group_size, or from a policy that is right more often"
        )
    return found


def _groups(context: Context, last: int | None = None) -> Iterator[tuple[int, Group]]:
    """The groups of the log, each with its step."""
    for step, file in enumerate(sorted(context.log.glob("step-*.parquet"))[:last], start=context.first + 1):
        if file.name != f"step-{step:06d}.parquet":
            raise UserError(f"the samples of step {step} are missing in {context.log}: restore step-{step:06d}.parquet")
        yield from ((step, group) for group in read_groups(file))


def write_data(context: Context, backend: Backend, directory: Path, combination: Combination) -> None:
    """Write rows, pairs, counts and, where a reward scores steps, all solutions with labels of their steps into the
    `final` of a stage, and which model a stage after it goes on with.
    """
    found, model = selected(context, combination), model_of(context)
    by = {"model": model, "digest": digest_of(model)}
    files: dict[str, Iterable[dict[str, Any]]] = {DATA: (_row(one, by) for one in found.kept)}
    if context.stage.reject.pairs:
        files[PAIRS] = (_pair(better, worse, by) for better, worse in found.pairs)
    if (scorer := next((one for one in context.stage.reward if one.labels_steps), None)) is not None:
        files[STEPS] = _solutions(context, scorer, by)
    for name, rows in files.items():
        (directory / name).write_bytes(b"".join(orjson.dumps(row, default=str) + b"\n" for row in rows))
    pairs = len(found.pairs)
    counts: dict[str, Any] = {"kept": len(found.kept), "sampled": found.sampled, "refused": dict(found.refused)}
    counts |= {"prompts": found.prompts, "prompts_kept": found.prompts_kept, "pairs": pairs, **by}
    (directory / COUNTS).write_bytes(orjson.dumps(counts, option=orjson.OPT_INDENT_2))
    leave_model(context, backend, directory)
    made = f"; {counted(pairs, 'pair')} of a kept and a wrong one" if pairs else ""
    context.console.say(f"  {escape(found.words() + made)}")


def _solutions(context: Context, scorer: Reward, by: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every solution once to its prompt, right or wrong, with its steps and their labels: rows of `tasks.steps`."""
    separator, seen = splitter(scorer.split or "", scorer.name), set[tuple[str, str]]()
    for step, group in _groups(context):
        for member, (rollout, steps) in enumerate(zip(group.rollouts, group.steps.get(scorer.name, ()))):
            key = group.prompt.id, rollout.text
            if not steps or key in seen or not rollout.text.strip():
                continue
            seen.add(key)
            prompt = group.prompt.text if group.prompt.messages is None else group.prompt.messages
            texts, labels = pieces(rollout.text, cut(rollout.text, separator)), [one.score >= RIGHT for one in steps]
            where = {"prompt_id": group.prompt.id, "step": step, "ticket": group.ticket, "member": member, **by}
            yield {"prompt": prompt, "completions": texts, "labels": labels, "provenance": where}


def leave_model(context: Context, backend: Backend, directory: Path) -> None:
    """Say in the `final` of a stage that trains nothing which model comes out of it: the one that came in. One that is
    nowhere on disk, as it was made or given as an object, is written.
    """
    if (model := model_of(context)) is None:
        backend.save_model(directory)
    else:
        lead_on(directory, model)


def model_of(context: Context) -> str | None:
    """The model that a stage began with, by its directory or hub id; None where it is nowhere on disk."""
    table = context.stage.policy
    if table.scratch is not None or table.model == "live":
        return None
    return table.model or context.start.directory


def digest_of(model: str | None) -> str | None:
    """The SHA-256 of the manifest of a model that a run has written; None for any other."""
    manifest = Path(model or "").expanduser() / MANIFEST
    return sha256_of(manifest) if model and manifest.is_file() else None


def _row(one: Sample, by: Mapping[str, Any]) -> dict[str, Any]:
    return {**_asked(one), "completion": one.text, "provenance": _provenance(one, by)}


def _pair(better: Sample, worse: Sample, by: Mapping[str, Any]) -> dict[str, Any]:
    of = {"chosen": _provenance(better, by), "rejected": _provenance(worse, by)}
    return {**_asked(better), "chosen": better.text, "rejected": worse.text, "provenance": of}


def _asked(one: Sample) -> dict[str, Any]:
    """The prompt as a row of a file has it, with its answer and its other columns."""
    prompt = one.prompt
    tags = {name: value for name, value in prompt.tags.items() if name not in _TAKEN}
    return {"prompt": prompt.text if prompt.messages is None else prompt.messages, "answer": prompt.answer, **tags}


def _provenance(one: Sample, by: Mapping[str, Any]) -> dict[str, Any]:
    """Where a sample comes from: its place in the log, the weights that drew it, and what was said of it."""
    return {
        "prompt_id": one.prompt.id,
        "step": one.step,
        "ticket": one.ticket,
        "member": one.member,
        "version": one.rollout.version,
        "scores": one.scores,
        "reward": one.reward,
        "pass_rate": one.pass_rate,
        **by,
    }
