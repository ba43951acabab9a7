"""Async reward functions: the calls of a group wait together, and fail as plain ones do."""

import asyncio
import functools

import pytest

from cohort.rewards import RewardFailure, RewardPool, RewardTable, ScoringItem, resolve, trl
from cohort.types import InfrastructureError

ITEM = ScoringItem(prompt="q", completions=("a", "bb", "ccc"), answer="bb")


def judge(function, item=ITEM):
    return resolve(RewardTable(use=function)).score(item)


def test_all_calls_of_a_group_are_under_way_at_once():
    """Each waits until all have begun: called in turns, they would wait for ever."""
    begun = []

    async def together(completion, answer):
        begun.append(completion)
        while len(begun) < 3:
            await asyncio.sleep(0)
        return float(completion == answer)

    assert judge(together) == (0, 1, 0)


def test_scores_keep_the_order_of_the_completions():
    async def shortest_last(completion):
        for _ in range(10 - len(completion)):
            await asyncio.sleep(0)
        return len(completion)

    assert judge(shortest_last) == (1, 2, 3)


def test_trls_form():
    async def lengths(completions, **_):
        return await asyncio.gather(*(asyncio.sleep(0, result=len(text)) for text in completions))

    assert judge(trl(lengths)) == (1, 2, 3)


def test_a_call_that_raises_is_named_with_its_completion():
    async def mine(completion):
        await asyncio.sleep(0)
        if completion == "bb":
            raise KeyError("gone")
        await asyncio.sleep(60)

    with pytest.raises(RewardFailure, match=r"reward 'mine' raised KeyError: 'gone' at .*completion 'bb'"):
        judge(mine)


def test_trouble_of_the_world_stays_so():
    async def asked(completion):
        raise InfrastructureError("the server is down")

    with pytest.raises(InfrastructureError, match="the server is down"):
        judge(asked)


def test_inside_a_loop_that_runs_already():
    async def one(completion):
        await asyncio.sleep(0)
        return 1

    async def notebook():
        return judge(one)

    assert asyncio.run(notebook()) == (1, 1, 1)


async def waits(completion, answer):
    await asyncio.sleep(0.01)
    return completion == answer


def test_in_a_worker():
    with RewardPool([resolve(RewardTable(use=waits))], workers=1) as pool:
        assert pool.submit(ITEM).result().scores == {"waits": (0, 1, 0)}


async def right(completion, answer):
    await asyncio.sleep(0)
    return float(completion == answer)


class Judge:
    async def __call__(self, completion, answer):
        return await right(completion, answer)

    async def method(self, completion, answer):
        return await right(completion, answer)


@functools.wraps(right)
def wrapped(*args, **kwargs):
    return right(*args, **kwargs)


class Later:
    """An awaitable that is no coroutine."""

    def __init__(self, completion, answer):
        self.call = right(completion, answer)

    def __await__(self):
        return self.call.__await__()


@pytest.mark.parametrize(
    "function",
    [
        right,
        Judge(),
        Judge().method,
        wrapped,
        functools.partial(right),
        functools.partial(wrapped),
        functools.partial(Judge()),
        lambda completion, answer: right(completion, answer),
        lambda completion, answer: Later(completion, answer),
        lambda completion, answer: right(completion, answer) if completion else 0.0,
    ],
)
def test_whatever_returns_an_awaitable_is_awaited(function):
    assert resolve(RewardTable(use=function, name="mine")).score(ITEM) == (0, 1, 0)


def test_a_wrapped_coroutine_in_trls_form_is_awaited():
    async def lengths(completions):
        return [float(len(text)) for text in completions]

    function = trl(lambda prompts, completions: lengths(completions))
    assert resolve(RewardTable(use=function, name="mine")).score(ITEM) == (1, 2, 3)


@pytest.mark.filterwarnings("error")
def test_calls_that_nobody_waits_for_are_closed():
    def mine(completion, answer):
        if completion == "ccc":
            raise KeyError("gone")
        return right(completion, answer)

    with pytest.raises(RewardFailure, match="reward 'mine' raised KeyError: 'gone'"):
        judge(mine)
