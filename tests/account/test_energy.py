from __future__ import annotations

from cohort.monitor.energy import EnergyMeter


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
