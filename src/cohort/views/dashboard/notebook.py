"""A run inside a notebook, and its curves as a figure of matplotlib."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from cohort.types import UserError
from cohort.views.dashboard import groups
from cohort.views.dashboard.export import page
from cohort.views.dashboard.runs import RunFiles
from cohort.views.dashboard.screens import Asked, Site, render
from cohort.views.dashboard.trends import Trend, curated, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT = 640  # pixels of a notebook's cell
WIDE = 3  # plots beside each other


class Shown:
    """What `cohort.view` returns: a notebook shows it, `html` is the page."""

    def __init__(self, html: str):
        self.html = html

    def _repr_html_(self) -> str:
        frame = Markup('<iframe sandbox srcdoc="{}" width="100%" height="{}" frameborder="0"></iframe>')
        return str(frame.format(self.html, HEIGHT))


def view(run: Any, step: int | None = None, group: int | None = None) -> Shown:
    """A group of a run, inline: of the last recorded step the one with most signal, or the one that is named by the
    numbers of its step and of itself. `run` is what `cohort.train` returns, or a directory. No script is in it.

    Raises `UserError` for what is no run, and for a group that is not there.
    """
    files = RunFiles(Path(os.fspath(getattr(run, "directory", run))))
    at = files.latest
    asked = Asked(Site([files]), 0, at, {"step": str(step)} if step is not None else {})
    found = asked.step()
    strips = groups.step_view(files.stage(at).shard(found).path, found, asked.steps()).strips
    if not strips:
        raise UserError(f"step {found} has no groups")
    chosen = strips[0].ticket if group is None else group
    query = {"step": str(found), "ticket": str(chosen)}
    body = render("group", Asked(asked.site, 0, at, query), partial=True, report=True, url=lambda *_, **__: "")
    part = {"key": "group", "screen": "cell", "title": "", "body": Markup(body)}
    return Shown(page([part], files, scripts=False))


def plot(run: RunFiles, file: Path) -> Path:
    """The dozen of curves of a run as a figure in a file, of the kind that its name says. Raises `UserError` without
    matplotlib, and for a file that cannot be written.
    """
    try:
        drawn = figure(curated(run.stage(run.latest).lines), run.name)
        drawn.savefig(file)
    except ImportError:
        raise UserError("--plot draws with matplotlib: pip install 'cohort[plot]'") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {str(file)!r}: {error}") from None
    return file


def figure(trends: list[Trend], title: str) -> Figure:
    """Curves as a figure. Raises `UserError` where there are none."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    if not trends:
        raise UserError("there are no numbers to plot: no two steps are done yet")
    rows = -(-len(trends) // WIDE)
    drawn = Figure(figsize=(4 * WIDE, 2.6 * rows), layout="constrained")
    drawn.suptitle(title.replace("$", r"\$"))
    for axes, one in zip(drawn.subplots(rows, WIDE, squeeze=False).flat, trends, strict=False):
        axes.plot(one.steps, one.values, color="#1f5cb0", linewidth=1.4)
        axes.set_title(one.title.replace("$", r"\$"), fontsize=10, loc="left")
        axes.grid(color="#dfe2e9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        form = written(one.unit)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _, form=form: form(value)))
    for axes in drawn.axes[len(trends) :]:
        axes.set_axis_off()
    return drawn
