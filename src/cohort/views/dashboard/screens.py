"""The screens: what each is called, what it needs, and the template that shows it. A new screen is a function, a
template and its line in `SCREENS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cohort.settings import SAMPLED
from cohort.types import UserError
from cohort.views.cards.reading import amount, percent, said, seconds
from cohort.views.dashboard import (
    charts,
    curves,
    diagnostics,
    evaluation,
    facts,
    groups,
    history,
    index,
    overview,
    timeline,
    tokens,
)
from cohort.views.dashboard.curves import Explain
from cohort.views.dashboard.reader import Reader, reader
from cohort.views.dashboard.runs import RunFiles, StageFiles
from cohort.views.dashboard.texts import coded, in_a_line, shown
from cohort.views.dashboard.trends import CURATED, brief, fixed, number, written

Query = Mapping[str, str]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Site:
    """The runs that are shown, and what `cohort explain --diff` says of two stages."""

    runs: Sequence[RunFiles]
    explain: Explain | None = None
    csrf: str = ""
    measure: tokens.Measure | None = None  # computes what no run writes down token by token
    measured: dict[tuple[int, int, int, int], Mapping[int, tokens.Measured]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One screen of one stage that is asked for."""

    site: Site
    number: int
    at: int
    query: Query = field(default_factory=dict)

    @property
    def run(self) -> RunFiles:
        """The run. Raises `UserError` where there is none of this number."""
        if not 0 <= self.number < len(self.site.runs):
            raise UserError(f"there is no run {self.number}")
        return self.site.runs[self.number]

    @property
    def stage(self) -> StageFiles:
        """Its stage."""
        return self.run.stage(self.at)

    def whole(self, name: str, otherwise: int | None = None) -> int | None:
        """A whole number of the query. Raises `UserError` for anything else."""
        if not self.query.get(name):
            return otherwise
        if not self.query[name].isdecimal() or len(self.query[name]) > 15:
            raise UserError(f"{name} is a whole number, not {self.query[name][:40]!r}")
        return int(self.query[name])

    def step(self) -> int:
        """The step that is asked for, the last recorded one by default."""
        steps = self.steps()
        if not steps:
            name, kind = self.stage.name, self.stage.kind
            raise UserError(
                f"Stage {name} has no groups: it is of kind {kind}, which samples none"
                if kind not in SAMPLED
                else f"Stage {name} has recorded no groups yet, or none are kept (run.save_rollouts)"
            )
        return self.whole("step", steps[-1]) or 0

    def steps(self) -> list[int]:
        """The steps whose rollouts are recorded."""
        return [shard.step for shard in self.stage.shards]

    def reader(self) -> Reader:
        """Reads the tokens of this stage."""
        return reader(self.stage.models)


View = Callable[[Asked], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Screen:
    """A screen: its name for people, the function that fills it, whether it follows a run that goes on, and whether the
    menu names it.
    """

    title: str
    view: View
    live: bool = False
    menu: bool = True


def _step(asked: Asked) -> Mapping[str, Any]:
    step = asked.step()
    return {"view": groups.step_view(asked.stage.shard(step).path, step, asked.steps())}


def _group(asked: Asked) -> Mapping[str, Any]:
    step, ticket, beside = asked.step(), asked.whole("ticket", 0) or 0, asked.whole("beside")
    path = asked.stage.shard(step).path
    return {"view": groups.group_view(path, step, ticket, asked.reader(), asked.stage.table, beside, asked.run.traces)}


def _tokens(asked: Asked) -> Mapping[str, Any]:
    step, ticket, member = asked.step(), asked.whole("ticket", 0) or 0, asked.whole("member", 0) or 0
    if asked.run.traces != "exposed":
        raise UserError(f"reasoning is {asked.run.traces} ([record] traces of the run), so single tokens are not shown")
    line = next((line for line in asked.stage.steps if line["step"] == step), {})
    table = asked.stage.table
    once = table is not None and table.optimizer.updates_per_batch * table.optimizer.epochs == 1 and not (
        table.objective.bypasses or table.rollout.oldest
    )  # fmt: skip
    path, by = asked.stage.shard(step).path, asked.query.get("by", "logprob")
    known = asked.site.measured.get((asked.number, asked.at, step, ticket), {}).get(member)
    view = tokens.tokens_view(path, step, ticket, member, asked.reader(), by, line, once, known)
    steps = asked.stage.replayable if asked.site.measure is not None else []
    return {"view": view, "by": tokens.BY, "replayable": steps, "csrf": asked.site.csrf}


def _curves(asked: Asked) -> Mapping[str, Any]:
    others = [one for one in asked.site.runs if one is not asked.run] if asked.query.get("all") else []
    together = curves.together([asked.run, *others], asked.stage)
    sections = curves.glossary([stage for _, stage in together])
    named = {one.name: one for section in sections.values() for one in section}
    chosen = [name for name in asked.query.get("names", "").split(",") if name in named]
    chosen = chosen or [name for name in named if name in CURATED]
    data = {name: curves.series(together, name) for name in chosen}
    return {
        "sections": sections,
        "chosen": chosen,
        "named": named,
        "data": data,
        "several": len(asked.site.runs) > 1,
        "all": bool(asked.query.get("all")),
    }


def _evaluation(asked: Asked) -> Mapping[str, Any]:
    q = asked.query
    view = evaluation.evaluation_view(
        asked.stage, q.get("way", ""), asked.whole("before"), asked.whole("after"), q.get("only", "")
    )
    page = asked.whole("page", 0) or 0
    return {"view": view, "changes": evaluation.CHANGES, "page": page, "size": PROBLEMS}


def _compare(asked: Asked) -> Mapping[str, Any]:
    runs = asked.site.runs
    if len(runs) < 2:
        return {"view": None, "other": None, "runs": runs}
    other = asked.whole("with", 1 if asked.number == 0 else 0) or 0
    if not 0 <= other < len(runs) or other == asked.number:
        raise UserError(f"there is no other run {other} to compare with")
    pair = curves.together([asked.run, runs[other]], asked.stage)
    view = curves.comparison(pair[0], pair[1], asked.site.explain)
    names = [name for name in CURATED if any(line.get(name) is not None for line in asked.stage.lines)][:6]
    data = {name: curves.series(pair, name) for name in names}
    named = {one.name: one for section in curves.glossary([asked.stage]).values() for one in section}
    return {"view": view, "other": other, "their": pair[1][1], "runs": runs, "data": data, "names": names,
        "named": named, "changes": evaluation.CHANGES}  # fmt: skip


def _search(asked: Asked) -> Mapping[str, Any]:
    where, text = asked.query.get("where", ""), asked.query.get("text", "")
    found, problem = None, ""
    if where or text:
        try:
            stage, is_regex = asked.stage, bool(asked.query.get("regex"))
            found = index.search(
                stage.index, stage.shards, where=where, text=text, is_regex=is_regex, traces=asked.run.traces
            )
        except UserError as error:
            problem = str(error)
    rewards = [reward.name for reward in asked.stage.table.reward] if asked.stage.table is not None else []
    return {"found": found, "problem": problem, "where": where, "text": text, "regex": bool(asked.query.get("regex")),
        "names": list(index.columns_of(asked.stage.index.table(asked.stage.shards))), "rewards": rewards}  # fmt: skip


PROBLEMS = 20  # of a page of an evaluation
SCREENS: dict[str, Screen] = {
    "overview": Screen("Overview", lambda asked: {"view": overview.overview(asked.run, asked.stage)}, live=True),
    "step": Screen("Step", _step),
    "group": Screen("Group", _group, menu=False),
    "tokens": Screen("Tokens", _tokens, menu=False),
    "curves": Screen("Curves", _curves),
    "evaluation": Screen("Evaluation", _evaluation),
    "prompt": Screen(
        "Prompt", lambda asked: {"view": history.prompt_view(asked.stage, asked.query.get("id", ""))}, menu=False
    ),
    "diagnostics": Screen("Diagnostics", lambda asked: {"view": diagnostics.diagnostics(asked.stage)}),
    "compare": Screen("Compare", _compare),
    "data": Screen("Data", lambda asked: {"view": history.data_view(asked.run, asked.stage, asked.reader())}),
    "timeline": Screen(
        "Timeline", lambda asked: {"view": timeline.timeline(asked.stage, asked.whole("until"))}, live=True
    ),
    "record": Screen(
        "Record",
        lambda asked: {"view": facts.record_view(asked.run, asked.stage), "checks": None, "csrf": asked.site.csrf},
    ),
    "search": Screen("Search", _search),
}


def address(number: int, at: int, screen: str, **query: Any) -> str:
    """Where a screen is."""
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"/r/{number}/{at}/{screen}" + (f"?{urlencode(given)}" if given else "")


@cache
def templates() -> Environment:
    """The templates, which escape everything."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters |= {"shown": shown, "coded": coded, "line": in_a_line, "brief": brief, "number": number}
    found.filters |= {"of_token": tokens.written, "fixed": fixed, "percent": percent}
    found.filters |= {"seconds": seconds, "amount": amount, "said": said}
    found.filters |= {"json_block": json_block, "arguments": arguments}
    found.filters |= {"test_case": groups.test_case, "mathml": Markup}
    found.filters["sample_command"] = lambda view, run: groups.sample_command(view, run.directory)
    found.globals |= {"charts": charts, "dispositions": groups.DISPOSITIONS, "written": written, "SCREENS": SCREENS}
    return found


def render(screen: str, asked: Asked, **more: Any) -> str:
    """The page of a screen, or with `partial` what is inside of it. Raises `UserError` for what is not there."""
    return _page(f"{screen}.html", screen, asked, {**SCREENS[screen].view(asked), **more})


def absent(screen: str, asked: Asked, why: str, **more: Any) -> str:
    """The page of a screen that has nothing to show, with the way to the others."""
    return _page("absent.html", screen, asked, {"why": why, **more})


def _page(template: str, screen: str, asked: Asked, found: Mapping[str, Any]) -> str:
    one = SCREENS[screen]
    context: dict[str, Any] = {
        "screen": screen,
        "title": one.title,
        "live": one.live,
        "asked": asked,
        "run": asked.run,
        "stage": asked.stage,
        "runs": asked.site.runs,
        "partial": False,
        "report": False,
        "url": lambda to, **query: address(asked.number, asked.at, to, **query),
        "goto": address,
        **found,
    }
    return templates().get_template(template).render(context)


def json_block(value: Any) -> Markup:
    """JSON for a block of data in a page: no `<`, so that nothing ends the block, and no separator of lines."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=list)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def arguments(call: Mapping[str, Any]) -> str:
    """What a tool was called with: a line each, or as JSON where it is no table."""
    given = call.get("arguments")
    if isinstance(given, Mapping):
        return "\n".join(
            f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in given.items()
        )
    return json.dumps(given if given is not None else dict(call), ensure_ascii=False, default=str)
