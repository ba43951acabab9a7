"""Advice is for who asks: for Python in Python, for the command line there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cohort.record import manifest
from cohort.train.directory import disk_errors, locked, refuse_existing
from cohort.train.inputs import refuse_changed_inputs
from cohort.types import UserError
from cohort.wording import another, for_the_shell, giving, going_on, resuming

SRC = Path(__file__).parent.parent / "src/cohort"


def test_what_is_typed_where():
    run = Path("runs/my run")
    assert (resuming(), another(), giving("run.directory", "DIR")) == (
        "resume=True",
        'name="OTHER"',
        'run={"directory": "DIR"}',
    )
    assert going_on(run) == "cohort.train(..., resume=True)"
    with for_the_shell():
        assert (resuming(), another(), giving("run.directory", "DIR")) == (
            "--resume",
            "name=OTHER",
            "run.directory=DIR",
        )
        assert going_on(run) == "cohort train 'runs/my run' --resume"
    assert resuming() == "resume=True"


def advice(tmp_path):
    """The sentences of ways to be refused."""
    (tmp_path / "lock").mkdir()
    file = tmp_path / "file"
    file.touch()

    def on_disk():
        with disk_errors(tmp_path, lambda: None):
            raise OSError(28, "No space left on device", str(file))

    def again():
        with locked(tmp_path / "lock"), locked(tmp_path / "lock"):
            pass

    ways = (
        lambda: refuse_existing(tmp_path, None, False),
        lambda: refuse_existing(tmp_path, None, True),
        lambda: refuse_changed_inputs({"x": "1"}, {"x": "2"}, tmp_path),
        lambda: locked(file).__enter__(),
        on_disk,
        again,
    )
    for way in ways:
        with pytest.raises(UserError) as caught:
            way()
        yield str(caught.value)


@pytest.mark.parametrize("shell", [False, True])
def test_messages_speak_to_who_asks(tmp_path, shell):
    if shell:
        with for_the_shell():
            said = " ".join(advice(tmp_path))
    else:
        said = " ".join(advice(tmp_path))
    for option in ("--resume", "name=OTHER", "run.directory=DIR"):
        assert (option in said) == shell
    for argument in ("resume=True", 'name="OTHER"', 'run={"directory": "DIR"}'):
        assert (argument in said) != shell


def test_no_message_of_training_names_an_option_by_itself():
    for file in [*(SRC / "train").rglob("*.py"), Path(manifest.__file__)]:
        text = file.read_text("utf-8").replace('["--resume"]', "")  # a command that is run, and not said
        assert not re.search(r"--resume|name=OTHER", text), file
