"""The record on a screen: what is stated and what it rests on, what is missing, the equation, and the checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from cohort.record.verify import verify
from cohort.settings import GROUPS
from cohort.types import UnreadableError, UserError
from cohort.views.cards.reading import facts, in_a_line, inside
from cohort.views.dashboard.runs import RunFiles, StageFiles

_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_TAGS = {  # of MathML, those that an equation is made of; all else is not shown
    *("math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "mstyle", "mfrac", "msqrt", "msub", "msup", "msubsup"),
    *("munder", "mover", "munderover", "mtable", "mtr", "mtd"),
}
_PLAIN = {"display", "stretchy", "mathvariant", "width", "linethickness", "columnalign", "accent", "form", "fence"}
_PLAIN |= {"displaystyle", "scriptlevel"}


Titled = tuple[str, Mapping[str, Any]]  # what a fact is called, and its envelope


@dataclass(frozen=True, slots=True)
class RecordView:
    """What the record of a run says of one stage and of the run."""

    line: str  # how much is stated; "" where there is no record yet
    share: float
    by_basis: Mapping[str, Mapping[str, int]]
    run: tuple[Titled, ...]
    stage: tuple[Titled, ...]
    entries: int
    head: str
    equation: str
    mathml: tuple[str, ...]
    objective: str
    choices: tuple[tuple[str, str], ...]
    hash: str

    @property
    def gaps(self) -> tuple[Titled, ...]:
        """What is not stated."""
        return tuple((title, one) for title, one in (*self.run, *self.stage) if one["value"] is None)


def record_view(run: RunFiles, stage: StageFiles) -> RecordView:
    """The record of a run, as far as it is written."""
    record, chain = run.inside("record.json"), run.chain
    own: Mapping[str, Any] = next((one for one in record.get("stages", ()) if one.get("name") == stage.name), {})
    done = record.get("completeness") or {}
    loss = inside(own, "objective.loss") or {}
    line, equation, latex, choices, digest = objective(stage)
    return RecordView(
        line=in_a_line(record) if done else "",
        share=float(done.get("share") or 0.0),
        by_basis=done.get("by_basis") or {},
        run=tuple(_facts(record.get("run") or {})),
        stage=tuple(_facts(own)),
        entries=len(chain),
        head=str(chain[-1].get("prev", "")) if chain else "",
        equation=equation or loss.get("equation", ""),
        mathml=typeset(latex),
        objective=line or loss.get("line", ""),
        choices=tuple((choices or loss.get("choices") or {}).items()),
        hash=digest or loss.get("hash", ""),
    )


def _facts(part: Mapping[str, Any]) -> Iterator[Titled]:
    from cohort.account.fields import title_of  # with torch, which no other screen needs

    for section, name, one in facts(part):
        if (section, name) != ("identity", "recipe"):
            yield title_of(f"{section}.{name}"), one


def objective(stage: StageFiles) -> tuple[str, str, str, Mapping[str, str], str]:
    """The objective of a stage: a line, the equation plain and as LaTeX, what each choice does, and the hash; empty
    where it learns from no groups, or its recipe cannot be read.
    """
    nothing = "", "", "", dict[str, str](), ""
    if stage.table is None or stage.kind not in GROUPS:
        return nothing
    from cohort.algorithms import explain  # with torch
    from cohort.preflight.objective import equation_of, hash_of, settled_objective

    try:
        settled = settled_objective(stage.table)
    except UserError:
        return nothing
    return (
        explain.one_line(settled),
        equation_of(stage.table, settled, latex=False),
        equation_of(stage.table, settled, latex=True),
        dict(explain.sentences(settled)),
        hash_of(stage.table, settled),
    )


def typeset(latex: str) -> tuple[str, ...]:
    """The rows of an equation in LaTeX as MathML; none where something cannot be typeset, which then stands there as
    plain text. What the library makes is checked to be MathML and nothing else.
    """
    body = re.sub(r"\\(begin|end)\{aligned\}", "", latex)
    rows = [row.replace("&", "").strip() for row in body.split("\\\\")]
    found = []
    try:
        from latex2mathml.converter import convert

        for row in filter(None, rows):
            tree = ElementTree.fromstring(convert(row, display="block"))
            if any(one.tag.removeprefix(_MATHML) not in _TAGS or set(one.attrib) - _PLAIN for one in tree.iter()):
                return ()
            for one in tree.iter():
                one.tag = one.tag.removeprefix(_MATHML)
            found.append(ElementTree.tostring(tree, encoding="unicode"))
    except Exception:  # a macro that the library does not know, or no MathML
        return ()
    return tuple(found)


def checks(run: RunFiles) -> dict[str, Any]:
    """What `cohort record verify` finds at the levels that recompute nothing. Raises `UserError` for a run without a
    record.
    """
    try:
        return verify(run.directory).as_json()
    except UnreadableError as error:
        raise UserError(str(error)) from None
