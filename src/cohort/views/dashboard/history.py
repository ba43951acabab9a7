"""The same prompt through a run, and what the prompts of a run are."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.account.traces import rows_as_shown
from cohort.record.rollouts import by_ticket
from cohort.settings import Task
from cohort.types import RIGHT, UserError
from cohort.views.cards.reading import is_number
from cohort.views.dashboard.groups import STRIP, Strip, rows_of, strip_of
from cohort.views.dashboard.index import pass_rates
from cohort.views.dashboard.reader import Reader
from cohort.views.dashboard.runs import RunFiles, StageFiles

BINS = 10  # of pass rates
MOST = 20  # prompts that were never right, as they are listed


@dataclass(frozen=True, slots=True)
class Asked:
    """What an evaluation had answered to a prompt."""

    step: int
    way: str
    rate: float
    text: str | None


@dataclass(frozen=True, slots=True)
class PromptView:
    """Every group of one prompt, in the order of steps, and every evaluation of it."""

    prompt_id: str
    prompt: str | None
    answer: str | None
    groups: tuple[Strip, ...]
    asked: tuple[Asked, ...]


def prompt_view(stage: StageFiles, prompt_id: str) -> PromptView:
    """A prompt through a stage. Raises `UserError` for one that it never had."""
    table = stage.index.table(stage.shards)
    mine = table.filter(pc.equal(table["prompt_id"].cast(pa.string()), prompt_id))
    wanted = sorted({(row["step"], row["ticket"]) for row in mine.select(["step", "ticket"]).to_pylist()})
    strips = []
    for step in sorted({step for step, _ in wanted}):
        rows = rows_of(pq.read_table(stage.shard(step).path, columns=list(STRIP)))
        groups = by_ticket([row for row in rows if row["prompt_id"] == prompt_id])
        strips += [strip_of(step, of) for _, of in sorted(groups.items())]
    asked, question, gold = [], None, None
    for shard in stage.evaluated:
        try:
            columns = ["prompt_id", "member", "prompt", "answer", "text", "turns", "accuracy"]
            found = pq.read_table(shard.path, columns=columns, filters=[("prompt_id", "=", prompt_id)]).to_pylist()
            found = rows_as_shown(found, stage.run.traces)
        except (pa.ArrowException, OSError, KeyError):
            continue
        rates = [row["accuracy"] >= RIGHT for row in found if is_number(row["accuracy"])]
        if rates:
            question, gold = found[0]["prompt"], found[0]["answer"]
            asked.append(Asked(shard.step, shard.way, statistics.fmean(rates), found[0]["text"]))
    if not strips and not asked:
        raise UserError(f"no prompt of stage {stage.name} has the id {prompt_id!r}")
    if strips:
        question, gold = strips[0].prompt, strips[0].answer
    return PromptView(prompt_id, question, gold, tuple(strips), tuple(asked))


@dataclass(frozen=True, slots=True)
class Layer:
    """One way in which held-out questions were looked for among training prompts, and what both share."""

    name: str
    what: str
    weak: bool
    questions: int
    prompts: int
    shared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataView:
    """What the prompts are, how hard they are, and whether held-out ones are among them."""

    source: tuple[tuple[str, str], ...]
    seen: str | None  # one prompt as the model saw it
    example: str | None
    gold: str | None
    prompts: int
    asked: int  # groups
    again: int  # prompts that were asked more than once
    never: int  # prompts that were never answered right
    hardest: tuple[tuple[str, str], ...]  # some of them: ids and questions, asked most first
    histograms: tuple[tuple[str, tuple[int, ...]], ...]  # groups by pass rate, early and late
    levels: tuple[tuple[str, float, float], ...]  # level, share, pass rate of the last steps
    contamination: str  # what was found, in a sentence; "" where nothing was compared
    layers: tuple[Layer, ...]
    not_looked: tuple[tuple[str, str], ...]


def data_view(run: RunFiles, stage: StageFiles, reader: Reader) -> DataView:
    """The data of a stage."""
    task = stage.table.task if stage.table is not None else None
    keys = ("source", "split", "held_out", "prompt", "answer", "system", "template", "levels", "too_long")
    source = []
    for key in keys if task is not None else ():
        value = getattr(task, key)
        if key == "source" or value != Task.model_fields[key].default:
            source.append((key, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)))
    table = stage.index.table(stage.shards)
    grouped, shown = pass_rates(table, "step", "ticket", "prompt_id"), example(stage)
    rates, steps = grouped["right_mean"].to_numpy(), grouped["step"].to_numpy()
    ids = np.asarray(grouped["prompt_id"].cast(pa.string()).to_pylist(), str)
    unique, at, counts = np.unique(ids, return_inverse=True, return_counts=True)
    best = np.zeros(len(unique))
    np.maximum.at(best, at, rates)
    never = [int(i) for i in np.argsort(-counts, kind="stable") if best[i] == 0]
    histograms = []
    if len(steps):
        cut = np.quantile(np.unique(steps), [0.25, 0.75])
        for name, part in (("first quarter", rates[steps <= cut[0]]), ("last quarter", rates[steps >= cut[1]])):
            bins = np.minimum((part * BINS).astype(int), BINS - 1)
            histograms.append((name, tuple(np.bincount(bins, minlength=BINS).tolist())))
    found = run.inside("contamination.json", stage.name)
    layers = tuple(_layers(run.inside("contamination.json", stage.name, "layers")))
    flagged = found.get("flagged")
    said = f"{len(flagged) if isinstance(flagged, list) else 0} of {found.get('questions')} held-out questions were "
    said += f"found among {found.get('prompts')} training prompts."
    return DataView(
        source=tuple(source),
        seen=reader.text(shown["prompt_tokens"] or ()) if shown else None,
        example=shown["prompt"] if shown else None,
        gold=shown["answer"] if shown else None,
        prompts=len(unique),
        asked=len(rates),
        again=int((counts > 1).sum()),
        never=len(never),
        hardest=tuple(_questions(stage, table, [str(unique[i]) for i in never[:MOST]])),
        histograms=tuple(histograms),
        levels=tuple(_levels(stage.steps[-10:])),
        contamination=said if layers else "",
        layers=layers,
        not_looked=tuple((k, str(v)) for k, v in run.inside("contamination.json", stage.name, "not_looked").items()),
    )


def _layers(found: Mapping[str, Any]) -> list[Layer]:
    layers = []
    for name, one in found.items():
        if isinstance(one, dict):
            examples = [str(of.get("shared", "")) for of in one.get("examples") or () if isinstance(of, dict)]
            ids, prompts = one.get("ids") or (), one.get("prompts") or 0
            what, weak = str(one.get("what", "")), bool(one.get("weak"))
            layers.append(Layer(name, what, weak, len(ids), int(prompts), tuple(examples[:2])))
    return layers


def _questions(stage: StageFiles, table: pa.Table, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Prompts by their ids, with what they ask."""
    mine = table.filter(pc.is_in(table["prompt_id"].cast(pa.string()), value_set=pa.array(ids, pa.string())))
    found: dict[str, str] = {}
    for step in sorted(set(mine["step"].to_pylist()), reverse=True):
        with contextlib.suppress(pa.ArrowException, OSError, KeyError, UserError):
            read = pq.read_table(stage.shard(step).path, columns=["prompt_id", "prompt"]).to_pylist()
            found |= {row["prompt_id"]: row["prompt"] or "(erased)" for row in read if row["prompt_id"] in ids}
    return [(one, found[one]) for one in ids if one in found]


def example(stage: StageFiles) -> dict[str, Any] | None:
    """One prompt with its gold answer and its tokens: of the first step, else of the first evaluation."""
    for shard in (*stage.shards[:1], *stage.evaluated[:1]):
        with contextlib.suppress(pa.ArrowException, OSError, KeyError):
            for row in pq.read_table(shard.path, columns=["prompt", "answer", "prompt_tokens"]).slice(0, 1).to_pylist():
                return dict(row)
    return None


def _levels(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Level, share and pass rate, over the last steps."""
    found = []
    names = sorted({name.split("/")[2] for line in lines for name in line if name.startswith("task/level/")})
    for level in names:
        shares = [line.get(f"task/level/{level}/share") or 0.0 for line in lines]
        rates = [v for line in lines if (v := line.get(f"task/level/{level}/pass_rate")) is not None]
        if rates:
            found.append((level, statistics.fmean(shares), statistics.fmean(rates)))
    return found
