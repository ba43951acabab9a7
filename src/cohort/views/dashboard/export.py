"""One stage of a run as one file that opens from disk: the same screens one below the other, with nothing to fetch."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from cohort.types import UserError
from cohort.views.dashboard import groups
from cohort.views.dashboard.runs import RunFiles, StageFiles
from cohort.views.dashboard.screens import HERE, SCREENS, Asked, Site, render, templates

WHOLE = ("overview", "curves", "evaluation", "diagnostics", "data", "timeline", "record")  # once each
STEPS, GROUPS = 3, 5  # that are shown, and groups of each of them
NAMED = 12  # groups that detectors point at


def report(run: RunFiles, at: int | None = None) -> str:
    """The page. Every text of the run is escaped, and no address of a network is in it: a policy in the page forbids
    what is not in the file.
    """
    at = run.latest if at is None else at
    asked = Asked(Site([run]), 0, at)
    pieces = list(_pieces(asked))
    there = {key for key, _, _, _ in pieces}

    def url(screen: str, **query: Any) -> str:
        return f"#{key}" if (key := _key(screen, query)) in there else ""

    parts = []
    for key, screen, query, title in pieces:
        try:
            body = render(screen, Asked(asked.site, 0, at, query), partial=True, report=True, url=url, goto=_nowhere)
        except UserError as error:
            body = Markup("<h1>{}</h1><p>{}</p>").format(SCREENS[screen].title, str(error))
        parts.append({"key": key, "screen": screen, "title": title, "body": Markup(body)})
    return page(parts, run)


def page(parts: list[dict[str, Any]], run: RunFiles, scripts: bool = True) -> str:
    """A whole page around parts of screens, with its style and its code inside."""
    static = HERE / "static"
    style = "".join((static / file).read_text("utf-8") for file in ("vendor/uPlot-1.6.32.min.css", "view.css"))
    code = [(static / file).read_text("utf-8") for file in ("vendor/uPlot-1.6.32.iife.min.js", "view.js")]
    allowed = " ".join(_digest(one) for one in code) if scripts else "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    )
    shown = [Markup(one) for one in code] if scripts else []
    template = templates().get_template("report.html")
    return template.render(parts=parts, run=run, policy=policy, style=Markup(style), scripts=shown)


def _pieces(asked: Asked) -> Iterator[tuple[str, str, Mapping[str, str], str]]:
    """Key, screen, query and title of all parts, in their order."""
    for screen in WHOLE[:2]:
        yield screen, screen, {}, SCREENS[screen].title
    for step, tickets in _steps(asked.stage).items():
        yield f"step-{step}", "step", {"step": str(step)}, f"Step {step}"
        for ticket in tickets:
            yield f"group-{step}-{ticket}", "group", {"step": str(step), "ticket": str(ticket)}, ""
    for screen in WHOLE[2:]:
        yield screen, screen, {}, SCREENS[screen].title


def _steps(stage: StageFiles) -> dict[int, list[int]]:
    """The steps that are shown, the first, the middle and the last of them and those with groups that detectors point
    at, with the groups of each that have most signal.
    """
    steps = [shard.step for shard in stage.shards]
    chosen = {steps[round(i * (len(steps) - 1) / (STEPS - 1))] for i in range(STEPS)} if steps else set[int]()
    found: dict[int, list[int]] = {step: [] for step in sorted(chosen)}
    named = [(one.step, ticket) for one in stage.findings for ticket in one.tickets[:2]]
    for step, ticket in named[:NAMED]:
        if step in steps:
            found.setdefault(step, []).append(ticket)
    for step in list(found):
        try:
            strips = groups.step_view(stage.shard(step).path, step, steps).strips
        except UserError:
            found.pop(step)
            continue
        best = [one.ticket for one in strips[: GROUPS if step in chosen else 0]]
        found[step] = list(dict.fromkeys([*found[step], *best]))
    return dict(sorted(found.items()))


def _key(screen: str, query: Mapping[str, Any]) -> str:
    """What a part is called in the page; "" for what is not there as a part of its own."""
    if screen == "step":
        return f"step-{query.get('step')}"
    if screen == "group":
        return f"group-{query.get('step')}-{query.get('ticket')}"
    return screen if not query else ""


def _nowhere(*_: Any) -> str:
    return ""


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
