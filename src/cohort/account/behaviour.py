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
from cohort.evaluate.intervals import paired
from cohort.record.claims import Claim, gap
from cohort.record.manifest import sha256_of
from cohort.types import RIGHT, UserError
from cohort.wording import one_line

SAFETY = ("hallucination", "refusal_calibration", "jailbreak_robustness", "harmful_capability", "safety_regressions")


def performance(files: StageFiles) -> Claim:
    """Held-out accuracy before the first step and after the last one that was measured, and the paired difference."""
    if "performance" in _named(files):
        return imported("performance")(files)
    if not files.evaluations:
        return gap("measured", "nothing is held out: task.held_out names what to evaluate on")
    before, after = files.evaluations[0], files.evaluations[-1]
    if before is after:
        why = "it was measured once: there is nothing to compare with"
        return files.claim("measured", {"after": after}, "metrics.jsonl", reason=why)
    found: dict[str, Any] = {"before": before, "after": after, "difference": {}}
    shards = []
    for kind in ("greedy", "sampled"):
        names = [f"log/eval-{line['step']:06d}-{kind}.parquet" for line in (before, after)]
        rates = [_pass_rates(files.place / name) for name in names]
        if all(rates):
            shards += names
            try:
                one = paired(rates[1], rates[0])
            except UserError:
                continue
            found["difference"][kind] = {"mean": one.mean, "low": one.low, "high": one.high, "problems": one.problems}
    return files.claim("measured", found, "metrics.jsonl", *shards)


def _pass_rates(file: Path) -> dict[str, float]:
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
    if "tool_use" in _named(files):
        return imported("tool_use")(files)
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
            why = f"Cohort does not measure it; [record.evaluations] {name} may name a file of results of another tool"
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
    run = [name for name in SAFETY if name in _named(files)]
    if not run:
        return gap("imported", "no safety evaluation was named under [record.evaluations]")
    return Claim({name: _named(files)[name] for name in run}, "imported")


def _named(files: StageFiles) -> dict[str, str]:
    given = files.stage.record.evaluations or files.run.declared.evaluations
    return {str(name): file for name, file in given.items()}
