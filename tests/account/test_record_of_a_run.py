from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from made_run import RECIPE, make_run
from safetensors.numpy import save_file

from cohort.account.fields import RUN, STAGE, fields_of
from cohort.account.making import make_record
from cohort.account.schema import FILES, shipped
from cohort.account.tally import tally
from cohort.recipe import Recipe
from cohort.record.claims import claims, read_record, write_record
from cohort.types import UnreadableError


def record_of(run):
    return make_record(run, Recipe.load(run / "recipe.toml"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def test_a_record_fits_the_schema_that_is_shipped(run):
    write_record(run, record_of(run))
    assert not list(Draft202012Validator(shipped("record-1")).iter_errors(read_record(run)))


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_schemas_are_those_of_the_table(name):
    assert shipped(name) == json.loads(json.dumps(FILES[name]())), "run tools/record_fields_page.py"


def test_every_field_has_its_claim_and_every_gap_its_reason(run):
    record = record_of(run)
    found = dict(claims({"run": record["run"], "stages": record["stages"]}))
    assert found.keys() - {"stages.grpo.samples"} == {
        *(f"run.{field.path}" for field in RUN),
        *(f"stages.grpo.{field.path}" for field in fields_of("grpo")),
    }
    assert all(one["reason"] for one in found.values() if one["value"] is None)
    assert not [at for at, one in found.items() if one["status"] == "failed"]


def test_completeness_counts_what_applies_and_what_is_stated(run):
    record = record_of(run)
    found = {at: c for at, c in claims({"run": record["run"], "stages": record["stages"]}) if ".samples" not in at}
    apply = [one for one in found.values() if one["status"] != "not_applicable"]
    done = record["completeness"]
    assert done["fields"] == len(apply)
    assert done["stated"] == sum(one["value"] is not None for one in apply) == done["fields"] - len(done["gaps"])
    assert sum(of["fields"] for of in done["by_basis"].values()) == done["fields"]
    assert "run.connections.owner" in done["gaps"]


def test_what_a_person_declares_is_declared_and_no_gap(tmp_path):
    more = '[record]\nowner = "Ada"\nbase_training_flops = 1e6\ntraces = "hidden"\nbrittle = ["pays for guesses"]\n'
    record = record_of(make_run(tmp_path, more=more))
    owner = record["run"]["connections"]["owner"]
    assert (owner["value"], owner["basis"]) == ("Ada", "declared")
    assert owner["evidence"][0]["path"] == "recipe.toml"
    total = record["run"]["compute"]["flops"]["value"]
    assert record["run"]["compute"]["share_of_base"]["value"]["share"] == pytest.approx(total / 1e6)
    assert record["stages"][0]["rewards"]["brittle"]["value"]["declared"] == ["pays for guesses"]


def test_operations_follow_from_tokens_and_parameters(run):
    found = record_of(run)["stages"][0]["compute"]["operations"]["value"]
    prompts, sampled, learnt, parameters = 2 * 4, 24, 12 + 2 * 2, 1000  # two tokens a prompt, once a group
    assert found["sampling"] == 2 * parameters * (prompts + sampled)
    assert found["scoring"] == 0
    assert found["learning"] == 6 * parameters * learnt
    asked = 2 * (2 * 2 + 2 * 3)  # twice two problems, of two tokens each and three answered
    assert found["evaluations"] == 2 * parameters * asked
    assert found["total"] == sum(found.values()) - found["total"]


def test_a_reward_model_reads_every_rollout_behind_its_prompt(tmp_path):
    models = "".join(
        f'\n[[reward]]\nuse = "reward_model"\nname = "{n}"\nargs = {{ model = "{tmp_path}/{n}" }}' for n in "ab"
    )
    run = make_run(tmp_path, RECIPE.replace("[objective]", models + "\n[objective]"))
    (tmp_path / "a" / "final").mkdir(parents=True)
    save_file({"x": np.zeros((30, 10)), "y": np.zeros(5)}, tmp_path / "a" / "final" / "model.safetensors")
    found = record_of(run)["stages"][0]["compute"]["operations"]
    assert found["value"]["scoring"] == 2 * 305 * (8 * 2 + 24)
    assert "the size of reward model b is not known here" in found["reason"]


def test_a_kl_costs_a_reference_pass_and_an_adapter_half_a_backward_pass(tmp_path):
    recipe = RECIPE.replace('preset = "dr_grpo"', 'preset = "dr_grpo"\nkl_coef = 0.1')
    run = make_run(tmp_path, recipe)
    environment = json.loads((run / "environment.json").read_text())
    environment["policies"]["grpo"]["trained"] = 10
    (run / "environment.json").write_text(json.dumps(environment))
    found = record_of(run)["stages"][0]["compute"]["operations"]["value"]
    assert found["scoring"] == 2 * 1000 * 16
    assert found["learning"] == (4 * 1000 + 2 * 10) * 16


def test_tokens_and_seconds_are_shared_out_by_what_became_of_them(run):
    found = record_of(run)["stages"][0]["compute"]["spent"]["value"]
    assert found["tokens"] == {"failed": 0, "dropped": 0, "truncated": 0, "signal_free": 12, "trained": 12}
    assert found["seconds"]["trained"] == pytest.approx(2 * 0.5 + 0.4 * 0.5 + 1.6)
    assert sum(found["seconds"].values()) == pytest.approx(4.0)


def test_the_paired_difference_is_that_of_the_problems(run):
    found = record_of(run)["stages"][0]["behaviour"]["performance"]
    assert found["value"]["difference"]["greedy"]["mean"] == 1.0
    assert {"log/eval-000000-greedy.parquet", "metrics.jsonl"} <= {one["path"] for one in found["evidence"]}


def test_results_of_another_tool_are_imported_with_their_digest(tmp_path):
    file = tmp_path / "jailbreak.json"
    file.write_text('{"before": 0.1, "after": 0.2, "tool": "some harness"}')
    more = f'[record.evaluations]\njailbreak_robustness = "{file}"\nhallucination = "{tmp_path}/none.json"\n'
    behaviour = record_of(make_run(tmp_path, more=more))["stages"][0]["behaviour"]
    assert behaviour["jailbreak_robustness"]["basis"] == "imported"
    assert behaviour["jailbreak_robustness"]["value"]["after"] == 0.2
    assert len(behaviour["jailbreak_robustness"]["evidence"][0]["sha256"]) == 64
    assert behaviour["hallucination"]["status"] == "failed"
    assert "cannot be read" in behaviour["hallucination"]["reason"]
    assert list(behaviour["safety_evaluations"]["value"]) == ["hallucination", "jailbreak_robustness"]


@pytest.mark.parametrize("lost", ["environment.json", "metrics.jsonl", "log"])
def test_what_is_missing_or_damaged_is_a_gap(run, lost):
    file = run / lost
    if file.is_dir():
        for shard in file.iterdir():
            shard.write_bytes(b"PAR1 no")
    else:
        file.unlink()
    record = record_of(run)
    assert record["completeness"]["gaps"]
    assert not [at for at, c in claims({"run": record["run"], "stages": record["stages"]}) if c["status"] == "failed"]


def test_files_of_another_shape_are_fields_that_failed_with_a_reason(run):
    (run / "environment.json").write_text('{"policies": 3, "inputs": 7, "templates": [1], "packages": 0}')
    (run / "gate.json").write_text("[]")
    (run / "log" / "chain.jsonl").write_text("not json\n[1]\n")
    record = record_of(run)
    assert record["stages"][0]["compute"]["operations"]["status"] in ("failed", "not_evaluated")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": 1}', '{"schema": "urn:x:9", "stages": [], "completeness": {}}']
)
def test_a_record_that_is_damaged_or_newer_is_refused_with_a_sentence(run, text):
    (run / "record.json").write_text(text)
    with pytest.raises(UnreadableError, match=r"record\.json"):
        read_record(run)


def test_a_file_of_rollouts_that_is_damaged_is_named_and_not_counted(run):
    (run / "log/step-000002.parquet").write_bytes(b"junk")
    found = tally(sorted((run / "log").glob("step-*")))
    assert found.unread == ["step-000002.parquet"]
    assert sum(found.rollouts.values()) == 4


def test_the_page_of_the_fields_has_them_all():
    page = (Path(__file__).parents[2] / "docs" / "record_fields.md").read_text()
    paths = re.findall(r"^\| ([^|]+) \| `(?:run|stages\.NAME)\.([\w.]+)` \|", page, re.MULTILINE)
    assert paths == [(field.title, field.path) for field in (*RUN, *STAGE)], "run tools/record_fields_page.py"
