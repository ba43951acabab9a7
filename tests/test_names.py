"""Helpers of tests are imported by their plain names, so none may have the name of a library."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_helper_has_the_name_of_a_library():
    paths = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    extras = {"verifiers", "reasoning_gym"}  # not installed everywhere
    libraries = {*sys.stdlib_module_names, *packages_distributions(), *extras}
    names = {file.stem for path in paths for file in (ROOT / path).glob("*.py")}
    assert {"tiny", "scorers", "cases"} <= names
    assert not names & libraries
