"""Code that comes with a model: not run unless asked for, and then named in the record with the digest of each file."""

from __future__ import annotations

import hashlib
import json
import sys
from types import ModuleType
from typing import Any

import pytest
from tests.faults.roads import REWARD
from tests.rewards.classifiers import save_decoder
from tests.tiny import make_tiny

from cohort.recipe import Recipe
from cohort.remote_code import remote_code
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console

CONFIGURATION = """
from pathlib import Path
from transformers import Qwen3Config

Path({canary!r}).touch()

class OwnConfig(Qwen3Config):
    model_type = "own"
"""
MODEL = """
from torch.nn import Linear
from transformers import Qwen3ForCausalLM, Qwen3ForSequenceClassification, Qwen3Model, Qwen3PreTrainedModel
from .configuration_own import OwnConfig

class OwnForCausalLM(Qwen3ForCausalLM):
    config_class = OwnConfig

class OwnForSequenceClassification(Qwen3ForSequenceClassification):
    config_class = OwnConfig

    def __init__(self, config):
        Qwen3PreTrainedModel.__init__(self, config)
        self.num_labels, self.model = config.num_labels, Qwen3Model(config)
        self.score = Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()
"""


def with_own_code(where, kind, canary):
    """Make a checkpoint one of a kind that transformers does not know; `canary` is there once its code has run."""
    (where / "configuration_own.py").write_text(CONFIGURATION.format(canary=str(canary)))
    (where / "modeling_own.py").write_text(MODEL)
    file = where / "config.json"
    config = json.loads(file.read_text()) | {"model_type": "own", "architectures": [f"OwnFor{kind}"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        f"AutoModelFor{kind}": f"modeling_own.OwnFor{kind}",
    }
    file.write_text(json.dumps(config))


def digests(where):
    return {
        hashlib.sha256((where / f"{name}_own.py").read_bytes()).hexdigest() for name in ("configuration", "modeling")
    }


@pytest.fixture
def model(tmp_path, monkeypatch, tiny_directory):
    """A model of a kind that transformers does not know, with its code; and a file that is there once it has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_ones_own.py").write_text(REWARD)
    canary = tmp_path / "has run"
    with_own_code(tiny_directory, "CausalLM", canary)
    for name in [name for name in sys.modules if name.startswith("transformers_modules.")]:
        monkeypatch.delitem(sys.modules, name)
    return tiny_directory, canary


@pytest.fixture
def tiny_directory(tmp_path, tokenizer):

    where = tmp_path / "model"
    model: Any = make_tiny("qwen3", tokenizer)
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


def run(model, steps=1, resume=False, reward="of_ones_own:score", name="t", **policy):
    recipe = Recipe(
        name=name,
        policy={"model": str(model), **policy},
        task={"source": "word_problems"},
        rollout={"prompts_per_step": 2, "group_size": 2, "max_tokens": 4},
        reward=reward,
        evaluate={"problems": 0},
        run={"steps": steps, "threads": 1, "gate": "off"},
    )
    return train(recipe, resume=resume, console=Console(quiet=True))


@pytest.mark.fault(
    "a model that brings its own code", "it is refused and nothing of it runs, unless the recipe asks for it"
)
def test_code_of_a_model_is_not_run_unless_asked_for(model):
    where, canary = model
    with pytest.raises(UserError, match="trust_remote_code"):
        run(where)
    assert not canary.exists()


@pytest.mark.fault("code of a model that runs because the recipe asks", "the record has the digest of every file of it")
def test_code_that_was_run_is_in_the_record_with_its_digest(model):
    where, canary = model
    done = run(where, trust_remote_code=True)
    assert canary.exists()
    ran = digests(where)
    written = json.loads((done.directory / "environment.json").read_text())["remote_code"]["grpo"]
    assert set(written) == ran
    record = (done.directory / "record.json").read_text()
    assert all(digest in record for digest in ran)
    assert run(where, steps=2, resume=True, trust_remote_code=True).metrics[-1]["step"] == 2
    file = done.directory / "environment.json"
    written = json.loads(file.read_text())
    written["remote_code"]["grpo"] = {"0" * 64: "another"}
    file.write_text(json.dumps(written))
    with pytest.raises(UserError, match="code that came with a model of stage 'grpo' has changed"):
        run(where, steps=3, resume=True, trust_remote_code=True)


@pytest.mark.fault("code of a reward model that runs in a worker because the recipe asks", "the same")
def test_code_of_a_reward_model_is_in_the_record_too(model, tmp_path, tokenizer):
    (policy, _), judge, canary = model, tmp_path / "judge", tmp_path / "the judge has run"
    save_decoder(judge, tokenizer)
    with_own_code(judge, "SequenceClassification", canary)
    asks: dict[str, Any] = {"use": "reward_model", "args": {"model": str(judge)}}
    with pytest.raises(UserError, match="trust_remote_code"):
        run(policy, reward=asks, trust_remote_code=True)
    assert not canary.exists()
    asks["args"]["trust_remote_code"] = True
    done = run(policy, reward=asks, trust_remote_code=True, name="asked")
    assert canary.exists()
    file = done.directory / "environment.json"
    written = json.loads(file.read_text())
    assert set(written["remote_code_of_rewards"]["grpo"]) == digests(judge)
    assert set(written["remote_code"]["grpo"]) == digests(policy)
    (verifier,) = json.loads((done.directory / "record.json").read_text())["stages"][0]["rewards"]["verifier"]["value"]
    assert set(verifier["came"].values()) == digests(judge)
    written["remote_code_of_rewards"]["grpo"] = {"0" * 64: "another"}
    file.write_text(json.dumps(written))
    with pytest.raises(UserError, match="code that came with a model of stage 'grpo' has changed"):
        run(policy, steps=2, resume=True, reward=asks, trust_remote_code=True, name="asked")


def test_code_of_the_hub_s_models_is_found_where_transformers_keeps_it(tmp_path, monkeypatch):
    file = tmp_path / "modeling.py"
    file.write_text("x = 1\n")
    module = ModuleType("transformers_modules.owner.name.0123abcd.modeling")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert remote_code()[hashlib.sha256(b"x = 1\n").hexdigest()] == module.__name__
