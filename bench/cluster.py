"""What a cluster costs and brings: its path against one process, two samplers against one, the simulation against both.

    .venv-cluster/bin/python bench/cluster.py [--rounds 3] [--json FILE] [--markdown FILE]

All sides train the same model on the same prompts with one thread each, and take turns. The one process has one core;
of a cluster the learner has one, as has each sampler, and these wait for each other. Ray's own processes are on either.
The last three sides learn with the sampler's log-probs (objective.bypass), which rollout.in_flight asks for.
Times of the cluster with one sampler are played again by `cohort plan`'s simulation, on one and on two samplers. Bytes
are those of the objects that go into Ray's store, against the size of the weights that are saved.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from cases import REWARDS, Case, make
from turns import arguments, publish, table, take_turns, turn

CASE = Case("cluster", 128, 4, 384, 64, prompt_tokens=64, max_tokens=128, prompts=8, group_size=8, ends=False, steps=8)
SIDES = {  # samplers (0: one process), LoRA, cores, steps that samplers are ahead, weights that come into a draw
    "one process": (0, False, 1, 0, None),
    "1 sampler": (1, False, 2, 0, None),
    "2 samplers": (2, False, 2, 0, None),
    "1 sampler, adapter": (1, True, 2, 0, None),
    "1 sampler, a step ahead": (1, False, 2, 1, None),
    **{f"1 sampler, a step ahead, {how}": (1, False, 2, 1, how) for how in ("off", "keep", "recompute")},
}


def one(
    case: Case, directory: Path, samplers: int, lora: bool, cores: int, ahead: int, flight: str | None
) -> dict[str, Any]:
    """Train in this process, with a cluster of its own. Its times, and the bytes of weights that were sent a step."""
    from run_cohort import StepClock

    import cohort
    from cohort.backends.cluster.samplers import Samplers
    from cohort.backends.cluster.simulate import Work, play, times_of
    from cohort.train import train

    os.sched_setaffinity(0, set(range(cores)))
    sent: list[int] = []
    take = Samplers.take

    def counted(self: Samplers, claim: Any, weights: Any) -> None:
        take(self, claim, weights)
        found = self._door.ray.experimental.get_object_locations([weights])
        sent.append(found[weights]["object_size"] * samplers)
        if cores > 1:  # where there is one sampler, the learner has the other core, else that of the first sampler
            actors = [p for p in psutil.Process().children(recursive=True) if "Actor" in "".join(p.cmdline()[:1])]
            order = sorted(actors, key=lambda p: ("Sampler" not in p.cmdline()[0], p.pid))
            for number, process in enumerate(order):
                process.cpu_affinity([number if number < cores else 0])

    Samplers.take = counted  # type: ignore[method-assign]
    runs = directory / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    recipe = cohort.Recipe(
        name="bench",
        policy={"model": str(directory / "model"), **({"lora": {"rank": 4}} if lora else {})},
        task={"source": str(directory / "prompts.jsonl"), "template": "none"},
        rollout={
            "prompts_per_step": case.prompts,
            "group_size": case.group_size,
            "max_tokens": case.max_tokens,
            "max_staleness": ahead,
            "in_flight": flight or "off",
        },
        reward=[REWARDS[case.reward]],
        objective={"bypass": flight is not None},
        optimizer={"learning_rate": case.learning_rate},
        evaluate={"problems": 0},
        cluster={"address": "local", "samplers": samplers} if samplers else {},
        run={"steps": case.steps, "directory": str(runs), "threads": 1, "save_every": 0, "show_group_every": 0},
    )
    clock = StepClock()
    run = train(recipe, console=clock)
    times, work = times_of(run.directory, recipe.stages[-1].rollout.max_rows), Work(case.prompts, case.group_size, 256)
    return {
        "step_s": [b - a for a, b in pairwise(clock.at)][1:],
        "sample_s": [line["time/sample_s"] for line in run.metrics if "time/sample_s" in line][1:],
        "learn_s": [line["time/learn_s"] for line in run.metrics if "time/learn_s" in line][1:],
        "played_s": [play(times, work, 1, count).step_s for count in (1, 2)],
        "sent": sent[1:],
        "saved": sum(file.stat().st_size for file in run.final.glob("*.safetensors")),
    }


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        directory, side = Path(sys.argv[3]), SIDES[sys.argv[2]]
        print(json.dumps(one(replace(CASE, steps=int(sys.argv[4])), directory, *side)))
        return
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=CASE.steps, help="of one turn, the first of which does not count")
    parser.add_argument("--side", action="append", choices=[*SIDES], help="only these")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        make(CASE, Path(where))
        ask = {
            name: partial(turn, sys.executable, "cluster.py", "--one", name, where, args.steps)
            for name in args.side or SIDES
        }
        found = take_turns(ask, args.rounds)
    rows = []
    fastest = {name: [min(one["step_s"]) for one in turns] for name, turns in found.items()}
    alone = fastest.get("one process")
    for name, turns in found.items():
        steps = [took for one in turns for took in one["step_s"]]
        ratio = statistics.median(a / b for a, b in zip(fastest[name], alone, strict=True)) if alone else float("nan")
        played = {"1 sampler": 0, "2 samplers": 1}.get(name)
        source = found.get("1 sampler") if played is not None else None
        predicted = statistics.median(one["played_s"][played] for one in source) if source else None
        median = statistics.median(steps)
        sent = turns[0]["sent"][0] if turns[0]["sent"] else 0
        samplers = SIDES[name][0]
        rows.append([
            name, f"{median:.3f} s", f"{min(steps):.3f} to {max(steps):.3f}",
            f"{statistics.median(v for one in turns for v in one['sample_s']):.3f}",
            f"{statistics.median(v for one in turns for v in one['learn_s']):.3f}",
            f"{ratio:.2f}", "" if predicted is None else f"{predicted:.3f} s ({predicted / median - 1:+.0%})",
            f"{sent:,} / {samplers * turns[0]['saved']:,}" if sent else "",
        ])  # fmt: skip
    heads = [
        "",
        "step",
        "fastest to slowest",
        "sampling",
        "learning",
        "of one process",
        "simulated",
        "bytes / predicted",
    ]
    publish(args, "A cluster on one machine", table(heads, rows), found)


if __name__ == "__main__":
    main()
