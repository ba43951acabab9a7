"""Environments of the real library: prompts, turns, rewards, and what cannot be played."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("verifiers")

from cohort.environments import build_environment
from cohort.integrations.verifiers.play import COLUMN, play
from cohort.integrations.verifiers.source import open_taskset
from cohort.rewards import RewardFailure, RewardPool, RewardTable, ScoringItem, resolve, resolve_all, score_group
from cohort.settings import Curriculum
from cohort.tasks import open_task
from cohort.types import InfrastructureError, UserError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def in_the_directory_of_the_packages(monkeypatch):
    monkeypatch.chdir(HERE)


def refused(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def game(number):
    """A prompt of `guess_number`, and the number to guess."""
    prompt = open_taskset("guess_number", {}, number + 1)[number]
    return prompt, random.Random(number).randrange(10)


def odd(way):
    return open_taskset("odd_ones", {"way": way})[0].tags[COLUMN]


# --- prompts


def test_tasks_are_prompts():
    prompts = open_taskset("reverse-words", {})
    assert len(prompts) == 12
    assert (prompts[0].text, prompts[0].messages, prompts[0].answer) == ("Write stone backwards.", None, "enots")
    assert [p.text for p in open_taskset("reverse_words", {}, 3)] == [p.text for p in prompts[:3]]


def test_args_configure_the_taskset():
    assert open_taskset("reverse_words", {"upper": True}, 1)[0].answer == "ENOTS"
    assert "upper" in refused(open_taskset, "reverse_words", {"upper": "who knows"})
    assert "lower" in refused(open_taskset, "reverse_words", {"lower": True})


def test_a_system_prompt_and_a_prompt_that_the_environment_makes():
    prompt, _ = game(0)
    assert prompt.text is None
    assert [message["role"] for message in prompt.messages] == ["system", "user"]
    assert open_taskset("odd_ones", {})[0].text == "Hello."  # the task has no prompt


def test_the_same_words_with_other_data_are_another_prompt():
    first, second = open_taskset("odd_ones", {"way": "opens"}), open_taskset("odd_ones", {"way": "draws"})
    assert first[0].text == second[0].text
    assert first[0].id == first[1].id != second[0].id  # the two of a package differ in nothing but their number


def test_a_taskset_without_an_end_needs_a_limit():
    assert "keep the first N tasks with limit = N" in refused(open_task, "verifiers:guess_number")
    assert open_task("verifiers:guess_number", limit=5).train.size == 5


def test_a_task_of_cohort():
    task = open_task("verifiers:reverse_words", held_out=0.3)
    assert task.columns == ("prompt", "answer", COLUMN)
    assert task.train.size + task.held_out.size == 12
    assert open_task("verifiers:guess_number", limit=2, held_out="verifiers:reverse_words").held_out.size == 12
    assert "a curriculum goes through" in refused(open_task, "verifiers:reverse_words", curriculum=Curriculum())


def test_a_package_that_cannot_be_loaded():
    assert "'no_such_package' not found" in refused(open_taskset, "no_such_package", {})
    assert "__all__" in refused(open_taskset, "test_verifiers", {})


# --- turns


def test_a_conversation_is_played_to_its_end():
    prompt, secret = game(3)
    row = prompt.tags[COLUMN]
    wrong = (secret + 1) % 10
    hint = "lower" if wrong > secret else "higher"
    for replies, told in (([], []), (["hm"], ["a number, please"]), (["hm", str(wrong)], ["a number, please", hint])):
        played = play(row, replies)
        assert not played.over
        assert played.said[0] == prompt.messages
        assert played.said[1:] == tuple(({"role": "user", "content": text},) for text in told)
        assert played.rewards == {}
    over = play(row, ["hm", str(wrong), str(secret)])
    assert over.over
    assert over.said == played.said


def test_the_environment_answers_turn_by_turn():
    prompt, secret = game(5)
    environment = build_environment("verifiers", {})
    state = environment.reset(prompt, seed=0)
    other = environment.reset(prompt, seed=1)
    assert environment.step(state, "?").messages == ({"role": "user", "content": "a number, please"},)
    assert environment.step(other, str(secret)).messages == ()
    assert environment.step(state, str(secret)).messages == ()


def test_a_turn_may_hold_several_messages():
    said = play(odd("opens"), ["Hi."]).said
    assert said[1] == ({"role": "system", "content": "Mind the time."}, {"role": "user", "content": "And?"})


def test_the_limits_of_the_package_hold():
    prompt, secret = game(1)
    wrong = str(secret + 1) if secret < 9 else "8"
    row = prompt.tags[COLUMN]
    assert not play(row, ["?"] * 5).over
    assert play(row, ["?"] * 6).over  # the agent's max_turns
    if int(wrong) > secret:
        assert not play(row, [wrong] * 2).over
        assert play(row, [wrong] * 3).over  # the task's @vf.stop


def test_rollouts_may_be_played_at_the_same_time():
    prompts = [game(number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda one: play(one[0].tags[COLUMN], ["?", str(one[1])]).over, prompts * 8))
    assert all(found)


# --- rewards


def item(prompt, *conversations, finishes=()):
    """Conversations as lists of texts, the policy's and the environment's in turns."""
    transcripts = tuple(
        tuple({"role": "user" if i % 2 else "assistant", "content": text} for i, text in enumerate(texts))
        for texts in conversations
    )
    return ScoringItem(
        prompt=prompt.question,
        completions=tuple(texts[-1] for texts in conversations),
        answer=prompt.answer,
        row=dict(prompt.tags),
        finishes=finishes or ("stop",) * len(conversations),  # type: ignore[arg-type]
        transcripts=transcripts,
    )


def test_the_reward_is_the_weighted_sum_of_the_tasks_own():
    prompt = open_taskset("reverse_words", {})[0]
    scored = score_group(resolve_all([RewardTable(use="verifiers")]), item(prompt, ["enots"], ["xxxxx"], ["x"]))
    assert scored.rewards == pytest.approx((1.5, 0.5, 0.1))
    assert scored.labels == {}


def test_a_part_of_it_alone():
    prompt = open_taskset("reverse_words", {})[0]
    specs = [
        RewardTable(use="verifiers", name="exact", args={"part": "exact"}),
        RewardTable(use="verifiers", name="length", weight=0.25, args={"part": "length"}),
    ]
    scored = score_group(resolve_all(specs), item(prompt, ["xxxxx"]))
    assert scored.scores == {"exact": (0.0,), "length": (1.0,)}
    assert scored.rewards == (0.25,)
    unknown = resolve_all([RewardTable(use="verifiers", args={"part": "lenght"})])
    with pytest.raises(RewardFailure, match=r"no reward 'lenght' \(did you mean 'length'\?\); it has exact, length"):
        score_group(unknown, item(prompt, ["x"]))


def test_rewards_of_several_turns():
    """What `run` and `finalize` record counts, as do the hooks of the task; a rollout that was cut off is labelled."""
    prompt, secret = game(3)
    rewards = resolve_all([RewardTable(use="verifiers")])
    won = ["?", "a number, please", str(secret)]
    scored = score_group(rewards, item(prompt, won, ["?"], finishes=("stop", "tool")))
    assert scored.rewards == pytest.approx((1.1, 0.1))
    assert scored.labels == {"verifiers": (None, "cut_off")}
    cut = [resolve(RewardTable(use="verifiers", args={"part": "cut"}))]
    assert score_group(cut, item(prompt, won, ["?"])).rewards == (0.0, 1.0)


def test_workers_score_as_this_process_does():
    prompt, secret = game(2)
    conversations = [[str(secret)], ["?", "a number, please", str(secret)], ["?"]]
    rewards = resolve_all([RewardTable(use="verifiers")])
    with RewardPool(rewards, workers=1) as pool:
        there = pool.submit(item(prompt, *conversations)).result()
    assert there.rewards == score_group(rewards, item(prompt, *conversations)).rewards == pytest.approx((1.0, 1.1, 0.1))


def test_a_reward_that_raises_is_no_score():
    prompt = open_taskset("odd_ones", {"way": "reward_raises"})[0]
    with pytest.raises(RewardFailure, match="'odd_ones' \\(run\\): KeyError: 'no such column'"):
        score_group(resolve_all([RewardTable(use="verifiers")]), item(prompt, ["Hi."]))


# --- what is found out, and what is refused


def test_an_environment_that_contradicts_itself_is_found_out():
    prompt = open_taskset("odd_ones", {"way": "draws"})[0]
    environment = build_environment("verifiers", {})
    state = environment.reset(prompt, 0)
    assert environment.step(state, "Hi.").messages[0]["content"].startswith("Call ")
    assert "does not say the same to the same replies" in refused(environment.step, state, "Again.")
    with pytest.raises(RewardFailure, match="says something else to the replies of a rollout"):
        score_group(resolve_all([RewardTable(use="verifiers")]), item(prompt, ["Hi.", "Call 0.", "Fine."]))


def test_what_the_world_does_is_not_the_policys_fault():
    with pytest.raises(InfrastructureError, match="'odd_ones' failed: nobody there"):
        play(odd("down"), ["Hi."])


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("raises", "(run): KeyError: 'a mistake'"),
        ("exits", "(run): RuntimeError: it ended the process: goodbye"),
        ("picture", "a message holds an image"),
    ],
)
def test_an_environment_that_breaks(way, said):
    assert said in refused(play, odd(way), ["Hi."])
    assert play(odd("opens"), ["Hi."]).said  # others go on


def test_several_conversations_are_refused_where_the_second_begins():
    assert "several conversations" in refused(play, odd("twice"), ["Hi.", "There."])


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("container", "its tasks run in a container"),
        ("image", "its tasks run in a container"),
        ("tools", "its tasks have tools, which are MCP servers"),
        ("intercept", "its tasks intercept messages"),
        ("runtime", "files of NeedsRuntime takes a runtime"),
        ("stop", "its tasks stop at single requests"),
        ("silent", "its run asks the agent nothing"),
        ("provision", "its run uses 'provision' of the agent"),
    ],
)
def test_what_takes_more_than_a_conversation_is_refused_at_once(way, said):
    assert said in refused(open_taskset, "odd_ones", {"way": way})


def test_several_agents_are_refused():
    assert "it has several agents (asker, answerer)" in refused(open_taskset, "two_agents", {})
