"""Small recipes: among them every kind of stage, and every part of a run that has a state of its own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SMALL = "{ hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, intermediate_size = 64 }"
SHARED = """
name = "r"
seed = 5
[task]
source = "word_problems"
levels = [1]
[run]
directory = "runs"
threads = 1
save_every = 2
gate = "off"
"""
START = f"""
[[stage]]
kind = "sft"
name = "start"
policy.scratch = {SMALL}
supervised.examples_per_step = 8
optimizer.learning_rate = 3e-3
evaluate.problems = 0
run.steps = 2
"""
GROUPS = """
[[stage]]
kind = "grpo"
rollout = { prompts_per_step = 3, group_size = 4, max_tokens = 10, max_staleness = 1 }
reward = "of_ones_own:score"
evaluate = { problems = 4, samples = 2 }
run.steps = 4
run.evaluate_every = 2
"""
SAMPLES = """
[[stage]]
kind = "reject"
name = "samples"
rollout = { prompts_per_step = 4, group_size = 8, max_tokens = 8 }
[[stage.reward]]
use = "of_ones_own:score"
name = "score"
[[stage.reward]]
use = "of_ones_own:steps"
name = "steps"
weight = 0.0
split = " "
[stage.reject]
least = { score = 0.2 }
truncated = true
pairs = 2
[stage.evaluate]
problems = 0
[stage.run]
steps = 2
"""


def groups(**changes: str) -> str:
    """The stage of groups with keys after it, and others in their place."""
    lines = [line for line in GROUPS.splitlines() if line.partition(" =")[0] not in changes]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items())]) + "\n"


TRACKERS = '["of_ones_own:Lines"' + (', "tensorboard"]' if find_spec("tensorboard") and find_spec("google") else "]")
ROADS = {
    "grpo": SHARED + START + groups(objective='{ preset = "grpo" }', reference="{ update_every = 3 }"),
    "sft": SHARED + START.replace("steps = 2", "steps = 5"),
    "ema_and_adaptive": SHARED
    + START
    + groups(
        objective='{ preset = "grpo" }',
        reference="{ ema = 0.9 }",
        optimizer="{ updates_per_batch = 3 }",
        task="{ adaptive = { after = 1, rest = 1 }, limit = 8 }",
    ),
    "keep_best_and_trackers": SHARED + START + groups(**{"run.keep_best": '"eval/greedy"', "run.trackers": TRACKERS}),
    "staleness_2_and_curriculum": SHARED
    + START
    + groups(
        rollout="{ prompts_per_step = 3, group_size = 4, max_tokens = 10, max_staleness = 2 }",
        task="{ levels = [1, 2], curriculum = { raise_at = 0.5, window = 4 } }",
    ),
    "lora": SHARED + START + groups(**{"policy.lora": "{ rank = 2 }"}),
    "critic": SHARED + START + groups(objective='{ preset = "ppo" }', optimizer="{ epochs = 2 }"),
    "environment": SHARED
    + START
    + groups(
        **{"task": '{ source = "arithmetic" }', "environment.use": '"talking:Talks"', "reward": '"talking:vowels"'}
    ),
    "distill": SHARED
    + START
    + """
[[stage]]
kind = "sft"
name = "student"
policy.scratch = { tokenizer = "stage:start", hidden_size = 16, layers = 1, heads = 1, kv_heads = 1, head_dim = 16 }
evaluate.problems = 0
run.steps = 2
[[stage]]
kind = "distill"
distillation.teacher.big.model = "stage:start"
rollout = { prompts_per_step = 3, group_size = 2, max_tokens = 8 }
evaluate.problems = 0
run.steps = 4
""",
    "self_distill": SHARED
    + START
    + """
[[stage]]
kind = "self_distill"
rollout = { prompts_per_step = 3, group_size = 2, max_tokens = 8 }
reward = [{ use = "of_ones_own:score", name = "score", weight = 0.0 }]
self_distillation = { threshold = 0.1, show_solution = "{}" }
reference = { ema = 0.9 }
evaluate.problems = 0
run.steps = 4
""",
    "rft": SHARED
    + START
    + SAMPLES.replace('kind = "reject"', 'kind = "rft"').replace("pairs = 2", "").replace("steps = 2\n", "steps = 4\n"),
    "dpo": SHARED
    + START
    + SAMPLES
    + """
[[stage]]
kind = "dpo"
task.source = "stage:samples"
preferences.pairs_per_step = 2
evaluate.problems = 0
run.steps = 4
""",
    "reward_model": SHARED
    + START
    + SAMPLES
    + f"""
[[stage]]
kind = "reward_model"
name = "taste"
policy.scratch = {SMALL}
task = {{ source = "stage:samples", held_out = 0.2 }}
preferences.pairs_per_step = 2
run.steps = 4
""",
    "process_model": SHARED
    + START
    + SAMPLES
    + """
[[stage]]
kind = "process_model"
name = "judge"
task = { source = "stage:samples", held_out = 0.2 }
preferences.pairs_per_step = 2
run.steps = 4
""",
}
REWARD = '''"""A reward of one's own."""


def score(completion):
    return sum(c in "aeiou" for c in completion) / (1 + len(completion))


def steps(steps):
    return [float(step[:1] in "aeiou") for step in steps]


class Lines:
    """A tracker: a file with a line a step."""

    def __init__(self, directory, recorded):
        self.path = directory / "tracked"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.path.write_text("".join(f"{line}\\n" for line in lines if int(line.split()[0]) <= recorded))

    def write(self, step, metrics):
        with self.path.open("a") as file:
            file.write(f"{step} {metrics.get('reward/mean')} {metrics.get('eval/greedy')}\\n")

    def close(self):
        pass
'''


def prepare(where: Path, road: str) -> Path:
    """A directory with the recipe of a road, and the modules that it names."""
    where.mkdir(exist_ok=True)
    (where / "recipe.toml").write_text(ROADS[road])
    (where / "of_ones_own.py").write_text(REWARD)
    talking = Path(__file__).parent.parent / "environments/talking.py"
    (where / "talking.py").write_text(talking.read_text("utf-8"))
    return where
