"""Every kind of stage, killed at random moments and continued: it ends with the bits of a run that nothing befell.

Each run of these tests draws other moments: before an operation on the disk, or after some time. Tried with supervised
stages, samples that are kept, RFT, DPO, reward models of answers and of steps, teachers, the policy as its own teacher,
and GRPO with LoRA, a critic, an environment, averages as the reference, groups that are 1 and 2 steps old, a
curriculum, prompts that rest, and detectors that look.
"""

from __future__ import annotations

import random
import shutil
import time

import pytest
from tests.faults.injury import LONGEST, Fault, Training, same_runs
from tests.faults.roads import ROADS, TRACKERS

from cohort.record.rollouts import read_groups
from cohort.record.verify import verify
from cohort.train.checkpoint import load_checkpoint

draw = random.Random()  # not seeded on purpose
of_every_road = pytest.mark.parametrize(
    "whole", [pytest.param(road, marks=pytest.mark.xdist_group(road)) for road in ROADS], indirect=True
)


def continued(begun, whole):
    """Continue a run to its end; it must be as the whole one."""
    last = Training(begun)
    assert last.run_to_end() == 0, last.said()
    same_runs(whole.where / "runs/r", begun / "runs/r")
    return last.said()


@pytest.mark.fault("SIGKILL before any operation on the disk, and at any moment", "it goes on from its last checkpoint")
@of_every_road
def test_a_stage_that_is_killed_again_and_again_ends_with_the_same_bits(whole, begun):
    count = len(whole.operations)
    first = Fault(at=draw.randint(1, count // 2))
    for fault in (first, Fault(at=draw.randint(1, count // 2)), Fault(after_s=draw.uniform(0.1, 4.0))):
        code = Training(begun, fault).run_to_end()
        assert code in (-9, 0), Training(begun).said()
        assert code == -9 or fault is not first
        if (begun / "runs/r/log/chain.jsonl").exists():
            assert verify(begun / "runs/r").holds, fault
    continued(begun, whole)


@pytest.mark.fault(
    "each file of the newest checkpoint cut off, or with one bit flipped",
    "it says so, and goes on from the one before",
)
@of_every_road
def test_a_damaged_newest_checkpoint_is_gone_around(whole, begun):
    shutil.copytree(whole.where / "runs", begun / "runs")
    run = begun / "runs/r"
    saved = run / "checkpoints"
    newest, before = sorted(saved.glob("step-*"), reverse=True)[:2]
    files = [file for file in newest.rglob("*") if file.is_file() and file.name != "README.md"]  # peft's, for people
    assert len(files) >= 4
    for file in files:
        content = file.read_bytes()
        place = draw.randrange(len(content))
        flipped = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        for damaged in (flipped, content[:place]):
            file.write_bytes(damaged)
            said: list[str] = []
            found = load_checkpoint(saved, said.append)
            assert found.path == before
            assert f"{newest} is damaged" in said[0]
            (saved / f"damaged-{newest.name}").rename(newest)
        file.write_bytes(content)
    shutil.rmtree(run / "final")
    file = draw.choice(files)
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{newest.name} is damaged" in continued(begun, whole).replace("\n", " ").replace("  ", " ")


@pytest.mark.fault("a second process on the same run, and the first one killed", "it is refused; then it may go on")
@pytest.mark.parametrize("whole", [pytest.param("grpo", marks=pytest.mark.xdist_group("grpo"))], indirect=True)
def test_a_second_process_is_refused_while_the_first_one_lives(whole, begun):
    first = Training(begun)
    first.start()
    deadline = time.monotonic() + LONGEST
    while not (begun / "runs/r/environment.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = Training(begun)
    code = second.run_to_end()
    first.kill()
    first.join()
    assert code == 1, second.said()
    assert "another process is training in runs/r" in second.said()
    continued(begun, whole)


@pytest.mark.fault(
    "the clock jumps by years, both ways, whenever it is read", "nothing changes, and the record verifies"
)
@pytest.mark.parametrize("whole", [pytest.param("grpo", marks=pytest.mark.xdist_group("grpo"))], indirect=True)
def test_a_clock_that_jumps_changes_nothing(whole, begun):
    jumping = Training(begun, Fault(clock=True))
    assert jumping.run_to_end() == 0, jumping.said()
    same_runs(whole.where / "runs/r", begun / "runs/r")


@pytest.mark.fault(
    "SIGKILL where groups are sampled 2 steps ahead", "each prompt is learnt from once, none is left out"
)
@pytest.mark.parametrize(
    "whole", [pytest.param(road, marks=pytest.mark.xdist_group(road)) for road in ("staleness_2_and_curriculum",)],
    indirect=True,
)  # fmt: skip
def test_no_ticket_is_lost_or_trained_twice(whole, begun):
    for _ in range(2):
        Training(begun, Fault(at=draw.randint(60, len(whole.operations) - 20))).run_to_end()
    continued(begun, whole)
    shards = sorted((begun / "runs/r/log").glob("step-*.parquet"))
    tickets = [group.ticket for shard in shards for group in read_groups(shard)]
    assert tickets == list(range(len(tickets)))


@pytest.mark.fault(
    "SIGKILL of a run with trackers (TensorBoard, one's own) that keeps its best step",
    "each has every step once, with the numbers of the run without",
)
@pytest.mark.parametrize(
    "whole", [pytest.param(road, marks=pytest.mark.xdist_group(road)) for road in ("keep_best_and_trackers",)],
    indirect=True,
)  # fmt: skip
def test_trackers_have_each_step_once(whole, begun):
    count = len(whole.operations)
    for part in (2, 3):  # in the first steps, and in the last
        Training(begun, Fault(at=draw.randint(count * part // 4, count * (part + 1) // 4))).run_to_end()
    continued(begun, whole)
    tracked = [(one / "runs/r/tracked").read_text().splitlines() for one in (whole.where, begun)]
    assert [line.split()[0] for line in tracked[0]] == ["0", "1", "2", "3", "4"]
    assert tracked[0] == tracked[1]
    if "tensorboard" not in TRACKERS:
        return
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    points = []
    for one in (whole.where, begun):
        found = EventAccumulator(str(one / "runs/r/tensorboard"), size_guidance={SCALARS: 0})
        found.Reload()
        points.append([(point.step, point.value) for point in found.Scalars("reward/mean")])
    assert points[0] == points[1]
    assert [step for step, _ in points[0]] == [1, 2, 3, 4]
