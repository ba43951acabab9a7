"""Of the groups: whether there is anything in them to learn from."""

from __future__ import annotations

from cohort.monitor.detectors.finding import Found, Seen, detector
from cohort.settings.monitor import Monitor
from cohort.types import Group

GROUPS, STEPS = 12, 5  # without signal: so many in three steps, or so many steps, are no chance any more
CALM = 3
_TAUGHT = "teacher/kl"


def _enough(seen: Seen, quiet: list[bool]) -> int:
    """How many last steps in a row are quiet, where they are enough to say so; else 0. Where a teacher speaks as well,
    equal rewards do not mean that nothing is learnt.
    """
    if _TAUGHT in seen.now:
        return 0
    steps = next((i for i, one in enumerate(reversed(quiet)) if not one), len(quiet))
    groups = sum(seen.values("groups/sampled", steps)) if steps else 0
    return steps if steps >= STEPS or (steps >= CALM and groups >= GROUPS) else 0


def _has_copies(group: Group) -> bool:
    return group.pass_rate != 1 and len({one.text for one in group.rollouts}) < len(group.rollouts)


@detector(1, "critical")
def constant_reward(seen: Seen, table: Monitor) -> Found | None:
    """All completions of some steps got the same reward, and it is not that all are right."""
    same = seen.values("reward/mean", 1)
    flat = [
        line.get("reward/mean") in same and line.get("reward/std") == 0 and line.get("groups/all_right") != 1
        for line in seen.lines
    ]
    if not (steps := _enough(seen, flat)):
        return None
    cut = seen.mean("completions/truncated", steps)
    why = f", and {cut:.0%} are cut off: raise rollout.max_tokens" if cut > 0.5 else ""
    return (
        f"every completion of the last {steps} steps got the reward {same[0]:g}, so nothing is learnt{why}",
        "Score a right answer with the reward (`cohort check`); if it pays, the task is too hard for this model "
        "(`cohort sample` shows what it writes)",
        seen.tickets(lambda group: True),
        {"reward": same[0], "steps": float(steps), "truncated": cut},
    )


@detector(1, "critical")
def no_signal(seen: Seen, table: Monitor) -> Found | None:
    """Groups whose members all score the same, split into all right, all wrong and equal in between. Advantages of such
    a group are 0 (DAPO 2503.14476, section 3.2). All right is worth a word only where it lasts a whole window.
    """
    if _TAUGHT in seen.now or not seen.values("groups/signal", 1):
        return None
    quiet = [line.get("groups/signal") == 0 and (line.get("groups/all_right") or 0) < 0.5 for line in seen.lines]
    steps = _enough(seen, quiet)
    whole = len(seen.values("groups/signal")) >= table.window and seen.mean("groups/signal") < table.signal
    if constant_reward(seen, table) is not None or not (steps or whole):
        return None
    steps = steps or len(seen.lines)
    signal, right = seen.mean("groups/signal", steps), seen.mean("groups/all_right", steps)
    partial = seen.mean("groups/partial", steps)
    wrong = max(1 - signal - right - partial, 0.0)
    look = (
        "The task is learnt or too easy: stop, or bring harder prompts ([task.adaptive]); or the reward pays anything "
        "(`cohort check`)"
        if right > 0.5
        else "The score has no steps between: look at what the reward returns"
        if partial > 0.5
        else "Too hard, or the reward does not see right answers: `cohort check`, an easier task, a larger group_size"
    )
    return (
        f"in the last {steps} steps {signal:.0%} of the groups carry signal: {right:.0%} are all right, {wrong:.0%} "
        f"all wrong, {partial:.0%} equal in between",
        look,
        seen.tickets(lambda group: not group.has_signal),
        {"signal": signal, "all_right": right, "all_wrong": wrong, "partial": partial},
    )


@detector(1)
def sparse_reward(seen: Seen, table: Monitor) -> Found | None:
    """Hardly any completion is right over a whole window, though some are: most groups pay for nothing."""
    rate = seen.mean("groups/pass_rate")
    if len(seen.values("groups/pass_rate")) < table.window or not 0 < rate < table.sparse:
        return None
    if seen.mean("groups/signal") > 0.25:
        return None
    return (
        f"{rate:.1%} of the completions are right, and {seen.mean('groups/all_wrong'):.0%} of the groups are all wrong",
        "Begin with easier prompts ([task.curriculum], [task.adaptive]), or raise rollout.group_size",
        seen.tickets(lambda group: bool(group.pass_rate)),
        {"pass_rate": rate},
    )


@detector(1, of_groups=True)
def similar_samples(seen: Seen, table: Monitor) -> Found | None:
    """In groups that are not solved, the members are copies of each other: sampling does not explore."""
    found = seen.values("groups/similar", CALM)
    if len(found) < CALM or min(found) < table.similar or seen.mean("groups/pass_rate", CALM) > 0.5:
        return None
    return (
        f"{found[-1]:.0%} of the completions in groups that are not solved repeat another of their group",
        "Raise rollout.temperature (is it 0, or top_k 1?); if it came with training, lower optimizer.learning_rate",
        seen.tickets(_has_copies),
        {"similar": found[-1]},
    )


@detector(1)
def difficulty_drift(seen: Seen, table: Monitor) -> Found | None:
    """The prompts are of other levels, or much longer, than at the beginning, and nothing in the recipe moves them:
    then rewards of early and late steps do not compare.
    """
    if "task/level" in seen.now or "task/resting" in seen.now or len(seen.lines) < table.window:
        return None
    names = {name for line in (*seen.begun, *seen.lines) for name in line if name.startswith("task/level/")}
    names = {name for name in names if name.endswith("/share")}
    # A level that a step does not have has the share 0 there.
    shares = {
        name: [sum((line.get(name) or 0.0) for line in lines) / len(lines) for lines in (seen.begun, seen.lines)]
        for name in names
    }
    moved = sum(abs(now - first) for first, now in shares.values()) / 2
    first, now = seen.at_first("prompts/mean_tokens"), seen.mean("prompts/mean_tokens")
    longer = max(now / first, first / now) if first > 0 and now > 0 else 1.0
    if not first > 0 or (moved < table.level_drift and longer < 2):
        return None
    what = (
        f"{moved:.0%} of the prompts are of other levels"
        if moved >= table.level_drift
        else f"prompts have {now:.0f} tokens, and had {first:.0f}"
    )
    return (
        f"{what} than in the first steps",
        "Is the file sorted? Rewards of early and late steps do not compare: judge by held-out accuracy",
        (),
        {"moved": moved, "longer": longer},
    )
