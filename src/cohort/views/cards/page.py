"""card.html: one page that needs nothing else: no script, no address, its plots drawn inside. All text is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from cohort.account.fields import title_of
from cohort.monitor.names import metric
from cohort.views.cards.plots import curve, intervals, shares
from cohort.views.cards.reading import (
    DIFFERENCES,
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
    facts,
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
from cohort.wording import visible

_CURVES: dict[str, tuple[str, Callable[[float], str], bool]] = {  # name -> title, how it is written, whether from 0
    "reward/mean": ("Reward", "{:.3g}".format, False),
    "groups/signal": ("Groups with signal", "{:.0%}".format, True),
    "completions/mean_tokens": ("Length", "{:.3g}".format, True),
    "policy/entropy": ("Entropy", "{:.3g}".format, True),
    "policy/kl": ("KL to the reference", "{:.3g}".format, True),
    "loss": ("Loss", "{:.3g}".format, True),
}


def page(record: Record) -> str:
    """The page of a run: its last stage in full, and every fact of all of them."""
    index = len(record["stages"]) - 1
    stage = record["stages"][index]
    style = (files("cohort.views.cards") / "page.css").read_text("utf-8")
    parts = [
        *_heading(record, stage, index),
        *_gains(record),
        *_curves(stage),
        *_objective(stage),
        *_rewards(stage),
        *_work(stage),
        *_groups(stage),
        *_behaviour(stage),
        *_facts(record),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_t(record['name'])}</title><style>{style}</style></head><body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _heading(record: Record, stage: Record, index: int) -> Iterator[str]:
    yield f"<h1>{_t(record['name'])}</h1>"
    line = inside(stage, "objective.loss", "line")
    chain = " &rarr; ".join(f"{_t(one['name'])} ({_t(one['kind'])})" for one in record["stages"])
    unfinished = inside(record["run"], "identity.outcome", "finished") is False
    yield (
        f'<p class="lead">Trained from {_t(base_in_words(record, index))}{f" with {_t(line)}" if line else ""}. '
        f"{'Stages: ' + chain + '. ' if len(record['stages']) > 1 else ''}"
        f"{'<b>The run is not finished: this is how far it has come.</b>' if unfinished else ''}</p>"
    )
    yield f'<div class="tiles">{"".join(_tiles(stage))}</div>'
    done = record["completeness"]
    yield f'<div class="meter"><span style="width:{100 * done["share"]:.1f}%"></span></div>'
    yield f'<p class="note">{_t(in_a_line(record))}.</p>'


def _tiles(stage: Record) -> Iterator[str]:
    performance = value(stage, "behaviour.performance")
    for name in measures(performance):
        before, after = (performance.get(when, {}).get(name) for when in ("before", "after"))
        sure = performance.get("difference", {}).get(DIFFERENCES.get(name, ""), {})
        way = "up" if sure.get("low", 0) > 0 else "down" if sure.get("high", 0) < 0 else ""  # else it may be chance
        arrow = f"{percent(before)} &rarr; " if before is not None else ""
        low, high = (performance["after"].get(f"{name}_{end}") for end in ("low", "high"))
        change = difference(performance, name)
        more = f"change {change}" if change != "-" else f"95%: {percent(low)} to {percent(high)}"
        yield _tile(f'{arrow}<em class="{way}" style="font-style:normal">{percent(after)}</em>',
            f"held-out accuracy, {MEASURES[name]}", more)  # fmt: skip
    budget, tally = value(stage, "compute.budget") or {}, value(stage, "data.rejected") or {}
    if budget:
        yield _tile(_t(amount(int(budget["steps"]))), "training steps", f"in {seconds(budget.get('seconds'))}")
    if rollouts := sum(tally.get("rollouts", {}).values()):
        yield _tile(_t(amount(rollouts)), "completions", f"{amount(budget.get('tokens_sampled'))} tokens, all kept")
    if flops := inside(stage, "compute.operations", "total"):
        share = f"{amount(inside(stage, 'policies.trained', 'parameters'))} parameters"
        yield _tile(_t(amount(flops)), "floating-point operations", share)


def _tile(number: str, what: str, more: str) -> str:
    return f'<div class="tile"><b>{number}</b><span>{_t(what)}</span><small>{_t(more)}</small></div>'


def _gains(record: Record) -> Iterator[str]:
    rows = gains_of(record)
    if len(rows) > 1:
        yield "<h2>What each stage gained</h2>"
        yield _table(tuple(map(_t, GAINS)), [list(map(_t, gain_cells(row))) for row in rows])


def _curves(stage: Record) -> Iterator[str]:
    series = stage.get("series", {})
    steps, found = series.get("steps", []), []
    evaluations = series.get("evaluations", [])
    names = {name: label for name, label in MEASURES.items() if any(name in one for one in evaluations)}
    if len(evaluations) > 1 and (drawn := intervals(evaluations, names, "{:.0%}".format)):
        keys = "".join(f'<i class="key s{n}"></i>{_t(label)}' for n, label in enumerate(names.values()))
        found.append(
            f"<figure><figcaption>Held-out accuracy <span>95% intervals{keys}</span></figcaption>{drawn}</figure>"
        )
    for name, (title, form, floor) in _CURVES.items():
        if name in series and (drawn := curve(title, steps, series[name], form, floor)):
            known = metric(name)
            says = known.meaning.split(" over ")[0].rstrip(".") if known else name
            found.append(f"<figure><figcaption>{_t(title)} <span>{_t(says)}</span></figcaption>{drawn}</figure>")
    if found:
        yield "<h2>How it went</h2>"
        yield f'<div class="plots">{"".join(found)}</div>'


def _objective(stage: Record) -> Iterator[str]:
    found = value(stage, "objective.loss")
    if not found:
        return
    sampling = value(stage, "sampling.distribution") or {}
    yield "<h2>Which GRPO exactly</h2>"
    yield f"<pre>{_t(found['equation'])}</pre>"
    yield (
        f'<p class="note">Groups of {_t(value(stage, "sampling.group_size"))} at temperature '
        f"{_t(sampling.get('temperature'))}, at most {_t(sampling.get('max_tokens'))} tokens. Objective hash "
        f"<code>{_t(found['hash'][:16])}</code>.</p>"
    )
    yield _table(("choice", "what it does"), [(f"<code>{_t(k)}</code>", _t(v)) for k, v in found["choices"].items()])


def _rewards(stage: Record) -> Iterator[str]:
    rows = value(stage, "rewards.sources")
    if not rows:
        return
    yield "<h2>What was rewarded</h2>"
    cells = [
        (
            _t(row["name"]),
            _t(f"{row.get('weight', 1):g}"),
            _t(row["kind"] or "own code"),
            _t(row["domain"] or "not said"),
        )
        for row in rows
    ]
    yield _table(("reward", "weight", "kind", "domain"), cells, narrow=True)
    gate, names, paid = paid_before(stage)
    if paid:
        yield (
            f'<p class="note" style="margin-top:14px">What each paid before training, on average over '
            f"{_t(gate['prompts'])} prompts; a text that knows nothing of the question should be paid nothing:</p>"
        )
        yield _table(("text", *map(_t, names)), [(_t(kind), *means) for kind, *means in paid], narrow=True)
    brittle = claim(stage, "rewards.brittle")
    yield f'<p class="note" style="margin-top:14px">{_t(title_of("rewards.brittle"))}: {_known(brittle)}</p>'


def _work(stage: Record) -> Iterator[str]:
    spent = value(stage, "compute.spent")
    if not spent:
        return
    yield "<h2>Where the work went</h2>"
    for unit in ("tokens", "seconds"):
        total = sum(spent[unit].values())
        whole = amount(int(total)) + " tokens sampled" if unit == "tokens" else seconds(total)
        yield f'<p class="note" style="margin:12px 0 6px">{_t(whole)}</p>'
        yield shares([(word, spent[unit].get(key, 0)) for key, word in OUTCOMES.items()])


def _groups(stage: Record) -> Iterator[str]:
    found = stage.get("samples", {})
    if not found.get("value"):
        return
    yield "<h2>Groups to read</h2>"
    yield (
        '<p class="note">Of the first, the middle and the last step: the group whose rewards differ most, its best and '
        "its worst answers. Each square is one completion, greener where it was paid more. "
        f"{_t(found.get('reason') or '')}</p>"
    )
    yield from map(_group, found["value"])


def _group(group: Record) -> str:
    rewards = [r for r in group["rewards"] if r is not None]
    low, high = min(rewards, default=0), max(rewards, default=1)
    squares = "".join(f'<i style="--r:{(r - low) / ((high - low) or 1):.2f}" title="{r:.3g}"></i>' for r in rewards)
    answers = "".join(map(_answer, group["members"]))
    gold = f'<div class="gold">gold answer: {_t(group["answer"])}</div>' if group["answer"] is not None else ""
    return (
        f'<div class="group"><h3>Step {_t(group["step"])}, mean reward {sum(rewards) / max(len(rewards), 1):.3g}</h3>'
        f'<div class="ask">{_t(group["prompt"] if group["prompt"] is not None else "(erased)")}</div>{gold}'
        f'<div class="dots">{squares}</div><div class="answers">{answers}</div></div>'
    )


def _answer(member: Record) -> str:
    advantage = member["advantage"]
    way = "" if not advantage else "plus" if advantage > 0 else "minus"
    parts = [f"reward {member['reward']:.3g}", *([] if advantage is None else [f"advantage {advantage:+.2f}"])]
    parts += [f"{member['tokens']} tokens", *(["cut off"] if member["finish"] == "length" else [])]
    text = member["text"] if member["text"] is not None else "(erased)"
    return f'<div class="answer {way}"><header>{_t(", ".join(parts))}</header><div>{_t(text.strip())}</div></div>'


def _behaviour(stage: Record) -> Iterator[str]:
    names = stage.get("behaviour", {})
    if len(names) < 2:
        return
    yield "<h2>Behaviour before and after</h2>"
    performance = value(stage, "behaviour.performance")
    rows = []
    for name, one in names.items():
        title = title_of(f"behaviour.{name}").removesuffix(", before and after")
        known = _known(one)
        if name == "performance" and measures(performance):
            known = "<br>".join(
                f"{_t(MEASURES[m])}: "
                + " &rarr; ".join(_t(accuracy(performance.get(w), m)) for w in ("before", "after"))
                for m in measures(performance)
            )
            known += "".join(f"<br>{_t(more)}" for more in beside(performance))
        rows.append((_t(title), _chip(one["status"]), known))
    yield _table(("", "status", "what is known"), rows)


def _facts(record: Record) -> Iterator[str]:
    yield "<h2>Every fact, and what it rests on</h2>"
    yield (
        '<p class="note">Measured: the run measured it. Derived: it follows from what the run holds. Declared: a '
        "person says so. Imported: another tool found it. The files named are those of the run, with their SHA-256.</p>"
    )
    yield '<div class="facts">'
    parts = [("the run", record["run"]), *((f"stage {stage['name']}", stage) for stage in record["stages"])]
    for what, part in parts:
        rows = [one for one in facts(part) if one[:2] != ("identity", "recipe")]
        stated = sum(one["value"] is not None for *_, one in rows)
        yield f"<details><summary>{_t(what)} <span>{stated} of {len(rows)}</span></summary>"
        cells = [
            (_t(title_of(f"{section}.{name}")), _t(one["basis"]), _chip(one["status"]), _known(one) + _evidence(one))
            for section, name, one in rows
        ]
        yield _table(("", "basis", "status", ""), cells) + "</details>"
    recipe = value(record["run"], "identity.recipe")
    if recipe:
        yield f"<details><summary>the recipe</summary><pre>{_t(recipe)}</pre></details>"
    yield "</div>"
    yield (
        f"<footer>Made from record.json of {_t(record['written']['at'])}, Cohort {_t(record['written']['cohort'])}. "
        "<code>cohort record verify RUN</code> checks the files behind it.</footer>"
    )


def _known(found: Record) -> str:
    if found["value"] is None:
        return f'<span class="empty">{_t(found["reason"] or "not known")}</span>'
    return _t(said(found["value"]))


def _evidence(found: Record) -> str:
    named = "; ".join(f"{one['path']} {str(one.get('sha256', ''))[:12]}" for one in found["evidence"][:3])
    return f"<br><code>{_t(named)}</code>" if named else ""


def _chip(status: str) -> str:
    return f'<span class="chip {_t(status)}">{_t(status.replace("_", " "))}</span>'


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], narrow: bool = False) -> str:
    """A table whose cells are HTML already. `narrow`: no wider than what is in it."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    last = len(headings) - 1
    body = "".join(
        "<tr>" + "".join(f"<td{' class=wide' if i == last else ''}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table{' class=narrow' if narrow else ''}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _t(text: Any) -> str:
    """Text that HTML takes as text: escaped, and with what a reader cannot see made visible."""
    return escape(visible(str(text)))
