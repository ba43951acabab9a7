"""Agents behind an endpoint: what is kept of their calls, how they fail, and that a run with them repeats."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
from pathlib import Path

import agents
import numpy as np
import pytest
import torch
from agents import post
from safetensors.torch import load_file

from cohort.algorithms import objectives
from cohort.engine.engine import Engine
from cohort.environments.endpoint.agents import Task, Way, open_agent
from cohort.environments.endpoint.play import AgentPlay, Endpoint
from cohort.environments.endpoint.rows import Answered, rollout_of, rows_of, stem_of
from cohort.environments.endpoint.talk import Talk
from cohort.environments.episodes import Rules
from cohort.learn.batch import collate
from cohort.learn.forward import batch_logprobs
from cohort.policy.attention import PackedGroups
from cohort.policy.policy import Policy
from cohort.recipe import Recipe
from cohort.record.rollouts import read_groups, write_groups
from cohort.train import train
from cohort.types import Completion, Group, InfrastructureError, Prompt, Rollout, SampleRequest, Sampling, UserError
from cohort.views.console import Console
from tiny import make_tiny

ASKED = Prompt.make(text="What is 2 plus 3?")


@pytest.fixture(scope="module")
def policy(tokenizer):
    torch.set_num_threads(1)
    return Policy(make_tiny("qwen3", tokenizer), tokenizer)


@pytest.fixture
def play(policy, request):
    """Plays a group of an agent, and gives back its stem and what became of it."""
    opened = []

    def run(use, count=3, seed=7, max_tokens=96, args=None, prompt=ASKED, sampler=None, **rules):
        rules = {"max_turns": 4, "timeout_s": 20.0, **rules}
        opened.append(Endpoint(open_agent(use, args or {}), retries=1))
        talk = Talk(policy.tokenizer, policy.eos_ids)
        player = AgentPlay(opened[-1], sampler or Engine(policy, 8), Rules(**rules), talk)
        asked = SampleRequest(0, (5,), count, seed, Sampling(max_tokens))
        ((found, played),) = player([asked], {0: prompt})
        return tuple(found.tokens), played

    yield run
    for one in opened:
        one.close()


def plain_logprobs(policy, stem, rollout):
    """Log-probs of every row by itself, by a plain forward pass, laid end to end."""
    found, at = [], 0
    for length in rollout.rows:
        whole = torch.tensor([[*stem, *rollout.tokens[at : at + length]]])
        with torch.no_grad():
            layout = PackedGroups([whole[0].tolist()])
            logits = policy.logits(policy.plain_hidden(layout.tokens, layout.positions, layout)).log_softmax(-1)
        tokens = whole[0, len(stem) :]
        found += logits[len(stem) - 1 : -1].gather(-1, tokens[:, None])[:, 0].tolist()
        at += length
    return np.array(found)


@pytest.mark.parametrize("agent", [agents.talks, agents.forgets, agents.completes])
def test_tokens_and_log_probs_are_those_that_were_sampled(play, policy, agent):
    stem, rollouts = play(agent)
    assert len({tuple(rollout.tokens) for rollout in rollouts}) == 3  # every member draws its own
    for rollout in rollouts:
        own = np.asarray(rollout.mask)
        assert np.allclose(np.asarray(rollout.logprobs)[own], plain_logprobs(policy, stem, rollout)[own], atol=1e-4)
        assert not np.asarray(rollout.logprobs)[~own].any()
        spans = sorted((turn.start, turn.end) for turn in rollout.turns)
        assert own.sum() == sum(end - start for start, end in spans)
        assert all(own[start:end].all() for start, end in spans)
        assert len(rollout.rows) == (2 if agent is agents.forgets else 1)


def test_the_learner_sees_each_row_behind_the_prompt(play, policy):
    """What the sampler drew and what the learner computes are the same, in one pass and cut into small ones."""
    stem, rollouts = play(agents.forgets)
    prompt = Prompt.make(text="x")
    group = Group(0, Prompt(prompt.id, "x", tokens=stem), rollouts, advantages=(1.0, -1.0, 0.5))
    batch = collate([group], objectives.preset("dr_grpo"), 96)
    assert [len(rows) for rows in batch.rows] == [2, 2, 2]
    for at_once in (10_000, 20):
        found = batch_logprobs(policy, batch, batch.mask, at_once, 1.0)
        assert torch.allclose(found[batch.mask], batch.sampler_logprobs[batch.mask], atol=1e-4)


def test_rows_survive_the_record(play, tmp_path):
    stem, rollouts = play(agents.forgets)
    group = Group(0, Prompt(ASKED.id, ASKED.text, tokens=stem), rollouts)
    write_groups(tmp_path / "step-000001.parquet", [group], 1)
    (back,) = read_groups(tmp_path / "step-000001.parquet")
    assert [one.rows for one in back.rollouts] == [one.rows for one in rollouts]
    assert [one.turns for one in back.rollouts] == [one.turns for one in rollouts]
    assert back.rollouts[0].transcript[0]["reward"] in (0.0, 1.0)


def call(prompt, own):
    return Answered(tuple(prompt), (), Completion(tuple(own), (-0.5,) * len(own), "stop", 1), "")


def test_rows_by_hand():
    calls = [
        call([1, 2], [3, 4]),
        call([1, 2, 3, 4, 5], [6]),  # goes on
        call([1, 2, 3, 9], [7]),  # what was answered is written anew
        call([1, 2, 3, 9, 7], [8]),  # goes on in the second row
        call([1, 2, 3, 4, 5, 6, 0], [2]),  # and in the first again
    ]
    first, second = rows_of(calls)
    assert first.tokens == [1, 2, 3, 4, 5, 6, 0, 2]
    assert first.mask == [False, False, True, True, False, True, False, True]
    assert second.tokens == [1, 2, 3, 9, 7, 8]
    assert second.mask == [False] * 4 + [True] * 2
    assert stem_of([first, second]) == (1, 2)
    rollout = rollout_of(calls, 2, "stop", None, [None] * 5)
    assert rollout.rows == (6, 4)
    for turn, one in zip(rollout.turns, calls, strict=True):
        assert tuple(rollout.tokens[turn.start : turn.end]) == one.completion.tokens
    assert [turn.row for turn in rollout.turns] == [None, None, 6, None, None]


def test_a_tool_call_goes_on_from_the_tokens_that_made_it(play, policy, tokenizer):
    """Whatever was sampled, an agent that sends the answer back with a tool's result gets the same row."""
    stem, rollouts = play(agents.talks, count=1)
    assert rollouts[0].rows == (len(rollouts[0].tokens),)
    text = policy.tokenizer.decode(list(stem))
    assert text == "<|system|>Be brief.<|user|>What is 2 plus 3?<|assistant|>"


def test_the_same_again_and_others_with_another_seed(play):
    first, again, other = (play(agents.talks, seed=seed)[1] for seed in (7, 7, 8))
    assert first == again != other


def test_how_many_agents_work_at_once_changes_no_draw_of_a_second_call(play):
    """Seeds follow the tokens of a call: with one agent at a time the rows are the same in kind, and repeat."""
    one, again = (play(agents.forgets, concurrency=1)[1] for _ in range(2))
    assert one == again


def slow(prompt, base_url, api_key, seed):
    time.sleep(seed % 7 / 20)
    return agents.talks(prompt, base_url, api_key, 2)


def test_what_is_sampled_does_not_depend_on_how_long_agents_take(play):
    def quick(prompt, base_url, api_key):
        return agents.talks(prompt, base_url, api_key, 2)

    assert play(slow) == play(quick)


class TestFailures:
    def test_one_that_hangs_is_the_worlds(self, play):
        began = time.monotonic()
        _, failed = play(agents.hangs, timeout_s=0.5)
        assert isinstance(failed, InfrastructureError)
        assert "neither asked nor ended within 0.5 s" in str(failed)
        assert time.monotonic() - began < 5

    def test_a_connection_that_breaks_is_tried_again(self, play):
        tries = []

        def shaky(prompt, base_url, api_key):
            tries.append(1)
            if len(tries) == 1:
                raise ConnectionError("its own server is down")
            return agents.talks(prompt, base_url, api_key, 1)

        _, played = play(shaky, count=1)
        assert isinstance(played[0], Rollout)
        tries[:] = []

        def down(prompt, base_url, api_key):
            tries.append(1)
            raise ConnectionError("its own server is down")

        _, failed = play(down, count=1)
        assert "its own server is down" in str(failed)
        assert len(tries) == 2

    @pytest.mark.parametrize(
        ("agent", "said"),
        [
            (agents.silent, "ended without a call"),
            (agents.no_url, "takes no base_url"),
            (agents.breaks, "a mistake of mine"),
            (lambda prompt, base_url, api_key: object(), "an agent returns a text"),
            (lambda base_url, api_key, colour: None, "needs 'colour'"),
            ("no_such_program_at_all {prompt}", "is not there"),
            (None, "name it"),
        ],
    )
    def test_the_agents_own_code_stops_the_run(self, play, agent, said):
        with pytest.raises(UserError, match=said):
            play(agent, count=1)

    def test_one_that_takes_anything_gets_the_columns_that_it_names_too(self):
        def solve(prompt, colour, *, extra, **rest):
            return f"{prompt} {colour} {extra} {sorted(rest)}"

        prompt = Prompt.make(text="What is it?", tags={"colour": "red", "shape": "round"})
        found = open_agent(solve, {"extra": 1}).run(prompt, Way("http://here", "key", 7), Task())
        assert found == "What is it? red 1 ['api_key', 'base_url', 'messages', 'model', 'seed']"

    def test_an_answer_that_it_cannot_read_is_the_policys(self, play):
        _, (rollout,) = play(agents.confused, count=1)
        assert rollout.finish == "error"
        assert rollout.mask.count(True)

    def test_calls_and_tokens_have_a_budget(self, play):
        assert {one.finish for one in play(agents.greedy)[1]} == {"tool"}
        (short,) = play(agents.talks, count=1, max_tokens=12)[1]
        assert short.finish == "length"
        assert len(short.tokens) <= 12

    def test_who_asks_when_all_is_over_is_told_so(self, play):
        agents.LATE.clear()

        def until_it_has_asked():
            play(agents.lingers, count=1)
            while not agents.LATE:
                time.sleep(0.05)

        with pytest.warns(UserWarning, match="leaves something running"):
            until_it_has_asked()
        assert agents.LATE == [410]

    def test_a_wrong_key_is_refused_and_another_rollout_is_out_of_reach(self, play):
        codes = []

        def curious(prompt, base_url, api_key):
            for key, at in (("sk-wrong", base_url), (api_key, base_url.replace("/v1", "0/v1")), ("", base_url)):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    post(at, key, messages=[{"role": "user", "content": "x"}])
                codes.append(caught.value.code)
            return agents.talks(prompt, base_url, api_key, 1)

        play(curious, count=1)
        assert codes == [401] * 3


PROGRAM = """
import json, os, sys, urllib.request
body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": sys.argv[1]}], "max_tokens": 5})
asked = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body.encode(), {
    "Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
print("it said", len(json.load(urllib.request.urlopen(asked))["choices"][0]["message"]["content"]), sys.stdin.read())
sys.exit(int(sys.argv[2]))
"""


def test_a_program_is_an_agent_too(play, tmp_path):
    (tmp_path / "own.py").write_text(PROGRAM)
    (rollout,) = play(f"{sys.executable} {tmp_path / 'own.py'} {{prompt}} 0", count=1)[1]
    assert rollout.text.startswith("it said ")
    assert rollout.text.endswith("What is 2 plus 3?")
    _, failed = play(f"{sys.executable} {tmp_path / 'own.py'} {{prompt}} 3", count=1)
    assert "ended with the code 3" in str(failed)


def test_a_program_that_hangs_is_killed(play, tmp_path):
    (tmp_path / "own.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    _, failed = play(f"{sys.executable} {tmp_path / 'own.py'}", count=1, timeout_s=1.0)
    assert "neither asked nor ended" in str(failed)
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


@pytest.fixture
def tables(tmp_path, checkpoint_dir):
    rows = [{"question": f"What is {i} plus {i + 1}?", "solution": str(2 * i + 1)} for i in range(24)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "agents",
        "seed": 1,
        "policy": {"model": str(checkpoint_dir)},
        "task": {"source": str(tmp_path / "mine.jsonl"), "prompt": "question", "answer": "solution"},
        "environment": {"use": "endpoint", "agent": agents.forgets},
        "rollout": {"prompts_per_step": 2, "group_size": 3, "max_tokens": 96},
        "reward": [{"use": "agent", "args": {"by_call": True}}],
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"problems": 0},
        "run": {"steps": 3, "save_every": 1, "directory": str(tmp_path / "runs"), "threads": 1, "gate": "off"},
    }


def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(tables, tmp_path):
    quiet = Console(quiet=True)
    whole = train(Recipe(**tables), console=quiet)
    tables["run"] |= {"directory": str(tmp_path / "other"), "steps": 2}
    train(Recipe(**tables), console=quiet)
    tables["run"]["steps"] = 3
    resumed = train(Recipe(**tables), resume=True, console=quiet)
    first, second = (load_file(one.final / "model.safetensors") for one in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [sorted((one.directory / "log").glob("step-*.parquet")) for one in (whole, resumed)]
    assert [read_groups(file) for file in logs[0]] == [read_groups(file) for file in logs[1]]
    for line in whole.metrics[1:]:
        assert line["policy/mismatch"] < 1e-4
        assert line["turns/mean"] == 2
    (group, *_) = read_groups(whole.directory / "log" / "step-000001.parquet")
    for steps, rollout in zip(group.steps["agent"], group.rollouts, strict=True):
        assert [(one.end, one.score) for one in steps] == [(turn.end - 1, turn.reward) for turn in rollout.turns]
    assert threading.active_count() < 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"environment": {"use": "endpoint"}}, "name it"),
        ({"environment": {"agent": "x:y"}}, "has no effect"),
        ({"rollout": {"groups": "beam", "group_size": 4}}, "whose calls are draws"),
        ({"objective": {"preset": "ppo"}}, "without a critic"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_sentence(tables, change, said):
    with pytest.raises(UserError, match=said):
        train(Recipe(**{**tables, **change}), console=Console(quiet=True))


def test_the_recipe_of_an_agent_that_was_there_before(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    agent = (root / "examples/calculator_agent.py").read_text()
    assert "import cohort" not in agent
    assert "from cohort" not in agent
    monkeypatch.chdir(root)
    small = ["cold_start.run.steps=2", "cold_start.supervised.examples_per_step=4", "cold_start.task.careful_first=4"]
    small += ["grpo.run.steps=1", "grpo.rollout.prompts_per_step=2", "grpo.rollout.group_size=2"]
    small += ["grpo.evaluate.problems=2", "grpo.evaluate.samples=0", "run.threads=1", f"run.directory={tmp_path}"]
    done = train(Recipe.load(root / "recipes/agent.toml", small), console=Console(quiet=True))
    groups = read_groups(next(done.directory.rglob("step-000001.parquet")))
    assert [len(group.rollouts) for group in groups] == [2, 2]
    assert all(rollout.turns for group in groups for rollout in group.rollouts)
