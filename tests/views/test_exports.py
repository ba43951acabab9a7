"""Every projection of a record is valid for the library that reads it, where that is installed."""

from __future__ import annotations

import json

import pytest
from made_run import make_run

from cohort.commands.account import TEXT, export
from cohort.record.claims import write_record
from cohort.record.rollouts import SCHEMA
from cohort.types import UserError
from cohort.views.exports import EXPORTS
from cohort.wording import find

MORE = '[record]\nintended_use = "sums"\nlicense = "apache-2.0"\nowner = "Ada"\nbrittle = ["guesses"]\n'


@pytest.fixture
def exported(tmp_path):
    run = make_run(tmp_path, more=MORE, texts=("a secret answer", "5"))
    return export(run, tmp_path / "out", with_text=True), tmp_path / "out"


def test_every_projection_is_written_and_none_is_wrong(exported):
    found, out = exported
    assert found["files"].keys() == EXPORTS.keys()
    assert {file.name for file in out.iterdir()} == {*EXPORTS, "rollouts"}
    assert all(state in ("valid", "written") or "not installed" in state for state in found["files"].values())


def test_cyclonedx_says_that_the_bill_of_materials_is_valid(exported):
    pytest.importorskip("cyclonedx")
    assert exported[0]["files"]["bom.cdx.json"] == "valid"
    model = json.loads((exported[1] / "bom.cdx.json").read_text())["metadata"]["component"]
    assert model["modelCard"]["modelParameters"]["approach"]["type"] == "reinforcement-learning"


def test_mlcroissant_reads_the_rollouts(exported):
    mlcroissant = pytest.importorskip("mlcroissant")
    assert exported[0]["files"]["croissant.json"] == "valid"
    rows = list(mlcroissant.Dataset(jsonld=str(exported[1] / "croissant.json")).records("rollout"))
    assert len(rows) == 8
    assert {row["rollout/disposition"] for row in rows} == {b"trained", b"zero_std"}


def test_a_wrong_statement_is_found_by_the_schemas(exported):
    check = find(EXPORTS["training.intoto.json"].check, "check")
    found = json.loads((exported[1] / "training.intoto.json").read_text())
    assert check(json.dumps(found)) is None
    broken = json.loads(json.dumps(found))
    broken["predicate"]["run"]["connections"]["owner"]["basis"] = "guessed"
    assert "guessed" in check(json.dumps(broken))
    assert check(json.dumps({**found, "subject": []})) is not None


def test_without_text_nothing_that_was_asked_or_answered_goes_along(tmp_path):
    run = make_run(tmp_path, texts=("a secret answer", "5"))
    export(run, tmp_path / "out", with_text=False)
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            assert b"secret" not in file.read_bytes()
    assert {*TEXT} <= {*SCHEMA.names}
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["stages"][0]["samples"]["status"] == "withheld"


def test_a_directory_that_is_there_is_not_overwritten(tmp_path):
    run = make_run(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        export(run, tmp_path / "out", with_text=True)


def test_an_edited_record_that_is_not_valid_is_not_exported(tmp_path):
    from cohort.commands.account import record_of

    run = make_run(tmp_path)
    record = record_of(run)
    record["run"]["connections"]["owner"]["basis"] = "guessed"
    write_record(run, record)
    with pytest.raises(UserError, match="would not be valid"):
        export(run, tmp_path / "out", with_text=True)
    assert not (tmp_path / "out").exists()


def test_the_crosswalk_maps_and_never_says_that_anything_complies(exported):
    text = (exported[1] / "crosswalk.md").read_text()
    assert "maps to" in text
    assert "complies" not in text.replace("complied with", "")
    assert "XI.1.2(d)" in text
