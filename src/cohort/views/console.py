"""What a person sees while a run runs: the plan, one live line, a group from time to time, a table at the end."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape as escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from cohort.account.traces import as_shown
from cohort.monitor.names import HALVES, Metric, metric
from cohort.rewards.verifiers.trace import OPEN
from cohort.types import Group as CompletionGroup
from cohort.types import Prompt, Rollout
from cohort.views.output import Output
from cohort.views.traces import need_of_traces
from cohort.wording import visible

LINES = 20  # of a stage that stay
WHERE_ANY = ("policy/kl",)  # numbers that are shown only in runs that have them
LONGEST = 16  # lines of a text of a group
ENDLESS = 10_000  # columns of a line that is not to be broken
WIDE = 100  # columns from which a terminal has room


class StepView:
    """The numbers of one stage: live below a bar on a terminal, and a line every few steps that stays, there too."""

    def __init__(
        self, console: RichConsole, columns: Sequence[str], total: int, done: int, show: Callable[[str], None]
    ):
        self._console, self._columns, self._total, self._show = console, columns, total, show
        self._lines_at = max(1, total // LINES)
        self._began, self._first = time.monotonic(), done
        self._live: Live | None = None
        if console.is_terminal:
            self._progress = Progress(
                BarColumn(24 if console.width >= WIDE else 10),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("[dim]{task.fields[doing]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
                console=console,
            )
            self._task = self._progress.add_task("", total=total, completed=done, doing="")
            self._numbers = Text("")
            # Lines of their own, so that the numbers never push the bar and its ETA out of a narrow terminal.
            lines = Padding(Group(self._progress, self._numbers), (0, 0, 0, 2))
            self._live = Live(lines, console=console, transient=True, refresh_per_second=8)
            self._live.start()

    def doing(self, what: str) -> None:
        """What happens inside the step, e.g. `sampling 5/16`."""
        if self._live is not None:
            self._progress.update(self._task, doing=escape(visible(what)))

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One step is done."""
        numbers = [visible(number) for number in _numbers(self._columns, metrics)]
        stays = step % self._lines_at == 0 or step == self._total
        place = f"{step:>{len(str(self._total))}}/{self._total}"
        if self._live is not None:
            self._progress.update(self._task, completed=step, doing="")
            self._numbers.plain = _folded(numbers, self._console.width - 2)
            if stays:
                self._show("  " + _folded([place, *numbers], self._console.width - 2, 4))
        elif stays:
            each = (time.monotonic() - self._began) / max(step - self._first, 1)
            left = time.strftime("%H:%M:%S", time.gmtime(each * (self._total - step)))
            self._show("  ".join(["", place, f"left {left}", *numbers]))

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()


def _numbers(columns: Sequence[str], metrics: Mapping[str, Any]) -> Iterator[str]:
    """`reward  0.250`, the numbers of these columns. A column with {} stands for the parts of a number, which are shown
    where there are several.
    """
    for column in columns:
        names = [column] if column in metrics and not (column in WHERE_ANY and math.isnan(metrics[column])) else []
        if "{}" in column:
            head, _, tail = column.partition("{}")
            names = [name for name in metrics if (known := metric(name)) is not None and known.name == column]
            names = names if len(names) > 1 else []
        for name in names:
            known = metric(name) or Metric(name, "", "")
            heading = name[len(head) : len(name) - len(tail)] if "{}" in column else known.heading or name
            yield f"{heading} {known.form.format(metrics[name]).replace('nan', '  -')}"


def _folded(parts: Sequence[str], width: int, indent: int = 0) -> str:
    """The parts side by side, as many as a line of this width takes, further lines set in; no part is broken."""
    lines = [""]
    for part in parts:
        if lines[-1].strip() and len(lines[-1]) + 2 + len(part) > width:
            lines.append(" " * indent)
        lines[-1] += part if not lines[-1].strip() else f"  {part}"
    return "\n".join(lines)


class Console:
    """Everything that is printed goes through here, and is made `visible`: what a model, a reward or a file has written
    must not drive the terminal. `quiet` prints nothing.
    """

    def __init__(self, quiet: bool = False, file: IO[str] | None = None, width: int | None = None):
        self._rich = RichConsole(quiet=quiet, file=cast("IO[str]", Output(file)), width=width, highlight=False)
        if width is None and not self._rich.is_terminal:
            self._rich.width = 120  # a log file has no width; 80 columns would break most lines
        self._view: StepView | None = None

    def say(self, text: str = "", fold: bool = True) -> None:
        """A line, in rich's markup; with `fold` it is folded at the terminal's end, below its beginning."""
        text = visible(text)
        line = text.lstrip("\n")
        bare = line.lstrip(" ")
        if not fold or bare == line or "\n" in bare:
            self._show(text, fold)
        else:
            self._show(Padding(bare, (len(text) - len(line), 0, 0, len(line) - len(bare)), expand=False))

    def _show(self, what: RenderableType, fold: bool = True) -> None:
        """Print it; in a file or a pipe without the blanks that a terminal does not show."""
        if self._rich.quiet:  # which lays everything out before it prints nothing
            return
        if self._rich.is_terminal:
            self._rich.print(what, soft_wrap=not fold)
            return
        with self._rich.capture() as written:
            self._rich.print(what, soft_wrap=not fold)
        self._rich.out("\n".join(line.rstrip(" ") for line in written.get().split("\n")), end="", highlight=False)

    def plain(self, text: str) -> None:
        """Text without a line's end of its own: no markup, nothing folded; in a file or a pipe as it is."""
        self._rich.out(visible(text) if self._rich.is_terminal else text, end="", highlight=False)

    def warn(self, text: str) -> None:
        """A line that should not be missed."""
        self.marked("[yellow]note[/]", text, indent=0)

    def marked(self, word: str, text: str, indent: int = 2) -> None:
        """A word of at most four letters, in markup, and a text that is folded beside it."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, width=4)
        grid.add_column(overflow="fold")
        grid.add_row(word, escape(visible(text)))
        self._show(Padding(grid, (0, 0, 0, indent), expand=False))

    def plan(self, title: str, lines: Mapping[str, str]) -> None:
        """What the stage is about to do."""
        self.say(f"\n[bold]{escape(title)}[/]")
        self.lines(lines)
        self.say()

    def lines(self, lines: Mapping[str, str], indent: int = 2, whole: bool = False, ends: bool = False) -> None:
        """Names and texts, the texts folded beside their names; `whole` ones not in a file or a pipe. With `ends` the
        names have a colon each, and end together.
        """
        width = max((len(name) + ends for name in lines), default=0)
        table = Table.grid(padding=(0, 1 if ends else 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in lines.items():
            aligned = escape(visible(f"{name}:".rjust(width) if ends else name.ljust(width)))
            if whole and not self._rich.is_terminal:
                self.say(f"{' ' * indent}{aligned}{' ' if ends else '  '}{escape(text)}", fold=False)
            else:
                table.add_row(aligned, escape(visible(text)))
        if table.row_count:
            self._show(Padding(table, (0, 0, 0, indent), expand=False))

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
        """A table in rich's markup: the first `left` columns begin at the left, the others end at the right."""
        self._show(Padding(_table(headings, rows, left), (0, 0, 1, 2), expand=False))

    def _has_room(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
        """Whether a table fits without a broken cell."""
        wanted = Measurement.get(self._rich, self._rich.options.update(width=ENDLESS), _table(headings, rows)).maximum
        return wanted + 2 <= self._rich.width

    @contextlib.contextmanager
    def steps(self, columns: Sequence[str], total: int, done: int) -> Iterator[StepView]:
        """The live line of a stage, with the metrics of these names, for as long as the context lasts."""
        self._view = StepView(self._rich, columns, total, done, lambda text: self.say(escape(text), fold=False))
        try:
            yield self._view
        finally:
            self._view.stop()
            self._view = None

    def doing(self, what: str) -> None:
        """What happens inside the step, on the live line if there is one."""
        if self._view is not None:
            self._view.doing(what)

    def group(self, step: int, group: CompletionGroup, traces: str | None = None) -> None:
        """One sampled group: its best and its worst member, so that one sees what the reward sees. Where nothing is
        paid, its first and its last one, and what the teacher thinks of them. `traces` as [record] says.
        """
        paid = not all(map(math.isnan, group.rewards))
        order = sorted(range(len(group.rollouts)), key=lambda i: (math.isnan(group.rewards[i]), -group.rewards[i]))
        rewards = f"  rewards {' '.join(f'{group.rewards[i]:.3g}' for i in order)}" if paid else ""
        self.say(f"\n  [bold]a group of step {step}[/]{rewards}")
        lines = {"question": _short(group.prompt.question, 400)}
        if group.prompt.answer is not None:
            lines["gold"] = _short(str(group.prompt.answer), 80)
        for label, i in (("best" if paid else "first", order[0]), ("worst" if paid else "last", order[-1])):
            advantage = f", advantage {group.advantages[i]:+.2f}" if paid and group.advantages else ""
            said = [f"{group.rewards[i]:.3g}{advantage}"] if paid else _by_teacher(group, i)
            lines[label] = "\n".join([*said, excerpt(group.rollouts[i], traces, group.prompt)])
        self.lines(lines, indent=4)
        self.say()

    def evaluated(self, label: str, metrics: Mapping[str, Any], verifier: str = "") -> None:
        """What an evaluation measured, in a line, when it is made; nothing where there is nothing to say."""
        parts = [f"{name} {text}" for name, text in _measured(metrics).items()]
        if not parts:
            return
        by = f" by {verifier}" if verifier else ""
        width = self._rich.width - 2 if self._rich.is_terminal else sys.maxsize
        self.say("  " + escape(_folded([f"{label}: held-out{by}", *parts], width, 4)), fold=False)
        self._traces(label, metrics)

    def _traces(self, label: str, metrics: Mapping[str, Any]) -> None:
        """Whether the answers of an evaluation need their traces, where that was measured."""
        if said := need_of_traces(metrics):
            self.say(escape(f"  {label}: {said}"))

    def all_evaluated(self, label: str, metrics: Mapping[str, Any], verifier: str) -> None:
        """A line for the held-out problems, and one for each suite."""
        self.evaluated(label, metrics, verifier)
        names = dict.fromkeys(key.split("/")[1] for key in metrics if key.startswith("eval/") and key.count("/") == 2)
        for name in (name for name in names if name not in HALVES):
            own = {key.replace(f"/{name}/", "/"): value for key, value in metrics.items() if f"eval/{name}/" in key}
            self.evaluated(f"{label}, {name}", own)

    def evaluations(self, rows: Sequence[tuple[str, Mapping[str, Any]]], verifier: str) -> None:
        """Held-out accuracy by `verifier`, a row (label, metrics) for each of those that have an accuracy; a table
        where there is room for one, and a blank line.
        """
        rows = [row for row in rows if "eval/greedy" in row[1] or "eval/pass@1" in row[1]]
        measured = [(label, _measured(m)) for label, m in rows]
        headings = ["", *dict.fromkeys(name for _, of in measured for name in of)]
        cells = [[escape(label), *(of.get(name, "") for name in headings[1:])] for label, of in measured]
        if rows and self._has_room(headings, cells):
            self.say(f"\n  held-out accuracy by {escape(verifier)}, with 95% intervals")
            self.table(headings, cells)
            for label, m in rows:
                self._traces(label, m)
            return
        for label, m in rows:
            self.evaluated(label, m, verifier)
        self.say()

    def saved(self, what: str, path: Path) -> None:
        """Where something is."""
        self.say(f"  {what:<12} {escape(str(path))}", fold=False)


def show_recipe(console: Console, recipe: str, said: Mapping[str, Sequence[str]]) -> None:
    """A recipe on standard output, for a file; on standard error what is `said` of it, by words of four letters."""
    console.plain(recipe)
    words = Console(file=sys.stderr)
    for word, texts in said.items():
        for text in texts:
            words.marked(word, text)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    table = Table(box=None)
    for number, heading in enumerate(headings):
        table.add_column(visible(heading), justify="left" if number < left else "right")
    for row in rows:
        table.add_row(*map(visible, row))
    return table


def _measured(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What an evaluation says of accuracy, by the headings of its numbers; nothing where it says nothing."""
    names = {"greedy": "eval/greedy", "sampled": "eval/pass@1", "right": "eval/accuracy"}
    found = {heading: with_interval(metrics, name) for heading, name in names.items() if name in metrics}
    more = {f"pass@{k}": (f"eval/pass@{k}", "{:.1%}") for k in [_most(metrics)] if k > 1}
    more |= {"tokens": ("eval/mean_tokens", "{:.1f}"), "cut off": ("eval/truncated", "{:.1%}")}
    beside = {heading: form.format(metrics[name]) for heading, (name, form) in more.items() if name in metrics}
    return found and found | beside


def with_interval(metrics: Mapping[str, Any], key: str) -> str:
    """`36.6% [32.5%, 40.9%]`; nothing where there is no such metric."""
    return f"{metrics[key]:.1%} [{metrics[key + '_low']:.1%}, {metrics[key + '_high']:.1%}]" if key in metrics else ""


def excerpt(rollout: Rollout, traces: str | None, prompt: Prompt) -> str:
    """Enough of a completion or a conversation to see what it is, with its line breaks."""
    said = (  # what the policy wrote, and between its turns what it was told
        as_shown(message["content"], traces, OPEN in prompt.begun)
        if message["role"] == "assistant"
        else f" => {message['content']} "
        for message in rollout.transcript
    )
    return _short("".join(said), 400)


def _most(metrics: Mapping[str, Any]) -> int:
    """The largest k of the pass@k that were measured; 1 where there is none."""
    return max((int(k[10:]) for k in metrics if k.startswith("eval/pass@") and k[10:].isdigit()), default=1)


def _by_teacher(group: CompletionGroup, member: int) -> list[str]:
    """How much likelier a teacher finds a member than the policy does; nothing where no teacher spoke."""
    if not group.teacher_logprobs:
        return []
    pairs = zip(group.teacher_logprobs[member], group.rollouts[member].logprobs, strict=True)
    known = [teacher - own for teacher, own in pairs if not math.isnan(teacher)]
    return [f"{math.fsum(known) / len(known):+.2f} nats a token by the teacher"] if known else []


def _short(text: str, limit: int) -> str:
    """The text with its line breaks, cut after so many characters or so many lines."""
    lines = visible(text).strip().splitlines()
    whole = "\n".join(line.rstrip() for line in lines[:LONGEST])
    cut = len(whole) > limit or len(lines) > LONGEST
    return f"{whole[: limit - 4].rstrip()} ..." if cut else whole
