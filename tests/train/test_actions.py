"""What a detector does beside speaking: quarantine, adapt, roll back. It is recorded, resumed and recomputed."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from scorers import flaky_where_even, never
from vowels import share_of_vowels

from cohort.monitor.watcher import read_incidents
from cohort.record.metrics import is_timing
from cohort.record.verify import verify
from cohort.settings import Monitor
from cohort.train.loop import _Loop
from cohort.train.replay import checks
from cohort.types import PausedError, UserError
from cohort.views.console import Console

PLAN = {"steps": 6, "save_every": 2, "keep_checkpoints": 9, "gate": "off", "show_group_every": 0}
FEW = {"problems": 0}


def weights(path):
    return load_file(path / "model.safetensors")


def same(one, other):
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def lines(done):
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in done.metrics]


def failed(directory, level=4):
    return [check for check in checks(directory, level) if check.status == "failed"]


def killed_after(monkeypatch, step):
    record = _Loop.record

    def killed(self, number, *measured):
        record(self, number, *measured)
        if number == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Loop, "record", killed)


def killed_and_resumed(run, monkeypatch, step, asked):
    killed_after(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        run(**asked, name="killed")
    monkeypatch.undo()
    return run(**asked, name="killed", resume=True)


def test_a_verifier_that_is_not_deterministic_is_found_by_asking_twice(run):
    asked = {"reward": [flaky_where_even], "run": {**PLAN, "steps": 2}, "evaluate": FEW}
    assert "verifier_contradiction" not in {one.detector for one in read_incidents(run(**asked, name="once").directory)}
    done = run(**asked, name="twice", monitor={"rescore": 1.0})
    found = next(one for one in read_incidents(done.directory) if one.detector == "verifier_contradiction")
    assert "flaky_where_even" in found.line
    rows = pq.read_table(done.directory / f"log/step-{found.step:06d}.parquet").to_pylist()
    other = {row["ticket"] for row in rows if "second_score" in (row["extra"] or "")}
    assert other == set(found.tickets)
    assert all(int(row["prompt"].split()[2]) % 2 == 0 for row in rows if row["ticket"] in other)
    plain = run(reward=[share_of_vowels], run={**PLAN, "steps": 2}, evaluate=FEW, monitor={"rescore": 1.0}, name="well")
    assert not read_incidents(plain.directory)


def test_what_is_quarantined_is_recorded_and_not_learnt_from(run, monkeypatch):
    asked = {
        "reward": [flaky_where_even], "run": PLAN, "evaluate": FEW,
        "monitor": {"rescore": 1.0, "actions": {"verifier_contradiction": "quarantine"}},
    }  # fmt: skip
    text = io.StringIO()
    done = run(**asked, name="whole", console=Console(file=text, width=400))
    rows = [
        row
        for step in range(1, 7)
        for row in pq.read_table(done.directory / f"log/step-{step:06d}.parquet").to_pylist()
    ]
    bad = {row["ticket"] for row in rows if row["disposition"] == "quarantined"}
    said = [one for one in read_incidents(done.directory) if one.detector == "verifier_contradiction"]
    assert bad == {ticket for one in said for ticket in one.did["quarantine"]}
    assert bad
    assert all(row["advantage"] is None for row in rows if row["ticket"] in bad)
    assert sum(line.get("groups/quarantined") or 0 for line in done.metrics) == len(bad)
    assert len(said) > 1  # every step that had some, and one of them is spoken of
    assert "quarantined: nothing is learnt of it" in text.getvalue()
    assert verify(done.directory).holds
    assert not failed(done.directory)
    again = killed_and_resumed(run, monkeypatch, 5, asked)
    # The coin falls otherwise now, and where it said the same twice it was learnt from: what is left is sound.
    assert verify(again.directory).holds
    assert not failed(again.directory)


def test_quarantine_that_is_forged_is_found(run):
    table = {"rescore": 1.0, "actions": {"verifier_contradiction": "quarantine"}}
    done = run(reward=[flaky_where_even], run={**PLAN, "steps": 2}, evaluate=FEW, monitor=table)
    file = done.directory / "log/incidents.jsonl"
    forged = [json.dumps({**json.loads(line), "did": {}}) + "\n" for line in file.read_text().splitlines()]
    file.write_text("".join(forged))
    assert any("disposition" in check.detail for check in failed(done.directory, 3))
    assert not verify(done.directory).holds
    file.write_text('{"detector": 1}\n')
    with pytest.raises(UserError, match=r"incidents.jsonl is damaged"):
        checks(done.directory, 3)


ADAPT = {  # and what it comes to after the first finding
    "learning_rate": ({"setting": "learning_rate", "factor": 0.5, "bound": 3e-3}, 5e-3),
    "kl_coef": ({"setting": "kl_coef", "factor": 4.0, "bound": 1.0}, 0.4),
    "temperature": ({"setting": "temperature", "factor": 1.5, "bound": 2.0}, 1.5),
}
RATE = ADAPT["learning_rate"][0]


def adapt(name, **how):
    return {"monitor": {"adapt": {name: how}}}


@pytest.mark.parametrize("setting", ADAPT)
def test_what_is_adapted_holds_from_the_next_step_on_also_when_resumed_and_recomputed(run, monkeypatch, setting):
    how, after = ADAPT[setting]
    asked = {
        "objective": {"preset": "dr_grpo", "kl_coef": 0.1}, "run": PLAN, "evaluate": FEW,
        "monitor": {"window": 2, "kl": 1e-12, "action": "log", "adapt": {"kl_blow_up": how}},
    }  # fmt: skip
    done = run(**asked, name="whole")
    plain = run(**{**asked, "monitor": {"action": "log"}}, name="plain")
    found = [one for one in read_incidents(done.directory) if one.detector == "kl_blow_up"]
    assert list(found[0].did["adapt"]) == [setting]
    first = found[0].step
    ours, theirs = lines(done), lines(plain)
    assert ours[:first] == theirs[:first]
    assert ours[first:] != theirs[first:]
    values = [one.did["adapt"].get(setting) for one in found]
    assert values[:2] == pytest.approx([after, how["bound"]])
    assert (
        f"{setting}, as [monitor.adapt] says: {after:g} after step {first}"
        in (done.directory / "record.json").read_text()
    )
    assert verify(done.directory).holds
    assert not failed(done.directory)
    again = killed_and_resumed(run, monkeypatch, 5, asked)
    assert lines(again) == ours
    assert same(again.final, done.final)


@pytest.fixture
def broken(monkeypatch):
    """The gradient of some updates is lost, or with it the weights."""
    clip = torch.nn.utils.clip_grad_norm_

    def after(*steps, lose_weights=False):
        calls = iter(range(1, 10_000))

        def lost(parameters, bound):
            parameters = [*parameters]
            norm = clip(parameters, bound)
            if next(calls) not in steps:
                return norm
            if lose_weights:
                parameters[0].grad.fill_(torch.nan)
                return norm
            return torch.tensor(torch.inf)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lost)

    return after


BACK = {"actions": {"not_finite": "roll_back"}}


@pytest.mark.fault(
    "a loss, or weights, that are not finite, where monitor.actions says roll_back",
    "it says so, goes on with the weights of the last checkpoint, and stops at the second time",
    "steps since it",
)
@pytest.mark.parametrize("lose_weights", [False, True])
def test_a_numerical_failure_goes_back_to_the_last_checkpoint_once(run, broken, lose_weights, monkeypatch):
    broken(5, lose_weights=lose_weights)
    file = io.StringIO()
    done = run(run=PLAN, evaluate=FEW, monitor=BACK, console=Console(file=file, width=400), name="whole")
    (found,) = [one for one in read_incidents(done.directory) if one.detector == "not_finite"]
    assert (found.step, dict(found.did)) == (5, {"roll_back": 4})
    assert found.tickets
    assert "The weights are those of step 4 again" in file.getvalue()
    checkpoints = done.directory / "checkpoints"
    assert same(checkpoints / "step-000005", checkpoints / "step-000004")
    assert not same(checkpoints / "step-000006", checkpoints / "step-000005")
    line = done.metrics[5]
    assert line["step"] == 5
    assert line["loss"] is None or line["policy/not_finite"] > 0
    assert verify(done.directory).holds
    weights_after = [check for check in checks(done.directory, 4) if check.name.endswith("weights after step 5")]
    assert [check.status for check in weights_after] == ["holds"]
    assert "to which the run went back" in weights_after[0].detail
    broken(5, lose_weights=lose_weights)
    again = killed_and_resumed(run, monkeypatch, 6, {"run": PLAN, "evaluate": FEW, "monitor": BACK})
    assert lines(again) == lines(done)
    assert same(again.final, done.final)


def test_a_second_failure_and_one_before_any_checkpoint_stop_the_run(run, broken):
    broken(3, 5)
    with pytest.raises(UserError, match=r"step 5: .* no number, and the run went back once already"):
        run(run=PLAN, evaluate=FEW, monitor=BACK, name="twice")
    broken(1)
    with pytest.raises(UserError, match=r"step 1: .* and no checkpoint is there to go back to"):
        run(run=PLAN, evaluate=FEW, monitor=BACK, name="early")


def test_without_the_action_a_gradient_that_is_lost_stops_the_run_as_ever(run, broken):
    broken(3)
    with pytest.raises(UserError, match="the gradient is not finite"):
        run(run=PLAN, evaluate=FEW)


@pytest.mark.fault(
    "a gradient that is not finite, where optimizer.skip_budget allows some",
    "the weights stay, the step is counted, and beyond the budget the run stops",
    "the step",
)
def test_steps_without_a_gradient_are_left_out_up_to_a_budget(run, broken, monkeypatch):
    def asked(budget):
        return {"run": PLAN, "evaluate": FEW, "optimizer": {"skip_budget": budget}}

    file = io.StringIO()
    broken(3, 5)
    done = run(**asked(2), console=Console(file=file, width=400), name="whole")
    assert "step 5: the gradient is not finite, so the weights stay (2 of 2" in file.getvalue()
    steps = [line for line in done.metrics if line["step"]]
    assert all(line["policy/not_finite"] == 0 for line in steps)
    lost = {line["step"] for line in steps if line["grad_norm"] is None}
    assert lost == {line["step"] for line in steps if line["loss"] is None} == {3, 5}
    assert verify(done.directory).holds
    broken(3, 5)
    killed_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        run(**asked(2), name="killed")
    monkeypatch.undo()
    broken(1)  # step 5, once more
    again = run(**asked(2), name="killed", resume=True)
    assert lines(again) == lines(done)
    assert same(again.final, done.final)
    broken(3, 5)
    with pytest.raises(UserError, match=r"step 5: .*\(2 of 1 such steps"):
        run(**asked(1), name="beyond")
    broken(3, lose_weights=True)
    with pytest.raises(UserError, match=r"step 3: .* weights? became not finite"):
        run(**asked(2), name="poisoned")
    assert not (done.directory.parent / "poisoned" / "final").exists()
    for number in (5, 6):  # the first or the second update of step 3
        broken(number)
        several = asked(1) | {"optimizer": {"skip_budget": 1, "updates_per_batch": 2}}
        lines_of = run(**several, name=f"update-{number}").metrics
        assert [line["step"] for line in lines_of if line["step"] and line["loss"] is None] == [3]


def test_findings_are_said_again_where_a_run_is_paused(run):
    file = io.StringIO()
    table = {"actions": {"constant_reward": "pause"}}
    with pytest.raises(PausedError):
        run(reward=[never], run=PLAN, evaluate=FEW, monitor=table, console=Console(file=file, width=400))
    assert file.getvalue().count("constant_reward: every completion") == 2
    assert "Most likely the reward does not tell answers apart" in file.getvalue()


@pytest.mark.parametrize(("changes", "says"), [
    ({"monitor": {"action": "adapt"}}, "is not for all detectors: name them"),
    ({"monitor": {"actions": {"kl_blow_up": "roll_back"}}}, "for numerical failures alone"),
    ({"monitor": {"actions": {"reward_collapse": "quarantine"}}}, "shows in no single group.*test_aware"),
    ({"monitor": {"actions": {"kl_blow_up": "adapt"}}}, r"does not say what is changed: add \[monitor.adapt.kl_"),
    ({"monitor": {"actions": {"kl_blow_up": "pause"}, "adapt": {"kl_blow_up": RATE}}}, "two answers"),
    (adapt("kl_blow_up", setting="kl_coef", factor=2.0, bound=1.0), "kl_coef is 0"),
    (adapt("kl_blow_up", setting="learning_rate", factor=2.0, bound=1e-3), "never leads"),
    (adapt("kl_blow_up", setting="learning_rate", factor=1.0, bound=1e-3), "never leads"),
    (adapt("kl_blowup", **RATE), "monitor.adapt"),
    (adapt("kl_blow_up", setting="clip_high", factor=2.0, bound=1.0), "setting"),
    (adapt("kl_blow_up", setting="learning_rate", factor=0.5), "bound"),
    ({**adapt("truncation", **ADAPT["temperature"][0]), "rollout": {"max_staleness": 1}}, "max_staleness"),
    ({"monitor": BACK, "run": {**PLAN, "save_every": 0}}, "set run.save_every"),
    ({"monitor": BACK, "objective": {"kl_coef": 0.1}, "reference": {"update_every": 2}}, "reference that moves"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused_with_a_sentence(run, changes, says):
    with pytest.raises(UserError, match=says):
        run(**{"run": PLAN, **changes})


def test_no_default_does_more_than_say_it():
    table = Monitor()
    assert (table.action, table.actions, table.adapt, table.rescore, table.rolls_back) == ("warn", {}, {}, 0.0, False)
