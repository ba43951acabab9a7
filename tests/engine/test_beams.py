"""Beam search of the engine against `generate` of transformers, and diverse beam search against sums written here."""

from __future__ import annotations

import math

import pytest
import torch
from tests.engine.test_engine import plain_logprobs, prompts, sample

from cohort.policy.generic import Mode
from cohort.types import Beams, SampleRequest, Sampling, UserError
from tiny import make_tiny

ENDS = (1, *range(100, 180))  # tokens that end a completion: of so many some are likely


def beams(tokens: int, parts: int = 1, penalty: float = 0.0, length_penalty: float = 1.0, **more) -> Sampling:
    return Sampling(tokens, beams=Beams(parts, penalty, length_penalty), **more)


def ids(completions):
    return [list(one.tokens) for one in completions]


def assert_generated(plain, request, completions):
    """The completions and their scores are those that transformers finds."""
    length_penalty = request.sampling.beams.length_penalty
    out = plain.generate(
        torch.tensor([request.tokens]),
        num_beams=request.count,
        num_return_sequences=request.count,
        do_sample=False,
        max_new_tokens=request.sampling.max_tokens,
        length_penalty=length_penalty,
        eos_token_id=list(ENDS),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = out.sequences[:, len(request.tokens) :].tolist()
    lengths = [next((i for i, t in enumerate(row, start=1) if t in ENDS), len(row)) for row in rows]
    assert ids(completions) == [row[:length] for row, length in zip(rows, lengths, strict=True)]
    scores = [math.fsum(one.logprobs) / len(one.tokens) ** length_penalty for one in completions]
    torch.testing.assert_close(torch.tensor(scores), out.sequences_scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("length_penalty", [1.0, 0.0])
def test_beams_and_their_scores_are_those_of_generate(policy_and_plain, length_penalty):
    policy, plain = policy_and_plain
    policy.eos_ids = ENDS
    given = prompts(5, 23, 11)
    requests = [SampleRequest(i, p, 4, 0, beams(12, 1, 0, length_penalty)) for i, p in enumerate(given)]
    found = sample(policy, requests, max_rows=9)  # two prompts at a time, and a row to spare
    for request in requests:
        assert_generated(plain, request, found[request.key])
        for one in found[request.key]:
            told = plain_logprobs(plain, request.tokens, one.tokens).gather(-1, torch.tensor(one.tokens)[:, None])
            torch.testing.assert_close(torch.tensor(one.logprobs), told[:, 0], atol=1e-5, rtol=0)
    assert {one.finish for completions in found.values() for one in completions} >= {"length"}


@pytest.mark.parametrize("mode", [Mode("asked for"), Mode("asked for", cache="none")], ids=["cached", "recomputed"])
def test_beams_of_the_generic_path_are_those_of_generate(policy_and_plain, mode):
    policy, plain = policy_and_plain
    if policy.fused is not None:
        pytest.skip("the generic path is none of the two others")
    policy.eos_ids = ENDS
    policy.take_generic(mode)
    requests = [SampleRequest(i, p, 3, 0, beams(8)) for i, p in enumerate(prompts(5, 9))]
    for key, completions in sample(policy, requests, max_rows=4).items():  # one prompt after the other
        assert_generated(plain, requests[key], completions)


def diverse(plain, prompt, count, sampling):
    """Diverse beam search (1610.02424) from whole forward passes: by part the completions and their scores."""
    search, width = sampling.beams, count // sampling.beams.parts
    running = [[(0.0, [])] for _ in range(search.parts)]
    ended = [[] for _ in range(search.parts)]
    while any(running):
        taken = []  # by the parts before, at this place
        for part in range(search.parts):
            options = []
            for score, row in running[part]:
                logprobs = plain_logprobs(plain, prompt, [*row, 0])[-1]
                cost = torch.tensor([taken.count(token) for token in range(len(logprobs))]) * search.penalty
                options += [(score + x, [*row, token]) for token, x in enumerate((logprobs - cost).tolist())]
            best = sorted(options, key=lambda one: -one[0])[: (1 + len(ENDS)) * width]
            over = [row[-1] in ENDS or len(row) == sampling.max_tokens for _, row in best]
            ended[part] += [
                (score / len(row) ** search.length_penalty, row)
                for (score, row), end in zip(best[:width], over, strict=False)
                if end
            ]
            ended[part] = sorted(ended[part], key=lambda one: -one[0])[:width]
            running[part] = [one for one, end in zip(best, over, strict=True) if not end][:width]
            if running[part]:
                score, row = running[part][0]
                hope = score / len(row) ** search.length_penalty
                if len(ended[part]) == width and hope <= ended[part][-1][0]:
                    running[part] = []
            taken += [row[-1] for _, row in running[part]]
    return [row for part in ended for _, row in part]


@pytest.mark.parametrize("parts", [2, 4])
def test_diverse_beams_are_those_of_the_paper(tiny_policy, tokenizer, parts):
    plain = make_tiny("qwen3", tokenizer)
    tiny_policy.eos_ids = ENDS
    requests = [SampleRequest(i, p, 4, 0, beams(5, parts, 0.7)) for i, p in enumerate(prompts(5, 9))]
    found = sample(tiny_policy, requests, max_rows=6)
    for request in requests:
        assert ids(found[request.key]) == diverse(plain, request.tokens, 4, request.sampling)
    alike = sample(tiny_policy, [SampleRequest(0, requests[0].tokens, 4, 0, beams(5, parts, 0.0))])[0]
    assert ids(alike)[: 4 // parts] * parts == ids(alike)  # without a penalty all parts find the same


def test_stop_strings_end_beams(tiny_policy):
    (prompt,) = prompts(8)
    request = SampleRequest(0, prompt, 4, 0, beams(10))
    words = [tiny_policy.tokenizer.decode([token]) for one in sample(tiny_policy, [request])[0] for token in one.tokens]
    stop = max(words, key=lambda word: (words.count(word), word))
    sampling = beams(10, stop=(stop,))
    for one in sample(tiny_policy, [SampleRequest(0, prompt, 4, 0, sampling)])[0]:
        text = tiny_policy.tokenizer.decode(list(one.tokens))
        assert (stop in text) == (one.finish == "stop") or one.tokens[-1] in tiny_policy.eos_ids
        assert stop not in tiny_policy.tokenizer.decode(list(one.tokens[:-1]))


def test_where_there_are_fewer_completions_than_beams_the_best_stands_again(tiny_policy):
    (prompt,) = prompts(8)
    many = len(tiny_policy.tokenizer) + 3
    found = ids(sample(tiny_policy, [SampleRequest(0, prompt, many, 0, beams(1))])[0])
    assert len(found) == many
    assert found[-3:] == [found[0]] * 3
    assert len({tuple(one) for one in found}) == many - 3


def test_the_greedy_one_is_first_and_the_others_are_the_draws_that_they_were(tiny_policy):
    (prompt,) = prompts(8)
    group, drawn, greedy = (
        ids(sample(tiny_policy, [SampleRequest(0, prompt, 4, 5, sampling)])[0])
        for sampling in (Sampling(12, greedy_first=True), Sampling(12), Sampling(12, temperature=0))
    )
    assert group == [greedy[0], *drawn[1:]]


@pytest.mark.parametrize("tokens", [1, 4])
def test_broken_weights_are_said(tiny_policy, tokens):
    with torch.no_grad():
        next(tiny_policy.model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="log-probs are not finite"):
        sample(tiny_policy, [SampleRequest(0, (5, 6), 4, 0, beams(tokens))])


def test_a_call_draws_or_searches(tiny_policy):
    (prompt,) = prompts(4)
    with pytest.raises(ValueError, match="all drawn"):
        sample(tiny_policy, [SampleRequest(0, prompt, 2, 0, Sampling(4)), SampleRequest(1, prompt, 2, 0, beams(4))])
