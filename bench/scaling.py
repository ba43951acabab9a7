"""How a step grows: its time and peak memory against group size, sampled length, prompt length and parameters.

    .venv/bin/python bench/scaling.py [--quick] [--plot bench/scaling.png] [--threads 2]

One thing varies at a time, around 4 prompts of 64 tokens, 8 completions of 128 tokens and 0.8M parameters. No
completion ends early, so the work of a point is exact; each point is a process of its own, so its peak is its own. The
last series samples a single token from prompts of 1,024: all that is left of such a step is the cost of its prompts,
which should not grow with the group size.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cases import Case, make
from turns import arguments, pin, publish, table, take_turns, turn

HERE = Path(__file__).parent
BASE = Case("base", 128, 4, 384, 64, prompt_tokens=64, max_tokens=128, prompts=4, group_size=8, ends=False, steps=4)
GROUPS = (2, 4, 8, 16, 32, 64)
LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
WIDTHS = (64, 128, 256, 512, 768)


@dataclass(frozen=True, slots=True)
class Series:
    """Points along one axis. `grows` says whether its cost should."""

    title: str
    points: Mapping[int, Case]  # by the value on the axis
    grows: bool = True

    def fewer(self) -> Series:
        """The first, the middle and the last point but one, with fewer steps."""
        values = list(self.points)[:-1]
        kept = (values[0], values[len(values) // 2], values[-1])
        return replace(self, points={value: replace(self.points[value], steps=3) for value in kept})


def wide(hidden: int) -> Case:
    """The base with another width."""
    return replace(BASE, hidden=hidden, intermediate=3 * hidden)


def parameters(case: Case) -> int:
    """Weights of the case's model, norms left out."""
    layer = 3 * case.hidden * case.hidden + 3 * case.hidden * case.intermediate
    return case.layers * layer + 2 * case.hidden * case.vocabulary


SERIES = (
    Series("group size", {n: replace(BASE, group_size=n) for n in GROUPS}),
    Series("sampled tokens", {n: replace(BASE, max_tokens=n) for n in LENGTHS}),
    Series("prompt tokens", {n: replace(BASE, prompt_tokens=n) for n in LENGTHS}),
    Series("parameters", {parameters(wide(n)): wide(n) for n in WIDTHS}),
    Series(
        "group size, prompts alone",
        {n: replace(BASE, group_size=n, prompt_tokens=1024, max_tokens=1) for n in GROUPS},
        grows=False,
    ),
)


def run(case: Case, threads: int) -> dict[str, Any]:
    """One point in one process; its first step warms up. Memory is what the run took beyond the imported libraries."""
    with tempfile.TemporaryDirectory() as where:
        make(case, Path(where))
        measured = turn(sys.executable, "run_cohort.py", case.json(), where, case.steps, threads, warm_up=1)
    if any(tokens != case.rows * case.max_tokens for tokens in measured["tokens"]):
        sys.exit(f"a completion ended early in {case}: the work of this point is not what it should be")
    return {**measured, "memory_gb": measured["peak_gb"] - measured["base_gb"]}


def measure(series: Series, rounds: int, threads: int) -> dict[int, dict[str, float]]:
    """Value on the axis -> median step, sampling and learning in seconds, and the highest memory in GB."""
    results = take_turns({value: partial(run, case, threads) for value, case in series.points.items()}, rounds)
    return {value: summary(turns) for value, turns in results.items()}


def summary(turns: list[dict[str, Any]]) -> dict[str, float]:
    """The numbers of one point."""
    times = {key: statistics.median(x for t in turns for x in t[key]) for key in ("step_s", "sample_s", "learn_s")}
    return {**times, "memory_gb": max(t["memory_gb"] for t in turns)}


def slope(measured: Mapping[int, Mapping[str, float]], key: str) -> float:
    """The exponent between the last two points: 1 is linear, 0 is flat."""
    (x0, a), (x1, b) = list(measured.items())[-2:]
    return math.log(b[key] / a[key]) / math.log(x1 / x0)


def rows(title: str, measured: Mapping[int, Mapping[str, float]]) -> Iterator[list[str]]:
    """A series' lines of the table; the last has the exponents."""
    for value, point in measured.items():
        times = (f"{point[key]:.3f} s" for key in ("step_s", "sample_s", "learn_s"))
        yield [title, f"{value:,}", *times, f"{point['memory_gb']:.3f} GB"]
    exponents = (f"{slope(measured, key):.2f}" for key in ("step_s", "sample_s", "learn_s", "memory_gb"))
    yield ["", "exponent at the end", *exponents]


def draw(data: Mapping[str, Mapping[int, Mapping[str, float]]], file: Path) -> None:
    """Step time above, memory below, a column for each series; dashed is what linear (or flat) growth would be."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(data), figsize=(4 * len(data), 7), squeeze=False, layout="constrained")
    for column, series in enumerate(SERIES):
        points = data[series.title]
        draw_one(axes[0][column], series, {x: point["step_s"] for x, point in points.items()}, "step, seconds")
        draw_one(axes[1][column], series, {x: point["memory_gb"] for x, point in points.items()}, "memory, GB")
    figure.savefig(file, dpi=110)


def draw_one(axis: Any, series: Series, points: Mapping[int, float], label: str) -> None:
    """One panel, both axes logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    xs, ys = list(points), list(points.values())
    axis.plot(xs, ys, "o-", label="measured")
    guide = [ys[-1] * (x / xs[-1]) ** int(series.grows) for x in xs]
    axis.plot(xs, guide, "--", color="gray", label="linear" if series.grows else "flat")
    axis.set(xscale="log", yscale="log", xlabel=series.title, ylabel=label, ylim=(min(ys) / 3, max(ys) * 3))
    axis.set_xticks(xs, [f"{x / 1e6:.2g}M" if x > 10**5 else f"{x:g}" for x in xs], minor=False)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--quick", action="store_true", help="three points of each series, and fewer steps")
    parser.add_argument("--plot", type=Path, default=HERE / "scaling.png", metavar="FILE", help="where the plot goes")
    given = parser.parse_args()
    pin(given.threads)
    data = {}
    for whole in SERIES:
        series = whole.fewer() if given.quick else whole
        data[series.title] = measure(series, given.rounds, given.threads)
        print(f"measured: {series.title}", file=sys.stderr, flush=True)
    lines = [line for title, measured in data.items() for line in rows(title, measured)]
    draw(data, given.plot)
    heads = ("what varies", "value", "step", "sampling", "learning", "memory beyond the libraries")
    publish(given, "How a step grows", table(heads, lines), data)


if __name__ == "__main__":
    main()
