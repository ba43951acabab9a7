"""Energy that the processor counts itself (RAPL, through Linux's powercap), where it may be read."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules of all processor packages between two questions. What other programs use meanwhile is in it."""

    def __init__(self, place: Path = POWERCAP):
        packages = sorted(place.glob("intel-rapl:[0-9]*"))  # of AMD, too
        self._packages = [one for one in packages if one.name.count(":") == 1 and _read(one / "energy_uj") is not None]
        self._before = self._now()

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


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):  # only root may read it; no such counter
        return None
