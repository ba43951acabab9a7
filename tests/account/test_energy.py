from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from made_run import make_run

from cohort.account.making import make_record
from cohort.monitor.energy import EnergyEstimate, EnergyMeter, open_meter
from cohort.recipe import Recipe


def package(place, number, energy):
    file = place / f"intel-rapl:{number}"
    file.mkdir(exist_ok=True)
    (file / "energy_uj").write_text(str(energy))
    (file / "max_energy_range_uj").write_text("10000000")
    return file


def test_the_joules_of_all_packages_are_added_and_a_counter_may_wrap(tmp_path):
    package(tmp_path, 0, 9_000_000)
    package(tmp_path, 1, 0)
    package(tmp_path, "0:0", 0)  # a part of a package, which is in it already
    meter = EnergyMeter(tmp_path)
    package(tmp_path, 0, 1_000_000)
    package(tmp_path, 1, 500_000)
    package(tmp_path, "0:0", 5_000_000)
    assert meter.joules() == 2.0 + 0.5
    assert meter.joules() == 0.0


def test_a_counter_that_cannot_be_read_is_no_energy_rather_than_none_used(tmp_path):
    assert EnergyMeter(tmp_path).joules() is None
    file = package(tmp_path, 0, 1)
    meter = EnergyMeter(tmp_path)
    (file / "energy_uj").unlink()
    assert meter.joules() is None


@pytest.mark.parametrize(
    ("name", "basis", "how"), [("step_j", "measured", "RAPL"), ("estimated_j", "derived", "estimated by codecarbon")]
)
def test_the_record_says_whether_energy_was_measured(tmp_path, name, basis, how):
    run = make_run(tmp_path)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    written = [line | ({f"energy/{name}": 1.8e6} if line["step"] == 2 else {}) for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    found = make_record(run, Recipe.load(run / "recipe.toml"))["stages"][0]["compute"]["energy"]
    assert (found["value"], found["basis"]) == ({"joules": 1.8e6, "kwh": 0.5}, basis)
    assert found["reason"].startswith(how)
    assert "1 of 2 steps are not in it" in found["reason"]


@pytest.mark.skipif(find_spec("codecarbon") is None, reason="codecarbon is not installed (the extra energy)")
def test_codecarbon_estimates_where_nothing_counts(capfd):
    meter = EnergyEstimate()
    sum(range(3_000_000))
    first, second = meter.joules(), meter.joules()
    assert first > second > 0
    assert open_meter().name == ("energy/step_j" if EnergyMeter().can_be_read else "energy/estimated_j")
    assert capfd.readouterr() == ("", "")
