"""Beam search of the engine against `generate` of transformers, and diverse beam search against sums written here."""

from __future__ import annotations

import math

import pytest
import torch
from tests.engine.test_engine import prompts, sample

from cohort.types import Beams, SampleRequest, Sampling

ENDS = (1, *range(100, 130))  # tokens that end a completion: of so many some are likely


def beams(tokens: int, parts: int = 1, penalty: float = 0.0, length_penalty: float = 1.0, **more) -> Sampling:
    return Sampling(tokens, beams=Beams(parts, penalty, length_penalty), **more)


def scores(completions, length_penalty=1.0):
    return [math.fsum(c.logprobs) / len(c.tokens) ** length_penalty for c in completions]


def generated(plain, request, ends):
    """What transformers finds, and its scores."""
    out = plain.generate(
        torch.tensor([request.tokens]),
        num_beams=request.count,
        num_return_sequences=request.count,
        do_sample=False,
        max_new_tokens=request.sampling.max_tokens,
        length_penalty=request.sampling.beams.length_penalty,
        eos_token_id=list(ends),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = out.sequences[:, len(request.tokens) :].tolist()
    stops = [next((i for i, t in enumerate(row, start=1) if t in ends), len(row)) for row in rows]
    return [row[:stop] for row, stop in zip(rows, stops)], out.sequences_scores


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.5])
def test_beams_and_their_scores_are_those_of_generate(policy_and_plain, length_penalty):
    policy, plain = policy_and_plain
    policy.eos_ids = ENDS
    given = prompts(5, 23, 11)
    requests = [SampleRequest(i, p, 4, 0, beams(14, 1, 0, length_penalty)) for i, p in enumerate(given)]
    found = sample(policy, requests, max_rows=9)  # two prompts at a time, with a row to spare
    for request in requests:
        rows, expected = generated(plain, request, ENDS)
        assert [list(c.tokens) for c in found[request.key]] == rows
        torch.testing.assert_close(
            torch.tensor(scores(found[request.key], length_penalty)), expected, atol=1e-4, rtol=0
        )
    ended = [c.finish for completions in found.values() for c in completions]
    print(length_penalty, ended)
