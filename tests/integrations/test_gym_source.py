"""reasoning-gym as a source: what is made, in which order, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("reasoning_gym")

from cohort import integrations as library
from cohort.integrations.reasoning_gym import source as gym_source
from cohort.integrations.reasoning_gym.source import GymProblems, admitted_tasks, refused_tasks
from cohort.settings import Curriculum
from cohort.tasks import open_demonstrations, open_task
from cohort.types import UserError

SOME = ("ab", "basic_arithmetic", "countdown", "list_functions", "pool_matrix", "shortest_path", "zebra_puzzles")


def questions(prompts, count):
    return [prompts[index].text for index in range(count)]


def refused(source, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_task(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_at_least_sixty_tasks_can_be_used():
    assert len(admitted_tasks()) >= 60
    assert not set(admitted_tasks()) & set(refused_tasks())
    assert all(facts.constant <= 0.75 for facts in admitted_tasks().values())


def test_every_task_of_the_library_was_looked_at():
    from reasoning_gym.factory import DATASETS

    assert set(DATASETS) == {*admitted_tasks(), *refused_tasks()}


@pytest.fixture(scope="module")
def made_elsewhere():
    """Problems of every one of these tasks, made by another process."""
    script = (
        "import json, sys; from cohort.integrations.reasoning_gym.source import GymProblems\n"
        "made = {task: GymProblems(task, seed=7) for task in sys.argv[1:]}\n"
        "print(json.dumps({task: [[p.text, p.answer, p.tags] for p in (problems[i] for i in (3, 0, 2))] "
        "for task, problems in made.items()}))"
    )
    there = subprocess.run([sys.executable, "-c", script, *SOME], capture_output=True, text=True, check=True)
    return json.loads(there.stdout.splitlines()[-1])


@pytest.mark.parametrize("task", SOME)
def test_a_problem_is_the_same_wherever_and_whenever_it_is_made(task, made_elsewhere):
    problems = GymProblems(task, seed=7)
    here = [problems[index] for index in (3, 0, 2)]
    assert made_elsewhere[task] == [[p.text, p.answer, p.tags] for p in here]


def test_pinned_problem():
    """A recorded run can only be continued if this never changes."""
    prompt = GymProblems("basic_arithmetic", (1,), seed=0)[0]
    assert (prompt.text, prompt.answer, prompt.tags["level"]) == PINNED


PINNED = ("Calculate -3 * -2.", "6", 1)


def test_problems_do_not_repeat_where_the_library_would():
    """Its ReseedingDataset adds a number to the seed, so 5,000 problems hold 505 different ones."""
    problems = GymProblems("basic_arithmetic", seed=0)
    assert len(set(questions(problems, 2000))) > 1990
    shifted = GymProblems("basic_arithmetic", seed=1)
    assert not set(questions(problems, 200)) & set(questions(shifted, 200))  # nor is seed 1 seed 0, moved by one


@pytest.mark.parametrize("task", ["basic_arithmetic", "count_bits", "gcd"])
def test_train_and_held_out_never_meet(task):
    seen = {split: set() for split in ("train", "held_out")}
    for split, found in seen.items():
        for seed in range(3):
            found.update(questions(GymProblems(task, seed=seed, split=split), 150))  # type: ignore[arg-type]
    assert not seen["train"] & seen["held_out"]


def test_levels_take_turns_and_are_the_librarys_own():
    problems = GymProblems("basic_arithmetic", (1, 3), seed=0)
    assert [problems[index].tags["level"] for index in range(4)] == [1, 3, 1, 3]
    first, third = (problems.configurations[level] for level in (1, 3))
    assert first != third
    assert problems.at(3, 0) == problems.at(3, 0)
    assert problems.at(3, 0).text != problems.at(1, 0).text
    assert problems.at(1, 0) == GymProblems("basic_arithmetic", (1,), seed=0)[0]  # whatever the other levels


def test_args_are_over_the_level():
    problems = GymProblems("basic_arithmetic", (1,), args={"min_terms": 7, "max_terms": 7})
    assert problems[0].text.count(" ") > 7
    assert problems.configurations[1]["min_terms"] == 7


def test_a_task_holds_out_its_own_problems_the_same_for_every_seed():
    tasks = [open_task("reasoning_gym:gcd", seed=seed, held_out_seed=0) for seed in (1, 2)]
    assert tasks[0].columns == ("prompt", "answer", "task", "level", "gym")
    assert tasks[0].train.size is None
    assert questions(tasks[0].held_out, 20) == questions(tasks[1].held_out, 20)
    assert questions(tasks[0].train, 20) != questions(tasks[1].train, 20)


def test_limit_is_so_many_different_problems():
    endless = open_task("reasoning_gym:count_bits", args={"max_n": 40}, seed=1)
    assert len(set(questions(endless.train, 60))) < 40  # few numbers, so it repeats itself
    task = open_task("reasoning_gym:count_bits", args={"max_n": 40}, seed=1, limit=25)
    assert task.train.size == 25
    backwards = [task.train[index].text for index in reversed(range(25))]
    assert len(set(backwards)) == 25
    again = open_task("reasoning_gym:count_bits", args={"max_n": 40}, seed=1, limit=25)
    assert backwards[::-1] == questions(again.train, 25)  # in whichever order they are asked for
    with pytest.raises(IndexError):
        task.train[25]
    many = open_task("reasoning_gym:count_bits", args={"max_n": 40}, seed=1, limit=500).train
    with pytest.raises(UserError, match=r"has about 3\d different prompts at these settings, fewer than limit = 500"):
        many[499]


def test_a_curriculum_goes_through_all_levels_unless_some_are_named():
    task = open_task("reasoning_gym:basic_arithmetic", curriculum=Curriculum(window=1))
    levels = task.train.sources[0].train.levels  # type: ignore[attr-defined]
    assert levels == tuple(range(1, admitted_tasks()["basic_arithmetic"].levels + 1))
    named = open_task("reasoning_gym:basic_arithmetic", levels=[2, 4], curriculum=Curriculum(window=1))
    tickets = named.tickets(0)
    found = []
    for _ in range(3):
        ticket = tickets.issue()
        found.append(named.train[ticket.index].tags["level"])
        tickets.finish(ticket.number, "trained", 1.0)
    assert found == [2, 4, 4]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (
            "reasoning_gym:chain_sun",
            {},
            "has no task 'chain_sun', or it is newer than 0.1.25. Did you mean 'chain_sum'?",
        ),
        ("reasoning_gym:qqqqq", {}, "docs/tasks/reasoning_gym.md lists them"),
        ("reasoning_gym:simple_integration", {}, "cannot be trained on: its scorer executes the answer"),
        ("reasoning_gym:composite", {}, "cannot be trained on: it is a mixture of tasks; write [task.mixture]"),
        ("reasoning_gym", {}, 'not of the form "reasoning_gym:TASK", such as'),
        ("reasoning_gym:", {}, "not of the form"),
        ("reasoning-gym:gcd", {}, 'Did you mean "reasoning_gym:gcd"?'),
        ("reasoningGym:gcd", {}, 'Did you mean "reasoning_gym:gcd"?'),
        ("reasoning_gym:gcd", {"levels": [99]}, "gcd has levels 1 to "),
        ("reasoning_gym:list_functions", {"levels": [1]}, "list_functions has no levels, so levels cannot be [1]"),
        (
            "reasoning_gym:gcd",
            {"args": {"min_number": 1}},
            "takes no argument 'min_number'. Did you mean 'min_numbers'?",
        ),
        ("reasoning_gym:gcd", {"args": {"seed": 1}}, "Leave it out: every problem has its own seed"),
        ("reasoning_gym:gcd", {"args": {"size": 9}}, "write limit = N for the first N different problems"),
        ("reasoning_gym:gcd", {"args": {"min_numbers": -5}}, "gcd does not take {'min_numbers': -5}: "),
        ("reasoning_gym:gcd", {"args": {"min_numbers": "two"}}, "gcd does not take {'min_numbers': 'two'}: "),
        ("reasoning_gym:gcd", {"held_out": 0.2}, "holds out its own problems; remove held_out = 0.2"),
        ("reasoning_gym:list_functions", {"curriculum": Curriculum()}, "a curriculum needs two levels or more"),
    ],
)
def test_what_is_refused(source, options, says):
    assert says in refused(source, **options)


def test_settings_that_leave_nothing_to_hold_out():
    """There is one question, and it belongs to one of the two."""
    said = []
    for split in ("train", "held_out"):
        try:
            GymProblems("count_bits", args={"min_n": 7, "max_n": 7}, split=split)[0]
        except UserError as error:
            said.append(str(error))
    assert len(said) == 1
    assert "problem at these settings (too few of its problems are different to hold some out)" in said[0]


def test_it_is_no_source_of_demonstrations():
    with pytest.raises(UserError, match="has questions and answers but no completions to learn from"):
        open_demonstrations("reasoning_gym:gcd")


def test_without_the_package(monkeypatch):
    gym_source.require_library.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert 'pip install "cohort[reasoning-gym]"' in refused("reasoning_gym:gcd")
    gym_source.require_library.cache_clear()


def test_with_another_version(monkeypatch):
    gym_source.require_library.cache_clear()
    monkeypatch.setattr(library, "version", lambda name: "0.1.99")
    assert "reasoning-gym is 0.1.99 here, and its scorers were tried at 0.1.25" in refused("reasoning_gym:gcd")
    gym_source.require_library.cache_clear()
