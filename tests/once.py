"""Runs that several tests of a module begin from: made once, and put back for each test where they were made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")


class Once:
    """What `make` leaves in a directory and returns, by its name. The first call makes it; any further one puts the
    files back as they were then, at the same path and with the same times, because a run's files name their paths.
    """

    def __init__(self, directory: Path, kept: Path) -> None:
        self._directory, self._kept = directory, kept
        self._returned: dict[str, object] = {}

    def __call__(self, name: str, make: Callable[[], Made]) -> Made:
        kept = self._kept / name
        if name not in self._returned:
            made = make()
            shutil.copytree(self._directory, kept, symlinks=True)
            self._returned[name] = made
        else:
            shutil.copytree(kept, self._directory, symlinks=True, dirs_exist_ok=True)
        return self._returned[name]  # type: ignore[return-value]


def emptied(directory: Path) -> Path:
    """The directory, without what another test has left in it."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return directory
