"""Several sources as one: shares, weights by step, held-out prompts, and a selection that is restored exactly."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.settings import Adaptive, Curriculum
from cohort.tasks import Ledger, Selection, open_mixture, open_task
from cohort.tasks.embedded.problems import Problems
from cohort.tasks.embedded.word_problems import WORD_PROBLEMS
from cohort.types import UserError

ROWS = [{"question": f"What is {i} plus {i + 1}?", "gold": str(2 * i + 1), "kind": "sum"} for i in range(12)]
FILE = {"source": ROWS, "prompt": "question", "answer": "gold"}


def domains(task, tickets, count, step=1):
    return [task.train[tickets.issue(step).index].tags["domain"] for _ in range(count)]


def mixed(**changes):
    sources: dict[str, dict[str, Any]] = {
        "rows": {**FILE, "held_out": 0.3, "adaptive": Adaptive()},
        "easy": {"source": "word_problems", "levels": [1, 2, 3], "curriculum": Curriculum(window=2, raise_at=0.5)},
        "hard": {"source": "word_problems", "levels": [4, 5]},
    }
    return open_mixture({name: {**options, **changes.get(name, {})} for name, options in sources.items()}, seed=3)


def test_every_stretch_has_the_shares_of_the_weights():
    task = mixed(rows={"weight": 1}, easy={"weight": 2.5}, hard={"weight": 0.5})
    found = domains(task, task.tickets(0), 400)
    for begin in range(0, 400, 37):
        for end in range(begin + 1, 400, 53):
            counts = Counter(found[begin:end])
            for name, share in (("rows", 0.25), ("easy", 0.625), ("hard", 0.125)):
                assert abs(counts[name] - share * (end - begin)) <= 2


def test_weights_by_step():
    task = mixed(rows={"weight": {"0": 1, "10": 0}}, easy={"weight": 1}, hard={"weight": {"20": 3}})
    tickets = task.tickets(0)
    assert Counter(domains(task, tickets, 40, step=1)) == {"rows": 20, "easy": 20}
    assert Counter(domains(task, tickets, 40, step=10)) == {"easy": 40}
    assert Counter(domains(task, tickets, 40, step=20)) == {"easy": 10, "hard": 30}


def test_sources_keep_their_own_order():
    """A source in a mixture yields what it would yield alone, level by level and epoch by epoch."""
    task = mixed()
    tickets = task.tickets(0)
    found: dict[str, list] = {"rows": [], "easy": [], "hard": []}
    for _ in range(90):
        prompt = task.train[tickets.issue(1).index]
        found[prompt.tags["domain"]].append(prompt)
    size = task.train.sources[0].train.size
    assert sorted(p.text for p in found["rows"][:size]) == sorted(p.text for p in found["rows"][size : 2 * size])
    assert [p.tags["level"] for p in found["hard"]] == [4, 5] * 15
    assert {p.tags["level"] for p in found["easy"]} == {1}  # nothing was finished, so nothing rose
    assert len({p.text for p in found["easy"]} | {p.text for p in found["hard"]}) == 60
    assert found["rows"][0].tags["kind"] == "sum"
    assert found["rows"][0].answer == found["rows"][0].tags["gold"]


def test_two_sources_of_one_kind_are_different_problems():
    task = open_mixture({name: {"source": "word_problems", "levels": [2]} for name in ("a", "b")}, seed=1)
    tickets = task.tickets(0)
    assert len({task.train[tickets.issue().index].text for _ in range(60)}) == 60


def test_held_out_prompts_take_turns():
    task = mixed()
    first = [task.held_out[index].tags["domain"] for index in range(9)]
    assert first == ["rows", "easy", "hard"] * 3
    assert task.held_out.size is None
    ended = open_mixture({"a": {**FILE, "held_out": 0.3}, "b": {**FILE, "held_out": 0.7}})
    both = [ended.held_out[index] for index in range(ended.held_out.size)]
    sizes = Counter(prompt.tags["domain"] for prompt in both)
    assert sizes["a"] < sizes["b"] < 12
    assert [p.tags["domain"] for p in both[: 2 * sizes["a"]]] == ["a", "b"] * sizes["a"]
    assert len({(p.tags["domain"], p.text) for p in both}) == len(both)


def test_columns_of_a_mixture():
    assert mixed().columns == (
        *("prompt", "answer", "gold", "kind", "level", "steps", "reasoning", "split"),
        "domain",
    )
    without = open_mixture({"rows": {"source": [{"prompt": "a"}]}, "made": {"source": "word_problems"}})
    assert "answer" not in without.columns  # not every source has one


def test_one_source_with_rules_is_a_mixture_without_a_name():
    task = open_task(ROWS, prompt="question", answer="gold", adaptive=Adaptive())
    plain = open_task(ROWS, prompt="question", answer="gold")
    chosen, ledger = task.tickets(5), plain.tickets(5)
    assert isinstance(chosen, Selection)
    assert isinstance(ledger, Ledger)
    for _ in range(30):  # and where nothing rests, its order is the plain one
        assert task.train[chosen.issue().index] == plain.train[ledger.issue().index]


def test_levels_rise_with_what_is_finished():
    task = mixed()
    tickets = task.tickets(0)
    levels = []
    for _ in range(30):
        ticket = tickets.issue(1)
        prompt = task.train[ticket.index]
        if prompt.tags["domain"] == "easy":
            levels.append(prompt.tags["level"])
        tickets.finish(ticket.number, "trained", 1.0)
    assert levels == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert tickets.metrics()["domain/easy/level"] == 3.0


def test_solved_prompts_are_passed_over_and_come_back():
    task = open_task(ROWS, prompt="question", answer="gold", adaptive=Adaptive())
    tickets = task.tickets(0)
    asked = []
    for _ in range(60):
        ticket = tickets.issue()
        asked.append((ticket.epoch, ticket.index))
        tickets.finish(ticket.number, "trained", 0.5 if ticket.index < 6 else 1.0)
    by_epoch = [{index for epoch, index in asked if epoch == number} for number in range(6)]
    everything, mixed_ones = set(range(12)), set(range(6))
    assert by_epoch == [everything, mixed_ones, everything, mixed_ones, mixed_ones, everything]


def test_when_all_rest_the_first_to_wake_is_asked():
    task = open_task(ROWS, prompt="question", answer="gold", adaptive=Adaptive(rest=8))
    tickets = task.tickets(0)
    for _ in range(12):
        tickets.finish(tickets.issue().number, "trained", 0.0)
    assert tickets.issue().epoch == 9


def test_a_group_without_scores_says_nothing():
    task = open_task(ROWS, prompt="question", answer="gold", adaptive=Adaptive())
    tickets = task.tickets(0)
    for _ in range(12):
        tickets.finish(tickets.issue().number, "error", None)
    assert tickets.metrics() == {"task/resting": 0.0}


ACTIONS = st.lists(st.one_of(st.just("issue"), st.just("kill"), st.integers(0, 20)), max_size=60)
RATES = (0.0, 0.5, 1.0)


@settings(max_examples=60)
@given(actions=ACTIONS, seed=st.integers(0, 1000))
def test_a_restored_selection_goes_on_exactly(actions, seed):
    """Killed and restored at any instant, with any tickets in flight: the same prompts in the same order."""
    task = mixed(rows={"weight": {"0": 1, "15": 3}})
    whole, killed = task.tickets(seed), task.tickets(seed)
    held: list[int] = []
    for step, action in enumerate(actions):
        if action == "issue":
            ticket = whole.issue(step)
            assert killed.issue(step) == ticket
            held.append(ticket.number)
        elif action == "kill":
            state = json.loads(json.dumps(killed.state()))
            killed = task.tickets(seed, state)
            assert killed.state() == state
            for number in sorted(held):  # as groups that were saved whole, and as those that are asked again
                if number % 2:
                    killed.claim(number)
                else:
                    assert killed.issue(step) == whole.ticket(number)
        elif held:
            number = held.pop(action % len(held))
            rate = RATES[(number + action) % 3]
            for tickets in (whole, killed):
                tickets.finish(number, "trained", rate)
    assert killed.state() == whole.state()


def test_other_sources_are_refused():
    task = mixed()
    state = task.tickets(0).state()
    with pytest.raises(UserError, match="cannot be continued on other prompts"):
        mixed(rows={"source": ROWS[:8]}).tickets(0, state)
    with pytest.raises(UserError, match="seed was 0 and is 1"):
        task.tickets(1, state)


def refused(sources) -> str:
    with pytest.raises(UserError) as caught:
        open_mixture(sources)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused():
    assert "a mixture needs a source" in refused({})
    assert "mixture words: levels of word_problems are numbers from 1 to 5" in refused(
        {"words": {"source": "word_problems", "levels": [9]}}
    )
    assert "every weight of the mixture is 0 from step 5 on" in refused({"rows": {**FILE, "weight": {"0": 1, "5": 0}}})
    for weight in (-1, {"soon": 1}, {}, {"-3": 1}, float("nan")):
        message = refused({"rows": {**FILE, "weight": weight}})
        assert message.startswith(("mixture rows: the weight", "mixture rows: task.mixture.NAME.weight"))
        assert "a number of at least 0" in message
    endless = {"source": "word_problems", "adaptive": Adaptive()}
    assert "'word_problems' has no end: keep the first N with limit = N" in refused({"words": endless})
    limited = {"source": "word_problems", "curriculum": Curriculum(), "limit": 10}
    assert "limit makes a fixed list of prompts; remove it" in refused({"words": limited})
    assert "this source has none" in refused({"rows": {**FILE, "curriculum": Curriculum()}})
    assert "args configure a reasoning_gym task" in refused({"rows": {**FILE, "args": {"size": 3}}})
    single = {"source": "word_problems", "levels": [2], "curriculum": Curriculum()}
    assert "two levels or more to go through; 'word_problems' has [2]" in refused({"words": single})


def test_a_curriculum_over_word_problems_makes_the_known_problems():
    """Level and number say everything, as without a curriculum."""
    task = open_task("word_problems", curriculum=Curriculum(), seed=4)
    assert task.train.sources[0].train.levels == (1, 2, 3, 4, 5)  # type: ignore[attr-defined]
    tickets = task.tickets(0)
    prompts = [task.train[tickets.issue().index] for _ in range(5)]
    alone = Problems(WORD_PROBLEMS, (1,), seed=4)
    assert prompts == [alone[index] for index in range(5)]
    assert [task.held_out[index].tags["level"] for index in range(5)] == [1, 2, 3, 4, 5]  # all levels, always
