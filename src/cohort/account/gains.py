"""What each stage of a run gained: held-out accuracy before and after it, paired over the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from cohort.account.behaviour import pass_rates
from cohort.account.sources import RunFiles, StageFiles
from cohort.evaluate.compare import paired
from cohort.record.claims import Claim, gap

_OF = {"greedy": "greedy", "sampled": "pass@1"}  # a way to answer, and the number that it is measured by
_SAID = ("mean", "low", "high", "problems", "p", "verdict")


def gained(run: RunFiles) -> Claim:
    """A row for each stage in order; one for each two that began with the same model, the later one against the earlier
    one; then, where several were measured, one for all that the model of the last one has gone through: from before the
    first of these that was measured to after the last. `gain` is the paired difference with its 95% interval, None
    where there are not two measurements of the same problems; `why` says why.
    """
    rows = [_row(files) for files in run.stages]
    measured = [(files, row) for files, row in zip(run.stages, rows, strict=True) if row["after"] is not None]
    if not measured:
        return gap("measured", "no stage holds problems out: task.held_out names what to evaluate on")
    rows += [
        {
            "stage": f"{other.stage.name} against {one.stage.name}",
            "kind": f"from {run.stages[one.begins_with].stage.name}",
            "measure": of_other["measure"],
            "before": of_one["after"],
            "after": of_other["after"],
            **_gain(one, other, of_other["measure"], -1),
        }
        for (one, of_one), (other, of_other) in combinations(measured, 2)
        if one.begins_with is not None and one.begins_with == other.begins_with
        if of_one["before"] is not None and of_other["before"] is not None
    ]
    line = _line(run.stages)
    own = [(files, row) for files, row in measured if files.index in line]
    if len(own) > 1:
        (first, one), (last, other) = own[0], own[-1]
        named = f"{first.stage.name} to {last.stage.name}"
        whole = {"stage": "in all", "kind": named, "measure": other["measure"], "after": other["after"]}
        whole |= {"before": one["before"] if one["before"] is not None else one["after"]}
        rows.append(whole | _gain(first, last, other["measure"]))
    logs = [files.path("metrics.jsonl") for files, _ in measured]
    return run.claim("measured", rows, *logs)


def _line(stages: Sequence[StageFiles]) -> set[int]:
    """The stages that the model of the last one has gone through."""
    found = set[int]()
    index: int | None = stages[-1].index
    while index is not None:
        found.add(index)
        index = stages[index].begins_with
    return found


def _row(files: StageFiles) -> dict[str, Any]:
    lines = files.until_kept
    way = next((way for way, name in _OF.items() if lines and name in lines[-1]), None)
    row: dict[str, Any] = {"stage": files.stage.name, "kind": files.stage.kind, "measure": way}
    if way is None:
        return row | {"before": None, "after": None, "gain": None, "why": "not_evaluated"}
    before, after = lines[0].get(_OF[way]), lines[-1].get(_OF[way])
    if len(lines) == 1:
        return row | {"before": None, "after": after, "gain": None, "why": "measured once"}
    return row | {"before": before, "after": after} | _gain(files, files, way)


def _gain(first: StageFiles, last: StageFiles, way: str, of_first: int = 0) -> dict[str, Any]:
    """The paired difference of the last measurement of `last` and measurement `of_first` of `first`."""
    before, after = (_rates(files, index, way) for files, index in ((first, of_first), (last, -1)))
    if not before or not after:
        return {"gain": None, "why": "no answers were kept (run.save_rollouts), so nothing can be paired"}
    if before.keys() != after.keys():
        return {"gain": None, "why": "before and after are of different problems"}
    one = paired(after, before, last.stage.evaluate.margin)
    return {"gain": {name: getattr(one, name) for name in _SAID}, "why": None}


def _rates(files: StageFiles, index: int, way: str) -> Mapping[str, float]:
    return pass_rates(files.place / f"log/eval-{files.until_kept[index]['step']:06d}-{way}.parquet")
