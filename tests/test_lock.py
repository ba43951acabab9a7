"""What is installed is what is locked, and the lock leaves nothing out.

The Makefile writes into the file `.installed` of an environment which locks it has installed there. An environment that
it did not make has no such file, and may hold any versions that pyproject.toml allows.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
MARKER = Path(sys.prefix) / ".installed"
TORCH = ROOT / "requirements/torch.txt"


def pins(lock: Path) -> dict[str, str]:
    """The version of every package of a lock, by the package's normal name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): pinned for name, pinned in found}


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    """What the Makefile says that it installed here."""
    if not MARKER.is_file():
        pytest.skip(f"the Makefile did not make this environment (there is no {MARKER})")
    names = MARKER.read_text().split()
    assert {"requirements/torch.txt", "requirements/cohort.txt"} <= set(names), f"{MARKER} is old: run make"
    return {name: pinned for lock in names for name, pinned in pins(ROOT / lock).items()}


def test_what_is_installed_is_what_is_locked(locked):
    wrong = []
    for name, pinned in locked.items():
        try:
            there = version(name)
        except PackageNotFoundError:
            there = "missing"
        if there == "missing" or Version(there).public != pinned:  # 2.13.0+cpu is a build of 2.13.0
            wrong.append(f"{name}: {there} here, {pinned} in the lock")
    assert not wrong, "; ".join(wrong)


def test_the_lock_leaves_nothing_out(locked):
    """What Cohort and each locked package ask for here is locked too. torch asks for other things on other machines."""
    extras = {"cohort": {"dev"}}
    absent = []
    for owner in ["cohort", *(name for name in locked if name != "torch")]:
        for line in distribution(owner).requires or []:
            wanted = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *extras.get(owner, ()))]
            if wanted.marker is None or any(wanted.marker.evaluate(one) for one in environments):
                name = canonicalize_name(wanted.name)
                if name not in locked or not wanted.specifier.contains(locked[name], prereleases=True):
                    absent.append(f"{owner} asks for {wanted}, and the lock has {locked.get(name, 'none')}")
    assert not absent, "; ".join(absent)


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements/*.txt")), ids=lambda lock: lock.name)
def test_a_lock_has_hashes_and_no_place_of_the_machine_that_wrote_it(lock):
    text = lock.read_text()
    assert not re.search(r"^-|file:|https?:|(^|\s)/\w", text, re.MULTILINE)
    if lock != TORCH:
        assert text.count("==") == len(re.findall(r"==\S+( ; .*)? \\\n    --hash=sha256:[0-9a-f]{64}", text))
        assert not {*pins(lock)} & {*pins(TORCH)}, "torch, and what only torch asks for, is pinned in torch.txt alone"
        only_torch = re.findall(r"^(\S+)==(?:.*\n)(?:    --hash.*\n)+    # via torch$", text, re.MULTILINE)
        assert not only_torch, "only torch asks for these: they belong into torch.txt"
