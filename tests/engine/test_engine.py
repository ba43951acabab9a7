"""The engine against the plain forward pass and `generate` of the same models."""

from __future__ import annotations

import pytest
import torch

from cohort.engine.engine import Engine
from cohort.seeds import derive_seed, generator
from cohort.types import SampleRequest, Sampling, UserError


def prompts(*lengths: int) -> list[tuple[int, ...]]:
    draw = generator(derive_seed(1, "prompts"))
    return [tuple(int(x) for x in draw.integers(5, 250, n)) for n in lengths]


def sample(policy, requests, max_rows=64):
    return {request.key: completions for request, completions in Engine(policy, max_rows=max_rows).sample(requests)}


def plain_logprobs(plain, prompt, tokens, temperature=1.0):
    with torch.no_grad():
        logits = plain(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1)


def test_logprobs_equal_a_plain_forward_pass(policy_and_plain):
    policy, plain = policy_and_plain
    temperature = 0.7
    given = prompts(5, 23, 11, 1)
    requests = [SampleRequest(i, p, 5, 100 + i, Sampling(30, temperature)) for i, p in enumerate(given)]
    for key, completions in sample(policy, requests, max_rows=7).items():
        assert len(completions) == 5
        for completion in completions:
            expected = plain_logprobs(plain, given[key], completion.tokens, temperature)
            expected = expected.gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_greedy_equals_generate(policy_and_plain):
    policy, plain = policy_and_plain
    requests = [SampleRequest(i, p, 1, 0, Sampling(40, temperature=0)) for i, p in enumerate(prompts(4, 17, 9, 30))]
    for key, (completion,) in sample(policy, requests, max_rows=3).items():
        prompt = requests[key].tokens
        expected = plain.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=40,
            eos_token_id=list(policy.eos_ids),
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert list(completion.tokens) == expected


def test_a_rollout_does_not_depend_on_its_neighbours(policy_and_plain):
    policy, _ = policy_and_plain
    requests = [SampleRequest(i, p, 6, 40 + i, Sampling(25)) for i, p in enumerate(prompts(6, 14, 3, 20))]
    together = sample(policy, requests)
    crowded = sample(policy, requests[::-1], max_rows=5)
    for request in requests:
        alone = sample(policy, [request])[request.key]
        tokens = [c.tokens for c in alone]
        assert tokens == [c.tokens for c in together[request.key]] == [c.tokens for c in crowded[request.key]]


def test_members_of_a_group_differ_and_seeds_repeat(tiny_policy):
    (prompt,) = prompts(8)
    first = sample(tiny_policy, [SampleRequest(0, prompt, 8, 5, Sampling(20))])[0]
    again = sample(tiny_policy, [SampleRequest(0, prompt, 8, 5, Sampling(20))])[0]
    other = sample(tiny_policy, [SampleRequest(0, prompt, 8, 6, Sampling(20))])[0]
    assert first == again
    assert len({c.tokens for c in first}) > 1
    assert first != other


def test_rows_retire_and_waiting_ones_take_their_slots(tiny_policy):
    limits = [1, 30, 2, 17, 5, 9, 30, 3]
    requests = [SampleRequest(i, p, 3, i, Sampling(n)) for i, (p, n) in enumerate(zip(prompts(*range(2, 10)), limits))]
    for rows in (1, 2, 4, 100):
        done = sample(tiny_policy, requests, max_rows=rows)
        assert sorted(done) == list(range(8))
        for key, completions in done.items():
            for c in completions:
                assert len(c.tokens) == len(c.logprobs) <= limits[key]
                ended = c.tokens[-1] in tiny_policy.eos_ids
                assert c.finish == ("stop" if ended else "length")
                assert ended or len(c.tokens) == limits[key]
                assert not set(c.tokens[:-1]) & set(tiny_policy.eos_ids)


def test_long_completions_outgrow_the_first_cache(tiny_policy):
    (prompt,) = prompts(5)
    tiny_policy.eos_ids = (10_000,)  # never
    (completion,) = sample(tiny_policy, [SampleRequest(0, prompt, 1, 0, Sampling(120, 0.0))])[0]
    assert len(completion.tokens) == 120


def test_prefill_runs_once_a_group(tiny_policy, monkeypatch):
    seen = []
    tiny_policy.fused = None
    hidden = tiny_policy.hidden
    monkeypatch.setattr(tiny_policy, "hidden", lambda t, p, layout: seen.append(t.shape[1]) or hidden(t, p, layout))
    sample(tiny_policy, [SampleRequest(i, p, 8, i, Sampling(4)) for i, p in enumerate(prompts(10, 12))])
    assert seen[0] == 22  # two prompts, each once, no padding
    assert max(seen[1:]) <= 16  # one token a row after that


def test_versions_are_stamped(tiny_policy):
    engine = Engine(tiny_policy)
    engine.publish(7)
    _, completions = next(engine.sample([SampleRequest(0, (5, 6), 2, 0, Sampling(3))]))
    assert {c.version for c in completions} == {7} == {engine.version}


def test_new_weights_are_seen_at_once(tiny_policy):
    engine = Engine(tiny_policy)
    request = SampleRequest(0, prompts(9)[0], 4, 3, Sampling(12))
    (_, before) = next(engine.sample([request]))
    with torch.no_grad():
        for p in tiny_policy.module.parameters():
            p.mul_(1.5)
    (_, after) = next(engine.sample([request]))
    assert before != after


def test_stop_strings_end_a_completion(tiny_policy):
    tokenizer = tiny_policy.tokenizer
    (prompt,) = prompts(6)
    free = sample(tiny_policy, [SampleRequest(0, prompt, 4, 1, Sampling(30))])[0]
    texts = [tokenizer.decode(list(c.tokens)) for c in free]
    stop = texts[0][10:13]
    stopped = sample(tiny_policy, [SampleRequest(0, prompt, 4, 1, Sampling(30, stop=(stop, "never written")))])[0]
    for whole, cut in zip(free, stopped, strict=True):
        assert cut.tokens == whole.tokens[: len(cut.tokens)]
        text = tokenizer.decode(list(cut.tokens))
        assert stop not in tokenizer.decode(list(cut.tokens[:-1]))
        if len(cut.tokens) < len(whole.tokens):
            assert stop in text
            assert cut.finish == "stop"
    assert len(stopped[0].tokens) < len(free[0].tokens)


def test_one_pass_serves_different_settings(tiny_policy):
    given = prompts(6, 6, 6)
    settings = [Sampling(20), Sampling(20, 0.0), Sampling(20, 0.8, top_p=0.7, top_k=5, min_p=0.05)]
    requests = [SampleRequest(i, p, 2, i, s) for i, (p, s) in enumerate(zip(given, settings, strict=True))]
    together = sample(tiny_policy, requests)
    for request in requests:
        assert [c.tokens for c in sample(tiny_policy, [request])[request.key]] == [
            c.tokens for c in together[request.key]
        ]


def test_sampling_never_leaves_gradients_switched_off(tiny_policy):
    stream = Engine(tiny_policy).sample([SampleRequest(i, (5, 6), 1, i, Sampling(5)) for i in range(3)])
    next(stream)
    assert torch.is_grad_enabled()


def test_what_cannot_be_sampled_is_refused(tiny_policy):
    with pytest.raises(UserError, match="empty prompt"):
        list(Engine(tiny_policy).sample([SampleRequest(0, (), 1, 0, Sampling(5))]))
    with pytest.raises(UserError, match=r"need 140 positions, but the model has 128"):
        list(Engine(tiny_policy).sample([SampleRequest(0, (5,) * 40, 1, 0, Sampling(100))]))
