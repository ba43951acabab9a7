"""Decoding by graphs, several tokens between two looks: eager on the CPU, against the plain path of the same models."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cohort.engine import graphs
from cohort.engine.engine import Engine
from cohort.engine.graphs import GraphedDecoder
from cohort.policy.policy import Policy
from cohort.seeds import derive_seed, generator
from cohort.types import SampleRequest, Sampling
from tiny import make_tiny, on_path


def policy_of(kind, tokenizer, compute="float32"):
    return on_path(Policy(make_tiny(kind, tokenizer), tokenizer, compute), "plain")


def engine_of(policy, rows, graphed=True):
    engine = Engine(policy, max_rows=rows)
    engine.graphed = graphed
    return engine


def requests(*lengths, count=5, most=30, **sampling):
    draw = generator(derive_seed(1, "prompts"))
    prompts = [tuple(int(x) for x in draw.integers(5, 250, n)) for n in lengths]
    return [SampleRequest(i, p, count, 100 + i, Sampling(most, **sampling)) for i, p in enumerate(prompts)]


def same(ours, theirs, atol=1e-5):
    found, expected = ({r.key: c for r, c in drawn} for drawn in (ours, theirs))
    assert found.keys() == expected.keys()
    for key, completions in found.items():
        for one, other in zip(completions, expected[key], strict=True):
            assert list(one.tokens) == list(other.tokens)
            assert one.finish == other.finish
            torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=atol, rtol=0)


@pytest.mark.parametrize("kind", ["qwen3", "qwen3-window"])
@pytest.mark.parametrize("rows", [7, 64])
def test_tokens_are_those_of_the_plain_path(tokenizer, kind, rows):
    """Rows that retire and others that take their slots; prompts of other lengths, one of them a single token."""
    policy = policy_of(kind, tokenizer)
    asked = requests(5, 23, 11, 1, temperature=0.7)
    same(engine_of(policy, rows).sample(asked), engine_of(policy, rows, graphed=False).sample(asked))


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"top_p": 0.8}, {"stop": ("a",)}, {"most": 90}])
def test_so_are_those_of_other_settings(tokenizer, sampling):
    """Greedy; two that the host looks at token by token; and completions that outgrow the first cache."""
    policy = policy_of("qwen3", tokenizer)
    asked = requests(4, 9, count=2, **sampling)
    same(engine_of(policy, 8).sample(asked), engine_of(policy, 8, graphed=False).sample(asked))


def test_bfloat16_copies_follow_the_weights(tokenizer):
    policy = policy_of("qwen3", tokenizer, "bfloat16")
    engine, asked = engine_of(policy, 16), requests(6, 3)
    weights = [p.detach().clone() for p in policy.model.parameters()]
    before = list(engine.sample(asked))
    assert all(torch.equal(p, w) for p, w in zip(policy.model.parameters(), weights, strict=True))
    kept, mark = engine._kept, engine.fingerprint()
    with torch.no_grad():
        for p in policy.model.parameters():
            p.mul_(1.1)
    after = list(engine.sample(asked))
    assert engine._kept is kept
    assert engine.fingerprint() != mark
    assert any(list(a.tokens) != list(b.tokens) for (_, x), (_, y) in zip(before, after) for a, b in zip(x, y))
    same(after, engine_of(policy, 16, graphed=False).sample(asked), atol=1e-3)


def test_graphs_are_captured_once_a_bucket_and_caches_stay(tokenizer, monkeypatch):
    made = []
    monkeypatch.setattr(graphs, "captured", lambda one, device: made.append(one) or one)
    engine = engine_of(policy_of("qwen3", tokenizer), 32)
    for _ in range(3):
        first = len(made)
        list(engine.sample(requests(5, 23, 11)))
    assert len(made) == first > 0
    assert not list(engine._kept.plain.prefix_length.nonzero())  # no slot is left behind


def test_a_call_inside_another_has_caches_of_its_own(tokenizer):
    engine = engine_of(policy_of("qwen3", tokenizer), 4)
    expected = list(engine_of(engine.policy, 4).sample(requests(5, 9, 7)))
    outer = engine.sample(requests(5, 9, 7))
    first = next(outer)
    same(engine.sample(requests(5, 9, 7)), expected)
    same([first, *outer], expected)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: a number of a tensor, or a shape that depends on numbers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "unique", "equal.", "masked_select"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["qwen3", "qwen3-window"])
def test_a_token_waits_for_nobody(tokenizer, kind, monkeypatch):
    """All that a captured graph holds; what a capture could not."""

    def strict(one, device):
        def step():
            with NoWaiting():
                one()

        return step

    monkeypatch.setattr(graphs, "captured", strict)
    engine = engine_of(policy_of(kind, tokenizer), 16)
    assert len(list(engine.sample(requests(5, 12)))) == 2
    assert isinstance(engine._kept, GraphedDecoder)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_captured_graphs_draw_what_the_plain_path_does(tokenizer, compute):
    policy = Policy(make_tiny("qwen3", tokenizer).cuda(), tokenizer, compute)
    asked = requests(5, 23, 11, 1, temperature=0.7)
    for _ in range(2):  # the second call replays what the first has captured
        ours = list(engine_of(policy, 16).sample(asked))
        same(ours, engine_of(policy, 16, graphed=False).sample(asked), atol=1e-3 if compute == "float32" else 0.1)
