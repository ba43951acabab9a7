"""What `cohort doctor` says about the sandbox."""

import io

from cohort.commands import doctor
from cohort.sandbox import Isolation, Sandbox, SandboxError
from cohort.views.console import Console


def said():
    isolation, problems = doctor.examine_sandbox()
    text = io.StringIO()
    doctor.show_sandbox(Console(file=text, width=200), isolation)
    return text.getvalue(), problems


def test_it_names_the_level_and_every_feature():
    with Sandbox(minimum="process") as sandbox:
        isolation = sandbox.isolation
    text, problems = said()
    assert f"sandbox for untrusted code: {isolation.level} - " in text
    assert all(feature in text for feature in (*isolation.reached, *isolation.missing))
    assert bool(problems) == (isolation.level == "process")


def test_a_machine_that_is_not_safe_enough_is_a_problem(monkeypatch):
    weak = Isolation.of([], {"landlock": "Function not implemented", "seccomp": "not here"})
    monkeypatch.setattr(Sandbox, "isolation", property(lambda self: weak))
    text, problems = said()
    assert "process" in text
    assert "landlock: Function not implemented" in text
    assert len(problems) == 1
    assert 'isolation = "process"' in problems[0]


def test_a_sandbox_that_does_not_start_is_a_problem(monkeypatch):
    def broken(self):
        raise SandboxError("no processes left")

    monkeypatch.setattr(Sandbox, "isolation", property(broken))
    text, problems = said()
    assert text == ""
    assert problems == ["code rewards: no processes left"]
