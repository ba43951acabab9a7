"""What the Hugging Face hub reads beside a model: the front matter of its card, and `.eval_results/*.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from cohort.views.cards.reading import DIFFERENCES, MEASURES, Record, base_of, measures, value

_TASKS = {"reward_model": "text-classification", "process_model": "token-classification"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def front_matter(record: Record, index: int) -> str:
    """YAML: where the model comes from, what it was trained on, tags, and its evaluations for older readers
    (`model-index`).
    """
    from huggingface_hub import EvalResult, ModelCardData

    stage, base = record["stages"][index], base_of(record, index)
    on_hub = base.get("kind") == "hub"
    lora = (value(stage, "policies.trained") or {}).get("lora")
    datasets = {row["source"]: row.get("revision") for row in value(stage, "data.prompts") or [] if _on_hub(row)}
    results = [
        EvalResult(
            task_type=_TASKS.get(stage["kind"], "text-generation"),
            dataset_type=_source(stage),
            dataset_name=_source(stage),
            metric_type="accuracy" if name == "accuracy" else name,
            metric_name=f"held-out accuracy, {MEASURES[name]}",
            metric_value=after,
        )
        for name, after in _after(stage).items()
    ]
    data = ModelCardData(
        base_model=base["name"] if on_hub else None,
        base_model_relation=("adapter" if lora else "finetune") if on_hub else None,
        datasets=list(datasets) or None,
        dataset_revisions={name: revision for name, revision in datasets.items() if revision} or None,
        tags=["cohort", *({"grpo": ["grpo", "reinforcement-learning"]}.get(stage["kind"], [stage["kind"]]))],
        library_name="peft" if lora else "transformers",
        license=value(record["run"], "use.license"),
        pipeline_tag=_TASKS.get(stage["kind"], "text-generation"),
        model_name=record["name"],
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def evaluation_files(record: Record, index: int) -> dict[str, str]:
    """By file name the evaluations of the trained model, as huggingface_hub writes them."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    stage = record["stages"][index]
    entries = [
        EvalResultEntry(
            dataset_id=_source(stage),
            task_id=MEASURES[name],
            value=after,
            date=record["written"]["at"],
            notes=_notes(stage, name),
        )
        for name, after in _after(stage).items()
    ]
    if not entries:
        return {}
    return {"held_out.yaml": yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)}


def _after(stage: Record) -> dict[str, float]:
    """What the model was measured to be; by the metric that chose its step, on problems that had no part in that."""
    performance = value(stage, "behaviour.performance")
    found = {name: number for name in measures(performance) if (number := performance["after"][name]) is not None}
    name, confirmed = _confirmed(stage)
    return found | ({name: confirmed} if confirmed is not None and name in found else {})


def _confirmed(stage: Record) -> tuple[str, float | None]:
    chosen = (value(stage, "behaviour.performance") or {}).get("chosen") or {}
    return str(chosen.get("by", "")).removeprefix("eval/"), chosen.get("confirmed")


def _notes(stage: Record, name: str) -> str:
    sampling, template = value(stage, "sampling.distribution") or {}, value(stage, "policies.tokenizer") or {}
    how = "greedy" if name == "greedy" else "sampled" if name in DIFFERENCES else "pairs"
    parts = [how, *(f"{key}={sampling[key]}" for key in ("max_tokens",) if key in sampling)]
    if _confirmed(stage) == (name, _after(stage)[name]):
        parts.append("on problems that had no part in choosing the step")
    return ", ".join([*parts, *(f"template={found}" for found in [template.get("template")] if found)])


def _source(stage: Record) -> str:
    """What is evaluated on: a hub id, or the name of what it is."""
    rows = value(stage, "data.prompts") or [{"source": "unknown"}]
    source = str(rows[0].get("held_out") or rows[0]["source"])
    source = source if not re.fullmatch(r"[0-9.e-]+", source) else str(rows[0]["source"])
    return source if _HUB_ID.fullmatch(source) else PurePath(source).name or source


def _on_hub(row: Mapping[str, Any]) -> bool:
    """Whether a source is a data set of the hub: it has the form of an id, and was not a file on this disk."""
    return bool(_HUB_ID.fullmatch(str(row.get("source")))) and "blake2b" not in row
