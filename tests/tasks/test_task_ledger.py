"""The ledger: whatever is killed and restored, every ticket is finished exactly once and none is skipped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.tasks.order.ledger import Ledger, Ticket, permutation
from cohort.types import UserError

SIZES = st.one_of(st.none(), st.integers(1, 12))
ACTIONS = st.lists(st.one_of(st.just("issue"), st.just("kill"), st.integers(0, 10)), max_size=80)


@settings(max_examples=200)
@given(size=SIZES, seed=st.integers(0, 2**40), actions=ACTIONS, lost=st.booleans())
def test_every_ticket_is_finished_exactly_once(size, seed, actions, lost):
    """A run killed at any instant. What it did since the last save is undone with it (`lost`), or nothing is."""
    ledger, held = Ledger(size, seed), []
    finished: list[int] = []
    saved = (json.dumps(ledger.state()), [])
    for action in actions:
        if action == "issue":
            held.append(ledger.issue().number)
        elif action == "kill":
            if lost:
                finished = list(saved[1])
            state = saved[0] if lost else json.dumps(ledger.state())
            unfinished = json.loads(state)["in_flight"]
            ledger, held = Ledger.restore(json.loads(state), size, seed), []
            assert ledger.state() == json.loads(state)
            again = [ledger.issue().number for _ in unfinished]
            assert again == sorted(unfinished)  # first of all, and in order
            held = again
            saved = (json.dumps(ledger.state()), list(finished))
        elif held:
            number = held.pop(action % len(held))
            ledger.finish(number, "trained" if number % 2 else "zero_std")
            finished.append(number)
    while held:
        number = held.pop()
        ledger.finish(number, "trained")
        finished.append(number)
    assert sorted(finished) == list(range(ledger.next))
    assert ledger.finished == len(finished)
    assert ledger.state()["in_flight"] == []
    assert sum(ledger.counts.values()) == len(finished)


@settings(max_examples=50)
@given(size=st.integers(1, 40), seed=st.integers(0, 2**40), cut=st.integers(0, 100))
def test_a_restored_run_sees_the_same_prompts(size, seed, cut):
    whole = Ledger(size, seed)
    expected = [whole.issue() for _ in range(120)]
    ledger = Ledger(size, seed)
    for ticket in expected[:cut]:
        assert ledger.issue() == ticket
        ledger.finish(ticket.number, "trained")
    ledger = Ledger.restore(ledger.state(), size, seed)
    assert [ledger.issue() for _ in range(120 - cut)] == expected[cut:]


@settings(max_examples=50)
@given(size=st.integers(1, 200), seed=st.integers(0, 2**62))
def test_every_epoch_is_a_permutation(size, seed):
    ledger = Ledger(size, seed)
    for epoch in range(3):
        tickets = [ledger.issue() for _ in range(size)]
        assert {ticket.epoch for ticket in tickets} == {epoch}
        assert sorted(ticket.index for ticket in tickets) == list(range(size))


def test_epochs_and_seeds_differ():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert tuple(range(50)) not in orders


def test_pinned_order():
    """A recorded run can only be continued if this never changes."""
    assert permutation(0, 0, 10).tolist() == PINNED


PINNED = [3, 1, 7, 2, 5, 4, 6, 0, 9, 8]


def test_positions_are_uniform():
    first = np.bincount([permutation(seed, 0, 5)[0] for seed in range(2000)], minlength=5)
    assert first.min() > 330
    assert first.max() < 470


def test_unshuffled_and_unlimited():
    plain = Ledger(3, seed=0, shuffle=False)
    assert [plain.issue() for _ in range(4)] == [Ticket(0, 0, 0), Ticket(1, 0, 1), Ticket(2, 0, 2), Ticket(3, 1, 0)]
    endless = Ledger(None, seed=0)
    assert [endless.issue() for _ in range(3)] == [Ticket(0, 0, 0), Ticket(1, 0, 1), Ticket(2, 0, 2)]
    assert endless.ticket(10**15) == Ticket(10**15, 0, 10**15)


def test_a_late_group_of_the_last_epoch_does_not_thrash():
    ledger = Ledger(4, seed=0)
    expected = [ledger.issue() for _ in range(40)]
    assert [ledger.ticket(number) for number in range(40)] == expected
    assert len(ledger.orders) <= 2


def test_finishing_twice_or_without_a_ticket():
    ledger = Ledger(5, seed=0)
    number = ledger.issue().number
    ledger.finish(number, "trained")
    for wrong in (number, 3, -1):
        with pytest.raises(ValueError, match=f"ticket {wrong} is not in flight"):
            ledger.finish(wrong, "trained")
    assert ledger.counts == {"trained": 1}


def test_after_a_restore_a_ticket_must_be_issued_again_first():
    ledger = Ledger(5, seed=0)
    ledger.issue()
    ledger = Ledger.restore(ledger.state(), 5, 0)
    with pytest.raises(ValueError, match="ticket 0 is not in flight"):
        ledger.finish(0, "trained")
    assert ledger.issue().number == 0
    ledger.finish(0, "trained")
    assert ledger.issue().number == 1


def test_state_is_small_json():
    ledger = Ledger(7, seed=3)
    for _ in range(1000):
        ledger.finish(ledger.issue().number, "trained")
    ledger.issue()
    state = ledger.state()
    assert json.loads(json.dumps(state)) == state
    assert state == {
        "size": 7,
        "seed": 3,
        "shuffle": True,
        "next": 1001,
        "in_flight": [1000],
        "counts": {"trained": 1000},
        "finished": 1000,
    }


def test_other_prompts_are_refused():
    state = Ledger(7, seed=3).state()
    with pytest.raises(UserError, match="size was 7 and is 8"):
        Ledger.restore(state, 8, 3)
    with pytest.raises(UserError, match="seed was 3 and is 4"):
        Ledger.restore(state, 7, 4)
    with pytest.raises(ValueError, match="does not add up"):
        Ledger.restore({**state, "next": 5}, 7, 3)
    with pytest.raises(UserError, match="at least one prompt"):
        Ledger(0, seed=0)
