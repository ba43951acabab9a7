"""The cards show what a model wrote and are not driven by it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from made_run import RECIPE, make_run

from cohort.account.making import make_record
from cohort.recipe import Recipe
from cohort.views.cards.card import card
from cohort.views.cards.page import page
from cohort.views.cards.plots import curve, intervals
from cohort.views.cards.terminal import show_record
from cohort.views.console import Console

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;owned\x07",
    "a\x00b\u202ec",
    '" onmouseover="alert(1)',
    "</div></main><!--",
    "x" * 1_000_000,
    "| a | b |\n```\n---\nlicense: mit\n---",
]


class Seen(HTMLParser):
    """The tags and attributes of a page, and whether its tags are balanced."""

    VOID = ("meta", "br", "img", "circle", "line", "polyline", "polygon")

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def record_of(run):
    return make_record(run, Recipe.load(run / "recipe.toml"))


def checked(text):
    seen = Seen()
    seen.feed(text)
    assert not seen.open
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "base"}
    assert not {name for name in seen.attributes if name.startswith("on") or name in ("src", "href")}
    assert not re.search(r"url\(|@import", text)
    assert "\x1b" not in text
    assert "\x00" not in text
    return seen


@pytest.mark.fault("HTML and scripts that a model wrote, in a run's page", "they are text, and load nothing")
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12].encode("unicode_escape").decode())
def test_what_a_model_writes_is_text_on_the_page(tmp_path, text):
    record = record_of(make_run(tmp_path, texts=(text, text)))
    made = page(record)
    checked(made)
    assert len(made) < 200_000


def test_a_plain_page_has_curves_a_group_and_every_section(tmp_path):
    made = page(record_of(make_run(tmp_path)))
    seen = checked(made)
    assert {"svg", "polyline", "table", "details"} <= seen.tags
    for heading in ("How it went", "Which GRPO exactly", "Groups to read", "Behaviour before and after", "Every fact"):
        assert heading in made


def test_what_a_person_declares_cannot_break_the_page_or_the_front_matter(tmp_path):
    evil = r'"a\n---\nlicense: evil <b> | x"'
    run = make_run(tmp_path, more=f"[record]\nowner = {evil}\nintended_use = {evil}\nlicense = {evil}\n")
    record = record_of(run)
    checked(page(record))
    from huggingface_hub import ModelCard

    assert ModelCard(card(record)).data.to_dict()["library_name"] == "transformers"


def test_the_card_has_the_front_matter_that_the_hub_reads(tmp_path):
    from huggingface_hub import ModelCard

    recipe = RECIPE.replace('source = "word_problems"', 'source = "some-org/some-data"')
    data: Any = ModelCard(card(record_of(make_run(tmp_path, recipe)))).data
    assert data.base_model == "some-org/some-model"
    assert data.base_model_relation == "finetune"
    assert data.datasets == ["some-org/some-data"]
    assert data.eval_results[0].metric_value == 1.0


def test_traces_that_are_hidden_are_not_in_the_record(tmp_path):
    texts = ("<think>secret plan</think>4", "<think>secret plan")
    run = make_run(tmp_path, texts=texts, more='[record]\ntraces = "hidden"\n')
    record = record_of(run)
    assert "secret" not in str(record["stages"])
    assert "hidden" in record["stages"][0]["samples"]["reason"]


@pytest.mark.parametrize("width", [80, 140])
def test_the_page_in_the_terminal_fits_it(tmp_path, capsys, width):
    show_record(Console(width=width), record_of(make_run(tmp_path, texts=("\x1b[2J", "x"))))
    out = capsys.readouterr().out
    assert "facts stated" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize(
    "values", [[], [1.0], [None, 1.0], [2.0, 2.0, 2.0], [0.0, 0.0], [-1e-9, 1e9], [float("nan"), 1.0, 2.0]]
)
def test_a_curve_of_any_numbers_is_drawn_or_left_out(values):
    drawn = curve("x", range(len(values)), values, "{:.3g}".format, False)
    assert "nan" not in drawn
    assert (drawn == "") == (len([v for v in values if v is not None and v == v]) < 2)


def test_intervals_are_drawn_for_each_measure():
    lines = [{"step": s, "greedy": 0.5, "greedy_low": 0.4, "greedy_high": 0.6, "pass@1": 0.4} for s in (0, 5)]
    drawn = intervals(lines, {"greedy": "greedy", "pass@1": "sampled"}, "{:.0%}".format)
    assert drawn.count("<circle") == 4
    assert intervals([], {"greedy": "greedy"}, str) == ""
