"""What may be wrong with a run: the doctor's causes, and the pictures that show them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cohort.account.traces import as_shown
from cohort.monitor.doctor import Cause, answers, causes
from cohort.record.reading import score_names
from cohort.settings import GROUPS
from cohort.types import RIGHT
from cohort.views.dashboard.index import pass_rates, reward_columns
from cohort.views.dashboard.overview import Alarm, alarms
from cohort.views.dashboard.runs import StageFiles
from cohort.views.dashboard.trends import points

COLUMNS, FIFTHS = 40, 5  # of the difficulty map
BINS = 12  # of lengths


@dataclass(frozen=True, slots=True)
class Bin:
    """Completions of about one length."""

    low: float
    high: float
    count: int
    reward: float
    right: float


@dataclass(frozen=True, slots=True)
class Component:
    """One reward: how much of the spread of a group it makes, and how it goes with the accuracy inside groups."""

    name: str
    weight: float
    mean: float
    share: float  # of the weighted spread of all
    with_accuracy: float | None
    says: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """How a reward was called: what failed and how long it took."""

    name: str
    scored: int
    failures: int
    timeouts: int
    retries: int
    mean_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class Copies:
    """Completions of the last step that have the very text of another of their group."""

    step: int
    copies: int
    of: int
    commonest: tuple[tuple[int, str, int], ...]  # ticket, text, times


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Everything of the screen."""

    causes: tuple[Cause, ...]
    alarms: tuple[Alarm, ...]
    questions: tuple[tuple[str, str], ...]
    columns: tuple[int, ...]  # the last step of each column of the map
    difficulty: tuple[tuple[float, ...], ...]  # [fifths of pass rate][columns]: share of groups
    lengths: tuple[Bin, ...]
    length_says: str
    components: tuple[Component, ...]
    verifiers: tuple[Verifier, ...]
    constant: tuple[str, float, float] | None  # the commonest gold answer, what it would pay, the accuracy of the steps
    copies: Copies | None
    clipping: tuple[tuple[float, float, int], ...]  # entropy, clip fraction, step


def diagnostics(stage: StageFiles) -> Diagnostics:
    """What may be wrong with a stage."""
    steps, findings = stage.steps, stage.findings
    table = stage.index.table(stage.shards)
    columns, difficulty = difficulty_map(table)
    bins = length_bins(table)
    weights = {one.name: one.weight for one in stage.table.reward} if stage.table is not None else {}
    return Diagnostics(
        causes=tuple(causes(findings, stage.table)) if stage.table is not None else (),
        alarms=tuple(alarms(findings)),
        questions=tuple(answers(steps)) if stage.kind in GROUPS else (),
        columns=columns,
        difficulty=difficulty,
        lengths=bins,
        length_says=_length_says(bins),
        components=tuple(components(table, weights)),
        verifiers=tuple(verifiers(steps)),
        constant=constant_answer(stage, table),
        copies=copies(stage),
        clipping=tuple(_clipping(steps)),
    )


def difficulty_map(table: pa.Table) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """Over the steps, the share of groups in each fifth of the pass rate, the easiest first."""
    grouped = pass_rates(table, "step", "ticket")
    steps, rates = grouped["step"].to_numpy(), grouped["right_mean"].to_numpy()
    if not len(steps):
        return (), ()
    width = max(1, math.ceil((steps.max() - steps.min() + 1) / COLUMNS))
    column = (steps - steps.min()) // width
    fifth = np.minimum((rates * FIFTHS).astype(int), FIFTHS - 1)
    counts = np.zeros((FIFTHS, int(column.max()) + 1))
    np.add.at(counts, (fifth, column), 1)
    shares = counts / np.maximum(counts.sum(0), 1)
    ends = tuple(int(min(steps.min() + width * (i + 1) - 1, steps.max())) for i in range(counts.shape[1]))
    return ends, tuple(tuple(row) for row in shares[::-1].tolist())


def length_bins(table: pa.Table) -> tuple[Bin, ...]:
    """Reward by length over all completions, in bins of about as many."""
    known = table.select(["length", "reward", "accuracy"]).drop_null()
    if len(known) < BINS:
        return ()
    length = known["length"].to_numpy().astype(float)
    reward, accuracy = known["reward"].to_numpy(), known["accuracy"].to_numpy()
    edges = np.unique(np.quantile(length, np.linspace(0, 1, BINS + 1)))
    at = np.clip(np.searchsorted(edges, length, "right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for number in range(max(len(edges) - 1, 1)):
        inside = at == number
        if inside.any():
            ends = (float(length[inside].min()), float(length[inside].max()))
            right = float((accuracy[inside] >= RIGHT).mean())
            found.append(Bin(*ends, int(inside.sum()), float(reward[inside].mean()), right))
    return tuple(found)


def _length_says(bins: Sequence[Bin]) -> str:
    if len(bins) < 2:
        return ""
    best = max(bins, key=lambda one: one.reward)
    ends = f"{bins[0].reward:.2f} for the shortest, {bins[-1].reward:.2f} for the longest"
    span = f"{best.low:.0f}" + (f" to {best.high:.0f}" if best.high > best.low else "")
    return f"The mean reward is {ends}; best paid are {span} tokens ({best.reward:.2f})."


def components(table: pa.Table, weights: Mapping[str, float]) -> list[Component]:
    """Of several rewards, which one decides the advantages, and which goes against the accuracy."""
    columns = reward_columns(table)
    found: list[tuple[str, float, float, float, float | None]] = []
    if len(table):
        groups = np.unique(table["ticket"].to_numpy(), return_inverse=True)[1]
        accuracy = _inside(table["accuracy"].to_numpy(), groups)
        for name, called in score_names(weights).items():
            if called not in columns or not pa.types.is_floating(columns[called].type):
                continue
            scores = np.asarray(columns[called].to_numpy(zero_copy_only=False), float)
            spread = _inside(scores, groups)
            both = np.isfinite(spread) & np.isfinite(accuracy)
            size = math.sqrt(float((spread[both] ** 2).sum() * (accuracy[both] ** 2).sum())) if both.any() else 0.0
            together = float((spread[both] * accuracy[both]).sum()) / size if size else None
            deviation = float(np.nanmean(spread**2)) ** 0.5 if np.isfinite(spread).any() else 0.0
            mean = float(np.nanmean(scores)) if np.isfinite(scores).any() else math.nan
            found.append((name, weights[name], mean, abs(weights[name]) * deviation, together))
    total, count = sum(spread for _, _, _, spread, _ in found) or 1.0, len(found)
    return [
        Component(name, weight, mean, spread / total, cor, _component_says(weight, spread / total, cor, count))
        for name, weight, mean, spread, cor in found
    ]


def _component_says(weight: float, share: float, together: float | None, count: int) -> str:
    if not weight:
        return "measured, and not paid"
    if together is not None and together < -0.1:
        return "goes against the accuracy"
    if count > 1 and share > 0.8:
        return "decides almost alone"
    if count > 1 and share < 0.02:
        return "decides almost nothing"
    return ""


def _inside(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values minus the mean of their group."""
    known = np.isfinite(values)
    counts = np.bincount(groups, known)
    means = np.bincount(groups, np.where(known, values, 0.0)) / np.maximum(counts, 1)
    return np.asarray(np.where(known, values - means[groups], np.nan), float)


def verifiers(steps: Sequence[Mapping[str, Any]]) -> list[Verifier]:
    """How every reward was called."""
    names = sorted({name.split("/")[1] for line in steps[-50:] for name in line if name.endswith("/scored")})

    def total(name: str, what: str) -> int:
        return int(math.fsum(points(steps, f"reward/{name}/{what}")[1]))

    def typical(name: str, what: str) -> float | None:
        values = points(steps, f"time/reward/{name}/{what}")[1]
        return float(np.median(values)) if values else None

    return [
        Verifier(
            name,
            total(name, "scored"),
            total(name, "failures"),
            total(name, "timeouts"),
            total(name, "retries"),
            typical(name, "mean_s"),
            typical(name, "p95_s"),
        )
        for name in names
    ]


def constant_answer(stage: StageFiles, table: pa.Table) -> tuple[str, float, float] | None:
    """What always saying the commonest gold answer would pay in the last steps, beside what the policy was paid."""
    golds: Counter[str] = Counter()
    recent = stage.shards[-20:]
    for shard in recent:
        try:
            rows = pq.read_table(shard.path, columns=["ticket", "answer"])
        except (pa.ArrowException, OSError, KeyError):
            continue
        golds.update(of for _, of in dict(zip(*rows.to_pydict().values(), strict=True)).items() if of is not None)
    if not golds or len(golds) < 2:
        return None
    answer, times = golds.most_common(1)[0]
    late = table.filter(pa.array(table["step"].to_numpy() >= recent[0].step))
    accuracy = late["accuracy"].to_numpy()
    accuracy = accuracy[np.isfinite(accuracy)]
    return (answer, times / golds.total(), float((accuracy >= RIGHT).mean())) if len(accuracy) else None


def copies(stage: StageFiles) -> Copies | None:
    """Near-duplicates of the last step: equal texts inside groups."""
    for shard in stage.shards[-1:]:
        try:
            rows = pq.read_table(shard.path, columns=["ticket", "member", "text"]).to_pylist()
        except (pa.ArrowException, OSError, KeyError):
            return None
        texts = Counter((row["ticket"], row["text"]) for row in rows if row["member"] >= 0 and row["text"] is not None)
        common = tuple(
            (ticket, as_shown(text, stage.run.traces), times)
            for (ticket, text), times in texts.most_common(3)
            if times > 1
        )
        return Copies(shard.step, texts.total() - len(texts), texts.total(), common)
    return None


def _clipping(steps: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, int]]:
    """Entropy and clipped share of steps; nothing where no clip ever acts."""
    found = []
    for line in steps:
        entropy = line.get("policy/entropy")
        clipped = [line.get(f"policy/clip_{name}") or 0.0 for name in ("low", "high", "dual")]
        if isinstance(entropy, int | float):
            found.append((float(entropy), float(sum(clipped)), int(line["step"])))
    return found if any(clipped for _, clipped, _ in found) else []
