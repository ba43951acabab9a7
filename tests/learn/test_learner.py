"""The learner against an unpacked, unshared, full-logits reference of the same models."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cohort.algorithms import objectives
from cohort.algorithms.equation import equation
from cohort.algorithms.token_weights import AGGREGATIONS
from cohort.learn import forward
from cohort.learn.batch import collate, flat, rectangle, split
from cohort.learn.forward import of_logits
from cohort.learn.learner import Learner
from cohort.learn.optimizer import open_optimizer, rate_at
from cohort.learn.reference import Reference
from cohort.policy.load import add_lora, load_policy
from cohort.policy.policy import Policy
from cohort.rewards.combination import Combination
from cohort.seeds import derive_seed, generator
from cohort.settings import Lora, Optimizer
from cohort.train.grpo.advantages import with_advantages
from cohort.types import Group, Prompt, Rollout, UserError
from tiny import on_path

TEMPERATURE = 0.8


def make_groups(rewards, seed=0, longest=12, cut_off=()):
    """Random prompts and rollouts of ragged lengths with the given rewards, `[P][G]`."""
    draw = generator(derive_seed(seed, "groups"))
    groups = []
    for ticket, row in enumerate(rewards):
        prompt = replace(Prompt.make(text=str(ticket)), tokens=tuple(map(int, draw.integers(5, 250, 3 + 4 * ticket))))
        rollouts = []
        for member in range(len(row)):
            n = int(draw.integers(1, longest + 1))
            tokens = tuple(map(int, draw.integers(5, 250, n)))
            logprobs = tuple(map(float, -draw.random(n) * 3))
            finish = "length" if (ticket, member) in cut_off else "stop"
            rollouts.append(Rollout(tokens, (True,) * n, logprobs, 0, finish, ""))  # type: ignore[arg-type]
        groups.append(Group(ticket, prompt, tuple(rollouts), {"r": tuple(row)}, tuple(row), tuple(row)))
    return groups


ALONE = Combination({"r": 1.0}, {})
REWARDS = [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.2, 0.7, -0.3, 1.4]]


def batch_of(objective, rewards=REWARDS, max_tokens=16, **kwargs):
    return collate(with_advantages(make_groups(rewards, **kwargs), objective, ALONE), objective, max_tokens)


def scored(learner, batch, old):
    """The batch with the log-probs that are computed before its first update, as a backend adds them."""
    if old:
        batch = replace(batch, old_logprobs=learner.logprobs(batch))
    if learner.reference is not None and learner.objective.kl_place == "loss":
        batch = replace(batch, ref_logprobs=learner.reference_logprobs(batch))
    return batch


def plain_logprobs(plain, batch):
    """`[B, T]` log-probs row by row through the model's own forward pass. Differentiable."""
    rows = []
    for group, tokens in zip(batch.group.tolist(), batch.tokens.split(batch.lengths.tolist()), strict=True):
        prompt = torch.tensor(batch.prompts[group])
        ids = torch.cat([prompt, tokens])[None]
        logits = plain(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float() / TEMPERATURE
        rows.append(logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def plain_gradients(plain, objective, batch, max_tokens=16):
    def laid_out(values):
        return None if values is None else rectangle(values, batch.lengths)

    logprobs = plain_logprobs(plain, batch)
    loss = objectives.policy_loss(
        objective,
        logprobs=logprobs,
        old_logprobs=logprobs.detach() if batch.old_logprobs is None else laid_out(batch.old_logprobs),
        mask=laid_out(batch.mask),
        advantages=laid_out(batch.advantages),
        ref_logprobs=laid_out(batch.ref_logprobs),
        sampler_logprobs=laid_out(batch.sampler_logprobs),
        group=batch.group,
        max_tokens=max_tokens,
    )
    plain.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in plain.named_parameters() if p.grad is not None}


def learner_gradients(learner, batch, monkeypatch):
    learner.policy.module.zero_grad()
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(0.0))  # the gradient as it is
    monkeypatch.setattr(learner.optimizer, "step", lambda: None)
    monkeypatch.setattr(learner.optimizer, "zero_grad", lambda **_: None)
    report = learner.update(batch, 0.0)
    return report.metrics["loss"], {
        n: p.grad.clone() for n, p in learner.policy.module.named_parameters() if p.grad is not None
    }


def assert_same(ours, theirs, relative=1e-4):
    assert ours.keys() == theirs.keys()
    scale = max(g.abs().max().item() for g in theirs.values())
    assert scale > 0
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max().item() <= relative * scale, name


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_gradients_equal_the_plain_path(policy_and_plain, name, monkeypatch):
    policy, plain = policy_and_plain
    objective = objectives.preset(name)
    reference = Reference(policy) if objective.needs_reference else None
    learner = Learner(policy, objective, Optimizer(tokens_per_micro_batch=40), TEMPERATURE, reference=reference)
    if reference is not None:
        with torch.no_grad(), reference.active() as kept:  # one that differs, so that the KL has a gradient
            for p in kept.module.parameters():
                p.mul_(1.1)
    batch = scored(learner, batch_of(objective), old=True)
    loss, gradients = learner_gradients(learner, batch, monkeypatch)
    plain_loss, expected = plain_gradients(plain, objective, batch)
    assert loss == pytest.approx(plain_loss, abs=1e-5)
    assert_same(gradients, expected)


def test_logprobs_equal_the_plain_path(policy_and_plain):
    policy, plain = policy_and_plain
    objective = objectives.preset("grpo", kl_coef=0.0)
    learner = Learner(policy, objective, Optimizer(tokens_per_micro_batch=30), TEMPERATURE)
    batch = batch_of(objective)
    signal = rectangle(batch.advantages != 0, batch.lengths).any(1).repeat_interleave(batch.lengths)
    with torch.no_grad():
        expected = flat(plain_logprobs(plain, batch), batch.lengths) * batch.mask
    torch.testing.assert_close(learner.logprobs(batch)[signal], expected[signal], atol=1e-5, rtol=0)


@pytest.mark.parametrize("tokens", [1, 17, 64])
def test_the_split_into_micro_batches_does_not_matter(tiny_policy, tokens, monkeypatch):
    objective = objectives.preset("dapo")
    batch = batch_of(objective)
    whole = Learner(tiny_policy, objective, Optimizer(tokens_per_micro_batch=10**6))
    parts = Learner(tiny_policy, objective, Optimizer(tokens_per_micro_batch=tokens))
    _, expected = learner_gradients(whole, batch, monkeypatch)
    _, gradients = learner_gradients(parts, batch, monkeypatch)
    assert_same(gradients, expected, relative=1e-5)


def test_chunks_of_the_head_are_recomputed_and_equal(tiny_policy, monkeypatch):
    objective = objectives.preset("dr_grpo")
    batch = batch_of(objective)
    learner = Learner(tiny_policy, objective, Optimizer())
    _, expected = learner_gradients(learner, batch, monkeypatch)
    monkeypatch.setattr(forward, "LOGITS_AT_ONCE", 5 * tiny_policy.vocabulary)
    widest = []
    logits, product = tiny_policy.logits, forward.product
    monkeypatch.setattr(tiny_policy, "logits", lambda h: widest.append(len(h)) or logits(h))
    monkeypatch.setattr(forward, "product", lambda h, w: widest.append(len(h) if len(w) > 64 else 0) or product(h, w))
    _, gradients = learner_gradients(learner, batch, monkeypatch)
    assert max(widest) == 5
    assert_same(gradients, expected, relative=1e-5)


def test_groups_without_signal_are_not_computed(tiny_policy, monkeypatch):
    objective = objectives.preset("dapo")
    batch = batch_of(objective, [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    learner = Learner(tiny_policy, objective, Optimizer())
    seen = []
    hidden = tiny_policy.hidden
    monkeypatch.setattr(tiny_policy, "hidden", lambda t, p, layout: seen.append(t.shape[1]) or hidden(t, p, layout))
    report = learner.update(batch, 1e-3)
    live = batch.lengths[4:].sum().item()
    assert sum(seen) == len(batch.prompts[2]) + live - 2  # the last token of a rollout predicts nothing
    assert report.metrics["tokens/trained"] == live


def test_a_batch_without_signal_is_a_step_on_a_zero_gradient(tiny_policy):
    objective = objectives.preset("dapo")
    learner = Learner(tiny_policy, objective, Optimizer())
    before = copy.deepcopy(tiny_policy.module.state_dict())
    report = learner.update(batch_of(objective, [[1.0, 1.0], [0.0, 0.0]]), 1e-2)
    assert report.metrics["grad_norm"] == 0
    assert all(torch.equal(before[k], v) for k, v in tiny_policy.module.state_dict().items())


def test_truncated_completions_can_be_masked(tiny_policy):
    objective = objectives.preset("grpo", truncated="mask", kl_coef=0.0)
    batch = batch_of(objective, cut_off={(0, 0), (1, 1)})
    rows = rectangle(batch.mask, batch.lengths).any(1).tolist()
    assert rows == [i not in (0, 5) for i in range(16)]
    assert batch.advantages[0] != 0  # its reward stays in the baseline


def test_a_small_step_moves_probability_towards_what_was_rewarded(tiny_policy):
    objective = objectives.preset("dr_grpo")
    batch = batch_of(objective, [[1.0, 0.0, 0.0, 0.0]])
    learner = Learner(tiny_policy, objective, Optimizer())
    before = rectangle(learner.logprobs(batch), batch.lengths).sum(1)
    for _ in range(5):
        learner.update(batch, 1e-3)
    after = rectangle(learner.logprobs(batch), batch.lengths).sum(1)
    assert after[0] > before[0]
    assert (after[1:] < before[1:]).all()


def test_several_updates_clip(tiny_policy):
    objective = objectives.preset("grpo", kl_coef=0.0)
    learner = Learner(tiny_policy, objective, Optimizer())
    batch = scored(learner, batch_of(objective), old=True)
    first = learner.update(batch, 0.03).metrics
    assert first["policy/clip_low"] == first["policy/clip_high"] == 0
    assert first["policy/ratio"] == pytest.approx(1, abs=1e-5)
    later = learner.update(batch, 0.03).metrics
    assert later["policy/clip_low"] + later["policy/clip_high"] > 0


def test_kl_is_zero_against_itself_and_grows(tiny_policy):
    objective = objectives.preset("grpo")
    learner = Learner(tiny_policy, objective, Optimizer(), reference=Reference(tiny_policy))
    batch = scored(learner, batch_of(objective), old=False)
    assert learner.update(batch, 1e-2).metrics["policy/kl"] == pytest.approx(0, abs=1e-9)
    assert learner.update(batch, 1e-2).metrics["policy/kl"] > 1e-6


def test_lora_trains_the_adapter_and_its_reference_is_the_base(checkpoint_dir):
    loaded = load_policy(str(checkpoint_dir))
    base = copy.deepcopy(loaded.module.state_dict())
    policy = add_lora(loaded, Lora(rank=4, alpha=8.0), seed=0)
    objective = objectives.preset("grpo")
    reference = Reference(policy)
    with reference.active() as asked:
        assert asked is policy  # no copy
    learner = Learner(policy, objective, Optimizer(), reference=reference)
    batch = batch_of(objective)
    start = learner.logprobs(batch)
    for _ in range(3):
        learner.update(scored(learner, batch, old=False), 1e-2)
    moved = learner.logprobs(batch)
    assert not torch.allclose(start, moved, atol=1e-4)
    torch.testing.assert_close(scored(learner, batch, old=False).ref_logprobs, start, atol=1e-6, rtol=0)
    frozen = {k: v for k, v in policy.module.state_dict().items() if "lora_" not in k}
    assert len(frozen) == len(base)
    for name, value in frozen.items():
        plain_name = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert torch.equal(value, base[plain_name]), name


@pytest.mark.fault("a gradient that is not finite", "it stops, and the weights are as they were", "the step")
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(tiny_policy):
    objective = objectives.preset("dr_grpo")
    learner = Learner(tiny_policy, objective, Optimizer())
    before = copy.deepcopy(tiny_policy.module.state_dict())
    batch = batch_of(objective)
    poisoned = replace(batch, advantages=batch.advantages * math.inf)
    with pytest.raises(UserError, match="not finite"):
        learner.update(poisoned, 1e-2)
    assert all(torch.equal(before[k], v) for k, v in tiny_policy.module.state_dict().items())
    assert all(p.grad is None for p in tiny_policy.module.parameters())


def test_dropout_is_off_in_every_pass(tokenizer):
    import transformers as t

    config = t.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, attention_dropout=0.5, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    policy = Policy(t.LlamaForCausalLM(config).train(), tokenizer)
    objective = objectives.preset("dr_grpo")
    learner = Learner(policy, objective, Optimizer())
    batch = batch_of(objective)
    assert torch.equal(learner.logprobs(batch), learner.logprobs(batch))
    report = learner.update(scored(learner, batch, old=True), 0.0)
    assert report.metrics["policy/ratio_max"] == pytest.approx(1, abs=1e-5)


def test_weight_decay_touches_matrices_only(tiny_policy):
    optimizer = open_optimizer(Optimizer(weight_decay=0.1), tiny_policy.module)
    for group in optimizer.param_groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] > 0}


def test_groups_are_split_whole():
    groups = make_groups(REWARDS)
    for parts in (1, 2, 3, 4):
        pieces = split(groups, parts)
        assert len(pieces) == parts
        assert [g.ticket for piece in pieces for g in piece] == [0, 1, 2, 3]


def test_schedules():
    constant = Optimizer(learning_rate=1.0, warmup_steps=4)
    assert [rate_at(constant, 10, step) for step in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    for schedule in ("linear", "cosine"):
        table = Optimizer(learning_rate=1.0, warmup_steps=5, schedule=schedule)
        rates = [rate_at(table, 20, step) for step in range(1, 21)]
        assert rates[5] == 1.0
        assert rates[-1] == pytest.approx(0.1)
        assert all(a >= b for a, b in pairwise(rates[5:]))


def test_rollouts_of_very_different_lengths_share_a_batch(tokenizer):
    """Lengths fall into buckets, so that one long rollout does not widen the rectangle of the short ones."""
    from tiny import make_tiny

    model = make_tiny("gemma3", tokenizer)
    model.config.max_position_embeddings = 512
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    objective = objectives.preset("dr_grpo")
    groups = make_groups([[1.0, 0.0, 0.5, 0.0, 1.0, 0.2]] * 2, longest=200, seed=3)
    lengths = [len(r.tokens) for g in groups for r in g.rollouts]
    assert min(lengths) < 64 < 128 < max(lengths)
    batch = collate(with_advantages(groups, objective, ALONE), objective, 256)
    learner = Learner(Policy(model, tokenizer), objective, Optimizer(), TEMPERATURE)
    with torch.no_grad():
        expected = flat(plain_logprobs(plain, batch), batch.lengths)
    torch.testing.assert_close(learner.logprobs(batch), expected, atol=2e-5, rtol=0)


def test_a_fresh_reference_computes_as_its_policy_does(tokenizer):
    """In bfloat16 too, on whichever path: otherwise the KL would not be 0 before the first update."""
    from tiny import make_tiny

    policy = Policy(make_tiny("qwen3", tokenizer), tokenizer, "bfloat16")
    learner = Learner(policy, objectives.preset("grpo"), Optimizer(), TEMPERATURE, reference=Reference(policy))
    batch = scored(learner, batch_of(learner.objective), old=True)
    assert torch.equal(batch.old_logprobs, batch.ref_logprobs)


def printed_weights(text, part, objective):
    """The weight of every token of an update by what `explain` printed: the factors before the bracket, as numbers."""
    defined = dict(re.split(r" += ", line, maxsplit=1) for line in text.splitlines() if re.match(r"\w+ +=", line))
    group_size = len(part[0].rollouts)
    values = {"P": len(part), "B": len(part) * group_size, "16": 16}
    values["N"] = sum(len(r.tokens) for group in part for r in group.rollouts)
    for letter in "PB":
        numbers = [int(found) for found in re.findall(r"(?<![\w/])[0-9]+(?![\w])", defined.get(letter, ""))]
        if letter == "P" and numbers:  # the words say between which numbers it lies
            assert len(part) <= max(numbers)
    if (known := re.search(r"= ([0-9]+)(?:, one update's)?$", defined.get("B", ""))) is not None:
        assert int(known[1]) == values["B"]
    factors = re.findall(r"(?<!\w)1/(\([^)]*\)|\w+)", text.partition("[")[0])
    weights = []
    for group in part:
        of_prompt = sum(len(r.tokens) for r in group.rollouts)
        for rollout in group.rollouts:
            own = {**values, "N_p": of_prompt, "L_i": len(rollout.tokens)}
            divisor = math.prod(
                own[name] if name in own else int(name) for one in factors for name in one.strip("()").split("·")
            )
            times = len(rollout.tokens) if "Σ_i L_i ·" in text.partition("[")[0] else 1
            weights += [times / divisor] * len(rollout.tokens)
    return torch.tensor(weights)


@pytest.mark.parametrize("zero_std", ["zero", "drop"])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_the_loss_is_divided_by_what_explain_prints(tiny_policy, aggregation, parts, zero_std):
    objective = objectives.preset("grpo", kl_coef=0.0, aggregation=aggregation, zero_std=zero_std)
    groups = with_advantages(make_groups(REWARDS), objective, ALONE)
    if zero_std == "drop":
        groups = [group for group in groups if group.has_signal]
        assert len(groups) == 3
    text = equation(objective, prompts=4, group_size=4, max_tokens=16, updates=parts, parts=parts)
    learner = Learner(tiny_policy, objective, Optimizer(learning_rate=1e-9), TEMPERATURE)
    for part in split(groups, parts):
        weights = printed_weights(text, part, objective)
        batch = collate(part, objective, 16)
        assert torch.allclose(batch.token_weight, weights)
        executed = learner.update(batch, 1e-9).metrics["loss"]
        assert math.isclose(executed, -(batch.advantages * weights).sum().item(), abs_tol=1e-5)  # at a ratio of 1


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_activations_that_are_computed_again_give_the_same_bits(tokenizer, checkpoint_dir, monkeypatch, compute, lora):
    objective = objectives.preset("dr_grpo")
    policy = load_policy(str(checkpoint_dir), compute=compute)
    policy = on_path(add_lora(policy, Lora(rank=2), seed=0) if lora else policy, "fused")
    learner = Learner(policy, objective, Optimizer())
    _, expected = learner_gradients(learner, batch_of(objective), monkeypatch)
    calls, layer = [], type(policy.fused)._layer
    monkeypatch.setattr(
        type(policy.fused), "_layer", lambda self, number, *a: calls.append(number) or layer(self, number, *a)
    )
    policy.fused.checkpointing = True
    _, gradients = learner_gradients(learner, batch_of(objective), monkeypatch)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    assert sorted(calls) == [0, 0, 1, 1]  # forward, and again in the backward pass


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_the_head_that_is_compiled_on_a_gpu_is_one_graph_with_the_same_values_and_gradients(entropy_gradient):
    """Its tracing, forward and backward, as on a GPU; code for one is not made here."""
    traced = torch.compile(of_logits, dynamic=True, fullgraph=True, backend="aot_eager")
    for rows, vocabulary in ((5, 33), (9, 64)):
        logits, targets = torch.randn(rows, vocabulary, requires_grad=True), torch.randint(vocabulary, (rows,))
        sides = []
        for of in (of_logits, traced):
            logprobs, entropies = of(logits, targets, 0.7, entropy_gradient)
            assert entropies.requires_grad == entropy_gradient
            loss = (logprobs * torch.arange(rows)).sum() + (entropies.sum() if entropy_gradient else 0)
            sides.append((logprobs, entropies, *torch.autograd.grad(loss, logits)))
        torch.testing.assert_close(*sides)
