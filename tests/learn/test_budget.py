"""Memory that runs out in the middle: half as much at once, the same gradient, the same samples."""

from __future__ import annotations

import pytest
import torch
from test_learner import assert_same, batch_of, learner_gradients

from cohort.algorithms import objectives
from cohort.engine.engine import Engine
from cohort.learn.learner import Learner
from cohort.machine import is_out_of_memory
from cohort.policy.policy import Policy
from cohort.settings import Optimizer
from cohort.types import SampleRequest, Sampling, UserError

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)
ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError(CPU),
    RuntimeError("std::bad_alloc"),
]


@pytest.fixture
def holds(monkeypatch):
    """Memory for so many tokens of a forward pass, and no more."""

    def holds(most, error=ERRORS[2]):
        hidden = Policy.hidden
        seen = []

        def short(self, tokens, positions, layout):
            seen.append(tokens.shape[1])
            if tokens.shape[1] > most:
                raise error
            return hidden(self, tokens, positions, layout)

        monkeypatch.setattr(Policy, "hidden", short)
        return seen

    return holds


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_gradient_is_that_of_fewer_tokens_at_once(tiny_policy, monkeypatch, holds, error):
    objective = objectives.preset("dapo")
    batch = batch_of(objective)
    few, whole = (Learner(tiny_policy, objective, Optimizer(tokens_per_micro_batch=n)) for n in (32, 64))
    _, expected = learner_gradients(few, batch, monkeypatch)
    _, of_all = learner_gradients(whole, batch, monkeypatch)
    learner = Learner(tiny_policy, objective, Optimizer(tokens_per_micro_batch=64))
    monkeypatch.undo()
    seen = holds(40, error)
    with pytest.warns(UserWarning, match="32 tokens are computed at once and not 64"):
        report = learner.update(batch, 0.0)
    assert max(seen) > 40 >= seen[-1]
    assert learner.budget.tokens == report.metrics["memory/tokens_at_once"] == 32
    _, gradients = learner_gradients(learner, batch, monkeypatch)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    assert_same(gradients, of_all, relative=1e-5)


def test_what_was_added_up_before_memory_ran_out_is_taken_back(tiny_policy, monkeypatch):
    objective, found = objectives.preset("dapo"), []
    batch, hidden, calls = batch_of(objective), Policy.hidden, []

    def short(*args):
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError
        return hidden(*args)

    monkeypatch.setattr(Policy, "hidden", short)
    for learner in (Learner(tiny_policy, objective, Optimizer(tokens_per_micro_batch=n)) for n in (64, 32)):
        step = lambda: found.append([p.grad.clone() for p in tiny_policy.module.parameters()])  # noqa: E731
        monkeypatch.setattr(learner.optimizer, "step", step)
        learner.update(batch, 0.0)
    assert learner.budget.tokens == 32
    assert all(map(torch.equal, *found))


def test_another_error_is_no_lack_of_memory_and_no_end_of_it_is_said(tiny_policy, holds):
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("not enough memory"))
    batch = batch_of(objectives.preset("dapo"))
    learner = Learner(tiny_policy, objectives.preset("dapo"), Optimizer())
    before = [p.clone() for p in tiny_policy.module.parameters()]
    holds(0)
    with pytest.warns(UserWarning, match="memory ran out"), pytest.raises(UserError, match="not even for 16 tokens"):
        learner.update(batch, 1.0)
    assert all(map(torch.equal, before, tiny_policy.module.parameters()))


def test_the_engine_draws_the_same_with_fewer_rows_at_once(tiny_policy, monkeypatch):
    requests = [SampleRequest(key, (5, 9, 11 + key), 5, key, Sampling(10)) for key in range(3)]

    def drawn(engine):
        found = {request.key: rows for request, rows in engine.sample(requests)}
        rows = [row for key in sorted(found) for row in found[key]]
        return [tuple(row.tokens) for row in rows], [value for row in rows for value in row.logprobs]

    usual, engine = drawn(Engine(tiny_policy, 12)), Engine(tiny_policy, 12)
    append, tried = Engine._append, []

    def short(self, running, first, logits):
        tried.append(running.n)
        if running.n > 4 and len(tried) > 6:  # in the middle
            raise MemoryError
        return append(self, running, first, logits)

    monkeypatch.setattr(Engine, "_append", short)
    with pytest.warns(UserWarning, match="memory ran out while sampling"):
        tokens, logprobs = drawn(engine)
    assert tokens == usual[0]
    assert logprobs == pytest.approx(usual[1], abs=1e-5)  # products of other shapes add in another order
    assert engine.max_rows < 6
