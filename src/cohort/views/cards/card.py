"""The card of a trained model, as Markdown: what it is, what it was measured to do, how it was trained, what is not
known. Every number is one that the run measured, unless its line says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from cohort.account.fields import title_of
from cohort.views.cards.hub import front_matter
from cohort.views.cards.reading import (
    GAINS,
    MEASURES,
    OUTCOMES,
    Record,
    accuracy,
    amount,
    base_in_words,
    beside,
    claim,
    difference,
    gain_cells,
    gains_of,
    in_a_line,
    inside,
    measures,
    paid_before,
    percent,
    said,
    seconds,
    value,
)
from cohort.wording import counted

_KINDS = {
    "grpo": "reinforcement learning (GRPO)",
    "distill": "on-policy distillation from a teacher",
    "self_distill": "on-policy distillation from itself, shown a solution",
    "sft": "supervised training",
    "reward_model": "training a reward model on preference pairs",
    "process_model": "training a process reward model on steps with labels",
    "reject": "rejection sampling, which trains nothing",
    "rft": "supervised training on its own right samples (RFT)",
    "dpo": "learning from preference pairs (DPO)",
    "evaluate": "an evaluation, which trains nothing",
}
_MORE = {  # numbers of an evaluation beside its accuracy
    "mean_tokens": "mean length {} tokens",
    "truncated": "cut off {}",
    "pairs": "{} held-out pairs",
    "loss": "loss {}",
    "calibration_error": "expected calibration error {}",
    "length_correlation": "correlation of score and length {}",
}
_USE_OF_SCORER = """```python
from transformers import AutoModelFor{auto}Classification, AutoTokenizer

model = AutoModelFor{auto}Classification.from_pretrained(".")
```

In a recipe: `[[reward]]` with `use = "{kind}"` and `args = {{ model = "PATH" }}`."""
_AUTO = {"reward_model": "Sequence", "process_model": "Token"}


def card(record: Record, index: int | None = None) -> str:
    """The card of the model of one stage; of the last one when not given."""
    index = len(record["stages"]) - 1 if index is None else index
    stage, run = record["stages"][index], record["run"]
    parts = [
        front_matter(record, index),
        *_heading(record, stage, index),
        *_results(stage),
        *_gains(record),
        *([_USE_OF_SCORER.format(auto=_AUTO[kind], kind=kind), ""] if (kind := stage["kind"]) in _AUTO else []),
        *_objective(stage),
        *_rewards(stage),
        *_use(run, stage),
        *_cost(stage),
        *_behaviour(stage),
        *_rest(record),
    ]
    return "\n".join(parts)


def _heading(record: Record, stage: Record, index: int) -> Iterator[str]:
    several = len(record["stages"]) > 1
    yield f"# {_md(record['name'])}{': ' + _md(stage['name']) if several and index < len(record['stages']) - 1 else ''}"
    yield ""
    how = _KINDS.get(stage["kind"], f"a stage of kind `{stage['kind']}`")
    yield (
        f"Trained with Cohort {record['written']['cohort']} from {_md(base_in_words(record, index))} by {how}, stage "
        f"`{stage['name']}`, seed {inside(record['run'], 'identity.run', 'seed')}, {counted(stage['steps'], 'step')}."
    )
    if several:
        chain = " -> ".join(f"{one['name']} ({one['kind']})" for one in record["stages"])
        yield f"The run has {counted(len(record['stages']), 'stage')}: {_md(chain)}."
    if inside(record["run"], "identity.outcome", "finished") is False:
        yield "**The run is not finished**: this is how far it has come."
    yield ""


def _results(stage: Record) -> Iterator[str]:
    found = claim(stage, "behaviour.performance")
    performance = found["value"]
    yield "## Results"
    yield ""
    if not measures(performance):
        yield f"Not measured: {_md(found['reason'] or '')}"
        yield ""
        return
    yield "Held-out accuracy with 95% intervals, measured by this run:"
    yield ""
    rows = []
    for name in measures(performance):
        row = [accuracy(performance.get(when), name) for when in ("before", "after")]
        rows.append([MEASURES[name], *row, difference(performance, name)])
    yield from _table(["", "before", "after", "difference, problem by problem"], rows)
    yield from (f"* {_md(more)}" for more in beside(performance))
    for key, text in _MORE.items():
        if performance["after"].get(key) is not None:
            number = performance["after"][key]
            yield f"* {text.format(percent(number) if key == 'truncated' else amount(number))}"
    yield ""


def _gains(record: Record) -> Iterator[str]:
    rows = gains_of(record)
    if len(rows) > 1:
        yield "What each stage of the run gained, paired, in points with 95% intervals:"
        yield ""
        yield from _table(GAINS, [gain_cells(row) for row in rows])


def _objective(stage: Record) -> Iterator[str]:
    found = value(stage, "objective.loss")
    if found is None:
        return
    sampling, size = value(stage, "sampling.distribution") or {}, value(stage, "sampling.group_size")
    yield "## Which GRPO exactly"
    yield ""
    yield _md(found["line"]) + "."
    yield ""
    yield "```text"
    yield found["equation"]
    yield "```"
    yield ""
    yield (
        f"Groups of {size} at temperature {sampling.get('temperature')}, at most {sampling.get('max_tokens')} tokens; "
        f"objective hash `{found['hash'][:16]}`."
    )
    reference = claim(stage, "policies.reference")
    yield f"Reference policy: {_md(inside(stage, 'policies.reference', 'policy') or reference['reason'])}."
    yield ""


def _rewards(stage: Record) -> Iterator[str]:
    rows = value(stage, "rewards.sources")
    if rows:
        yield "## Rewards"
        yield ""
        cells = [
            [row["name"], f"{row.get('weight', 1):g}", row["kind"] or "own code", row["domain"] or "not said"]
            for row in rows
        ]
        yield from _table(["reward", "weight", "kind", "domain"], cells)
    gate, names, paid = paid_before(stage)
    if paid:
        how = f"on average over {counted(gate['prompts'], 'prompt')} (verdict: {gate['verdict']})"
        yield f"What rewards paid before training, {how}:"
        yield ""
        yield from _table(["", *names], paid)


def _use(run: Record, stage: Record) -> Iterator[str]:
    yield "## Use"
    yield ""
    for path in ("use.intended", "use.out_of_scope", "use.license", "traces.handling"):
        yield f"* {title_of(path)}: {_claim(run, path)}"
    if "rewards" in stage:
        yield f"* {title_of('rewards.brittle')}: {_claim(stage, 'rewards.brittle')}"
    yield f"* {title_of('data.prompts')}: {_claim(stage, 'data.prompts')}"
    yield f"* {title_of('data.contamination')}: {_claim(stage, 'data.contamination')}" if "rewards" in stage else ""
    yield ""


def _cost(stage: Record) -> Iterator[str]:
    budget, flops = value(stage, "compute.budget") or {}, value(stage, "compute.operations") or {}
    if not budget:
        return
    yield "## Cost"
    yield ""
    yield (
        f"{amount(budget['steps'])} steps in {seconds(budget.get('seconds'))}; {amount(budget.get('tokens_sampled'))} "
        f"tokens sampled, {amount(budget.get('tokens_trained'))} through the update."
    )
    if flops:
        yield f"About {amount(flops['total'])} floating-point operations (derived from tokens and parameters)."
    joules, how = inside(stage, "compute.energy", "joules"), claim(stage, "compute.energy")["basis"]
    said = "measured" if how == "measured" else "estimated"
    yield f"Energy: {amount(joules)} J ({said})." if joules else f"Energy: {_claim(stage, 'compute.energy')}."
    spent = inside(stage, "compute.spent", "tokens")
    if spent:
        total = max(sum(spent.values()), 1)
        parts = [f"{percent(spent[key] / total)} {word}" for key, word in OUTCOMES.items() if spent.get(key)]
        yield f"Of the sampled tokens: {', '.join(parts)}."
    yield ""


def _behaviour(stage: Record) -> Iterator[str]:
    names = stage.get("behaviour", {})
    if len(names) < 2:
        return
    yield "## Behaviour before and after"
    yield ""
    rows = []
    for name, one in names.items():
        known = (
            one["reason"] if one["value"] is None else "see Results" if name == "performance" else said(one["value"])
        )
        title = title_of(f"behaviour.{name}").removesuffix(", before and after")
        rows.append([title, one["status"].replace("_", " "), one["basis"], known])
    yield from _table(["", "status", "basis", "what is known"], rows)


def _rest(record: Record) -> Iterator[str]:
    yield "## Record"
    yield ""
    yield f"{in_a_line(record)}. `record.json` of the run has each of them with its evidence; the gaps are:"
    yield ""
    yield from (f"* {_md(title_of(path))} (`{path}`)" for path in record["completeness"]["gaps"])
    yield ""
    text = value(record["run"], "identity.recipe") or ""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    yield from (f"{fence}toml", text.strip(), fence, "")


def _claim(part: Record, path: str) -> str:
    found = claim(part, path)
    if found["value"] is None:
        return f"not known ({_md(found['reason'] or '')})"
    return f"{_md(said(found['value']))} ({found['basis']})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|---" * len(headings) + "|"
    yield from (f"| {' | '.join(_md(cell) for cell in row)} |" for row in rows)
    yield ""


def _md(text: Any) -> str:
    """Text that Markdown takes as it is: on one line, without markup of its own."""
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", said(text)) if not isinstance(text, str) else _escaped(text)


def _escaped(text: str) -> str:
    line = " ".join(text.split())
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
