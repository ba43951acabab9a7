"""How the model behaves before and after: what the run measured, and what other tools found and a person named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.account.sources import StageFiles
from cohort.evaluate.compare import paired
from cohort.record.claims import Claim, gap
from cohort.record.manifest import sha256_of
from cohort.settings.suite import JUDGES
from cohort.types import RIGHT, UserError
from cohort.wording import one_line

SUITES = {  # behaviours of the record, and the kinds of suites that measure them
    "multilingual": "multilingual",
    "tool_use": "tool_use",
    "performance": "performance",
    "hallucination": "hallucination",
    "refusal_calibration": "refusal",
    "jailbreak_robustness": "jailbreak",
    "harmful_capability": "harmful_capability",
    "safety_regressions": "safety",
}
SAFETY = tuple(SUITES)[3:]


def performance(files: StageFiles) -> Claim:
    """Held-out accuracy before the first step and of the weights that are kept, and the paired difference; where a step
    was chosen, which one, and how it did on problems that had no part in the choice.
    """
    if "performance" in _named(files):
        return imported("performance")(files)
    if not files.evaluations:
        return gap("measured", "nothing is held out: task.held_out names what to evaluate on")
    if _suites(files, "performance") and len(_of_suite(files.evaluations[0], "")) == 1:
        return of_suites("performance")(files)
    before, after = (_of_suite(line, "") for line in (files.until_kept[0], files.until_kept[-1]))
    if len(files.until_kept) == 1:
        why = "it was measured once: there is nothing to compare with"
        return files.claim("measured", {"after": after}, "metrics.jsonl", reason=why)
    found, shards = _compared(files, before, after, "")
    found |= {"chosen": files.chosen} if files.chosen else {}
    if suites := _suites(files, "performance"):
        found["suites"], more = suites
        shards += more
    return files.claim("measured", found, "metrics.jsonl", *shards)


def _compared(
    files: StageFiles, before: dict[str, Any], after: dict[str, Any], of: str
) -> tuple[dict[str, Any], list[str]]:
    """Two evaluations and their paired differences, and the files of these; `of` is the suite, "" for held-out
    problems.
    """
    found: dict[str, Any] = {"before": before, "after": after, "difference": {}}
    shards = []
    for kind in ("greedy", "sampled"):
        name = f"{of}-{kind}" if of else kind
        names = [f"log/eval-{line['step']:06d}-{name}.parquet" for line in (before, after)]
        rates = [pass_rates(files.place / name) for name in names]
        if all(rates):
            shards += names
            try:
                one = paired(rates[1], rates[0], files.stage.evaluate.margin)
            except UserError:
                continue
            found["difference"][kind] = {
                key: getattr(one, key) for key in ("mean", "low", "high", "problems", "p", "margin", "verdict")
            }
    return found, shards


def _of_suite(line: dict[str, Any], name: str) -> dict[str, Any]:
    """What a line of evaluations says of one suite; of the held-out problems where it has no name."""
    if not name:
        return {key: value for key, value in line.items() if "/" not in key}
    start = f"{name}/"
    found = {key.removeprefix(start): value for key, value in line.items() if key.startswith(start)}
    return {"step": line["step"], **found} if found else {}


def _suites(files: StageFiles, kind: str) -> tuple[dict[str, Any], list[str]] | None:
    """What the suites of a kind found before and after, by name; None where there are none."""
    found: dict[str, Any] = {}
    shards: list[str] = []
    for suite in (one for one in files.stage.suite if one.kind == kind):
        measured = [line for line in (_of_suite(line, suite.name) for line in files.until_kept) if line]
        if len(measured) > 1:
            found[suite.name], more = _compared(files, measured[0], measured[-1], suite.name)
            shards += more
    return (found, shards) if found else None


def of_suites(name: str) -> Callable[[StageFiles], Claim]:
    """What suites measured of a behaviour before and after; else what another tool found about it."""

    def read(files: StageFiles) -> Claim:
        if name not in _named(files) and (suites := _suites(files, SUITES[name])):
            found, shards = suites
            phrases = any(
                one.use is None for one in files.stage.suite if one.kind == SUITES[name] and one.kind in JUDGES
            )
            by = "refusals by a list of English phrases" if phrases else None
            return files.claim("measured", found, "metrics.jsonl", *shards, reason=by)
        return imported(name)(files)

    return read


def pass_rates(file: Path) -> dict[str, float]:
    """The share of right completions by prompt; empty where the file is not there or cannot be read."""
    try:
        table = pq.read_table(file, columns=["prompt_id", "accuracy"])
    except (pa.ArrowException, OSError, KeyError):
        return {}
    by_prompt: dict[str, list[float]] = {}
    for prompt, accuracy in zip(table["prompt_id"].to_pylist(), table["accuracy"].to_pylist(), strict=True):
        if accuracy is not None and not math.isnan(accuracy):
            by_prompt.setdefault(prompt, []).append(float(accuracy >= RIGHT))
    return {prompt: sum(right) / len(right) for prompt, right in by_prompt.items()}


def tool_use(files: StageFiles) -> Claim:
    """Calls of tools and their errors, in the first and the last step."""
    if "tool_use" in _named(files) or _suites(files, "tool_use"):
        return of_suites("tool_use")(files)
    lines = [line for line in files.steps if "tools/calls" in line]
    if not lines:
        return gap("measured", "the policy has no tools", "not_applicable")
    ends = {
        when: {key: line.get(f"tools/{key}") for key in ("calls", "errors", "tokens")}
        for when, line in {"before": lines[0], "after": lines[-1]}.items()
    }
    return files.claim(
        "measured", ends, "metrics.jsonl", reason="of the training prompts of the first and the last step"
    )


def imported(name: str) -> Callable[[StageFiles], Claim]:
    """What another tool found about a behaviour, from the file that [record.evaluations] names."""

    def read(files: StageFiles) -> Claim:
        given = _named(files).get(name)
        if given is None:
            why = f"no [[suite]] of the kind measures it, and [record.evaluations] {name} names no file of another tool"
            return gap("imported", why)
        file = Path(files.run.environment.get("directory", "."), given).expanduser()
        try:
            found, digest = orjson.loads(file.read_bytes()), sha256_of(file)
        except (OSError, orjson.JSONDecodeError) as error:
            return gap("imported", f"{given} cannot be read: {one_line(error)}", "failed")
        evidence = ({"path": given, "sha256": digest},)
        if not isinstance(found, dict) or "after" not in found:
            return Claim(None, "imported", "failed", f"{given} has no `after`", evidence)
        if "before" not in found:
            return Claim(found, "imported", "inconclusive", "there is no `before` to compare with", evidence)
        return Claim(found, "imported", evidence=evidence)

    return read


def safety_evaluations(files: StageFiles) -> Claim:
    """Which safety evaluations were run on the trained model."""
    run = {name: _named(files)[name] for name in SAFETY if name in _named(files)}
    suites = {kind: list(found[0]) for name in SAFETY if (found := _suites(files, kind := SUITES[name]))}
    if not run and not suites:
        return gap("imported", "no [[suite]] is about safety, and none was named under [record.evaluations]")
    return Claim(run | suites, "measured" if suites else "imported")


def _named(files: StageFiles) -> dict[str, str]:
    given = files.stage.record.evaluations or files.run.declared.evaluations
    return {str(name): file for name, file in given.items()}
