"""Families of models beyond plain attention: which path each is found to need, and that every path computes the same.

docs/models.md has all families, by the same tool; here is one of every kind.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cohort.engine.engine import Engine
from cohort.policy import proof
from cohort.policy.attention import PackedGroups
from cohort.policy.decode import PlainDecoder
from cohort.policy.generic import Mode
from cohort.policy.policy import Policy
from cohort.types import SampleRequest, Sampling, UserError
from tiny import make_tiny

TOOL = Path(__file__).parents[2] / "tools" / "models_table.py"

PACKED = {
    "gemma2": "soft-capping",
    "gpt_oss": "sinks and experts",
    "qwen3_moe": "experts",
    "deepseek_v3": "latent attention, values narrower than keys",
    "llama4_text": "chunks, and layers without positions",
    "cohere": "parallel blocks and a scaled head",
    "phi": "partial rotary",
}
GENERIC = {
    "qwen3_next": "Gated DeltaNet and experts",
    "qwen3_5_text": "Gated DeltaNet",
    "mamba": "states alone, and another name for its cache",
    "jamba": "states and experts",
    "lfm2": "convolutions",
    "falcon_h1": "attention beside states in one layer, a scaled head of its own",
    "bloom": "positions that are biases",
}


@pytest.fixture(scope="module")
def families():
    spec = importlib.util.spec_from_file_location("models_table", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checked(model, tokenizer) -> Policy:
    policy = Policy(model, tokenizer)
    policy.check()
    return policy


@pytest.mark.filterwarnings("ignore:.*takes the generic path")
@pytest.mark.parametrize("name", [*PACKED, *GENERIC])
def test_a_family_is_sampled_as_it_is(name, families):
    found = families.try_family(name, ("sample",))
    assert found["path"] == ("packed" if name in PACKED else "generic"), found
    assert found["apart"] < 1e-5, found
    assert found["greedy"] == "2 of 2", found


def hidden_and_gradients(policy: Policy, layout: PackedGroups) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits that predict a few rollouts, and the gradients of their sum in a random direction."""
    hidden = policy.hidden(layout.tokens, layout.positions, layout)
    picked = [(row, column) for row, n in enumerate(layout.rollout_lengths) for column in range(n)]
    logits = policy.logits(hidden[layout.predictors(*torch.tensor(picked).unbind(1))])
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    policy.module.zero_grad(set_to_none=True)
    (logits.log_softmax(-1) * direction).sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in policy.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["padded", "equal", "single"])
@pytest.mark.parametrize("name", ["qwen3", "gemma2", "gpt_oss", "llama4_text"])
def test_packed_and_whole_rows_have_the_same_values_and_gradients(name, mode, families, tokenizer):
    model = make_tiny("qwen3", tokenizer) if name == "qwen3" else families.make(name, len(tokenizer))
    whole = Policy(copy.deepcopy(model), tokenizer, mode=Mode("a test", rows=mode))
    packed = Policy(model, tokenizer)
    draw = torch.Generator().manual_seed(0)
    prompts, rollouts = (
        [torch.randint(3, 300, (n,), generator=draw).tolist() for n in lengths] for lengths in ((9, 21), (30, 1, 12, 1))
    )
    layout = PackedGroups(prompts, rollouts, [0, 0, 1, 1])
    (ours, gradients), (theirs, others) = (hidden_and_gradients(policy, layout) for policy in (packed, whole))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    assert gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        assert (gradient - others[key]).norm() <= 1e-4 * (others[key].norm() + 1e-3), key


def test_a_group_whose_rollouts_have_one_token_is_read_once():
    layout = PackedGroups([[5, 6], [7, 8, 9]], [[1], [2], [3, 4]], [0, 0, 1])
    rows = [(places.tolist(), first) for places, first in layout.rows()]
    assert rows == [([0, 1], 0), ([2, 3, 4, 5], 0)]


def leaky(model: Any) -> None:
    """Make a model see what its padding holds."""
    inner = model.model.forward

    def forward(*given: Any, attention_mask: Tensor | None = None, **options: Any) -> Any:
        return inner(*given, attention_mask=None, **options)

    model.model.forward = forward


def uncopied(model: Any) -> None:
    """Make a model forget its cache."""
    inner = model.model.forward

    def forward(*given: Any, **options: Any) -> Any:
        out = inner(*given, **options)
        out.past_key_values = None
        return out

    model.model.forward = forward


@pytest.mark.parametrize(
    ("harm", "cache", "says"),
    [(leaky, "equal", "only prompts of one length"), (uncopied, "none", "reads the whole row")],
)
def test_what_a_model_cannot_do_is_found_out_and_said(harm, cache, says, tokenizer, monkeypatch):
    monkeypatch.setattr("cohort.policy.policy.packed_differs", lambda policy: "a test")
    model = make_tiny("qwen3", tokenizer)
    plain = copy.deepcopy(model)
    harm(model)
    policy = Policy(model, tokenizer)
    with pytest.warns(UserWarning, match=says):
        policy.check()
    assert policy.mode is not None
    assert policy.mode.cache == cache
    prompts = [(5, 6, 7, 8, 9, 10), (11, 12), (13, 14)]
    requests = [SampleRequest(i, prompt, 3, i, Sampling(12)) for i, prompt in enumerate(prompts)]
    drawn = dict(Engine(policy, 4).sample(requests))
    for request, completions in drawn.items():
        for one in completions:
            with torch.no_grad():
                logits = plain(torch.tensor([[*request.tokens, *one.tokens]])).logits[0, len(request.tokens) - 1 : -1]
            exact = logits.log_softmax(-1).gather(-1, torch.tensor(one.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(one.logprobs), exact, atol=1e-5, rtol=0)


def late(decoder: PlainDecoder, slot: Tensor, own: Tensor) -> None:
    """Positions one behind where they are."""
    decoder.prefix_length = decoder.prefix_length + 1


def forgetful(decoder: PlainDecoder, slot: Tensor, own: Tensor) -> None:
    """A row's own tokens are lost from the fourth on."""
    if int(own.max()) >= 3:
        decoder.own = [(torch.zeros_like(keys), values) for keys, values in decoder.own]


def mistaken(decoder: PlainDecoder, slot: Tensor, own: Tensor) -> None:
    """A row continues another prompt."""
    slot[-1] = slot[0]


def breaking(decoder: PlainDecoder, slot: Tensor, own: Tensor) -> None:
    """It raises."""
    raise IndexError("no such key")


@pytest.mark.parametrize("fault", [late, forgetful, mistaken, breaking])
@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_decoding_that_disagrees_is_found_at_load_and_the_generic_path_taken(kind, fault, tokenizer, monkeypatch):
    """The forward pass over packed rows is right in all of these: only decoding is not."""
    right = PlainDecoder.decode

    def wrong(decoder, tokens, slot, place, own):
        fault(decoder, slot := slot.clone(), own)
        return right(decoder, tokens, slot, place, own)

    checked(make_tiny(kind, tokenizer), tokenizer)  # no warning without a fault
    monkeypatch.setattr(PlainDecoder, "decode", wrong)
    policy = Policy(make_tiny(kind, tokenizer), tokenizer)
    with pytest.warns(
        UserWarning, match=r"generic path \((decoding from|it does not decode from) stored keys and values"
    ):
        policy.check()
    assert policy.generic is not None
    ((_, completions),) = Engine(policy).sample([SampleRequest(0, (5, 6, 7), 2, 0, Sampling(6))])
    assert len(completions) == 2


@pytest.mark.filterwarnings("ignore:.*takes the generic path")
@pytest.mark.parametrize("name", ["qwen3_5_text", "mamba"])
def test_a_rollout_does_not_depend_on_its_neighbours(name, families, tokenizer):
    policy = checked(families.make(name, len(tokenizer)), tokenizer)
    requests = [SampleRequest(i, tuple(range(5, 8 + 4 * i)), 3, 40 + i, Sampling(12)) for i in range(3)]
    together = {r.key: c for r, c in Engine(policy).sample(requests)}
    crowded = {r.key: c for r, c in Engine(policy, max_rows=2).sample(requests[::-1])}
    for request in requests:
        tokens = [one.tokens for one in together[request.key]]
        assert tokens == [one.tokens for one in crowded[request.key]]


def test_a_model_that_sees_what_follows_is_refused(families, tokenizer):
    model = families.make("bert", len(tokenizer))
    model.config.is_decoder = False
    for module in model.modules():
        if hasattr(module, "is_decoder"):
            module.is_decoder = False
        if hasattr(module, "is_causal"):
            module.is_causal = False
    with pytest.raises(UserError, match="no causal language model"):
        checked(model, tokenizer)


def test_a_window_that_only_the_mask_knows_is_no_packed_path(tokenizer):
    """Beyond the length of the probe, so that no comparison can show it."""
    policy = Policy(make_tiny("llama", tokenizer), tokenizer)
    policy.config.sliding_window = 64
    assert "window of 64" in str(proof.packed_differs(policy))


def test_sparse_attention_is_no_packed_path(tokenizer):
    """It chooses among many keys, of which the probe has few."""
    policy = Policy(make_tiny("qwen3", tokenizer), tokenizer)
    policy.config.layer_types = ["full_attention", "indexed_attention", "full_attention"]
    assert "indexed_attention" in str(proof.packed_differs(policy))


@pytest.mark.parametrize(("kind", "limit"), [("longrope", 16), ("dynamic", 32)])
def test_positions_end_where_the_rotary_embedding_becomes_another(kind, limit, tokenizer):
    import transformers as t

    common: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
                              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                              "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}  # fmt: skip
    torch.manual_seed(0)
    if kind == "longrope":
        rope = {"rope_type": kind, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4,
                "original_max_position_embeddings": 16, "factor": 8.0}  # fmt: skip
        config: Any = t.Phi3Config(**common, max_position_embeddings=128, original_max_position_embeddings=16,
                                   rope_parameters=rope)  # fmt: skip
        model: Any = t.Phi3ForCausalLM(config)
    else:
        rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
        model = t.LlamaForCausalLM(t.LlamaConfig(**common, max_position_embeddings=32, rope_parameters=rope))
    policy = checked(model.float().eval(), tokenizer)
    assert policy.generic is None
    assert policy.fused is None
    assert policy.max_context == limit
    with pytest.raises(UserError, match=f"the model has {limit}"):
        list(Engine(policy).sample([SampleRequest(0, (5,) * 10, 1, 0, Sampling(limit))]))


def test_a_mode_says_what_it_costs():
    mode = Mode("it has convolutions")
    assert str(mode).startswith("generic path (it has convolutions; sampling: a prompt read once")
    assert "every token reads the whole row" in str(replace(mode, cache="none"))
    assert "one row at a time" in str(replace(mode, rows="single"))
