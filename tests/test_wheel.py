"""The wheel: built without a network, it holds all that the package reads, and works away from the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the build backend, hatchling, is not installed")

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=120)
    (built,) = folder.glob("cohort-*.whl")
    return built


@pytest.mark.slow
def test_it_holds_every_file_of_the_package_and_the_recipes(wheel):
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "src/cohort", "recipes"]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    there = [file for file in files if (ROOT / file).is_file()]
    expected = {file.removeprefix("src/") if file.startswith("src/") else f"cohort/{file}" for file in there}
    assert {"cohort/kernels/layer.c", "cohort/py.typed", "cohort/recipes/quickstart.toml"} <= expected
    with zipfile.ZipFile(wheel) as opened:
        inside = {name for name in opened.namelist() if ".dist-info/" not in name}
        (entries,) = (name for name in opened.namelist() if name.endswith("entry_points.txt"))
        assert "cohort = cohort.cli:main" in opened.read(entries).decode()
    assert inside == expected


@pytest.mark.slow
def test_installed_elsewhere_it_runs_from_an_empty_directory(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True, timeout=120)

    shown = said(str(site / "bin" / "cohort"), "config", "show", "quickstart")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith('name = "quickstart"')
    assert shown.stderr == f"recipe quickstart: the one that Cohort ships, {site}/cohort/recipes/quickstart.toml\n"

    steps = ["cold_start.run.steps=1", "grpo.run.steps=1", "evaluate.problems=8", "run.threads=1"]
    trained = said(str(site / "bin" / "cohort"), "train", "quickstart", *steps)
    assert trained.returncode == 0, trained.stderr
    assert (empty / "runs" / "quickstart" / "final" / "model.safetensors").is_file()

    if shutil.which("cc"):
        built = said(sys.executable, "-c", "from cohort.kernels import library; print(library.why_not())")
        assert (built.stdout, built.stderr) == ("None\n", "")
