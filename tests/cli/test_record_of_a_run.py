from __future__ import annotations

import json
import shutil

import pytest
from made_run import make_run


def test_a_run_ends_with_its_record_and_one_card(desk, cohort):
    code, out, errors = cohort("train", "recipe.toml")
    assert code == 0, errors
    run = desk / "runs" / "mine"
    record = json.loads((run / "record.json").read_text())
    assert record["run"]["identity"]["outcome"]["value"]["finished"]
    assert f"{record['completeness']['stated']} of {record['completeness']['fields']} facts stated" in out
    assert (run / "final" / "README.md").read_text() == (run / "card.md").read_text()
    assert (run / "final" / ".eval_results" / "held_out.yaml").is_file()
    assert "<h1>mine</h1>" in (run / "card.html").read_text()

    (run / "final" / "README.md").write_text("my own words")  # a card may be edited
    code, *_ = cohort("train", "recipe.toml", "--resume")
    assert code == 0
    assert (run / "final" / "README.md").read_text() == "my own words"

    code, out, _ = cohort("record", "show", run)
    assert code == 0
    assert "Which" not in out.splitlines()[0]
    code, out, _ = cohort("record", "show", run, "--json")
    assert json.loads(out)["completeness"] == record["completeness"]

    code, _, errors = cohort("record", "redact", run, "--rows", "ticket >= 0")
    assert code == 0, errors
    samples = json.loads((run / "record.json").read_text())["stages"][-1]["samples"]["value"]
    assert samples
    assert all(member["text"] is None for group in samples for member in group["members"])
    assert "(erased)" in (run / "card.html").read_text()
    assert (run / "final" / "README.md").read_text() == "my own words"
    code, out, _ = cohort("record", "verify", run, "--level", "1")
    assert code == 0, out

    other = desk / "runs" / "other"
    shutil.copytree(run, other)
    recipe = (other / "recipe.toml").read_text().replace("clip_high = 0.28", "clip_high = 0.5")
    (other / "recipe.toml").write_text(recipe.replace("group_size = 3", "group_size = 4"))
    code, out, _ = cohort("record", "diff", run, other, "--json")
    assert code == 0
    rows = {row["field"]: row for row in json.loads(out)["stages"][0]["differences"]}
    assert rows["rollout.group_size"]["there"] == 4
    assert cohort("record", "diff", run, other)[0] == 0


def test_a_run_of_an_older_cohort_has_its_record_made_on_the_way(tmp_path, cohort):
    run = make_run(tmp_path)
    (run / "environment.json").write_text("{}")
    code, out, _ = cohort("record", "show", run)
    assert code == 0
    assert "the run did not write down the size of its policy" in " ".join(out.split())


@pytest.mark.parametrize("command", [("show",), ("export", "--to", "out")])
@pytest.mark.parametrize("kind", ["nothing", "file", "torn", "other settings"])
def test_what_is_no_run_is_refused_with_a_sentence(tmp_path, cohort, monkeypatch, command, kind):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "x"
    if kind == "file":
        place.write_text("x")
    elif kind != "nothing":
        place.mkdir()
        (place / "recipe.toml").write_text("[" if kind == "torn" else '[task]\nsource = "x"\n[tusk]\na = 1\n')
    code, _, errors = cohort("record", command[0], place, *command[1:])
    assert code == 2
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
