"""Checkpoints whose tensors do not fit their model, at every door by which a model comes in; and models that would not
be read back as they are.

Siblings that are tried: a tensor renamed, missing, added, of another shape; all of them under another prefix; fewer and
more layers than config.json says; a bias that config.json denies; an adapter with a tensor renamed; a base without its
head; a classifier in the place of a language model; files that are no weights at all, hostile ones among them.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil

import pytest
import torch
import transformers as t
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from cohort.engine.engine import Engine
from cohort.learn.reference import Reference
from cohort.policy import fit
from cohort.policy.fit import refuse_broken, refuse_unlike
from cohort.policy.load import Start, add_lora, load_policy, open_policy, resumed_policy, save_policy
from cohort.policy.policy import Policy
from cohort.rewards.models.reward_model import reward_model
from cohort.settings import Lora
from cohort.settings import Policy as PolicyTable
from cohort.types import UserError
from tiny import make_tiny

DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def saved(tmp_path, tokenizer):
    """A checkpoint with a head of its own."""
    where = tmp_path / "saved"
    make_tiny("llama", tokenizer).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


def rewrite(where, change, file="model.safetensors"):
    save_file(change(load_file(where / file)), where / file, metadata={"format": "pt"})


def configure(where, **keys):
    file = where / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def renamed(old, new):
    return lambda tensors: {new if name == old else name: value for name, value in tensors.items()}


def without(*names):
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


def misshapen(tensors):
    return {name: value[:, :-1].contiguous() if name == DOWN else value for name, value in tensors.items()}


FAULTS = {
    "renamed": (renamed(DOWN, "model.layers.1.mlp.down.weight"), DOWN),
    "no head": (without("lm_head.weight"), "no weights for lm_head.weight"),
    "no norm": (without("model.norm.weight"), "no weights for model.norm.weight"),
    "one more": (lambda tensors: {**tensors, "model.layers.0.self_attn.q_proj.bias": torch.ones(32)}, "no place for"),
    "misshapen": (misshapen, r"another shape for its model.layers.1.mlp.down_proj.weight \(\[32, 63\], not \[32, 64\]"),
    "all renamed": (lambda tensors: {f"net.{name}": value for name, value in tensors.items()}, "and 27 more"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_with_a_renamed_tensor_is_refused(fault, saved):
    change, says = FAULTS[fault]
    rewrite(saved, change)
    with pytest.raises(UserError, match=says):
        load_policy(str(saved))
    with pytest.raises(UserError, match=says):
        resumed_policy(PolicyTable(), saved)


@pytest.mark.parametrize(
    ("layers", "says"), [(2, "no place for its model.layers.2"), (4, "no weights for model.layers.3")]
)
def test_a_configuration_of_another_depth_is_refused(saved, layers, says):
    configure(saved, num_hidden_layers=layers)
    with pytest.raises(UserError, match=says):
        load_policy(str(saved))


def test_an_adapter_with_a_renamed_tensor_is_refused(checkpoint_dir, tmp_path):
    policy = add_lora(load_policy(str(checkpoint_dir)), Lora(rank=2, targets=("q_proj",)), seed=0)
    save_policy(policy, tmp_path / "adapter")
    load_policy(str(tmp_path / "adapter"))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    rewrite(tmp_path / "adapter", renamed(name, name.replace("q_proj", "query")), "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"no weights for .*q_proj\.lora_B\.weight; the model has no place for its"):
        load_policy(str(tmp_path / "adapter"))


def test_the_base_of_an_adapter_is_checked_as_well(saved, tmp_path):
    save_policy(add_lora(load_policy(str(saved)), Lora(rank=2), seed=0), tmp_path / "adapter")
    rewrite(saved, without(DOWN))
    with pytest.raises(UserError, match=f"'{saved}'.*no weights for {DOWN}"):
        load_policy(str(tmp_path / "adapter"))


def test_a_reference_with_a_missing_tensor_is_refused(tiny_policy, tmp_path):
    reference = Reference(tiny_policy)
    reference.refresh()
    reference.save(tmp_path / "reference")
    rewrite(tmp_path / "reference", without(DOWN))
    with pytest.raises(UserError, match=f"no weights for {DOWN}"):
        reference.load(tmp_path / "reference")


def test_a_classifier_is_no_policy(tokenizer, tmp_path):
    config = t.Qwen3Config(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                           num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_labels=1,
                           pad_token_id=0)  # type: ignore[call-arg]  # fmt: skip
    t.Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path))  # its body is what a reward model goes on from
    with pytest.raises(UserError, match="is a classifier"):
        Engine(policy)
    rewrite(tmp_path, without(DOWN))
    with pytest.raises(UserError, match=f"no weights for {DOWN}"):
        load_policy(str(tmp_path))


class Planted:
    """What writes a file where a pickle of it is read without care."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def hostile(where, planted):
    buffer = io.BytesIO()
    torch.save({"model.norm.weight": Planted(planted)}, buffer)
    return {
        "pickle": pickle.dumps({"model.norm.weight": Planted(planted)}),
        "torch": buffer.getvalue(),
        "empty": b"",
        "cut": buffer.getvalue()[:100],
        "text": b"version https://git-lfs.github.com/spec/v1\n",
    }


@pytest.mark.parametrize("kind", ["pickle", "torch", "empty", "cut", "text"])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_files_that_are_no_weights_are_one_sentence_and_are_not_run(saved, tmp_path, kind, file):
    (saved / "model.safetensors").unlink()
    (saved / file).write_bytes(hostile(saved, tmp_path / "planted")[kind])
    with pytest.raises(UserError, match="cannot load the model"):
        load_policy(str(saved))
    assert not (tmp_path / "planted").exists()


@pytest.mark.fault("pickled weights", "they are refused, with the way to convert them")
def test_weights_that_are_pickled_are_refused_with_the_way_to_convert_them(saved, tokenizer):
    (saved / "pytorch_model.bin").write_bytes(b"never read")
    load_policy(str(saved))  # safetensors are there as well
    module = load_policy(str(saved)).module
    (saved / "model.safetensors").unlink()
    torch.save(module.state_dict(), saved / "pytorch_model.bin")  # a sound one
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle.*convert it to safetensors once: CLASS"):
        load_policy(str(saved))
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle"):
        reward_model(["a"], ["b"], str(saved))
    type(module).from_pretrained(saved, use_safetensors=False).save_pretrained(saved.with_name("new"))
    tokenizer.save_pretrained(saved.with_name("new"))
    load_policy(str(saved.with_name("new")))


def test_a_configuration_that_contradicts_itself_is_one_sentence(saved):
    configure(saved, num_attention_heads="four")
    with pytest.raises(UserError, match="cannot load the model"):
        load_policy(str(saved))


def live(model, tokenizer, **table):
    return open_policy(PolicyTable(model="live", **table), 0, Start(live=(model, tokenizer)), list)


def test_a_head_tied_by_hand_is_refused_before_the_first_step(tokenizer):
    model = make_tiny("llama", tokenizer)
    model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(UserError, match="cannot be saved as it is trained: it has no weights for lm_head"):
        live(model, tokenizer)
    model.config.tie_word_embeddings = True
    live(model, tokenizer)


def test_matrices_that_share_their_weights_by_hand_are_refused(tokenizer):
    model = make_tiny("llama", tokenizer)
    model.model.layers[2].mlp.down_proj.weight = model.model.layers[1].mlp.down_proj.weight
    with pytest.raises(UserError, match=r"the model cannot be saved: .*shared tensors"):
        live(model, tokenizer)


def test_a_generation_config_that_contradicts_itself_is_refused_before_the_first_step(tokenizer):
    model = make_tiny("llama", tokenizer)
    model.generation_config.temperature, model.generation_config.do_sample = 0.6, False
    with pytest.raises(UserError, match="the model cannot be saved: GenerationConfig is invalid"):
        live(model, tokenizer)


def test_weights_in_another_order_of_memory_are_saved(tokenizer):
    model = make_tiny("llama", tokenizer)
    weight = model.model.layers[0].mlp.gate_proj.weight
    weight.data = weight.detach().t().contiguous().t()
    live(model, tokenizer)


def released(saved):
    """A model as a policy gives it back."""
    policy = load_policy(str(saved))
    policy.release()
    return policy.module


def test_an_adapter_on_a_base_that_was_changed_in_python_is_refused(saved, tokenizer):
    live(released(saved), tokenizer, lora={"rank": 2})
    changed = released(saved)
    with torch.no_grad():
        changed.model.norm.weight.mul_(2)
    with pytest.raises(UserError, match=r"norm\.weight would be read back as something else"):
        live(changed, tokenizer, lora={"rank": 2})


def test_weights_trained_beside_an_adapter_are_refused(saved, tokenizer, tmp_path):
    model = t.AutoModelForCausalLM.from_pretrained(saved)
    module = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    module.get_base_model().lm_head.weight.requires_grad_(True)
    with pytest.raises(UserError, match=r"no weights for base_model\.model\.lm_head\.weight"):
        save_policy(Policy(module, tokenizer), tmp_path / "adapter")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_weights_are_never_saved(tiny_policy, tmp_path, value):
    with torch.no_grad():
        tiny_policy.model.model.layers[1].mlp.down_proj.weight[0, 0] = value
    with pytest.raises(UserError, match=f"1 tensors .* not finite .*such as {DOWN}"):
        save_policy(tiny_policy, tmp_path / "final")
    assert not (tmp_path / "final").exists()
    reference = Reference(tiny_policy)
    reference.refreshed = True
    with pytest.raises(UserError, match="not finite"):
        reference.save(tmp_path / "reference")
    with pytest.raises(UserError, match="not finite"):
        refuse_broken(tiny_policy.module)


def test_a_checkpoint_with_a_nan_is_refused_for_what_it_is(saved):
    rewrite(saved, lambda tensors: {**tensors, DOWN: tensors[DOWN].fill_(float("nan"))})
    with pytest.raises(UserError, match=f"cannot load the model .*1 tensors .* not finite .*such as {DOWN}"):
        load_policy(str(saved))


def test_a_model_that_was_read_back_once_is_compared_with_the_files_of_later_saves(tokenizer, tmp_path, monkeypatch):
    """Also where weights are tied; whatever else the files hold then, transformers is asked again."""
    model = make_tiny("llama", tokenizer)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    policy, built = Policy(model, tokenizer), []
    read = type(model).from_pretrained
    monkeypatch.setattr(fit, "_read_back", set())  # other tests have saved such models in this process
    asked = staticmethod(lambda *of, **how: built.append(1) or read(*of, **how))
    monkeypatch.setattr(type(model), "from_pretrained", asked)
    save_policy(policy, tmp_path / "first")
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    save_policy(policy, tmp_path / "second")
    assert len(built) == 1
    refuse_unlike(model, tmp_path / "second")
    with pytest.raises(UserError, match=r"model\.norm\.weight would be read back as something else"):
        refuse_unlike(model, tmp_path / "first")
    rewrite(tmp_path / "second", without(DOWN))
    with pytest.raises(UserError, match=f"it has no weights for {DOWN}"):
        refuse_unlike(model, tmp_path / "second")
    configure(tmp_path / "first", a_note="another text of the same model")
    with torch.no_grad():
        model.model.norm.weight.div_(2)
    before = len(built)
    refuse_unlike(model, tmp_path / "first")
    assert len(built) == before + 1


def test_what_a_full_disk_left_out_is_noticed(tiny_policy, tmp_path, monkeypatch):
    """Also where nothing raises: a save that loses a tensor is found when it is read back."""
    save = type(tiny_policy.model).save_pretrained

    def lossy(self, directory, **options):
        save(self, directory, **options)
        rewrite(directory, without(DOWN))

    monkeypatch.setattr(type(tiny_policy.model), "save_pretrained", lossy)
    with pytest.raises(UserError, match=f"cannot be saved as it is trained: it has no weights for {DOWN}"):
        save_policy(copy.copy(tiny_policy), tmp_path / "final")
    shutil.rmtree(tmp_path / "final")
