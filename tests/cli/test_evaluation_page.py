"""The commands and the recipes of docs/evaluation.md, on a user's own files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq

from cohort.commands import compare
from cohort.train.compare import running
from cohort.types import UserError
from forked import Cohort

PAGE = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()


def begin(compared, console, jobs):
    raise UserError(f"{len(compared.arms)} arms can begin")


def begin_arm(file, resume, output, environment):
    """An arm is a process here too, but forked; test_compare.py has those that Cohort itself begins."""
    return Cohort("train", str(file), *(["--resume"] if resume else []), cwd=Path.cwd())


def test_the_commands_of_the_page_run(desk, cohort, monkeypatch):
    monkeypatch.setattr(running, "launch", begin_arm)
    suites = re.search(r"```toml\nreward[^\n]*\n\n(\[\[suite\]\].*?)```", PAGE, re.DOTALL)[1]
    keeping = re.search(r"```toml\n\[run\]\n(.*?)```", PAGE, re.DOTALL)[1].replace(
        "evaluate_every = 20", "evaluate_every = 1"
    )
    rows = [{"question": f"What is {i} minus 1?", "solution": str(i - 1)} for i in range(4)]
    (desk / "minus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"prompt": f"Do {i}", "answer": ("harmful", "harmless")[i % 2]} for i in range(4)]
    (desk / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = (desk / "recipe.toml").read_text().replace("problems = 3\n", "problems = 6\n")
    (desk / "recipe.toml").write_text(recipe + keeping + suites)
    code, out, err = cohort("train", "recipe.toml", "run.gate=off", "run.threads=1")
    assert code == 0, err
    assert re.search(
        r"suites +minus \(performance\), refusal \(refusal\); not evaluated: hallucination, jailbreak", out
    )
    assert re.search(r"keeps +the step that is best by eval/greedy on half of the problems", out)
    assert re.search(r"kept step \d, the best of \d by eval/greedy", out)
    assert "before, minus: held-out  greedy" in out

    commands = re.findall(r"^cohort .*$", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)), re.MULTILINE)
    longer = [one for one in commands if re.search("--(methods|vary)", one)]  # test_compare.py runs one to its end
    commands = [one for one in commands if one not in longer]
    assert len(commands) >= 5
    shown = {}
    for command in commands:
        code, out, err = cohort(*command.split()[1:])
        assert code == 0, (command, err)
        shown[command] = out
    with monkeypatch.context() as patch:
        patch.setattr(compare, "train_arms", begin)
        for command in (one.replace("2&64,8&16", "2&8,4&4") for one in longer):  # there are 19 prompts here
            code, out, err = cohort(*shlex.split(command)[1:])
            assert re.search(r"\d arms can begin", err), (command, err)
    assert re.search(r"maj@4 +\d", shown["cohort eval runs/mine --samples 4"])
    assert re.search(r"best@4 +\d", shown["cohort eval runs/mine --samples 4"])  # vowels choose, exact_number judges
    assert re.search(r"minus/pass@4 +\d", shown["cohort eval runs/mine --samples 4"])
    against = shown["cohort eval runs/mine --against base evaluate.margin=0.05"]
    assert re.search(r"greedy: runs/mine minus base is \+0\.0% .* on \d problems: inconclusive", against)
    assert "minus/sampled: runs/mine minus base" in against
    controls = shown["cohort compare recipe.toml --controls random,format_only"]
    assert re.search(r"recipe minus format_only: [+-].* on 5 problems", controls)
    assert pq.read_table(desk / "kept/eval-a-minus-sampled.parquet").num_rows == 16
    assert json.loads((desk / "kept/eval.json").read_text())["problems"] == 5
    assert json.loads((desk / "runs/mine/evals/001/eval.json").read_text())["problems"] == 5  # without --to
    code, out, err = cohort("record", "verify", "runs/mine")
    assert code == 0, err
    assert "evals" not in out


def test_what_cannot_be_evaluated_is_said_in_a_sentence(desk, cohort):
    task = ("--task", "train.jsonl", "task.prompt=question", "task.answer=solution", "--problems", 2, "--samples", 0)
    code, _, err = cohort("eval", "base", *task, "evaluate.cluster=text_id")
    assert code == 1
    assert "evaluate.cluster names the column 'text_id', which the task does not have" in err
    (desk / "kept").mkdir()
    code, _, err = cohort("eval", "base", *task, "--to", "kept")
    assert code == 1
    assert "kept exists already" in err
