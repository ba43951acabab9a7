"""What training would find: which share of groups would carry signal, and what to set, from samples of a model that has
not been trained yet. Pure functions of scored groups.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.evaluate.accuracy import Measure
from cohort.evaluate.behaviour import behaviour
from cohort.types import Group

FEW = 0.1  # share of groups with signal below which hardly anything is learnt
ENOUGH = 0.5  # from which a group is large enough
SMALLEST = 4  # groups that are recommended
REST = 0.3  # share of prompts all right or all wrong, from which letting them rest saves much
CUT = 0.05  # share of completions cut off, from which the limit is too low
ROOM = 1.25  # of the longest usual completion


@dataclass(frozen=True, slots=True)
class Probe:
    """One temperature: how right the prompts are, what groups of each size would show, what completions are like.

    `histogram` counts the prompts none of whose samples is right, those in each fifth between, and those all right.
    `constant` is the share of prompts all of whose samples score alike, and
    `signal[G]` the expected share of groups of G whose scores differ. `long` is the length that one completion in
    fifty that ended by itself exceeds.
    """

    temperature: float
    prompts: int
    samples: int
    pass_rate: Measure
    histogram: tuple[int, ...]
    constant: float
    signal: Mapping[int, Measure]
    by_level: Mapping[str, float]
    behaviour: Mapping[str, float]
    long: int


@dataclass(frozen=True, slots=True)
class Advice:
    """Keys of a recipe, and for each why; `warning` where training would learn hardly anything."""

    settings: Mapping[str, Any]
    because: Mapping[str, str]
    warning: str


def differing(scores: Sequence[float], size: int) -> float:
    """The share of all groups of `size` of these samples whose scores differ: 1 - sum_v C(c_v, G) / C(n, G) for
    scores v of c_v samples. For right and wrong its expectation is 1 - p^G - (1 - p)^G, whatever n is; that formula at
    the measured share finds too little with few samples. Raises `ValueError` unless 1 <= size <= n.
    """
    n = len(scores)
    if not 1 <= size <= n:
        raise ValueError(f"a group of {size} cannot be taken from {n} samples")
    return 1.0 - sum(math.comb(count, size) for count in Counter(scores).values()) / math.comb(n, size)


def probe(groups: Sequence[Group], temperature: float, samples: int) -> Probe:
    """What the groups say that one temperature gave."""
    scored = [group for group in groups if group.error is None and not any(map(math.isnan, group.accuracy))]
    rates = [group.pass_rate or 0.0 for group in scored]
    sizes = [1 << power for power in range(1, samples.bit_length()) if 1 << power <= samples]
    ended = sorted(r.mask.count(True) for group in scored for r in group.rollouts if r.finish == "stop") or [0]
    levels: dict[str, list[float]] = {}
    for group, rate in zip(scored, rates, strict=True):
        if "level" in group.prompt.tags:
            levels.setdefault(str(group.prompt.tags["level"]), []).append(rate)
    return Probe(
        temperature=temperature,
        prompts=len(scored),
        samples=samples,
        pass_rate=Measure.of(rates),
        histogram=_histogram(rates),
        constant=sum(not group.has_signal for group in scored) / len(scored),
        signal={size: Measure.of([differing(group.accuracy, size) for group in scored]) for size in sizes},
        by_level={name: math.fsum(of) / len(of) for name, of in sorted(levels.items())},
        behaviour=behaviour(scored),
        long=ended[min(len(ended) - 1, int(0.98 * len(ended)))],
    )


def _histogram(rates: Sequence[float]) -> tuple[int, ...]:
    """Prompts never right, in each fifth between, always right."""
    counts = [0] * 7
    for rate in rates:
        counts[0 if rate == 0 else 6 if rate == 1 else 1 + min(int(rate * 5), 4)] += 1
    return tuple(counts)


def advise(probes: Sequence[Probe], limit: int, finite: bool) -> Advice:
    """What to set: of several temperatures and sizes the one with signal enough, and why. `limit` is the longest
    completion that was allowed; `finite` says whether the source has an end, so that prompts come back.
    """
    settings: dict[str, Any] = {}
    because: dict[str, str] = {}

    def say(key: str, value: Any, why: str) -> None:
        settings[key], because[key] = value, why

    largest = max(probes[0].signal)
    top = max(one.signal[largest].mean for one in probes)
    alike = [one for one in probes if one.signal[largest].high >= top]  # no worse, as far as one can tell
    best = min(alike, key=lambda one: (abs(one.temperature - 1.0), one.temperature))
    shown = ", ".join(f"{one.temperature:g}: {one.signal[largest].mean:.0%}" for one in probes)
    say("rollout.temperature", best.temperature, f"groups of {largest} with signal by temperature: {shown}")
    enough = [size for size, one in best.signal.items() if size >= SMALLEST and one.mean >= ENOUGH]
    size = min(enough, default=largest)
    signal = best.signal[size]
    why = f"{signal.mean:.0%} [{signal.low:.0%}, {signal.high:.0%}] of groups would carry signal"
    say("rollout.group_size", size, why if enough else f"{why}, fewer in smaller ones")
    cut = best.behaviour["truncated"]
    if cut > CUT:
        say("rollout.max_tokens", 2 * limit, f"{cut:.0%} of completions were cut off at {limit}")
    else:
        room = 16 * max(1, math.ceil(ROOM * best.long / 16))
        say("rollout.max_tokens", min(limit, room), f"2% of those that end exceed {best.long} tokens")
    band = [name for name, rate in best.by_level.items() if 0.1 <= rate <= 0.9 and name.isdigit()]
    if not finite and band and len(band) < len(best.by_level):
        rates = ", ".join(f"{name}: {rate:.0%}" for name, rate in best.by_level.items())
        say("task.levels", [int(name) for name in band], f"pass rates by level: {rates}")
    if finite and best.constant > REST:
        say("task.adaptive", {}, f"{best.constant:.0%} of prompts score alike in all of {best.samples} samples")
    warning = ""
    if signal.mean < FEW:
        hard = best.pass_rate.mean < 0.5
        warning = f"{why}: " + (
            "too hard; begin with easier problems or a supervised stage" if hard else "too easy; take harder problems"
        )
    return Advice(settings, because, warning)
