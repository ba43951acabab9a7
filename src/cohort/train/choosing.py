"""Which step of a stage is kept (`run.keep_best`), and when it stops early (`run.stop`).

Both are functions of the lines of metrics.jsonl, so a run that was killed chooses as if it had never stopped.

Who looks ten times and takes the best has taken some luck with it. So the held-out problems are split by a hash of
each: one half chooses, and the accuracy that is told of the winner is that of the other half, which had no part in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from cohort.evaluate import Accuracy
from cohort.evaluate.choice import Choice
from cohort.monitor.names import HALVES, METRICS, SECTIONS, Metric, metric
from cohort.seeds import derive_seed
from cohort.settings import SAMPLED, Run, Stage
from cohort.train.stage import Prepared
from cohort.types import Group, UserError
from cohort.wording import did_you_mean

T = TypeVar("T")
Line = Mapping[str, Any]
TOTALS = ("tokens/sampled", "time/step_s")  # what a budget may be of
OF_PAIRS = {one.name for one in SECTIONS["Held-out pairs of a reward model"]}
# What dpo and a model of steps measure of them.
OF_PREFERENCES = OF_PAIRS & {f"eval/{name}" for name in ("accuracy", "accuracy_low", "accuracy_high", "loss")}
# By kind, what the numbers of its steps are about, and what those of held-out problems.
ABOUT: Mapping[str, tuple[Collection[str], Collection[str]]] = {
    **dict.fromkeys(SAMPLED, (("groups",), ("groups",))),
    "sft": ((), ("groups",)),
    "reward_model": (("pairs",), ("pairs",)),
    "process_model": (("steps",), ("pairs",)),
    "dpo": (("pairs",), ("pairs", "groups")),
}
ANY_KIND = ("time/", "memory/", "energy/", "tokens/")  # numbers that every stage has


def choose(lines: Sequence[Line], run: Run, first: int) -> Choice | None:
    """The step to keep of the lines after step `first`: the best, and of equals the earliest; None where nothing is to
    be chosen, or nothing has been measured.
    """
    if run.keep_best is None:
        return None
    name, up = _plain(run.keep_best), _sign(run.keep_best)
    looked = [(line, value) for line in lines if line["step"] > first and (value := _value(line, name)) is not None]
    if not looked:
        return None
    line, value = max(looked, key=lambda one: (up * one[1], -one[0]["step"]))
    half = f"eval/confirming/{name.rpartition('/')[2]}"
    ends = {"confirmed": line.get(half), "low": line.get(f"{half}_low"), "high": line.get(f"{half}_high")}
    before = next((one.get(half) for one in lines if one["step"] <= first), None)
    return Choice(line["step"], run.keep_best, value, len(looked), **ends, before=before)


def reason_to_stop(lines: Sequence[Line], run: Run) -> str:
    """Why the stage stops after the last of these lines; "" where it goes on."""
    stop = run.stop
    if stop is None:
        return ""
    up, name = _sign(stop.metric), _plain(stop.metric)
    seen = [value for line in lines if (value := _value(line, name, stop.metric == run.keep_best)) is not None]
    if not seen:
        return ""
    if stop.total is not None:
        used = math.fsum(seen)
        return f"{stop.metric} is {used:.6g} in all, and run.stop gives it {stop.total:.6g}" * (used >= stop.total)
    if stop.threshold is not None and up * seen[-1] >= up * stop.threshold:
        return f"{stop.metric} is {seen[-1]:.4g}, and run.stop asks for {stop.threshold:g}"
    since = len(seen) - 1 - max(range(len(seen)), key=lambda i: (up * seen[i], -i))
    if stop.patience is not None and since >= stop.patience:
        return f"{stop.metric} has not been better for {since} {'evaluations' if _held_out(name) else 'steps'}"
    return ""


def columns(run: Run) -> Callable[[str], bool]:
    """Which numbers of a line decide."""
    names = {_plain(name) for name in (run.keep_best, run.stop and run.stop.metric) if name}
    return lambda key: key == "step" or key in names or key.startswith(tuple(f"eval/{half}/" for half in HALVES))


def halves(result: Accuracy, run: Run, suite: str) -> dict[str, float]:
    """What each half of the problems says of the metric that chooses, where `result` measures it."""
    if run.keep_best is None or not _held_out(run.keep_best):
        return {}
    *of, name = run.keep_best.split("/")[1:]
    if of != ([suite] if suite else []) or not result.scored or name not in result.values():
        return {}

    def measure(groups: Sequence[Group]) -> dict[str, float]:
        part = Accuracy(result.name, result.samples, tuple(groups), result.cluster)
        if not part.scored:
            return {}
        one = part.measures()[name]
        return {f"eval/{name}": one.mean, f"eval/{name}_low": one.low, f"eval/{name}_high": one.high}

    return _of_halves(result.groups, [group.prompt.id for group in result.groups], name, measure)


def halves_of_pairs(
    rows: Sequence[T], asked: Sequence[str], run: Run, measure: Callable[[Sequence[T]], Mapping[str, float]]
) -> dict[str, float]:
    """The same of preference pairs: `rows` are what `measure` takes of each, `asked` the ids of their prompts."""
    name = (run.keep_best or "").removeprefix("eval/")
    return _of_halves(rows, asked, name, measure) if run.keep_best == f"eval/{name}" else {}


def _of_halves(
    rows: Sequence[T], asked: Sequence[str], name: str, measure: Callable[[Sequence[T]], Mapping[str, float]]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, half in enumerate(HALVES):
        part = [row for row, key in zip(rows, asked, strict=True) if derive_seed(0, "half", key) % 2 == number]
        if not part or not (measured := measure(part)):
            raise UserError(
                f"run.keep_best splits the held-out problems in two, and of {len(rows)} none is left for {half}: hold "
                "out more problems"
            )
        ends = ("", "_low", "_high") if number else ("",)
        found |= {f"eval/{half}/{name}{end}": measured[key] for end in ends if (key := f"eval/{name}{end}") in measured}
    return found


def check_choosing(stage: Stage, prepared: Prepared) -> None:
    """Raise `UserError` where the metric that chooses, or stops, is none that the stage will have."""
    run = stage.run
    if (keep := run.keep_best) is not None:
        if not _held_out(keep) and not keep.startswith("reward:"):
            raise UserError(
                f"run.keep_best = '{keep}' is no held-out metric: name one, such as eval/greedy or eval/pass@1; to "
                "keep the step of the highest training reward, which proves nothing, say reward:mean or reward:NAME"
            )
        _refuse_unknown("run.keep_best", keep, stage, prepared)
    if (stop := run.stop) is not None:
        if sum(one is not None for one in (stop.patience, stop.threshold, stop.total)) != 1:
            raise UserError("run.stop takes patience, threshold or total, one of the three")
        if stop.total is not None and stop.metric not in TOTALS:
            adds = ", ".join(TOTALS)
            raise UserError(f"run.stop.total adds up {adds}, not '{stop.metric}'{did_you_mean(stop.metric, TOTALS)}")
        if stop.total is None:
            _refuse_unknown("run.stop.metric", stop.metric, stage, prepared)
            known = _measure(stop.metric)
            if stop.threshold is not None and known and known.unit == "share" and not 0 <= stop.threshold <= 1:
                raise UserError(f"run.stop.threshold = {stop.threshold:g}, and {stop.metric} is a share, from 0 to 1")


def _refuse_unknown(key: str, name: str, stage: Stage, prepared: Prepared) -> None:
    plain, parts, pairs = _plain(name), prepared.parts, getattr(prepared, "pairs", None)
    known = metric(plain)
    if known is None:
        raise UserError(f"{key} = '{name}' is no metric{did_you_mean(name, METRICS)}")
    if not _sign(name):
        raise UserError(f"{key} = '{name}': of this metric neither more nor less is better")
    measures = "pairs" if plain in OF_PAIRS or plain.startswith(("pairs/", "scores/")) else "groups"
    measures = "steps" if plain.startswith("steps/") else measures
    has = ABOUT.get(stage.kind, (("groups", "pairs"),) * 2)[_held_out(name)]
    some = (_held_out(name) or "/" in plain) and not plain.startswith(ANY_KIND)
    if (some and measures not in has) or (
        stage.kind in ("dpo", "process_model") and plain in OF_PAIRS - OF_PREFERENCES
    ):
        raise UserError(f"{key} = '{name}' is nothing that a stage of kind {stage.kind} measures")
    if plain.startswith("reward/") and plain != "reward/mean":
        rewards = [reward.name for reward in stage.reward]
        if (reward := plain.split("/")[1]) not in (*rewards, "std"):
            raise UserError(f"{key} = '{name}': no reward is called '{reward}'; there is {', '.join(rewards)}")
    if not _held_out(name):
        return
    if not stage.run.evaluate_every:
        raise UserError(f"{key} = '{name}' is measured when the stage is over: set run.evaluate_every")
    *of, last = name.split("/")[1:]
    names = [suite.name for suite in stage.suite]
    if of and of[0] not in names:
        raise UserError(f"{key} = '{name}': no suite is called '{of[0]}'; there is {', '.join(names) or 'none'}")
    e = stage.evaluate
    if measures == "pairs" and stage.kind in ABOUT:
        if pairs is None or pairs.held_out is None or not e.problems:
            why = (
                ""
                if parts is None
                else ", which names problems beside a reward: remove the reward, or name eval/greedy"
            )
            raise UserError(f"{key} = '{name}', and no pairs are held out: set task.held_out{why}")
        return
    last = last.removesuffix("_low").removesuffix("_high")
    votes, least = re.fullmatch(r"(pass|maj)@(\d+)", last), 4 if last.startswith("maj") else 1
    if last == "greedy" and not e.greedy:
        raise UserError(f"{key} = '{name}' needs evaluate.greedy = true")
    if votes and (not least <= int(votes[2]) <= e.samples or int(votes[2]).bit_count() != 1):
        begins = " from 4" * (least > 1)
        raise UserError(f"{key} = '{name}' needs a power of two{begins} up to evaluate.samples, which is {e.samples}")
    if not votes and last != "greedy" and not (e.samples and f"eval/{last}" in METRICS):
        raise UserError(f"{key} = '{name}' is nothing that the stage measures: name eval/greedy, eval/pass@1 ...")
    if not of and parts is None and stage.kind in ABOUT:
        raise UserError(f"{key} = '{name}' needs evaluate.reward, which says what is right, and task.held_out")
    if not of and (parts is None or parts.task.held_out is None or not e.problems):
        raise UserError(f"{key} = '{name}', and nothing is held out: set task.held_out")


def _held_out(name: str) -> bool:
    return name.startswith("eval/")


def _plain(name: str) -> str:
    """The name in metrics.jsonl: that of `reward:mean` is reward/mean, that of `reward:NAME` reward/NAME/mean."""
    kind, colon, reward = name.partition(":")
    if not colon or kind != "reward":
        return name
    return "reward/mean" if reward == "mean" else f"reward/{reward}/mean"


def _measure(name: str) -> Metric | None:
    """What a metric is; of a suite's, what its last part is."""
    name = _plain(name)
    return metric(f"eval/{name.rpartition('/')[2]}") if _held_out(name) else metric(name)


def _sign(name: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is."""
    known = _measure(name)
    return {"up": 1, "down": -1}.get(known.better if known else "", 0)


def _value(line: Line, name: str, chooses: bool = True) -> float | None:
    """What a line says of a metric: where halves were measured, the half that chooses."""
    half = line.get(f"eval/choosing/{name.rpartition('/')[2]}") if chooses and _held_out(name) else None
    value = line.get(name) if half is None else half
    return value if isinstance(value, int | float) and not math.isnan(value) else None
