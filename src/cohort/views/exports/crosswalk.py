"""Where the questions of the EU AI Act and of NIST are answered in a record. It maps, and promises nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cohort.account.fields import RUN, STAGE, Field
from cohort.views.cards.reading import claim, said
from cohort.views.exports import Bundle

FRAMEWORKS = {
    "XI": "EU AI Act (2024/1689), Annex XI: technical documentation of general-purpose models",
    "MDF": "Model documentation form of the EU's code of practice for general-purpose models, by section",
    "RMF": "NIST AI RMF 1.0 (AI 100-1), by subcategory",
    "600-1": "NIST AI 600-1 (generative AI profile), by section of its risks",
}


def crosswalk(bundle: Bundle) -> str:
    """A table for each framework: what it asks, the field that it maps to, and what the field says."""
    record = bundle.record
    lines = [
        f"# Crosswalk of {record['name']}",
        "",
        "Where a reader of each framework would look in `record.json`. A row says that a field *maps to* a point, not "
        "that the point is complied with, which no tool can say.",
        "",
    ]
    for prefix, title in FRAMEWORKS.items():
        lines += [f"## {title}", "", "| point | maps to | in record.json | status | says |", "|---|---|---|---|---|"]
        lines += sorted(row for field, place, part in _fields(record) for row in _rows(prefix, field, place, part))
        lines.append("")
    return "\n".join(lines)


def _fields(record: Mapping[str, Any]) -> Iterator[tuple[Field, str, Mapping[str, Any]]]:
    for field in RUN:
        yield field, f"run.{field.path}", record["run"]
    last = record["stages"][-1]
    for field in STAGE:
        if last["kind"] in field.kinds:
            yield field, f"stages.{last['name']}.{field.path}", last


def _rows(prefix: str, field: Field, place: str, part: Mapping[str, Any]) -> Iterator[str]:
    found = claim(part, field.path)
    text = said(found["value"]) if found["value"] is not None else f"gap: {found['reason']}"
    cell = text[:160].replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    for point in field.maps:
        if point.startswith((f"{prefix} ", f"{prefix}.")):
            yield f"| {point} | {field.title} | `{place}` | {found['status'].replace('_', ' ')} | {cell} |"
