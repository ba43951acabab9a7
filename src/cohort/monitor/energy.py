"""Energy that the processor counts itself (RAPL, through Linux's powercap), where it may be read; else, where the extra
`energy` is installed, what codecarbon estimates.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules of all processor packages between two questions. What other programs use meanwhile is in it."""

    name = "energy/step_j"  # in metrics.jsonl

    def __init__(self, place: Path = POWERCAP):
        packages = sorted(place.glob("intel-rapl:[0-9]*"))  # of AMD, too
        self._packages = [one for one in packages if one.name.count(":") == 1 and _read(one / "energy_uj") is not None]
        self._before = self._now()

    @property
    def can_be_read(self) -> bool:
        """Whether there is a counter, and this program may read it."""
        return bool(self._before)

    def joules(self) -> float | None:
        """Since the last question, or since this was made; None where no counter can be read."""
        now, before = self._now(), self._before
        self._before = now
        if not now or None in (*now.values(), *before.values()):
            return None
        used = 0.0
        for package, value in now.items():
            spent = (value or 0) - (before[package] or 0)
            used += spent if spent >= 0 else spent + (_read(package / "max_energy_range_uj") or 0)  # it has wrapped
        return used / 1e6

    def _now(self) -> dict[Path, int | None]:
        return {package: _read(package / "energy_uj") for package in self._packages}


class EnergyEstimate:
    """Joules of the machine between two questions, as codecarbon estimates them: a GPU says itself what it used
    (NVML); of processor and memory it is what their kind draws at the load that they have. Raises what codecarbon does.
    """

    name = "energy/estimated_j"

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        # The country decides about emissions, which are not asked for.
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA", save_to_file=False, log_level="critical", allow_multiple_runs=True
        )
        self._tracker.start_task()

    def joules(self) -> float | None:
        """Since the last question, or since this was made."""
        found = self._tracker.stop_task()
        self._tracker.start_task()
        return None if found is None else float(found.energy_consumed) * 3.6e6  # of kWh


def open_meter() -> EnergyMeter | EnergyEstimate:
    """What says how much energy is used here: a measurement, where there is one."""
    meter = EnergyMeter()
    return meter if meter.can_be_read or find_spec("codecarbon") is None else EnergyEstimate()


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):  # only root may read it; no such counter
        return None
