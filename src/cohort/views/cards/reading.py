"""Reading a record: the value at a path, and any value in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cohort.evaluate.choice import Choice
from cohort.record.claims import BASES
from cohort.views.traces import need_of_traces
from cohort.wording import visible

Record = Mapping[str, Any]
LONGEST = 300  # characters of a value that is said in a line

# What the five outcomes of `compute.spent` are called.
OUTCOMES = {
    "trained": "trained on",
    "signal_free": "without signal",
    "truncated": "cut off, without signal",
    "dropped": "dropped",
    "failed": "failed",
}
GAINS = ("stage", "kind", "measure", "before", "after", "gain", "")
REWARDS = ("reward", "weight", "kind", "domain")


def in_a_line(record: Record) -> str:
    """`45 of 67 facts stated (67%): 30 measured, 12 derived, 3 declared, 0 imported`."""
    found = record["completeness"]
    parts = ", ".join(f"{found['by_basis'][basis]['stated']} {basis}" for basis in BASES)
    return f"{found['stated']} of {found['fields']} facts stated ({found['share']:.0%}): {parts}"


def claim(part: Record, path: str) -> dict[str, Any]:
    """The envelope at `section.name` of a stage or of the run; an empty one where there is none."""
    section, _, name = path.partition(".")
    found = part.get(section, {})
    found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return {"value": None, "basis": "", "status": "not_evaluated", "reason": None, "evidence": [], **found}


def value(part: Record, path: str) -> Any:
    """What the envelope at a path holds; None where it holds nothing."""
    return claim(part, path)["value"]


def inside(part: Record, path: str, *names: str) -> Any:
    """What lies under these names in the value at a path; None where there is no such thing."""
    found = value(part, path)
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def base_of(record: Record, index: int) -> dict[str, Any]:
    """The model that a stage comes from, through the stages before it."""
    names = [stage["name"] for stage in record["stages"]]
    for _ in names:
        found = value(record["stages"][index], "policies.base") or {}
        if found.get("kind") != "stage" or found.get("name") not in names:
            return dict(found)
        index = names.index(found["name"])
    return {}


def base_in_words(record: Record, index: int) -> str:
    """`Qwen/Qwen3-0.6B at 1a2b3c4`, `a Qwen3 made from nothing`."""
    found = base_of(record, index)
    if found.get("kind") == "scratch":
        return f"a new {found['architecture']} of {found['layers']} layers, made by this run"
    name = str(found.get("name") or "a model that is not named")
    revision = found.get("revision")
    return f"{name} at {str(revision)[:12]}" if revision else name


def percent(number: Any, digits: int = 1) -> str:
    """`36.6%`."""
    return f"{number:.{digits}%}" if is_number(number) else "-"


def accuracy(measured: Mapping[str, Any] | None, name: str) -> str:
    """`36.6% [32.5%, 40.9%]`; a dash where it was not measured."""
    if not measured or not is_number(measured.get(name)):
        return "-"
    low, high = measured.get(f"{name}_low"), measured.get(f"{name}_high")
    interval = f" [{percent(low)}, {percent(high)}]" if is_number(low) and is_number(high) else ""
    return percent(measured[name]) + interval


def measures(performance: Any) -> list[str]:
    """The measures of a performance claim that have intervals, in the order in which people look at them."""
    after = performance.get("after", {}) if isinstance(performance, Mapping) else {}
    return [name for name in ("greedy", "pass@1", "accuracy") if name in after]


MEASURES = {"greedy": "greedy", "pass@1": "sampled", "accuracy": "pairs ranked right"}
DIFFERENCES = {"greedy": "greedy", "pass@1": "sampled"}  # what the paired difference of a measure is called


def beside(performance: Any) -> list[str]:
    """What is said beside the numbers: which step the model is of, where one was chosen, and how it did on problems
    that had no part in the choice; whether its answers need their traces, where that was measured.
    """
    if not isinstance(performance, Mapping):
        return []
    chosen = performance.get("chosen")
    kept = f"the model is that of {Choice(**chosen).words()}" if chosen else ""
    return [said for said in (kept, need_of_traces(performance.get("after", {}), "")) if said]


def difference(performance: Mapping[str, Any], name: str) -> str:
    """`+5.2 points [+1.0, +9.4]`; a dash where it was not paired."""
    found = performance.get("difference", {}).get(DIFFERENCES.get(name, ""))
    if not found:
        return "-"
    mean, low, high = (f"{100 * found[key]:+.1f}" for key in ("mean", "low", "high"))
    return f"{mean} points [{low}, {high}]"


def results(performance: Any) -> list[list[str]]:
    """A row a measure: what it is, before, after, and the paired difference."""
    return [
        [MEASURES[m], *(accuracy(performance.get(w), m) for w in ("before", "after")), difference(performance, m)]
        for m in measures(performance)
    ]


def reward_rows(stage: Record) -> list[list[str]]:
    """A row a reward, under `REWARDS`."""
    rows = value(stage, "rewards.sources") or []
    return [[r["name"], f"{r.get('weight', 1):g}", r["kind"] or "own code", r["domain"] or "not said"] for r in rows]


def spent_on(stage: Record, unit: str) -> tuple[float, list[tuple[str, float]]]:
    """The `tokens` or `seconds` of a stage, and how many of them went into what."""
    spent = inside(stage, "compute.spent", unit) or {}
    return sum(spent.values()), [(word, spent.get(key, 0)) for key, word in OUTCOMES.items()]


def amount(number: Any) -> str:
    """A number as people say it: `1,024`, `3.4 million`, `2.1e15`, `0.034`."""
    if not is_number(number):
        return "-" if number is None else str(number)
    if abs(number) >= 1e12:
        return f"{number:.2g}"
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if abs(number) >= size:
            return f"{number / size:.3g} {word}"
    return f"{int(number):,}" if float(number).is_integer() else f"{number:.4g}"


def seconds(number: Any) -> str:
    """`3 h 12 min`, `4 min 5 s`, `7.2 s`."""
    if not is_number(number):
        return "-"
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def said(found: Any) -> str:
    """Any value of a record in one line, cut where it is long."""
    text = " ".join(visible(_said(found)).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _said(found: Any) -> str:
    if isinstance(found, Mapping) and found.keys() == {"value", "says"}:
        return _said(found["value"])
    if isinstance(found, Mapping):
        kept = {_name(key): item for key, item in found.items() if item not in (None, "", [], {})}
        inner = {key: _said(item) for key, item in kept.items()}
        return "; ".join(f"{k} ({inner[k]})" if isinstance(kept[k], Mapping) else f"{k} {inner[k]}" for k in inner)
    if isinstance(found, Sequence) and not isinstance(found, str):
        return ", ".join(f"({_said(item)})" if isinstance(item, Mapping) else _said(item) for item in found)
    if isinstance(found, bool):
        return "yes" if found else "no"
    return amount(found) if is_number(found) else re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", str(found))


def _name(key: Any) -> str:
    return str(key).replace("_", " ")


def paid_before(stage: Record) -> tuple[Mapping[str, Any], list[str], list[list[str]]]:
    """What the gate found, the names of the rewards, and what each paid before training: a row a kind of text."""
    gate = value(stage, "rewards.tested") or {}
    found = gate.get("rewards", [])
    kinds = dict.fromkeys(kind for reward in found for kind in reward["rows"])
    means = {kind: [reward["rows"].get(kind, {}).get("mean") for reward in found] for kind in kinds}
    rows = [[kind, *("-" if m is None else f"{m:.2f}" for m in row)] for kind, row in means.items()]
    return gate, [reward["name"] for reward in found], rows


def facts(part: Record) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every claim of a stage or of the run, as (section, name, envelope)."""
    for section, names in part.items():
        if isinstance(names, Mapping) and section not in ("samples", "series"):
            for name, found in names.items():
                if isinstance(found, Mapping) and "status" in found:
                    yield section, name, dict(found)


def is_number(found: Any) -> bool:
    """Whether it is a finite number, and not true or false."""
    return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)


def stages_of(record: Record) -> list[str]:
    """`warm-up (sft)`: its stages in order."""
    return [f"{one['name']} ({one['kind']})" for one in record["stages"]]


def gains_of(record: Record) -> list[dict[str, Any]]:
    """What each stage gained, a row each; none where nothing was measured."""
    return list(value(record["run"], "identity.gained") or [])


def gain_cells(row: Record) -> list[str]:
    """The cells of such a row, under `GAINS`: points with a 95% interval, and the verdict or why there is none."""
    gain, why = row["gain"], row["why"] or ""
    points, verdict = "-", "not evaluated" if why == "not_evaluated" else why
    if gain is not None:
        points = f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
        verdict = gain["verdict"]
    cells = (row["stage"], row["kind"] or "", row["measure"] or "", percent(row["before"]), percent(row["after"]))
    return [*cells, points, verdict]
