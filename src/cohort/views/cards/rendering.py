"""The templates of the cards: they say the same of a record, `card.md` as Markdown and `page.html` as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cohort.account.fields import title_of
from cohort.views.cards import reading
from cohort.views.cards.reading import Record, value
from cohort.wording import counted, visible


def rendered(
    template: str, record: Record, index: int, filters: Mapping[str, Callable[..., Any]] = {}, **more: Any
) -> str:
    """A template filled in for one stage of a record. In HTML all text is escaped, and what a reader cannot see is made
    visible.
    """
    html, stage = template.endswith(".html"), record["stages"][index]
    found = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=html,
        finalize=(lambda said: said if isinstance(said, Markup) else visible(str(said))) if html else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= filters
    found.globals |= {"r": reading, "title_of": title_of, "counted": counted}
    gate, paid_by, paid = reading.paid_before(stage)
    return found.get_template(template).render(
        record=record,
        run=record["run"],
        stage=stage,
        index=index,
        performance=value(stage, "behaviour.performance"),
        loss=value(stage, "objective.loss"),
        sampling=value(stage, "sampling.distribution") or {},
        behaviours=[
            (name, title_of(f"behaviour.{name}").removesuffix(", before and after"), one)
            for name, one in stage.get("behaviour", {}).items()
        ],
        gains=[reading.gain_cells(row) for row in reading.gains_of(record)],
        gate=gate,
        paid_by=paid_by,
        paid=paid,
        **more,
    )
