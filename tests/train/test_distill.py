"""Stages that learn from a teacher: a second model, one at a server, the policy itself with a solution before it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from vowels import share_of_vowels

from cohort.learn import forward
from cohort.monitor.names import metric
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.record.claims import read_record
from cohort.record.metrics import is_timing
from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.settings import Distill, Scratch, SelfDistill, Teacher
from cohort.tasks import open_demonstrations
from cohort.train.distill.lesson import context_of, route
from cohort.train.replay import checks
from cohort.types import Group, Prompt, Rollout, UserError
from prompt_logprobs_server import PromptLogprobsServer

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
}


@pytest.fixture(scope="module")
def teacher_model(tokenizer):
    """A teacher that is wider than the student, and has read some problems and their solutions."""
    made = open_demonstrations("word_problems", seed=3, careful=0.5)
    texts = "".join(f"{made[i].prompt.text}{made[i].completion}" for i in range(120))
    rows = torch.tensor(tokenizer.encode(texts)).unfold(0, 32, 32)
    model = make_model(tokenizer, 9, Scratch(**{**SIZES, "hidden_size": 48, "layers": 1}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(80):
        batch = rows[torch.arange(step * 16, step * 16 + 16) % len(rows)]
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def teacher_dir(tmp_path, tokenizer, teacher_model):
    where = tmp_path / "teacher"
    teacher_model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture
def distil(run, tables, teacher_dir):
    """Run a small distill stage. Without rewards, unless some are given."""
    for name in ("objective", "reward"):
        del tables[name]
    tables["task"].pop("held_out")

    def start(teacher=teacher_dir, resume=False, console=None, **changes):
        own: dict[str, Any] = {
            "kind": "distill",
            "distillation": {"teacher": {"big": {"model": str(teacher)}}},
            "evaluate": {"problems": 0},
        }
        distill = {**own["distillation"], **changes.pop("distillation", {})}
        return run(resume=resume, console=console, **{**own, "distillation": distill, **changes})

    return start


def numbers(run, step=None):
    lines = [{k: v for k, v in line.items() if not is_timing(k)} for line in run.metrics if line["step"]]
    return lines if step is None else lines[step - 1]


def test_the_reverse_kl_falls_where_a_student_learns_from_its_teacher(distil, teacher_model):
    learnt = distil(
        run={"steps": 25, "save_every": 0},
        optimizer={"learning_rate": 1e-2},
        rollout={"prompts_per_step": 6, "group_size": 4, "max_tokens": 16},
    )
    assert all(metric(name) for name in numbers(learnt, 1) if name != "step")
    kl, agreed = ([line[name] for line in numbers(learnt)] for name in ("teacher/kl", "teacher/agreement"))
    assert sum(kl[-5:]) < 0.9 * sum(kl[:5]), kl
    assert sum(agreed[-5:]) > sum(agreed[:5]), agreed
    first = read_groups(learnt.directory / "log/step-000001.parquet")[0]
    assert len(first.teacher_logprobs[0]) == len(first.rollouts[0].tokens)
    assert first.disposition == "trained"
    groups = [one for step in range(1, 26) for one in read_groups(learnt.directory / f"log/step-{step:06d}.parquet")]
    read = sum(len(one.prompt.tokens) + sum(len(rollout.tokens) for rollout in one.rollouts) for one in groups)
    assert sum(line["teacher/tokens"] for line in numbers(learnt)) == read
    cost = read_record(learnt.directory)["stages"][0]["compute"]["operations"]
    assert cost["value"]["scoring"] == 2.0 * sum(p.numel() for p in teacher_model.parameters()) * read
    assert "not counted" not in cost["reason"].partition("; attention over the context is not counted")[2]
    # on policy, the loss of a step is the reverse KL that it has sampled, over all tokens
    assert numbers(learnt, 1)["loss"] == pytest.approx(kl[0], abs=1e-5)


@pytest.mark.parametrize("divergence", ["sampled", "reverse", "jsd"])
def test_from_a_teacher_that_is_the_student_there_is_nothing_to_learn(distil, checkpoint_dir, divergence):
    same = distil(teacher=checkpoint_dir, distillation={"divergence": divergence}, run={"steps": 1})
    line = numbers(same, 1)
    assert abs(line["teacher/kl"]) < 1e-5
    assert line["grad_norm"] < 1e-4
    if divergence != "sampled":
        assert abs(line["teacher/divergence"]) < 1e-6


@pytest.mark.parametrize("distill", [{}, {"divergence": "forward"}, {"divergence": "jsd", "top_k": 5, "beta": 0.2}])
def test_the_step_does_not_depend_on_how_it_is_split(distil, distill, monkeypatch):
    whole = numbers(distil(name="whole", distillation=distill, run={"steps": 1}), 1)
    monkeypatch.setattr(forward, "LOGITS_AT_ONCE", 1200)  # three tokens at once
    parts = distil(name="parts", distillation=distill, run={"steps": 1}, optimizer={"tokens_per_micro_batch": 40})
    for name, value in numbers(parts, 1).items():
        if isinstance(value, float) and name.startswith(("teacher", "loss", "grad", "policy")):
            assert value == pytest.approx(whole[name], rel=2e-5, abs=1e-6), name


@pytest.mark.parametrize("distill", [{}, {"divergence": "reverse"}])
def test_a_stage_goes_on_exactly_and_its_steps_recompute(distil, distill, teacher_dir):
    parts = {"optimizer": {"learning_rate": 1e-2, "updates_per_batch": 3}, "reward": [share_of_vowels]}
    whole = distil(name="whole", distillation=distill, **parts)
    cut = distil(name="cut", distillation=distill, **parts, run={"steps": 2})
    shutil.rmtree(cut.directory / "final")
    cut = distil(name="cut", distillation=distill, resume=True, **parts)
    ours, theirs = (load_file(one.directory / "final/model.safetensors") for one in (whole, cut))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert numbers(whole) == numbers(cut)
    assert verify(whole.directory).holds
    if not distill:
        shutil.rmtree(teacher_dir)  # what it said is in the log
    found = checks(whole.directory, 4)
    assert {check.status for check in found} <= {"holds", "skipped"}, found
    assert sum(check.name.startswith(("step", "weights")) for check in found) >= 2


def test_a_teacher_beside_a_reward_and_an_adapter(distil):
    learnt = distil(
        reward=[share_of_vowels],
        policy={"lora": {"rank": 2}},
        objective={"preset": "dr_grpo", "teacher_coef": 0.5, "teacher_discount": 0.9},
        run={"steps": 2},
    )
    group = read_groups(learnt.directory / "log/step-000001.parquet")[0]
    assert any(group.advantages)
    assert numbers(learnt, 2)["reward/mean"] > 0


def test_teachers_by_column(distil, rows, teacher_dir, checkpoint_dir):
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["subject"] = "own" if number % 2 else "big"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    two = {"big": {"model": str(teacher_dir)}, "own": {"model": str(checkpoint_dir)}}
    for divergence in ("sampled", "reverse"):
        settings = {"teacher": two, "column": "subject", "divergence": divergence}
        line = numbers(
            distil(name=divergence, distillation=settings, run={"steps": 1}, rollout={"prompts_per_step": 8}), 1
        )
        assert abs(line["teacher/own/kl"]) < 1e-5 < line["teacher/big/kl"]
        assert 0 < line["teacher/kl"] < line["teacher/big/kl"]
        assert line["teacher/tokens"] == line["teacher/big/tokens"] + line["teacher/own/tokens"]
    with pytest.raises(UserError, match=r"has 'own' in the column 'subject'.*there is big, other"):
        distil(name="none", distillation={"teacher": {"big": two["big"], "other": two["big"]}, "column": "subject"})


def test_a_column_of_numbers_names_teachers_by_their_digits():
    table = Distill(column="level", teacher={"1": Teacher(model="small"), "2": Teacher(model="big")})
    assert route(table, Prompt("?", tags={"level": 2})) == 1
    with pytest.raises(UserError, match="has 3 in the column 'level'"):
        route(table, Prompt("?", tags={"level": 3}))


# ---- a teacher at a server


@pytest.fixture
def server(teacher_model, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("cohort.rewards.judge.post.time.sleep", lambda seconds: None)
    made = PromptLogprobsServer(teacher_model)
    yield made
    made.close()


def served(server, teacher_dir, **more):
    return {"teacher": {"big": {"model": "served", "url": server.url, "tokenizer": str(teacher_dir), **more}}}


def test_a_teacher_at_a_server_says_what_it_says_here(distil, server, teacher_dir):
    server.script = [{"status": 503}, {"raw": b"x", "slow": 0.0, "status": 429, "headers": {"Retry-After": "1"}}]
    there = distil(name="there", distillation=served(server, teacher_dir), run={"steps": 1})
    here = distil(name="here", run={"steps": 1})
    for name in ("teacher/kl", "teacher/agreement", "loss"):
        assert numbers(there, 1)[name] == pytest.approx(numbers(here, 1)[name], abs=1e-4)
    body = server.requests[-1]
    assert (body["model"], body["max_tokens"], body["prompt_logprobs"]) == ("served", 1, 1)
    assert all(isinstance(token, int) for token in body["prompt"])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 401, "raw": b"who are you"}, "refuses every request.*who are you.*check url"),
        ({"raw": b'{"choices": [{"text": ""}]}'}, "gave no prompt_logprobs.*such as vLLM's"),
        ({"status": 500, "raw": b"broken"}, "gave no log-probs in 2 tries; HTTP 500: broken. The run is saved"),
    ],
)
def test_a_server_that_does_not_teach(distil, server, teacher_dir, answer, words):
    server.reply = lambda texts, body: answer
    with pytest.raises(UserError, match=words):
        distil(distillation=served(server, teacher_dir, retries=1, concurrency=1))


def test_a_server_that_knows_other_tokens(distil, server, teacher_dir):
    server.answer = lambda tokens: {
        "choices": [{"prompt_logprobs": [None, *({"0": {"logprob": -1.0}} for _ in tokens[1:])]}]
    }
    with pytest.raises(UserError, match="gave no log-prob of token"):
        distil(distillation=served(server, teacher_dir))


# ---- what is refused before anything loads


def test_another_tokenizer(distil, tmp_path, monkeypatch):
    other = make_tokenizer(["other words altogether"] * 3, 300)
    make_model(other, 1, Scratch(**SIZES)).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    monkeypatch.setattr("cohort.backends.local.open_policy", lambda *_: pytest.fail("the student was loaded"))
    with pytest.raises(UserError, match=r"the teacher 'big' .* has another tokenizer than the student: token"):
        distil(teacher=tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distillation": {"teacher": {}}}, "distillation.teacher is missing"),
        (
            {"distillation": {"teacher": {"a": {"model": "x"}, "b": {"model": "y"}}}},
            "several teachers: say with column",
        ),
        ({"distillation": {"teacher": {"a": {"model": "stage:no"}}}}, "what the stage 'no' trains, but no stage"),
        ({"distillation": {"teacher": {"a": {"model": "/not/there"}}}}, "there is no directory '/not/there'"),
        ({"distillation": {"teacher": {"a": {"model": "x", "tokenizer": "y"}}}}, "tokenizer is for a server"),
        (
            {"distillation": {"divergence": "jsd", "teacher": {"a": {"model": "x", "url": "http://h/v1"}}}},
            "is at a server and gives no logits",
        ),
        (
            {"rollout": {"temperature": 0.7}, "distillation": {"teacher": {"a": {"model": "x", "url": "http://h/v1"}}}},
            "gives log-probs at temperature 1",
        ),
        ({"distillation": {"teacher": {"a": {"model": "x", "url": "h"}}}}, "url is an address such as"),
        ({"objective": {"teacher_coef": 0.0}}, "would learn nothing from its teacher"),
        ({"objective": {"preset": "dapo"}}, "zero_std='resample' cannot go with a teacher"),
        ({"objective": {"teacher_form": "reweight"}}, "needs a reward"),
        ({"objective": {"teacher_discount": 0.5}, "distillation": {"divergence": "jsd"}}, "are for the sampled tokens"),
        ({"task": {"held_out": 0.25}}, "has no reward that says which answers"),
        ({"distillation": {"divergence": "k1"}}, "divergence must be one of"),
        (
            {"kind": "grpo", "reward": [share_of_vowels], "objective": {"teacher_coef": 1.0}},
            "asks a teacher, which stage",
        ),
        ({"kind": "self_distill"}, "reward is missing: a completion is shown if it is right"),
        (
            {"kind": "self_distill", "reward": [share_of_vowels], "self_distillation": {"show_solution": "x"}},
            "show_solution has no {}",
        ),
        (
            {"kind": "self_distill", "self_distillation": {"context": "column", "column": "solutions"}},
            "names the column 'solutions'",
        ),
    ],
)
def test_bad_input_is_one_sentence(distil, changes, words):
    if changes.get("kind", "distill") != "distill":
        changes = {"distillation": {"teacher": {}}, **changes}
    with pytest.raises(UserError, match=words):
        distil(**changes)


# ---- the policy as its own teacher


def group(texts=("wrong", "<think>so</think>right", "other"), accuracy=(0.0, 1.0, 1.0), labels=()):
    rollouts = tuple(Rollout([5], [True], [-1.0], 0, "stop", text) for text in texts)
    named = {"number": labels} if labels else {}
    return Group(0, Prompt.make(text="Q", answer=7), rollouts, accuracy=accuracy, labels=named)


def test_who_is_shown_what():
    table = SelfDistill(show_solution="S[{}]", show_feedback="F[{}]")
    assert [context_of(table, "answer", group(), member) for member in range(3)] == ["S[right]", "S[other]", "S[right]"]
    alone = group(accuracy=(0.0, 1.0, math.nan))
    assert [context_of(table, "answer", alone, member) for member in range(3)] == ["S[right]", None, "S[right]"]
    kept = table.model_copy(update={"thoughts": True})
    assert context_of(kept, "answer", alone, 0) == "S[<think>so</think>right]"
    wrong = group(accuracy=(0.0, 0.0, 0.0), labels=("no_answer", None, "wrong"))
    told = table.model_copy(update={"feedback": True})
    assert [context_of(told, "answer", wrong, member) for member in range(3)] == ["F[no answer]", None, "F[wrong]"]
    assert context_of(table, "answer", wrong, 0) is None
    column = table.model_copy(update={"context": "column"})
    assert context_of(column, "answer", wrong, 0) == "S[7]"


def test_the_policy_teaches_itself_and_goes_on_exactly(distil):
    own = {
        "kind": "self_distill",
        "distillation": {"teacher": {}},
        "reward": [{"use": share_of_vowels, "weight": 0.0}],
        "self_distillation": {"threshold": 0.2, "show_solution": "{}"},
        "reference": {"ema": 0.9},
        "rollout": {"max_tokens": 12},
    }
    whole = distil(name="whole", **own)
    line = numbers(whole, 1)
    assert 0 < line["teacher/rollouts"] <= 1
    assert line["grad_norm"] > 0
    spoken = [not math.isnan(row[0]) for one in read_groups(whole.directory / "log/step-000001.parquet")
              for row in one.teacher_logprobs]  # fmt: skip
    assert sum(spoken) / len(spoken) == pytest.approx(line["teacher/rollouts"])
    cut = distil(name="cut", **own, run={"steps": 2})
    shutil.rmtree(cut.directory / "final")
    cut = distil(name="cut", resume=True, **own)
    assert numbers(whole) == numbers(cut)
    found = checks(whole.directory, 4)
    assert {check.status for check in found} <= {"holds", "skipped"}, found


@pytest.mark.parametrize("teacher", ["policy", "reference"])
def test_shown_a_column_in_full_vocabulary_with_an_adapter(distil, teacher):
    learnt = distil(
        kind="self_distill",
        distillation={"teacher": {}},
        policy={"lora": {"rank": 2}},
        self_distillation={"context": "column", "teacher": teacher, "divergence": "forward", "show_solution": "{}"},
        run={"steps": 2},
    )
    assert numbers(learnt, 1)["teacher/rollouts"] == 1
    assert numbers(learnt, 1)["teacher/divergence"] > 0
    assert Path(learnt.directory / "final/adapter_config.json").is_file()
