"""A run on more GPUs than there are, simulated: step by step, with times that a real run had.

What is known of a run is how long its steps sampled, scored and learnt, and how long completions were. Of these come
four times: of one decoding iteration, of each row in it, of each token that is learnt from, and what a step costs
whatever it has. A step on S samplers and L learners is then played through: groups are dealt out in turn, rows take the
place that is free first, and a step ends with its last completion, its scores, its update, its weights at the samplers.
Samplers may be `staleness` steps ahead. What is not in it: nodes that differ, and networks that others use as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_rows
from cohort.seeds import derive_seed, generator
from cohort.settings import Stage
from cohort.types import UserError
from cohort.wording import counted

LEAST = 4  # steps of a run that times are taken from; its first one warms up
HELD_UP = 3.0  # medians of a step, beyond which something else held it up: a machine that slept, another's work


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `lengths` are those of completions, as they came."""

    iteration_s: float  # of decoding, whatever rows it has
    row_s: float  # and each of its rows
    token_s: float  # of learning, by one learner
    step_s: float  # a step beside: scoring that is not hidden, and the update
    lengths: tuple[int, ...]
    trained: float  # the share of their tokens that is learnt from: groups without signal are not
    measured_s: float  # a step of the run, in the mean


@dataclass(frozen=True, slots=True)
class Work:
    """A step, and the machines that it meets. `rows` are decoded at once by a sampler."""

    prompts: int
    group_size: int
    rows: int
    staleness: int = 0
    weights_gb: float = 0.0  # that go to every sampler after an update
    gb_per_s: float = 10.0
    gradient_gb: float = 0.0  # that learners of several ranks sum and gather, twice each
    hours_between_failures: float = float("inf")  # of one GPU
    restart_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it, in the mean over steps."""

    gpus: int
    learners: int
    samplers: int
    step_s: float
    sampling: float  # the share of the time that samplers work
    learning: float
    gb_per_step: float  # over the network


def drained(lengths: Sequence[int], rows: int) -> int:
    """Decoding iterations until the last of these completions is whole, where `rows` run at once and a free place is
    taken by the next at once.
    """
    ends: list[int] = []
    for length in lengths:
        heapq.heappush(ends, length + (heapq.heappop(ends) if len(ends) >= rows else 0))
    return max(ends, default=0)


def times_of(run: Path, rows: int) -> Times:
    """The times of a run, by least squares over its steps. Raises `UserError` for one that is too short to say."""
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["step"] > 0 and "time/sample_s" in line][1:]
    kept = [(line, run / "log" / f"step-{line['step']:06d}.parquet") for line in lines]
    kept = [(line, file) for line, file in kept if file.is_file()]
    middle = float(np.median([line["time/step_s"] for line, _ in kept])) if kept else 0.0
    kept = [(line, file) for line, file in kept if line["time/step_s"] <= HELD_UP * middle]
    if len(kept) < LEAST:
        raise UserError(
            f"{run} has {counted(len(kept), 'step')} with times and rollouts, and a plan needs {LEAST} beside the "
            "first one"
        )
    lengths = [[len(row["tokens"]) for row in read_rows(file)] for _, file in kept]
    decoding = np.array([[drained(own, rows), sum(own)] for own in lengths], float)
    learning = np.array([[1.0, line.get("tokens/trained") or 0.0] for line, _ in kept])
    sampled, learnt, whole, scored = (
        np.array([line[name] for line, _ in kept])
        for name in ("time/sample_s", "time/learn_s", "time/step_s", "time/score_s")
    )
    iteration, row = _fitted(decoding, sampled)
    fixed, token = _fitted(learning, learnt)
    every = tuple(length for own in lengths for length in own)
    beside = float(np.mean(whole - sampled - learnt - scored))
    fixed += float(scored.mean()) + max(beside, 0.0)
    return Times(iteration, row, token, fixed, every, float(learning[:, 1].sum()) / sum(every), float(whole.mean()))


def overlapped(stage: Stage) -> bool:
    """Whether the steps of a stage sampled while they learnt: its times are then no times of a run in turn."""
    return stage.rollout.max_staleness > 0 and (stage.clustered or stage.rollout.sampler == "vllm")


def _fitted(columns: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Two costs, neither below 0, of which `columns` `[n, 2]` say how often each was paid for `seconds` `[n]`."""
    both = np.linalg.lstsq(columns, seconds, rcond=None)[0]
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    alone = [float(column @ seconds / max(column @ column, 1e-30)) for column in columns.T]
    apart = [np.square(column * cost - seconds).sum() for column, cost in zip(columns.T, alone, strict=True)]
    return (alone[0], 0.0) if apart[0] < apart[1] else (0.0, alone[1])


def play(times: Times, work: Work, learners: int, samplers: int, steps: int = 60, seed: int = 0) -> Played:
    """Steps on so many learners and samplers, one GPU each."""
    random = generator(derive_seed(seed, "plan", learners, samplers))
    lengths = np.array(times.lengths)
    send = work.weights_gb / work.gb_per_s
    summed = 4 * work.gradient_gb * (learners - 1) / learners / work.gb_per_s  # gathered twice, summed once and a bit
    published = [0.0] * (work.staleness + 1)  # when samplers had the weights of the steps before
    sampled = learnt = 0.0
    busy = [0.0, 0.0]

    def with_failures(seconds: float, gpus: int) -> float:
        """The time with what failures add: a restart, and in the mean half of the work once more."""
        failures = random.poisson(seconds * gpus / (work.hours_between_failures * 3600))
        return seconds + failures * (work.restart_s + seconds / 2)

    for _ in range(steps):
        drawn = random.choice(lengths, (work.prompts, work.group_size))
        each = [
            times.iteration_s * drained(own.ravel().tolist(), work.rows) + times.row_s * float(own.sum())
            for own in (drawn[number::samplers] for number in range(samplers))
        ]
        begin = max(sampled, published[0])
        sampled = begin + with_failures(max(each), samplers)
        learn = times.step_s + times.token_s * times.trained * float(drawn.sum()) / learners + summed
        learnt = max(sampled, learnt) + with_failures(learn, learners)
        published = [*published[1:], learnt + send]
        busy[0] += sum(each) / samplers
        busy[1] += learn
    traffic = work.weights_gb * samplers + 4 * work.gradient_gb * (learners - 1)
    return Played(learners + samplers, learners, samplers, learnt / steps, busy[0] / learnt, busy[1] / learnt, traffic)


def best(times: Times, work: Work, gpus: int, least: int = 1) -> Played:
    """The quickest way to share so many GPUs between learners, no fewer than `least`, and samplers; with one GPU
    both take turns. Raises `ValueError` where they are too few.
    """
    if gpus == 1 and least == 1:
        return replace(play(times, replace(work, staleness=0), 1, 1), gpus=1)
    if gpus <= least:
        raise ValueError(f"{gpus} GPUs are too few for {least} learners and a sampler")
    shares = [round(gpus * share / 16) for share in range(1, 16)] + [least << double for double in range(5)]
    tried = sorted({max(least, min(gpus - 1, learners)) for learners in shares})
    return min((play(times, work, learners, gpus - learners) for learners in tried), key=lambda one: one.step_s)


def knee(found: Sequence[Played], gain: float = 1.5) -> Played:
    """The last of plans with more and more GPUs that is still worth them: twice the GPUs, at least `gain` the speed."""
    kept = found[0]
    for one in found[1:]:
        doublings = np.log2(one.gpus / kept.gpus)
        if kept.step_s / one.step_s >= gain**doublings:
            kept = one
    return kept
