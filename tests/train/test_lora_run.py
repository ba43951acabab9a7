"""Runs with adapters: the learning rate they get, what they start from, what they resume to."""

from __future__ import annotations

import io
import shutil

import pytest
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cohort.recipe import Recipe, against_defaults
from cohort.train.directory import as_kept
from cohort.types import UserError
from cohort.views.console import Console

LORA = {"rank": 2}
NEW: dict = {"rank": 3, "dora": True, "modules_to_save": ["norm"], "layers": [1], "existing": "merge"}


def change(tables, **changes):
    """The tables with some tables updated."""
    return tables | {k: {**tables.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}


def console():
    written = io.StringIO()
    return Console(file=written, width=2000), written


def bare(tables, **changes):
    tables = {key: value for key, value in tables.items() if key != "optimizer"}
    return Recipe(**change(tables, **changes))


def rate(recipe):
    return recipe.stages[0].optimizer.learning_rate


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_the_default_is_ten_times_that_of_full_training(tables, kind):
    full, lora = bare(tables, kind=kind), bare(tables, kind=kind, policy={"lora": LORA})
    assert (rate(full), rate(lora)) == (1e-6, 1e-5)
    assert lora.origins["optimizer.learning_rate"] == "default with policy.lora: 10 times that of full training"
    assert "optimizer.learning_rate" not in {path for path, *_ in against_defaults(lora)}
    said = bare(tables, kind=kind, policy={"lora": LORA}, optimizer={"learning_rate": 2e-6})
    assert rate(said) == 2e-6
    assert said.origins["optimizer.learning_rate"] == "python"
    assert Recipe.from_tables({**tables, "policy": {"model": "x"}, "optimizer": {}}, ["policy.lora.rank=8"]).stages[
        0
    ].optimizer.learning_rate == pytest.approx(1e-5, rel=0)


def test_a_low_rate_with_an_adapter_is_said_once(run):
    words, written = console()
    run(name="low", policy={"lora": LORA}, optimizer={"learning_rate": 1e-6}, run={"steps": 1}, console=words)
    assert written.getvalue().count("is low for an adapter") == 1
    assert "LoRA of rank 2, scale 16, on all-linear, at a rate of 1e-06: LoRA learns best" in written.getvalue()


def test_a_run_from_before_these_keys_goes_on(run, tables):
    options: dict = {"policy": {"lora": LORA}, "optimizer": {"learning_rate": 1e-2}}
    done = run(name="old", run={"steps": 2, "save_every": 2}, **options)
    kept = done.directory / "recipe.toml"
    new = ("rslora", "dora", "modules_to_save", "existing")
    lines = [line for line in kept.read_text().splitlines() if not line.startswith(new)]
    kept.write_text("\n".join(lines))
    run(name="old", resume=True, run={"steps": 4, "save_every": 2}, **options)
    with pytest.raises(UserError, match=r"policy.lora.dora was False and is True.*the one that the run keeps"):
        run(name="old", resume=True, run={"steps": 4}, **change(options, policy={"lora": {**LORA, "dora": True}}))


@pytest.mark.parametrize("lora", [NEW, {**LORA, "rslora": True, "modules_to_save": ["lm_head"]}])
def test_every_kind_starts_at_a_kl_of_zero_and_resumes_exactly(run, tables, lora, tmp_path):
    first = run(name="first", policy={"lora": LORA}, run={"steps": 2})
    model = str(first.final) if lora is NEW else tables["policy"]["model"]
    options: dict = {"policy": {"model": model, "lora": lora}, "objective": {"preset": "grpo"}}
    whole = run(name="whole", run={"steps": 4, "save_every": 2}, **options)
    assert whole.metrics[1]["policy/kl"] == 0.0
    assert max(line.get("policy/kl") or 0 for line in whole.metrics) > 0
    run(name="part", run={"steps": 2, "save_every": 2}, **options)
    part = run(name="part", resume=True, run={"steps": 4, "save_every": 2}, **options)
    wanted, found = (load_file(one.final / "adapter_model.safetensors") for one in (whole, part))
    assert all((found[name] == value).all() for name, value in wanted.items())
    assert [line["policy/kl"] for line in part.metrics[-2:]] == [line["policy/kl"] for line in whole.metrics[-2:]]
    # Others read it: its base is where it says.
    base = PeftConfig.from_pretrained(whole.final).base_model_name_or_path
    assert base == (str(whole.directory / "base") if lora is NEW else model)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), whole.final)
    if lora is NEW:  # a run that is moved takes its base along
        from cohort.policy.load import load_policy

        shutil.move(whole.directory, tmp_path / "elsewhere")
        load_policy(str(tmp_path / "elsewhere" / "final"))


def test_the_kept_recipe_has_the_rate(tables):
    assert "learning_rate = 1e-05" in as_kept(bare(tables, policy={"lora": LORA}))
