"""The reward model in training against the classifier that is saved, and against a plain padded batch."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import transformers as t
from peft import LoraConfig, get_peft_model

from cohort.algorithms.losses import bradley_terry
from cohort.policy.load import load_policy
from cohort.policy.policy import Policy
from cohort.rewards.models.reward_model import reward_model
from cohort.rewards.models.text import Form, Reader
from cohort.tasks import R1_ZERO
from cohort.train.reward_model.scorer import EncodedPair, Scorer
from cohort.types import UserError
from tiny import SIZES, make_tiny

PAIRS = [
    ("How many are left?", "There are 4 left.", "5"),
    ("What is 2 + 2?", "4", "It is five, I think, or perhaps six."),
    ("How many are left?", "", "<answer> 3 </answer><|end|><|user|>Thanks!"),
]


CHAT = Form()


def encode(tokenizer, form=CHAT, pairs=PAIRS, margins=(0.0, 0.5, 0.0)):
    reader = Reader(tokenizer, form)
    return [
        EncodedPair(tuple(reader.prompt(p)), tuple(reader.answer(a)), tuple(reader.answer(b)), margin)
        for (p, a, b), margin in zip(pairs, margins)
    ]


def scorer_of(model, tokenizer, form=CHAT, seed=1):
    """With a score that has an opinion."""
    scorer = Scorer(Policy(model, tokenizer), form)
    torch.manual_seed(seed)
    torch.nn.init.normal_(scorer.head.weight, 0, 0.5)
    return scorer


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "gemma3"])
def test_what_is_saved_scores_as_what_was_trained(kind, tokenizer, tmp_path):
    scorer = scorer_of(make_tiny(kind, tokenizer), tokenizer)
    pairs = encode(scorer.policy.tokenizer)
    with torch.no_grad():
        ours = scorer.scores(pairs)
    scorer.save(tmp_path / "rm")
    plain = t.AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    rows = [[*pair.prompt, *answer] for pair in pairs for answer in (pair.chosen, pair.rejected)]
    width = max(map(len, rows))
    pad = plain.config.pad_token_id
    batch = {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }
    with torch.no_grad():
        theirs = plain(**batch).logits.view(-1, 2)
    assert ours.flatten().tolist() == pytest.approx(theirs.flatten().tolist(), abs=2e-5)
    assert ours.std() > 0.1


@pytest.mark.parametrize(
    "form", [Form(), Form(None, "Be kind."), Form("{prompt}"), Form("Be kind.\n\n{prompt}"), Form(R1_ZERO)]
)
def test_the_reward_reads_texts_as_they_were_read_in_training(form, tokenizer, tmp_path):
    scorer = scorer_of(make_tiny("qwen3", tokenizer), tokenizer, form)
    where = tmp_path / "rm"
    scorer.save(where)
    # R1-Zero's template is longer than the tiny model; positions are rotary, so it may be.
    config = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    for pair, (prompt, better, worse) in zip(encode(scorer.policy.tokenizer, form), PAIRS):
        with torch.no_grad():
            ours = scorer.scores([pair])[0].tolist()
        assert reward_model([prompt] * 2, [better, worse], str(where)) == pytest.approx(ours, abs=2e-5)


def test_the_gradient_is_that_of_a_plain_padded_batch(tokenizer):
    model = make_tiny("qwen2", tokenizer)
    body = copy.deepcopy(model.model)
    scorer = scorer_of(model, tokenizer)
    pairs = encode(scorer.policy.tokenizer)
    margin = torch.tensor([pair.margin for pair in pairs])
    scores = scorer.scores(pairs)
    loss = bradley_terry(scores[:, 0], scores[:, 1], margin, 0.01)
    loss.backward()

    body.set_attn_implementation("eager")
    head = scorer.head.weight.detach().clone().requires_grad_()
    found = []
    for pair in pairs:
        for answer in (pair.chosen, pair.rejected):
            hidden = body(input_ids=torch.tensor([[*pair.prompt, *answer]]), use_cache=False).last_hidden_state
            found.append(hidden[0, -1] @ head[0])
    plain = torch.stack(found).view(-1, 2)
    difference = plain[:, 0] - plain[:, 1] - margin
    by_hand = -torch.nn.functional.logsigmoid(difference).mean() + 0.01 * (plain.sum(1) ** 2).mean()
    by_hand.backward()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert torch.allclose(scorer.head.weight.grad, head.grad, atol=1e-5)
    for name, parameter in scorer.policy.model.model.named_parameters():
        theirs = dict(body.named_parameters())[name].grad
        assert torch.allclose(parameter.grad, theirs, atol=2e-5), name


def test_a_pair_does_not_depend_on_its_neighbours(tokenizer):
    scorer = scorer_of(make_tiny("llama", tokenizer), tokenizer)
    pairs = encode(scorer.policy.tokenizer)
    with torch.no_grad():
        together = scorer.scores(pairs)
        alone = torch.cat([scorer.scores([pair]) for pair in pairs])
    assert torch.allclose(together, alone, atol=1e-5)


def test_every_answer_starts_with_the_same_score(tokenizer):
    scorer = Scorer(Policy(make_tiny("qwen3", tokenizer), tokenizer), Form())
    assert scorer.scores(encode(scorer.policy.tokenizer)).abs().max() == 0


def test_an_adapter_is_merged(tokenizer):
    model = make_tiny("qwen3", tokenizer)
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    with_adapter = scorer_of(adapted, tokenizer)
    assert all(parameter.requires_grad for parameter in with_adapter.module.parameters())
    assert not any("lora" in name for name, _ in with_adapter.module.named_parameters())
    pairs = encode(with_adapter.policy.tokenizer)
    with torch.no_grad():
        merged, plain = with_adapter.scores(pairs), scorer_of(model, tokenizer).scores(pairs)
    assert (merged - plain).abs().max() > 0.01


def test_padding_is_never_the_end_token(tokenizer, tmp_path):
    """Where they are one, as in many chat models, another special token pads; else HF would read one token early."""
    merged = copy.deepcopy(tokenizer)
    merged.pad_token = merged.eos_token
    merged.bos_token = "<|user|>"
    scorer = scorer_of(make_tiny("qwen3", merged), merged)
    assert scorer.policy.tokenizer.pad_token == "<|user|>"
    assert merged.pad_token == merged.eos_token  # the caller's own is left as it was
    scorer.save(tmp_path / "rm")
    (pair,) = encode(scorer.policy.tokenizer, pairs=PAIRS[:1], margins=(0.0,))
    with torch.no_grad():
        ours = scorer.scores([pair])[0].tolist()
    prompt, better, worse = PAIRS[0]
    assert reward_model([prompt] * 2, [better, worse], str(tmp_path / "rm")) == pytest.approx(ours, abs=2e-5)


def test_a_tokenizer_with_the_end_token_alone_is_refused(tokenizer):
    bare = t.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token)
    bare.chat_template = tokenizer.chat_template
    with pytest.raises(UserError, match="no token to pad with"):
        Scorer(Policy(make_tiny("qwen3", bare), bare), Form())


def test_training_goes_on_from_a_classifier(tokenizer, tmp_path):
    first = scorer_of(make_tiny("llama", tokenizer), tokenizer)
    first.save(tmp_path / "rm")
    again = Scorer(load_policy(str(tmp_path / "rm")), Form())
    again.take_head()
    pairs = encode(first.policy.tokenizer)
    with torch.no_grad():
        assert torch.equal(again.scores(pairs), first.scores(pairs))


def test_a_classifier_of_several_labels_is_no_start(tokenizer, tmp_path):
    config = t.Qwen3Config(**SIZES, head_dim=8, vocab_size=len(tokenizer), num_labels=3, pad_token_id=0)  # type: ignore[call-arg]
    t.Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = Scorer(load_policy(str(tmp_path)), Form())
    with pytest.raises(UserError, match="has 3 labels"):
        scorer.take_head()
