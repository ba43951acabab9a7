"""Five claims about GRPO, each a comparison on the small policy with a verdict and a figure.

    cohort train recipes/claims_base.toml          # the common start, once: about a minute on two quiet cores
    python tools/claims.py [NAME ...] [--seeds 3] [--jobs 1] [--page] [key=value ...]

Without a name all of them. A claim is `cohort compare recipes/claims.toml` with something varied; its runs,
compare.json, compare.png and verdict.json lie in runs/claim_NAME-compare. Stopped, the same command goes on. With
--page the verdicts of docs/claims.md are written anew, and their figures beside it.

A contrast is a weighted sum of what arms reach on the same held-out problems, with a 95% interval over problems. It
`holds` where the interval is above 0 and every seed agrees in sign, is `refuted` where it is below 0 and every seed
agrees; else it is `open`. One that says "no worse" holds where a loss of more than the margin is outside.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cohort.algorithms import objectives
from cohort.commands.compare import Compared, run_comparison, show
from cohort.evaluate.accuracy import Accuracy
from cohort.evaluate.compare import paired
from cohort.evaluate.intervals import mean_interval
from cohort.recipe import Recipe
from cohort.record.metrics import read_metrics
from cohort.record.rollouts import read_groups
from cohort.train.compare.arms import Asked
from cohort.types import UserError
from cohort.views.console import Console

RECIPE = Path(__file__).parent.parent / "recipes/claims.toml"
PAGE = Path(__file__).parent.parent / "docs/claims.md"
VERDICTS, AFTER_VERDICTS = "## Verdicts\n", "## Others, in a line each\n"
MARGIN = 0.03
BEFORE = "before"
SECONDS_A_COMPLETION, SECONDS_A_RUN = 0.002, 20.0  # on two quiet cores, of the quickstart's policy
LAST = 10  # steps over which a metric of training is averaged
T_OF = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, two-sided 95%, by the number of seeds


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum of arms' held-out accuracies, weights within [-1, 1] in all; `no_worse`: it may be as low as minus
    the margin. With `metric` it is of the mean of a metric over the last steps, one value a seed.
    """

    says: str
    weights: Mapping[str, float]
    no_worse: bool = False
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is varied, and the contrasts that decide; `more` measures what no contrast of arms can."""

    says: str
    vary: str
    overrides: Sequence[str]
    contrasts: Sequence[Contrast]
    completions: Sequence[int]  # of one step, by arm
    more: Callable[[Compared], dict[str, Any]] | None = None

    def minutes(self, seeds: int) -> float:
        """About how long it takes on two quiet cores."""
        a_seed = sum(60 * number * SECONDS_A_COMPLETION + SECONDS_A_RUN for number in self.completions)
        return seeds * a_seed / 60


def difficulty(found: Compared) -> dict[str, Any]:
    """How much of the advantages' weight goes to prompts that are nearly always right or nearly always wrong, with and
    without division by the std: on the same groups, those of the arm without it.
    """
    shares: dict[str, list[float]] = {"group_std": [], "none": []}
    plain = next(one for one in found.arms if one.arm == "objective.scale=none")
    for file in (file for run in plain.runs for file in sorted((run / "log").glob("step-*.parquet"))):
        rewards = torch.tensor([group.rewards for group in read_groups(file) if group.error is None])
        rates = rewards.mean(1)
        extreme = ((rates <= 0.2) | (rates >= 0.8)) & (rates > 0) & (rates < 1)
        for scale, kept in shares.items():
            weight = objectives.preset("dr_grpo", scale=scale).advantages(rewards.double()).abs().sum(1)
            if weight.sum():
                kept.append(float(weight[extreme].sum() / weight.sum()))
    differences = [a - b for a, b in zip(shares["group_std"], shares["none"], strict=True)]
    low, high = mean_interval(differences, None, -1.0, 1.0)
    return {
        "says": "division by the std gives the easiest and hardest prompts more of the advantages' weight",
        "share_with_std": statistics.fmean(shares["group_std"]),
        "share_without": statistics.fmean(shares["none"]),
        "mean": statistics.fmean(differences),
        "low": low,
        "high": high,
        "verdict": _verdict(low, high, [statistics.fmean(differences)]),
    }


def _size(group: int, prompts: int) -> str:
    return f"rollout.group_size={group}, rollout.prompts_per_step={prompts}"


def _noise(share: float) -> str:
    return f"reward.noisy_number.args.noise={share}"


CLAIMS: Mapping[str, Claim] = {
    "group_size": Claim(
        "Larger groups help, with diminishing returns; with as many completions, groups of two do as well",
        "rollout.group_size&rollout.prompts_per_step=8&16,2&16,32&16,2&64",
        (),
        (
            Contrast("groups of 8 end above groups of 2, with as many prompts", {_size(8, 16): 1, _size(2, 16): -1}),
            Contrast(
                "returns diminish: 8 lies above the middle of 2 and 32",
                {_size(8, 16): 1, _size(2, 16): -0.5, _size(32, 16): -0.5},
            ),
            Contrast("64 groups of 2 are no worse than 16 of 8", {_size(2, 64): 1, _size(8, 16): -1}, no_worse=True),
        ),
        (128, 32, 512, 128),
    ),
    "std": Claim(
        "Division by the group's std favours the easiest and hardest prompts, and is not needed",
        "objective.scale=none,group_std",
        ("objective.aggregation=constant_length",),
        (
            Contrast(
                "without the std it is no worse",
                {"objective.scale=none": 1, "objective.scale=group_std": -1},
                no_worse=True,
            ),
        ),
        (128, 128),
        difficulty,
    ),
    "length": Claim(
        "The mean over each completion's tokens lets wrong answers grow",
        "objective.aggregation=sequence_mean,token_mean,constant_length",
        (),
        (
            Contrast(
                "wrong completions end longer with sequence_mean than with constant_length",
                {"objective.aggregation=sequence_mean": 1, "objective.aggregation=constant_length": -1},
                metric="completions/wrong_tokens",
            ),
            Contrast(
                "constant_length is no worse than sequence_mean",
                {"objective.aggregation=constant_length": 1, "objective.aggregation=sequence_mean": -1},
                no_worse=True,
            ),
        ),
        (128, 128, 128),
    ),
    "kl": Claim(
        "Without the KL to a reference nothing is lost",
        "objective.kl_coef=0.0,0.04",
        (),
        (
            Contrast(
                "no KL is no worse than DeepSeekMath's 0.04",
                {"objective.kl_coef=0.0": 1, "objective.kl_coef=0.04": -1},
                no_worse=True,
            ),
        ),
        (128, 160),
    ),
    "noise": Claim(
        "GRPO stands a verifier that is wrong in one case of five",
        "reward.noisy_number.args.noise=0.0,0.1,0.2,0.3,0.4",
        ("reward=noisy_number", "run.gate=off"),
        (
            Contrast(
                "20% of wrong labels leave half of the gain",
                {_noise(0.2): 1, _noise(0.0): -0.5, BEFORE: -0.5},
            ),
            Contrast("40% of wrong labels leave some gain", {_noise(0.4): 1, BEFORE: -1}),
        ),
        (128,) * 5,
    ),
}


def decide(claim: Claim, found: Compared) -> list[dict[str, Any]]:
    """Every contrast of a claim with its value, its interval, what each seed says, and the verdict."""
    decided = []
    for one in claim.contrasts:
        if one.metric:
            by_seed = _of_metric(one, found)
            mean = statistics.fmean(by_seed)
            spread = statistics.stdev(by_seed) / len(by_seed) ** 0.5 if len(by_seed) > 1 else float("inf")
            half = T_OF.get(len(by_seed), 2.0) * spread
            low, high = mean - half, mean + half
        else:
            mean, low, high, by_seed = _of_accuracy(one, found)
        verdict = _verdict(low + MARGIN, high, []) if one.no_worse else _verdict(low, high, by_seed)
        entry = {"says": one.says, "mean": mean, "low": low, "high": high, "by_seed": by_seed, "verdict": verdict}
        decided.append(entry | ({"metric": one.metric} if one.metric else {"margin": MARGIN if one.no_worse else 0.0}))
    return decided


def _verdict(low: float, high: float, by_seed: Sequence[float]) -> str:
    if low > 0 and all(value > 0 for value in by_seed):
        return "holds"
    return "refuted" if high < 0 and all(value < 0 for value in by_seed) else "open"


def _of_metric(one: Contrast, found: Compared) -> list[float]:
    def ends(label: str) -> list[float]:
        arm = next(arm for arm in found.arms if arm.arm == label)
        lines = [read_metrics(run / "metrics.jsonl")[-LAST:] for run in arm.runs]
        known = [[line[one.metric] for line in of if line.get(one.metric) is not None] for of in lines]
        if not all(known):
            raise UserError(f"{one.metric} was not measured in the last {LAST} steps of {label}")
        return [statistics.fmean(values) for values in known]

    of_arms = {label: ends(label) for label in one.weights}
    seeds = range(len(found.seeds))
    return [sum(weight * of_arms[label][seed] for label, weight in one.weights.items()) for seed in seeds]


def _of_accuracy(one: Contrast, found: Compared) -> tuple[float, float, float, list[float]]:
    terms = {label: _per_problem(label, found) for label in one.weights}
    shared = set.intersection(*(set(values) for values in terms.values()))
    total = {key: sum(one.weights[label] * terms[label][key] for label in terms) for key in sorted(shared)}
    clusters = {key: key.partition("/")[2] for key in total}
    compared = paired(total, dict.fromkeys(total, 0.0), clusters=clusters if len(found.seeds) > 1 else None)
    by_seed = [
        statistics.fmean(value for key, value in total.items() if key.startswith(f"{number}/"))
        for number in range(len(found.seeds))
    ]
    return compared.mean, compared.low, compared.high, by_seed


def _per_problem(label: str, found: Compared) -> dict[str, float]:
    """The share of right answers of every problem after training, by `seed's number/problem`; of `before`, before."""
    arm = found.arms[0] if label == BEFORE else next(arm for arm in found.arms if arm.arm == label)
    values: dict[str, float] = {}
    for number, run in enumerate(arm.runs):
        files = sorted((run / "log").glob(f"eval-*-{found.measured}.parquet"))
        groups = tuple(read_groups(files[0 if label == BEFORE else -1]))
        for problem, value in Accuracy(found.measured, 1, groups).per_problem.items():
            values[f"{number}/{problem}"] = value
    return values


def run_claim(name: str, overrides: Sequence[str], seeds: int, jobs: int) -> dict[str, Any]:
    """Train what is not trained yet, and decide."""
    claim, console = CLAIMS[name], Console()
    typed = [f"name=claim_{name}", *claim.overrides, *overrides]

    def read(more: Sequence[str]) -> Recipe:
        return Recipe.load(RECIPE, [*typed, *more])

    start = read(()).stages[0].policy.model
    if start is not None and start.startswith("runs/") and not Path(start).exists():
        raise UserError(f"{start} is missing: train it first, with cohort train recipes/claims_base.toml")
    found = run_comparison(read, Asked(vary=[claim.vary], seeds=seeds, typed=typed), jobs)
    show(console, found)
    more = [claim.more(found)] if claim.more else []
    verdict = {
        "claim": claim.says,
        "directory": str(found.directory),
        "contrasts": [*decide(claim, found), *more],
        "arms": [asdict(a) for a in found.arms],
    }
    (found.directory / "verdict.json").write_text(json.dumps(verdict, indent=2, default=str), encoding="utf-8")
    console.say(f"\n  [bold]{claim.says}[/]")
    for one in verdict["contrasts"]:
        console.say(f"  {one['verdict']:8} {one['says']}: {one['mean']:+.3f} \\[{one['low']:+.3f}, {one['high']:+.3f}]")
    return verdict


def write_page(verdicts: Mapping[str, Mapping[str, Any]], file: Path = PAGE) -> None:
    """Put the verdicts in the place of those on the page, and the figures where it shows them."""
    page = file.read_text("utf-8")
    begin, end = page.index(VERDICTS) + len(VERDICTS), page.index(AFTER_VERDICTS)
    written = "".join(_section(name, verdict, file) for name, verdict in verdicts.items())
    file.write_text(f"{page[:begin]}\n{written}{page[end:]}", encoding="utf-8")


def _section(name: str, verdict: Mapping[str, Any], file: Path) -> str:
    arms = verdict["arms"]
    seeds = len(arms[0]["by_seed"])
    lines = [
        f"### {name}",
        "",
        f"{verdict['claim']}. All arms begin at {arms[0]['before']['mean']:.1%}.",
        "",
        "| arm | ends at | change by seed, points |",
        "|---|---|---|",
    ]
    for arm in arms:
        after, each = arm["after"], ", ".join(f"{100 * change:+.1f}" for change in arm["by_seed"].values())
        lines.append(f"| `{arm['arm']}` | {after['mean']:.1%} [{after['low']:.1%}, {after['high']:.1%}] | {each} |")
    lines += ["", "| verdict | contrast | value, 95% interval |", "|---|---|---|"]
    for one in verdict["contrasts"]:
        scale, unit = (1, " tokens") if one.get("metric") else (100, " points")
        mean, low, high = (scale * one[key] for key in ("mean", "low", "high"))
        lines.append(f"| **{one['verdict']}** | {one['says']} | {mean:+.1f} [{low:+.1f}, {high:+.1f}]{unit} |")
    picture = file.parent / "figures" / f"claim_{name}.png"
    shutil.copyfile(Path(verdict["directory"]) / "compare.png", picture)
    command = f"python tools/claims.py {name}" + (f" --seeds {seeds}" if seeds != 3 else "")
    return "\n".join([*lines, "", f"![{verdict['claim']}](figures/{picture.name})", "", f"`{command}`", "", ""])


def main(argv: Sequence[str] | None = None) -> None:
    times = "\n".join(
        f"  {name:11} {claim.says}\n{'':14}about {claim.minutes(3):.0f} minutes with three seeds"
        for name, claim in CLAIMS.items()
    )
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{times}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="NAME or key=value", help="claims, and overrides of the recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--page", action="store_true", help="write the verdicts of docs/claims.md")
    given = parser.parse_args(argv)
    names = [word for word in given.words if "=" not in word] or list(CLAIMS)
    if strange := [name for name in names if name not in CLAIMS]:
        parser.error(f"there is no claim {strange[0]!r}; there are {', '.join(CLAIMS)}")
    if given.seeds < 1:
        parser.error("--seeds must be 1 or more")
    if given.page and names != list(CLAIMS):
        parser.error("--page writes all claims: name none")
    typed = [word for word in given.words if "=" in word]
    verdicts = {name: run_claim(name, typed, given.seeds, given.jobs) for name in names}
    if given.page:
        write_page(verdicts)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
