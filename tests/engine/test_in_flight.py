"""New weights in the middle of a completion: each token has the log-prob of the weights that its span names."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch

from cohort.engine.engine import Engine, InFlight
from cohort.policy.generic import Mode
from cohort.policy.policy import Policy
from cohort.seeds import derive_seed, generator
from cohort.types import SampleRequest, Sampling
from tiny import make_tiny, on_path

LENGTHS = (5, 23, 11, 1, 9)
MOST = (3, 30, 25, 30, 20)  # tokens: one group ends before there are other weights
AT = {6: 1, 14: 2, 15: 3}  # at which decoding step weights come, and their number


def prompts(*lengths):
    draw = generator(derive_seed(1, "prompts"))
    return [tuple(int(x) for x in draw.integers(5, 250, n)) for n in lengths]


def plain_logprobs(plain, prompt, tokens, temperature=1.0):
    """Of each of the tokens behind a prompt, by a plain forward pass."""
    with torch.no_grad():
        logits = plain(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]


def requests(**sampling):
    asked = enumerate(zip(prompts(*LENGTHS), MOST, strict=True))
    return [SampleRequest(i, prompt, 4, 100 + i, Sampling(most, 0.7, **sampling)) for i, (prompt, most) in asked]


def others(plain, count=4):
    """The model as it is, and with weights that are a little further each time."""
    found = [plain]
    for _ in range(count - 1):
        found.append(copy.deepcopy(found[-1]))
        with torch.no_grad():
            for parameter in found[-1].parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.02)
    return found


def draw(policy, models, how, max_rows=64, at=AT, graphed=False, asked=None):
    """All completions by request, where the weights of `models` come one after another."""
    engine, steps = Engine(policy, max_rows=max_rows), iter(range(10**6))
    engine.graphed = graphed

    @torch.no_grad()
    def take():
        if (version := at.get(next(steps))) is not None:
            new = dict(models[version].named_parameters())
            for name, parameter in policy.model.named_parameters():
                parameter.copy_(new[name])
            engine.publish(version)
            prompt, tokens = (5, 6, 7), (8, 9, 10)  # what a cluster's sampler is asked in between
            said = plain_logprobs(models[version], prompt, tokens)
            torch.testing.assert_close(torch.tensor(engine.canary(prompt, tokens)), said, atol=1e-5, rtol=0)

    flight = None if how == "off" else InFlight(take, how == "recompute")
    return {one.key: found for one, found in engine.sample(asked or requests(), flight=flight)}


def spans(completion):
    drawn = completion.versions or ((0, completion.version),)
    assert drawn[0] == (0, completion.version)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(drawn))
    ends = [*(start for start, _ in drawn[1:]), len(completion.tokens)]
    assert drawn[-1][0] < ends[-1]
    return [(version, start, end) for (start, version), end in zip(drawn, ends, strict=True)]


def gap(models, prompt, completion, version, start, end):
    """How far the log-probs of a span are from a plain forward pass of some weights."""
    said = plain_logprobs(models[version], prompt, completion.tokens, 0.7)[start:end]
    return (said - torch.tensor(completion.logprobs)[start:end]).abs().max().item()


@pytest.mark.parametrize("max_rows", [64, 7])
def test_recomputed_every_token_is_of_the_weights_of_its_span(policy_and_plain, max_rows):
    policy, plain = policy_and_plain
    models = others(plain)
    right(models, draw(policy, models, "recompute", max_rows))


def right(models, drawn):
    count = set()
    for number, prompt in enumerate(prompts(*LENGTHS)):
        for one in drawn[number]:
            count.add(len(spans(one)))
            assert all(gap(models, prompt, one, *span) < 1e-5 for span in spans(one))
    assert count >= {1, 4}
    assert all(not one.versions and one.version == 0 for one in drawn[0])


@pytest.mark.parametrize("cache", ["padded", "equal", "none"])
def test_so_it_is_without_packed_groups(tokenizer, cache):
    model = make_tiny("qwen2", tokenizer)
    models = others(copy.deepcopy(model))
    right(models, draw(Policy(model, tokenizer, mode=Mode("a test", cache=cache)), models, "recompute", 7))


@pytest.mark.parametrize("kind", ["qwen3", "qwen3-window"])
def test_so_it_is_by_graphs_and_with_windows(tokenizer, kind):
    policy = on_path(Policy(make_tiny(kind, tokenizer), tokenizer), "plain")
    plain = copy.deepcopy(policy.model)
    plain.set_attn_implementation("eager")
    models = others(plain)
    drawn = draw(policy, models, "recompute", at={1: 1, 2: 2}, graphed=True)
    found = [(one, prompt) for i, prompt in enumerate(prompts(*LENGTHS)) for one in drawn[i]]
    assert all(gap(models, prompt, one, *span) < 1e-5 for one, prompt in found for span in spans(one))
    assert max(len(spans(one)) for one, _ in found) > 1


def test_kept_the_first_span_is_of_its_weights_and_later_ones_go_on_from_old_keys(tiny_policy):
    plain = copy.deepcopy(tiny_policy.model)
    plain.set_attn_implementation("eager")
    models = others(plain)
    drawn, later = draw(tiny_policy, models, "keep", 7), []
    for number, prompt in enumerate(prompts(*LENGTHS)):
        for one in drawn[number]:
            first, *rest = spans(one)
            assert gap(models, prompt, one, *first) < 1e-5
            later += [gap(models, prompt, one, *span) for span in rest if span[1] > 1]
    assert later
    assert min(later) > 1e-4
    assert any(len(spans(one)) == 1 and one.version == 3 for found in drawn.values() for one in found)


@pytest.mark.parametrize("how", ["keep", "recompute"])
def test_without_new_weights_it_has_the_same_bits(tiny_policy, how):
    alone = draw(tiny_policy, [], "off", 7)
    assert draw(tiny_policy, [], how, 7, at={}) == alone


def test_a_prompt_that_was_computed_before_is_computed_again_for_members_that_begin_later(tiny_policy):
    """Five rows and one prompt of eight members: three begin when others have ended."""
    plain = copy.deepcopy(tiny_policy.model)
    plain.set_attn_implementation("eager")
    models, (prompt,) = others(plain), prompts(6)
    asked = [SampleRequest(0, prompt, 8, 5, Sampling(9, 0.7))]
    for how in ("recompute", "keep"):
        with torch.no_grad():
            for ours, theirs in zip(tiny_policy.model.parameters(), plain.parameters(), strict=True):
                ours.copy_(theirs)
        found = draw(tiny_policy, models, how, 5, at={4: 1}, asked=asked)[0]
        late = [one for one in found if spans(one)[-1][:2] == (1, 1 if how == "keep" else 0)]
        assert len(late) >= 3
        for one in found:
            assert all(gap(models, prompt, one, *span) < 1e-5 for span in spans(one)[: 1 if how == "keep" else None])
