"""The gate before a run: what refuses to start, what the record keeps, and what a continued run does not do again."""

from __future__ import annotations

import io
import json
import time

import orjson
import pytest
from scorers import blind, exact
from vowels import share_of_vowels as vowels

import cohort
from cohort.preflight.gate import stage as gate
from cohort.rewards import RewardTable, resolve_all
from cohort.rewards.marks import costly
from cohort.rewards.workers import pool
from cohort.types import InfrastructureError, UserError
from cohort.views.console import Console


@pytest.fixture
def printed():
    text = io.StringIO()
    return text, Console(file=text, width=200)


def recorded(where):
    return orjson.loads((where / "gate.json").read_bytes())


def test_a_run_whose_gold_answers_do_not_pay_does_not_start(run, tmp_path, printed):
    text, console = printed
    with pytest.raises(UserError, match=r"(?s)blind cannot tell gold answers.*run\.gate = \"warn\""):
        run(reward=[blind], console=console)
    where = tmp_path / "runs/small"
    assert not (where / "metrics.jsonl").exists()
    assert recorded(where)["grpo"]["verdict"] == "refused"
    assert "gold answer" in text.getvalue()  # the table
    assert "another prompt's gold" in text.getvalue()
    done = run(reward=[exact])  # the name is not taken
    assert recorded(done.directory)["grpo"]["verdict"] == "passed"


def test_it_can_be_overridden(run, printed):
    text, console = printed
    done = run(name="warned", reward=[blind], run={"gate": "warn"}, console=console)
    assert recorded(done.directory)["grpo"]["verdict"] == "refused"
    assert "training all the same" in text.getvalue()
    done = run(name="off", reward=[blind], run={"gate": "off"})
    assert recorded(done.directory) == {"grpo": {"verdict": "off"}}


def test_what_was_found_goes_into_the_card(run):
    done = run(reward=[{"use": vowels}, {"use": exact, "weight": 0.5}], evaluate={"reward": exact})
    card = (done.final / "README.md").read_text()
    assert "What rewards paid before training, on average over 8 prompts (verdict: passed)" in card
    assert "| gold answer | 0.00 | 1.00 |" in card


def test_a_continued_run_does_not_ask_again(run, monkeypatch):
    run(reward=[exact])
    monkeypatch.setattr(gate, "examine", None)  # calling it would raise
    longer = run(reward=[exact], resume=True, run={"steps": 6})
    assert longer.metrics[-1]["step"] == 6
    assert "What rewards paid" in (longer.final / "README.md").read_text()


def test_a_first_reward_that_knows_no_answers_does_not_stand_in_the_way(run, printed):
    text, console = printed
    done = run(reward=[vowels], console=console)
    assert recorded(done.directory)["grpo"]["verdict"] == "untested"
    assert "nothing was tested: share_of_vowels does not look at the gold answer" in text.getvalue()


@costly
def pleased(completion):
    return 1.0


@costly
def by_length(completion):
    return 1 / (1 + len(completion))


def test_a_judge_is_asked_about_a_few_texts_before_a_run(run, printed):
    text, console = printed
    with pytest.raises(UserError, match=r"pleased, asked about 4 texts, pays 1\.00 for gold answer, .* says nothing"):
        run(reward=[pleased])
    with pytest.raises(UserError, match="pleased, asked"):
        run(name="beside", reward=[exact, {"use": pleased, "weight": 0.1}])
    done = run(name="judged", reward=[by_length], console=console)
    assert recorded(done.directory)["grpo"]["verdict"] == "untested"
    assert "only tasted: by_length, asked about 4 texts, pays" in text.getvalue()


@costly
def dead(completion):
    raise InfrastructureError("http://judge does not answer")


@costly
def hangs(completion):
    return time.sleep(60) or 1.0


@pytest.mark.parametrize(("judge", "why"), [(dead, "does not answer"), (hangs, "took more than 1 s")])
@pytest.mark.parametrize("evaluate", [{}, {"reward": exact}])
def test_a_judge_that_does_not_answer_is_found_by_the_gate(run, printed, monkeypatch, judge, why, evaluate):
    text, console = printed
    monkeypatch.setattr(pool, "SAID_AFTER_S", 0.2)
    monkeypatch.setattr(pool, "SAID_EVERY_S", 0.2)
    rewards = [{"use": judge, "timeout_s": 1}] if evaluate else [exact, {"use": judge, "timeout_s": 1}]
    with pytest.raises(UserError, match=rf"{judge.__name__} could not be asked: .*{why}"):
        run(reward=rewards, evaluate=evaluate, console=console)
    said = " ".join(text.getvalue().split())
    assert f"waiting for reward '{judge.__name__}', asked" in said
    assert "given up after 1 s" in said
    assert ("the try before: it could not judge" in said) == (judge is dead)


def test_every_reward_that_is_paid_has_a_line(run, printed):
    text, console = printed
    run(reward=[vowels, {"use": by_length, "weight": 0.1}], evaluate={"reward": exact}, console=console)
    lines = [line.split("gate  ")[1] for line in text.getvalue().splitlines() if line.startswith("gate")]
    assert lines[0].startswith("exact: gold answers score 1.00")
    assert lines[1].startswith("share_of_vowels: gold answers score 0.")
    assert lines[2].startswith("by_length, asked about 4 texts, pays 0.")
    assert len(lines) == 3


def test_who_names_a_verifier_has_it_tested(run):
    with pytest.raises(UserError, match="share_of_vowels cannot tell"):
        run(reward=[exact], evaluate={"reward": vowels})


def test_a_column_of_right_completions(run, rows):
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    rows.write_text(
        "".join(json.dumps({**line, "good": f"It is {line['solution']}, friend."}) + "\n" for line in lines)
    )

    def polite(completion, solution):
        return float(completion == f"It is {solution}, friend.")

    with pytest.raises(UserError, match="polite cannot tell"):
        run(reward=[polite])
    done = run(reward=[polite], evaluate={"gold": "good"})
    assert recorded(done.directory)["grpo"]["rewards"][0]["rows"]["gold answer"]["mean"] == 1.0
    with pytest.raises(UserError, match=r"evaluate\.gold.*'goood'.*did you mean 'good'"):
        run(name="typo", reward=[polite], evaluate={"gold": "goood"})


def test_a_reward_that_breaks_on_odd_text_is_found_before_the_first_step(run, tmp_path):
    def first_letter(completion, answer):
        return float(completion[0] == answer[0])

    with pytest.raises(UserError, match=r"(?s)first_letter' raised IndexError.*Mend the reward"):
        run(reward=[first_letter])
    assert recorded(tmp_path / "runs/small")["grpo"]["verdict"] == "refused"
    assert not (tmp_path / "runs/small/metrics.jsonl").exists()


def test_every_stage_is_tested_before_the_first_one_starts(tables, tmp_path):
    stages = [
        {"kind": "sft", "name": "start", "policy": {"scratch": {"hidden_size": 32, "layers": 1, "vocabulary": 400}}},
        {"kind": "grpo", "name": "good", "reward": "exact_number"},
        {"kind": "grpo", "name": "bad", "reward": [blind]},
    ]
    outside = {k: v for k, v in tables.items() if k not in ("policy", "task", "reward")}
    recipe = cohort.Recipe(**outside, task={"source": "word_problems", "levels": [1]}, stage=stages)
    with pytest.raises(UserError, match="bad: blind cannot tell"):
        cohort.train(recipe, console=Console(quiet=True))
    where = tmp_path / "runs/small"
    assert {name: found["verdict"] for name, found in recorded(where).items()} == {"good": "passed", "bad": "refused"}
    assert not (where / "stages").exists()


def test_costly_rewards_are_asked_little_and_only_where_they_decide(tables, tmp_path):
    from cohort.recipe import Recipe
    from cohort.rewards.marks import costly
    from cohort.train.grpo import Grpo

    @costly
    def dear(completion, answer):
        return exact(completion, answer)

    def parts_of(**changes):
        stage = Recipe(**{**tables, **changes}).stages[0]
        parts = Grpo().prepare(stage, 0).parts
        return stage, parts

    stage, parts = parts_of(reward=[exact, dear])
    report = gate.gate_of_stage(stage, parts, 0)
    assert [found.name for found in report.rewards] == ["exact"]
    assert report.prompts == gate.IN_A_RUN
    stage, parts = parts_of(reward=[dear])
    report = gate.gate_of_stage(stage, parts, 0)
    assert report.rewards == ()  # nobody asked for it to be tested
    assert report.notes[0].startswith("dear, asked about 4 texts, pays 1.00 for gold answer, 0.00 for junk")
    assert gate.gate_of_stage(stage, parts, 0, prompts=20).tested[0].gold == 1.0  # check does ask
    stage, parts = parts_of(reward=[{"use": exact, "gate": "dear"}, dear])
    assert [found.name for found in gate.gate_of_stage(stage, parts, 0).rewards] == ["exact"]  # its gate is left out
    stage, parts = parts_of(reward=[exact], evaluate={"reward": dear})
    report = gate.gate_of_stage(stage, parts, 0)
    assert report.prompts == gate.COSTLY
    assert report.problems == ()


def test_prompts_are_spread_over_the_task_and_over_its_domains(tables, rows):
    from cohort.recipe import Recipe
    from cohort.train.grpo import Grpo

    lines = [{"question": f"{i}?", "solution": str(i), "kind": "rare" if i >= 55 else "often"} for i in range(60)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rewards = [{"use": exact, "when": {"kind": "often"}}, {"use": exact, "name": "other", "when": {"kind": ["rare"]}}]
    stage = Recipe(**{**tables, "task": {**tables["task"], "held_out": None}, "reward": rewards}).stages[0]
    report = gate.gate_of_stage(stage, Grpo().prepare(stage, 0).parts, 0)
    assert [found.gold_asked for found in report.rewards] == [8, 5]
    parts = Grpo().prepare(stage, 0).parts
    often = [p for p in gate._prompts(parts.task.train, parts.verifiers, 8) if p.tags["kind"] == "often"]
    assert len(often) == 8
    assert int(often[-1].question[:-1]) > 40
    alone = gate._prompts(Grpo().prepare(stage, 0).parts.task.train, resolve_all([RewardTable(use=exact)]), 8)
    asked = [int(prompt.question[:-1]) for prompt in alone]
    assert asked == sorted(asked)
    assert asked[0] < 10
    assert asked[-1] > 50
