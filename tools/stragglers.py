"""What cutting stragglers does to groups: the lengths and the accuracy of those that are kept, and the time it saves.

    .venv/bin/python tools/stragglers.py MODEL

MODEL is a policy for the word problems of the quickstart. Draws are made once, whole, and what `rollout.over_sample`
would keep of them is computed from their lengths: the engine keeps the same (tests/engine/test_over_sampling.py).
"""

from __future__ import annotations

import statistics
import sys

from cohort.engine.engine import Engine
from cohort.policy.load import load_policy
from cohort.policy.text import reader
from cohort.rewards.verifiers.number import exact_number
from cohort.tasks import open_task
from cohort.types import SampleRequest, Sampling

GROUP, PROBLEMS, SPARE, TOKENS = 16, 300, (0, 2, 4, 8), 48
HEADS = ("begun", "kept tokens", "all tokens", "kept right", "all right", "with signal", "steps")


def main() -> None:
    policy = load_policy(sys.argv[1])
    task = open_task("word_problems", levels=(1, 2, 2), seed=0)
    render, read = task.renderer(policy.tokenizer), reader(policy.tokenizer, policy.eos_ids)
    prompts = [render.render(task.train[i]) for i in range(PROBLEMS)]
    asked = [SampleRequest(i, p.tokens, GROUP + max(SPARE), i, Sampling(TOKENS)) for i, p in enumerate(prompts)]
    groups = {
        one.key: [(len(c.tokens), float(exact_number(read(c.tokens), prompts[one.key].answer))) for c in found]
        for one, found in Engine(policy).sample(asked)
    }
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for spare in SPARE:
        begun = [group[: GROUP + spare] for group in groups.values()]
        kept = [sorted(group, key=lambda one: one[0])[:GROUP] for group in begun]
        row = [statistics.fmean(one[of] for group in part for one in group) for of in (0, 1) for part in (kept, begun)]
        signal = statistics.fmean(len({right for _, right in group}) > 1 for group in kept)
        steps = statistics.fmean(max(length for length, _ in group) for group in kept)
        cells = [f"{value:.2f}" for value in row[:2]] + [f"{value:.1%}" for value in (*row[2:], signal)]
        print(f"| {GROUP} + {spare} | {' | '.join(cells)} | {steps:.1f} |")


if __name__ == "__main__":
    main()
