"""Master weights in bfloat16: what a step cannot move is said, and the type of a model object is in the record.

Siblings that are tried: the default rate, a larger and a large one; adapters, whose weights are float32; supervised
stages; model objects in bfloat16 with and without `policy.dtype`, also resumed; types that cannot be trained.
"""

from __future__ import annotations

import tomllib
import warnings

import pytest
import torch
from recorded import holds
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import cohort
from cohort.learn.optimizer import open_optimizer, too_small
from cohort.policy.load import add_lora, load_policy
from cohort.recipe import Recipe
from cohort.settings import Lora, Optimizer
from cohort.train import train
from cohort.types import UserError
from cohort.views.console import Console


@pytest.mark.parametrize("rate", [1e-6, 1e-5, 1e-4])
def test_masters_that_a_step_cannot_move_are_said_with_their_share(checkpoint_dir, rate):
    policy = load_policy(str(checkpoint_dir), dtype="bfloat16")
    with pytest.warns(UserWarning, match=r"too small to move \d+% of the weights, because they are bfloat16") as said:
        optimizer = open_optimizer(Optimizer(), policy.module) if rate == 1e-6 else open_optimizer(
            Optimizer(learning_rate=rate), policy.module)  # fmt: skip
    share = too_small(list(policy.module.parameters()), rate)
    assert f"{share:.0%}" in str(said[0].message)
    # It is what happens: the first step of Adam is the rate, with the sign of the gradient.
    before = [p.detach().clone() for p in policy.module.parameters()]
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = rate, 0.0
    for p in policy.module.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    still = sum(int((p == old).sum()) for p, old in zip(policy.module.parameters(), before, strict=True))
    assert still / sum(p.numel() for p in before) == pytest.approx(share, abs=0.05)


def test_nothing_is_said_where_weights_move(checkpoint_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_optimizer(Optimizer(), load_policy(str(checkpoint_dir)).module)
        open_optimizer(Optimizer(learning_rate=1e-2), load_policy(str(checkpoint_dir), dtype="bfloat16").module)
    adapted = add_lora(load_policy(str(checkpoint_dir), dtype="bfloat16"), Lora(rank=2), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_optimizer(Optimizer(), adapted.module)


@pytest.fixture
def live(tables, checkpoint_dir, tokenizer):
    def start(name, weights, resume=False, steps=2, **policy):
        changes = {"policy": {"model": "live", **policy}, "name": name, "run": {**tables["run"], "steps": steps}}
        model = AutoModelForCausalLM.from_pretrained(checkpoint_dir, dtype=weights)
        made = Recipe(**{**tables, **changes})
        return train(made, resume=resume, console=Console(quiet=True), model=model, tokenizer=tokenizer)

    return start


@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 2}}])
def test_the_type_of_a_model_object_is_in_the_record_and_resumes(live, lora):
    whole = live("whole", torch.bfloat16, steps=4, **lora)
    kept = tomllib.loads((whole.directory / "recipe.toml").read_text())
    assert kept["policy"]["dtype"] == "bfloat16"
    live("parts", torch.bfloat16, **lora)
    resumed = live("parts", torch.bfloat16, resume=True, steps=4, **lora)
    (file,) = whole.final.glob("*model.safetensors")
    ours, theirs = load_file(file), load_file(resumed.final / file.name)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_another_type_than_the_recipe_says_is_refused(live):
    with pytest.raises(UserError, match=r"are bfloat16, and policy\.dtype says float32"):
        live("one", torch.bfloat16, dtype="float32")
    for kind in (torch.float16, torch.float64):
        with pytest.raises(UserError, match="trained in float32 or bfloat16, not float"):
            live("two", kind)


def test_three_arguments_record_the_type_too(tables, checkpoint_dir, tokenizer, rows):
    model = AutoModelForCausalLM.from_pretrained(checkpoint_dir, dtype=torch.bfloat16)
    run = cohort.train(
        model=model, tokenizer=tokenizer, data=str(rows), reward=lambda completion: float(len(completion)),
        rollout=tables["rollout"], run={**tables["run"], "steps": 1}, console=Console(quiet=True), name="three",
    )  # fmt: skip
    assert tomllib.loads((run.directory / "recipe.toml").read_text())["policy"]["dtype"] == "bfloat16"


@pytest.mark.filterwarnings("ignore:a step of optimizer.learning_rate")
def test_the_record_of_a_run_with_bfloat16_weights_holds(run):
    """Its arithmetic is float32, and what passes between layers is rounded all the same."""
    whole = run(policy={"dtype": "bfloat16"}, run={"save_every": 1, "keep_checkpoints": 10})
    assert any("log-probs of version" in name for name in holds(whole.directory))
