"""Suites: evaluated before, during and after by every kind of stage, kept on disk, told in the record."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.evaluate.refusal import calibrated, refused
from cohort.recipe import Recipe
from cohort.recipe.show import to_toml
from cohort.train import train
from cohort.train.replay import checks
from cohort.types import UserError
from cohort.views.console import Console

SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


@pytest.fixture
def made(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    sums = [{"prompt": f"What is {i} plus 1?", "answer": str(i + 1), "completion": f"#### {i + 1}"} for i in range(20)]
    write("rows.jsonl", sums)
    write("other.jsonl", [{"ask": f"What is {i} minus 1?", "gold": str(i - 1)} for i in range(5)])
    write("asked.jsonl", [{"prompt": f"Do thing {i}", "answer": ("harmful", "harmless")[i % 2]} for i in range(4)])
    write("empty.jsonl", [])

    def recipe(kind, suites, **tables):
        common = {
            "policy": {"scratch": SCRATCH},
            "task": {"source": str(tmp_path / "rows.jsonl")},
            "evaluate": {"samples": 2, "reward": "exact_number"},
            "run": {"steps": 2, "evaluate_every": 1, "threads": 1, "directory": str(tmp_path / "runs"), "gate": "off"},
        }
        if kind == "grpo":
            common |= {"rollout": {"prompts_per_step": 2, "group_size": 2, "max_tokens": 6}, "reward": "exact_number"}
        else:
            common |= {"supervised": {"examples_per_step": 2}, "rollout": {"max_tokens": 6}}
        return Recipe(**{**common, "kind": kind, "name": kind, "suite": suites, **tables})

    return recipe


@pytest.fixture
def at(tmp_path):
    return lambda name: str(tmp_path / name)


def suites(at):
    minus = {"name": "minus", "source": at("other.jsonl"), "prompt": "ask", "answer": "gold", "use": "exact_number"}
    return [minus, {"source": at("asked.jsonl"), "kind": "refusal", "problems": 3}]


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_suites_are_evaluated_before_during_and_after(made, at, kind):
    run = train(made(kind, suites(at)), console=Console(quiet=True))
    if kind == "grpo":
        found = {one.name: one.status for one in checks(run.directory, 2)}
        assert {"minus: held-out reward exact_number", "refusal: held-out rewards", "minus: prompts"} <= found.keys()
        assert set(found.values()) == {"holds"}
        file = run.directory / "log" / "eval-000001-minus-sampled.parquet"
        rows = pq.read_table(file).to_pylist()
        rows[3]["scores"] = json.dumps({"exact_number": 1 - json.loads(rows[3]["scores"])["exact_number"]})
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)
        failed = [one for one in checks(run.directory, 2) if one.status == "failed"]
        assert "log/eval-000001-minus-sampled.parquet, ticket 1, member 1" in failed[0].detail
    assert [line["step"] for line in run.metrics if "eval/minus/pass@1" in line] == [0, 1, 2]
    assert all(0 <= line["eval/refusal/greedy"] <= 1 for line in run.metrics)
    rows = pq.read_table(run.directory / "log" / "eval-000001-minus-sampled.parquet").to_pylist()
    assert len(rows) == 5 * 2
    assert {row["prompt"] for row in rows} == {f"What is {i} minus 1?" for i in range(5)}
    assert pq.read_table(run.directory / "log" / "eval-000002-refusal-greedy.parquet").num_rows == 3
    record = json.loads((run.directory / "record.json").read_text())
    behaviour = record["stages"][0]["behaviour"]
    performance = behaviour["performance"]["value"]
    performance = performance.get("suites", performance)
    assert {"before", "after", "difference"} <= performance["minus"].keys()
    assert performance["minus"]["difference"]["greedy"]["problems"] == 5
    if kind == "grpo":
        refusal = behaviour["refusal_calibration"]
        assert (refusal["status"], refusal["basis"]) == ("evaluated", "measured")
        assert "English phrases" in refusal["reason"]
        assert behaviour["hallucination"]["status"] == "not_evaluated"
        assert behaviour["safety_evaluations"]["value"] == {"refusal": ["refusal"]}


def test_a_recipe_with_suites_is_written_and_read_again(made, at, tmp_path):
    recipe = made("grpo", suites(at))
    (tmp_path / "again.toml").write_text(to_toml(recipe))
    again = Recipe.load(tmp_path / "again.toml")
    assert again.stages == recipe.stages
    assert again.origins["suite.minus.use"] == "again.toml"
    table = f'[[suite]]\nsource = "{at("other.jsonl")}"\n'
    (tmp_path / "short.toml").write_text(to_toml(made("grpo", [])) + table)
    assert Recipe.load(tmp_path / "short.toml").stages[0].suite[0].name == "performance"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"source": "empty.jsonl"}, "suite 'performance': .*no"),
        ({"source": "nosuch.jsonl"}, "suite 'performance': .*nosuch"),
        ({"source": "other.jsonl"}, "suite 'performance': .*prompt"),
        ({"source": "rows.jsonl", "kind": "refusal"}, 'suite \'refusal\': .*"harmful" or "harmless"'),
    ],
)
def test_a_suite_that_cannot_be_used_is_refused_with_a_sentence(made, at, table, said):
    with pytest.raises(UserError, match=said):
        train(made("grpo", [{**table, "source": at(table["source"])}]), console=Console(quiet=True))


def test_two_suites_of_one_name_are_refused(made):
    with pytest.raises(UserError, match="two suites are called 'performance'"):
        made("grpo", [{"source": "a.jsonl"}, {"source": "b.jsonl"}])
    with pytest.raises(UserError, match="two suites are called 'One'"):  # of which a file system may make one file
        made("grpo", [{"source": "a.jsonl", "name": "one"}, {"source": "b.jsonl", "name": "One"}])


def test_a_suite_needs_a_verifier(made, at):
    table = [{"source": at("rows.jsonl")}]
    with pytest.raises(UserError, match="nothing says which answers are right: add use"):
        train(made("sft", table, evaluate={"samples": 1}), console=Console(quiet=True))


def test_the_verifiers_of_refusals_go_by_labels():
    assert calibrated("I can't help with that.", "harmful") == 1.0
    assert calibrated("I can't help with that.", "harmless") == 0.0
    assert calibrated("Sure: 4", "harmless") == 1.0
    assert refused("Sure: 4") == 0.0
    with pytest.raises(ValueError, match="harmless"):
        calibrated("Sure", "4")
