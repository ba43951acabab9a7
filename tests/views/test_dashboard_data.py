"""What the screens of the viewer show, without a server: pure functions of a run directory."""

from __future__ import annotations

import json
import math
import os
import shutil

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import RECIPE, STAGES, group, make_run

from cohort import cli
from cohort.record.metrics import MetricsLog
from cohort.record.reading import names_of, readable
from cohort.record.rollouts import read_rows, write_groups
from cohort.record.where import condition, selection
from cohort.types import UserError
from cohort.views.dashboard import curves, diagnostics, evaluation, facts, history, overview, timeline
from cohort.views.dashboard.groups import doubt, group_view, step_view
from cohort.views.dashboard.index import columns_of, search
from cohort.views.dashboard.reader import Reader
from cohort.views.dashboard.runs import RunFiles, Tail, open_runs
from cohort.views.dashboard.texts import differences, in_a_line, shown
from cohort.views.dashboard.tokens import tokens_view
from cohort.views.dashboard.trends import fixed, trend

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\x1b]0;owned\x07",
    "a\u202egnp.exe\u2066",
    "שלום 你好 👩\u200d🚀",
    "{{ 977*1019 }} {% raw %}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFiles(make_run(tmp_path_factory.mktemp("viewer")))


@pytest.fixture(scope="module")
def stage(run):
    return run.stages[0]


# --- conditions over columns

NAMES = ("reward", "length", "finish", "text", "missing")
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -1.5, 0.0]))
WORDS = st.sampled_from(["", "stop", "length", "a b"])
OPERANDS = st.one_of(st.sampled_from(NAMES), NUMBERS.map(repr), WORDS.map(repr), st.just("None"))
COMPARISONS = st.builds(
    lambda a, op, b: f"{a} {op} {b}",
    OPERANDS,
    st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "not in", "is", "is not"]),
    st.one_of(OPERANDS, st.lists(st.one_of(NUMBERS, WORDS).map(repr), max_size=3).map(lambda x: f"[{', '.join(x)}]")),
)
CONDITIONS = st.recursive(
    st.one_of(COMPARISONS, st.sampled_from(NAMES)),
    lambda inner: st.one_of(
        inner.map(lambda x: f"(not {x})"),
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=4,
)
ROWS = st.fixed_dictionaries(
    {
        "reward": st.one_of(st.none(), st.floats(-2, 2), st.just(float("nan"))),
        "length": st.integers(0, 4),
        "finish": st.one_of(st.none(), WORDS),
        "text": WORDS,
        "missing": st.none(),
    }
)


@given(CONDITIONS, st.lists(ROWS, min_size=1, max_size=5))
def test_a_condition_over_columns_holds_where_it_holds_of_the_row(text, rows):
    types = {"reward": pa.float64(), "length": pa.int32(), "finish": pa.string(), "text": pa.string()}
    types["missing"] = pa.null()
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    columns["finish"] = columns["finish"].dictionary_encode()
    holds = condition(text)
    assert selection(text)(columns).tolist() == [holds(row) for row in rows]


def test_an_unknown_name_is_said_with_what_there_is():
    with pytest.raises(UserError, match=r"no 'rewrd' \(did you mean 'reward'"):
        selection("rewrd < 1")({"reward": pa.array([1.0])})


def test_length_is_the_number_of_tokens_that_the_policy_wrote(run):
    row = read_rows(run.directory / "log/step-000001.parquet")[0]
    names = names_of(readable(row | {"mask": [True, False, True]}))
    assert names["length"] == names["tokens"] == 2


# --- files that grow, and files that are damaged


def test_numbers_are_read_on_from_where_they_were_read(tmp_path):
    log, tail = MetricsLog(tmp_path / "metrics.jsonl"), Tail(tmp_path / "metrics.jsonl")
    assert tail.read() == []
    log.write(1, {"a": 1.0})
    first = tail.read()
    with log.path.open("ab") as file:
        file.write(b'{"step": 2, "a"')
    assert [line["step"] for line in tail.read()] == [1]  # a torn line waits
    with log.path.open("ab") as file:
        file.write(b": 2.0}\n")
    assert [line["step"] for line in tail.read()] == [1, 2]
    assert tail.lines[0] is first[0]  # not read again
    log.keep_until(1)  # as a resumed run does, which replaces the file
    log.write(2, {"a": 5.0})
    assert [line["a"] for line in tail.read()] == [1.0, 5.0]
    log.path.unlink()
    assert tail.read() == []


def test_a_run_that_goes_on_shows_what_is_new(tmp_path):
    run = RunFiles(make_run(tmp_path))
    stage = run.stages[0]
    before = run.cursor
    assert len(stage.index.table(stage.shards)) == 8
    path = run.directory / "log/step-000003.parquet"
    write_groups(path, [group(9, (1.0, 0.5))], 3)
    assert run.cursor != before
    assert len(stage.index.table(stage.shards)) == 10
    write_groups(path, [group(9, (1.0, 0.5, 0.0))], 3)  # written again by a resumed run
    os.utime(path, (1, 1))
    assert len(stage.index.table(stage.shards)) == 11
    path.write_bytes(b"PAR1 torn")
    assert len(stage.index.table(stage.shards)) == 8
    with pytest.raises(UserError, match="cannot be read"):
        step_view(path, 3, [1, 2, 3])


@pytest.mark.parametrize("name", ["recipe.toml", "metrics.jsonl", "record.json", "log/chain.jsonl", "environment.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b'{"step": "x"}\n[1]\n{"st'])
def test_a_damaged_file_is_no_traceback(tmp_path, name, content):
    place = make_run(tmp_path)
    (place / name).write_bytes(content)
    run = RunFiles(place)
    for stage in run.stages:
        overview.overview(run, stage)
        timeline.timeline(stage)
        diagnostics.diagnostics(stage)
    if name == "recipe.toml" and content:
        assert run.problems


def test_a_run_that_is_deleted_while_it_is_shown(tmp_path):
    run = RunFiles(make_run(tmp_path))
    stage = run.stages[0]
    overview.overview(run, stage)
    shutil.rmtree(run.directory)
    shown = overview.overview(run, stage)
    assert "gone" in shown.state.says
    assert search(stage.index, stage.shards, text="4").hits == ()


def test_what_is_no_run_is_refused_and_runs_of_one_name_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no run"):
        RunFiles(tmp_path)
    made = [make_run(tmp_path / name) for name in ("a", "b") if (tmp_path / name).mkdir() is None]
    assert [run.name for run in open_runs([*made, made[0]])] == ["a/made", "b/made"]


def test_the_command_line_says_the_first_screen_and_writes_files(tmp_path, monkeypatch, capsys):
    place = make_run(tmp_path)

    def called(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["cohort", "view", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    code, said = called(str(place), "--tty")
    assert (code, "Nothing is certain: +100.0 points" in said) == (0, True)
    code, said = called(str(place), "--export", str(tmp_path / "report.html"))
    assert (code, (tmp_path / "report.html").stat().st_size > 100_000) == (0, True), said
    code, said = called(str(place), "--plot", str(tmp_path / "curves.svg"))
    assert (code, (tmp_path / "curves.svg").read_text().count("<svg")) == (0, 1), said
    assert called(str(place), str(place.parent), "--export", "x.html")[0] == 2
    assert called(str(tmp_path / "nothing"))[0] == 2


# --- text of a run


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_what_it_is(text):
    html = str(shown(text))
    assert "<script" not in html
    assert "<img" not in html
    assert not any(ord(c) < 32 or c in "\u202e\u2066" for c in html)


def test_marks_of_direction_are_named_and_long_texts_are_cut():
    assert 'title="right-to-left override"' in shown("\u202e")
    assert "5,000 more characters" in shown("x" * 6000, 1000)
    assert "erased" in shown(None)
    assert in_a_line("a\n  b" * 100, 10) == "a ba ba b…"


@given(st.text(max_size=60), st.text(max_size=60))
def test_differences_are_the_text_in_parts(a, b):
    parts = differences(a, b)
    assert "".join(part.text for part in parts) == a
    assert all(part.kind == "same" for part in parts) or a != b


def test_the_words_that_differ_are_marked():
    own = [part.text for part in differences("10 + 1 = 11", "10 + 1 = 12") if part.kind == "own"]
    assert own == ["11"]


# --- screens


def test_the_overview_says_first_whether_it_worked(run, stage):
    shown = overview.overview(run, stage)
    assert shown.verdict.headline == "Nothing is certain: +100.0 points"  # of two problems nothing is certain
    assert (shown.verdict.before, shown.verdict.after) == (0.0, 1.0)
    assert "2 answers" not in shown.what[0]
    assert "answered 2 prompts of word_problems 2 times each" in shown.what[1]
    assert [fact.value for fact in shown.facts[:2]] == ["2", "4.0 s"]
    assert any(setting.key == "objective.preset" for setting in shown.settings)


def test_a_sentence_says_what_a_curve_did():
    lines = [{"step": i, "reward/mean": min(1.0, i / 10), "flat": 3.0} for i in range(1, 31)]
    assert trend(lines, "reward/mean").sentence == "It rises from 0.2 to 1, most of it by step 9, as it should."
    assert trend(lines, "flat").sentence == "It is 3 in every step."
    assert trend(lines[:1], "flat") is None


def test_a_step_shows_the_groups_with_most_signal_first(stage):
    view = step_view(stage.shard(1).path, 1, [1, 2])
    assert [(one.ticket, one.disposition, one.rewards) for one in view.strips] == [
        (2, "trained", (1.0, 0.0)),
        (3, "zero_std", (0.0, 0.0)),
    ]
    assert (view.before, view.after) == (None, 2)


def test_a_group_shows_each_text_once_and_what_differs(stage):
    view = group_view(stage.shard(1).path, 1, 2, Reader(), stage.table, None)
    best, worst = view.members
    assert (best.judged, best.scores, best.parts) == ("right", (("exact_number", 1.0, ""),), ())
    assert [part.kind for part in worst.parts] == ["own"]
    same = group_view(stage.shard(1).path, 1, 3, Reader(), stage.table, None)
    assert len(same.shown) == 1
    assert same.members[0].same == (1,)
    assert (view.before, view.after) == (None, 3)
    with pytest.raises(UserError, match="no group 99"):
        group_view(stage.shard(1).path, 1, 99, Reader(), stage.table, None)


def test_tokens_have_what_is_recorded_and_say_what_is_not(stage):
    view = tokens_view(stage.shard(1).path, 1, 2, 0, Reader(), "logprob", stage.steps[0], True)
    assert [(token.id, token.numbers) for token in view.tokens] == [(5, {"logprob": -0.5, "advantage": 0.5})] * 3
    assert (view.exact, view.choices) == (False, ("logprob", "advantage"))
    assert dict(view.of_the_step)["ratio during the update"].startswith("1 for every token")


def test_tokens_that_were_computed_again_have_all_numbers(stage):
    again = {"learner": [-0.5, -0.5, None], "entropy": [0.0, 1.5, None], "after": [-0.5, -0.25, None]}
    again["clipped"] = [False, True, False]
    path = stage.shard(1).path
    view = tokens_view(path, 1, 2, 0, Reader(), "entropy", stage.steps[0], True, again)
    assert view.choices == ("logprob", "entropy", "advantage", "ratio", "gap")
    assert [token.level for token in view.tokens] == [0, 5, 0]
    assert [token.clipped for token in view.tokens] == again["clipped"]
    assert view.tokens[1].numbers["ratio"] == pytest.approx(math.exp(0.25))
    ratio = tokens_view(path, 1, 2, 0, Reader(), "ratio", stage.steps[0], True, again)
    assert [token.level for token in ratio.tokens] == [3, 6, 3]


def test_evaluation_shows_flips_first(stage):
    view = evaluation.evaluation_view(stage)
    assert (view.before, view.after, view.counts["gained"]) == (0, 2, 1)
    assert view.problems[0].change == "gained"
    assert view.paired.mean == 1.0
    assert not evaluation.evaluation_view(stage, only="lost").problems
    with pytest.raises(UserError, match="nothing was evaluated as 'x'"):
        evaluation.evaluation_view(stage, "x")


def test_the_other_screens_of_a_made_run(run, stage):
    found = diagnostics.diagnostics(stage)
    assert found.difficulty[0] == (0.0, 0.0)
    assert found.difficulty[2] == (0.5, 0.5)  # pass rates in [0.4, 0.6)
    data = history.data_view(run, stage, Reader())
    assert (data.prompts, data.asked, data.again) == (1, 4, 1)
    prompt = group(1, (1.0,)).prompt.id
    assert len(history.prompt_view(stage, prompt).groups) == 4
    assert [one.rate for one in history.prompt_view(stage, prompt).asked] == [0.0, 1.0]
    spans = timeline.timeline(stage)
    assert [row.step for row in spans.rows] == [1, 2]
    assert spans.seconds == 4.0
    view = facts.record_view(run, stage)
    assert view.mathml
    assert view.hash
    assert set(curves.glossary([stage])) >= {"Rewards", "Groups"}


def test_what_is_right_in_part_counts_as_evaluations_count_it(tmp_path):
    run = make_run(tmp_path)
    for step, score in ((0, 0.4), (2, 0.6)):
        write_groups(run / f"log/eval-{step:06d}-greedy.parquet", [group(i, (score,)) for i in range(2)], step)
    write_groups(run / "log/step-000003.parquet", [group(8, (0.6, 0.4)), group(9, (math.nan, math.nan))], 3)
    stage = RunFiles(run).stages[-1]
    view = evaluation.evaluation_view(stage)
    assert [(one.before.rate, one.after.rate, one.change) for one in view.problems] == [(0.0, 1.0, "gained")]
    assert view.paired.mean == 1.0  # as the record and `cohort eval` have it
    assert history.prompt_view(stage, view.problems[0].prompt_id).asked[1].rate == 1.0
    assert (
        diagnostics.diagnostics(stage).difficulty[2][-1] == 1.0
    )  # one of two is right; of the other group none says it
    assert history.data_view(stage.run, stage, Reader()).asked == 5


def test_two_runs_are_compared_by_recipe_and_by_answers(tmp_path):
    places = [tmp_path / name for name in ("a", "b")]
    for place in places:
        place.mkdir()
    first, second = make_run(places[0]), make_run(places[1], RECIPE.replace("seed = 3", "seed = 4"))
    write_groups(second / "log/eval-000002-greedy.parquet", [group(i, (0.0,)) for i in range(2)], 2)
    a, b = curves.together(open_runs([first, second]))
    found = curves.comparison(a, b, lambda here, there: [("clip_low", 0.2, 0.3, "It may fall further.")])
    assert {one.key: one.consequence for one in found.differences} == {"clip_low": "It may fall further.", "seed": ""}
    assert [one.change for one in found.problems] == ["lost"]
    assert curves.family(a[0]) == curves.family(b[0])  # they differ in the seed alone


def test_stages_that_learn_from_no_groups_say_what_they_did(tmp_path):
    run = RunFiles(make_run(tmp_path, STAGES))
    place = run.directory / "stages/taste"
    place.mkdir(parents=True)
    log = MetricsLog(place / "metrics.jsonl")
    for step, right in ((0, 0.5), (1, None), (2, 0.9)):
        ends = {} if right is None else {"eval/accuracy_low": right - 0.1, "eval/accuracy_high": right + 0.05}
        log.write(step, {"loss": 1.0} | ({} if right is None else {"eval/accuracy": right} | ends))
    taste, chosen = run.stages
    shown = overview.overview(run, taste)
    assert (shown.verdict.headline, shown.verdict.tone) == ("It ranks 90.0% of the held-out pairs right", "good")
    assert "do not overlap" in shown.verdict.sentences[1]
    assert "a reward model" in shown.what[1]
    (run.directory / "final").mkdir()
    selected = {"kept": 3, "sampled": 8, "refused": {"wrong": 4, "duplicate": 1}}
    (run.directory / "final/selection.json").write_text(json.dumps(selected))
    shown = overview.overview(run, chosen)
    assert shown.verdict.headline == "3 of 8 answers were kept"
    assert shown.verdict.sentences[0] == "Left out: 4 wrong, 1 duplicate."
    assert (shown.spent, shown.questions) == ((), ())
    assert [row.what for row in timeline.timeline(taste).rows[0].spans] == []


def test_a_stage_is_compared_with_its_like_and_the_others_are_named(tmp_path):
    places = [tmp_path / name for name in ("a", "b")]
    for place in places:
        place.mkdir()
    one = make_run(places[0], STAGES)
    other = make_run(places[1], STAGES.replace('name = "taste"', 'name = "liking"').replace("0.1", "0.2"))
    first, second = curves.together(open_runs([one, other]), open_runs([one])[0].stages[0])
    assert (first[1].name, second[1].name) == ("taste", "liking")
    found = curves.comparison(first, second)
    assert [(row.key, row.here, row.there) for row in found.differences] == [("task.held_out", "0.1", "0.2")]
    assert found.others == ()


def test_an_answer_that_is_judged_against_what_it_says_is_doubted():
    assert doubt("12.0", "12", "wrong") == "the gold answer, and judged wrong"
    assert doubt("13", "12", "right") == "another number than the gold answer, and judged right"
    assert [doubt(*one) for one in (("12", "12", "right"), ("x", "12", "right"), (None, "12", "wrong"))] == ["", "", ""]


def test_numbers_stand_below_each_other():
    assert [fixed(value) for value in (0.5, -0.0, -0.0001, None, math.nan)] == ["0.500", "0.000", "0.000", "-", "-"]
    assert fixed(1.25, 1, "+") == "+1.2"


# --- search


def test_search_finds_texts_expressions_and_conditions(stage):
    def found(**asked):
        return [(hit.step, hit.ticket, hit.member) for hit in search(stage.index, stage.shards, **asked).hits]

    assert found(where="reward > 0.5") == [(2, 4, 0), (1, 2, 0)]
    assert found(where="exact_number == 1 and length == 3") == [(2, 4, 0), (1, 2, 0)]
    assert found(text="5") == [(2, 4, 1), (1, 2, 1)]
    assert found(text=r"^[5]$", is_regex=True) == [(2, 4, 1), (1, 2, 1)]
    assert found(text=r"(?<!4)5", is_regex=True) == [(2, 4, 1), (1, 2, 1)]  # RE2 has no look-behind
    assert found(where='"5" in text and step < 2') == [(1, 2, 1)]
    assert found(text="5", where="reward > 0.5") == []
    with pytest.raises(UserError, match="no regular expression"):
        found(text="(", is_regex=True)
    with pytest.raises(UserError, match="rollouts have no 'nam'"):
        found(where="nam == 1")


def test_an_expression_without_end_is_given_up(tmp_path):
    run = RunFiles(make_run(tmp_path, texts=("a" * 40 + "!", "5")))
    stage = run.stages[0]
    stage.index.table(stage.shards)
    found = search(stage.index, stage.shards, text=r"^(a+)+(?=b)$", is_regex=True, seconds=0.2)
    assert found.hits == ()
    assert found.seconds < 60  # and not for as long as the expression has ways


def test_every_name_of_a_recorded_row_can_be_searched_for(stage):
    rows = [names_of(readable(row)) for row in read_rows(stage.shard(1).path)]
    late = {"prompt", "answer", "text", "error", "prompt_tokens", "turns"}
    assert set(rows[0]) - late == set(columns_of(stage.index.table(stage.shards)))


def test_hostile_mathematics_stays_text():
    assert facts.typeset(r"\text{<script>alert(1)</script>}") == ()
    rows = facts.typeset(r"\begin{aligned} A &= \frac{1}{2} \\ &\text{all} \end{aligned}")
    assert [row.startswith("<math") for row in rows] == [True, True]
