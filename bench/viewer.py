"""How fast the viewer opens a large run: a made one of 2,000 steps of 512 completions, by default, and whether a run
that is looked at is slower.

    python bench/viewer.py [--steps 2000] [--rollouts 512] [--beside]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file
from starlette.testclient import TestClient

from cohort.record.metrics import read_metrics
from cohort.record.rollouts import write_groups
from cohort.types import Group, Prompt, Rollout
from cohort.views.dashboard.app import make_app
from cohort.views.dashboard.runs import open_runs
from cohort.views.dashboard.screens import Site

GROUP, TOKENS = 16, 60
RECIPE = 'name = "made"\npolicy.model = "some/model"\ntask.source = "word_problems"\nreward = "exact_number"\n'
BESIDE = [
    "cold_start.run.steps=40",
    "grpo.run.steps=20",
    "run.threads=1",
    "grpo.run.evaluate_every=10",
    "evaluate.problems=40",
]


def make(place: Path, steps: int, rollouts: int) -> Path:
    """A run of so many steps: the first one's rollouts, over and over with other numbers of steps and tickets."""
    (place / "log").mkdir(parents=True)
    (place / "recipe.toml").write_text(RECIPE, "utf-8")
    groups = []
    for ticket in range(rollouts // GROUP):
        prompt = Prompt(
            f"{ticket:016x}", text=f"What is {ticket} + 2?", tokens=tuple(range(20)), answer=str(ticket + 2)
        )
        texts = [f"<think> {ticket} + 2 is {ticket + 2 + n % 3} . </think> <answer> {ticket + 2 + n % 3} </answer>"
            for n in range(GROUP)]  # fmt: skip
        answers = [Rollout((7,) * TOKENS, (True,) * TOKENS, (-0.3,) * TOKENS, 0, "stop", text) for text in texts]
        paid = tuple(float(n % 3 == 0) for n in range(GROUP))
        groups.append(Group(ticket, prompt, tuple(answers), {"exact_number": paid}, paid, paid,
            tuple(r - 1 / 3 for r in paid), disposition="trained"))  # fmt: skip
    first = place / "log/step-000001.parquet"
    write_groups(first, groups, 1)
    table = pq.read_table(first)
    numbers = {"reward/mean": 0.3, "groups/signal": 1.0, "tokens/sampled": float(rollouts * TOKENS), "time/step_s": 1.0}
    more = {f"made/{n}": float(n) for n in range(60)}
    with (place / "metrics.jsonl").open("wb") as file:
        for step in range(1, steps + 1):
            shift = pa.scalar((step - 1) * len(groups), pa.int64())
            changed = table.set_column(0, "step", pa.array([step] * len(table), pa.int64()))
            changed = changed.set_column(1, "ticket", pa.compute.add(table["ticket"], shift))
            pq.write_table(changed, place / f"log/step-{step:06d}.parquet", compression="zstd")
            file.write(orjson.dumps({"step": step, **numbers, **more}) + b"\n")
    return place


def timed(what: str, call, times: int = 1) -> None:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    print(f"{what:<60} {1000 * statistics.median(took):10,.0f} ms")


def large(steps: int, rollouts: int) -> None:
    with tempfile.TemporaryDirectory() as room:
        place = make(Path(room, "made"), steps, rollouts)
        client = TestClient(make_app(Site(runs := open_runs([place]))), base_url="http://127.0.0.1")
        ticket = (steps // 2 - 1) * (rollouts // GROUP)
        timed("the first screen, the first time", lambda: client.get("/r/0/0/overview"))
        timed("the first screen, again", lambda: client.get("/r/0/0/overview"), 5)
        timed("a step", lambda: client.get(f"/r/0/0/step?step={steps // 2}"), 5)
        timed("a group", lambda: client.get(f"/r/0/0/group?step={steps // 2}&ticket={ticket}"), 5)
        timed("tokens", lambda: client.get(f"/r/0/0/tokens?step={steps // 2}&ticket={ticket}&member=1"), 5)
        stage = runs[0].stages[0]
        timed("small columns of all rollouts, once", lambda: stage.index.table(stage.shards))
        for name, query in {
            "reward < 0.5 and length > 50": {"where": "reward < 0.5 and length > 50"},
            "a text that is everywhere": {"text": "think"},
            "a text that is nowhere": {"text": "sorry"},
            "a text under a condition that holds of one step": {"text": "+", "where": f"step == {steps // 3}"},
        }.items():
            timed(f"search: {name}", lambda query=query: client.get("/r/0/0/search", params=query), 3)
        print(
            f"{stage.index.table(stage.shards).nbytes / 2**20:.0f} MiB of small columns, {steps * rollouts:,} rollouts"
        )


def beside() -> None:
    """The same short run twice, once looked at all the time: step times, and the weights bit by bit."""
    found = {}
    with tempfile.TemporaryDirectory() as room:
        for name in ("alone", "looked_at"):
            command = [sys.executable, "-m", "cohort", "train", "quickstart", f"name={name}", *BESIDE]
            run = subprocess.Popen(
                command, cwd=room, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            place, stop = Path(room, "runs", name), threading.Event()
            looks = threading.Thread(target=look, args=(place, stop)) if name == "looked_at" else None
            if looks:
                looks.start()
            code = run.wait()
            stop.set()
            if looks:
                looks.join()
            assert code == 0, f"the run {name} failed"
            times = [line["time/step_s"] for line in read_metrics(place / "metrics.jsonl") if "time/step_s" in line]
            found[name] = statistics.median(times), load_file(place / "final/model.safetensors")
    (alone, weights), (seen, others) = found["alone"], found["looked_at"]
    same = all(weights[key].equal(others[key]) for key in weights)
    print(
        f"median step {alone:.3f} s alone, {seen:.3f} s looked at; the weights are {'the same' if same else 'OTHERS'}"
    )


def look(place: Path, stop: threading.Event) -> None:
    while not (place / "recipe.toml").is_file() and not stop.wait(0.1):
        pass
    if not stop.is_set():
        client = TestClient(make_app(Site(open_runs([place]))), base_url="http://127.0.0.1")
        while not stop.wait(0.5):
            for stage in (0, 1):
                for screen in ("overview", "step", "search?text=e"):
                    client.get(f"/r/0/{stage}/{screen}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rollouts", type=int, default=512)
    parser.add_argument("--beside", action="store_true", help="measure a run that is looked at instead")
    asked = parser.parse_args()
    if asked.beside:
        beside()
    else:
        large(asked.steps, asked.rollouts)


if __name__ == "__main__":
    main()
