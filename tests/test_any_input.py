"""What strangers may write, drawn at random: read, or refused with a sentence, and never another error.

Tried: recipes that are any text or bytes, and a shipped one with a piece taken out or replaced; data files of every
format with any bytes in them, and rows of any JSON; completions of any text for what extracts answers; any bytes on the
channel from a worker.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort.environments import FORMATS
from cohort.recipe import Recipe
from cohort.rewards.verifiers.final_answer import final_answer, last_number_of
from cohort.rewards.verifiers.number import parse_number
from cohort.rewards.workers.channel import receive
from cohort.settings import Task
from cohort.tasks import open_prompts
from cohort.tasks.sources.files import _DECODER, json_line
from cohort.types import UserError

QUICKSTART = (Path(__file__).parent.parent / "recipes/quickstart.toml").read_text("utf-8")
CORPUS = json.loads((Path(__file__).parent / "corpus.json").read_text("utf-8"))  # what was hard once, by its reader
few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
odd = st.sampled_from(
    ["", "[", "]", "=", '"', "'''", "\0", "\x1b[2J", "nan", "-1", "1e400", "[[stage]]", "é", "../x", "{"]
)
texts = st.text(max_size=60) | st.lists(odd, max_size=8).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
lines = st.lists(values, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())


def only_sentences(error: UserError) -> None:
    assert str(error).strip()
    assert "Traceback" not in str(error)
    str(error).encode("utf-8", "surrogateescape")


@few
@given(texts.map(str.encode) | st.binary(max_size=60))
def test_any_bytes_are_no_recipe_or_one(tmp_path, content):
    file = tmp_path / "recipe.toml"
    file.write_bytes(content)
    with contextlib.suppress(UserError):
        Recipe.load(file)


@few
@given(st.integers(0, len(QUICKSTART)), st.integers(0, 40), st.integers(0, len(QUICKSTART)), odd)
def test_a_recipe_with_a_piece_replaced_is_one_or_refused(tmp_path, at, length, other, piece):
    file = tmp_path / "recipe.toml"
    file.write_text(QUICKSTART[:at] + piece + QUICKSTART[other : other + 9] + QUICKSTART[at + length :], "utf-8")
    try:
        Recipe.load(file)
    except UserError as error:
        only_sentences(error)


def strictly(line):
    try:
        return _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return UserError


rows_of_json = st.dictionaries(st.text(max_size=4), values, max_size=4)


@few
@given(
    st.binary(max_size=40)
    | rows_of_json.map(lambda row: json.dumps(row).encode())
    | rows_of_json.map(lambda row: json.dumps(row, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))
    | st.sampled_from(CORPUS["line of data"]).map(str.encode)
)
def test_the_fast_reader_of_lines_reads_what_the_strict_one_does(line):
    wanted = strictly(line)
    if not isinstance(wanted, dict):
        with pytest.raises(UserError):
            json_line(line, "a.jsonl", 1)
    else:
        assert repr(json_line(line, "a.jsonl", 1)) == repr(wanted)


@pytest.mark.fault("data files of any bytes", "they are rows, or refused with their place")
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz"])
@few
@given(content=st.binary(max_size=60) | texts.map(str.encode) | lines)
def test_any_bytes_are_rows_or_refused_with_their_place(tmp_path, ending, content):
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(content)
    try:
        list(itertools.islice(open_prompts(Task(source=str(file), prompt="a", answer="b"), 0).rows(), 4))
    except UserError as error:
        only_sentences(error)


@few
@given(texts | st.text(alphabet="\\boxed{}<answer>/$0123456789., ", max_size=80))
def test_any_completion_is_read_for_its_answer(text):
    for found in (final_answer(text), last_number_of(text)):
        assert found is None or isinstance(found, str)
    parse_number(text)


@pytest.mark.fault("any bytes from a worker", "a message, or its end")
@few
@given(st.binary(max_size=40))
def test_any_bytes_on_the_channel_are_a_message_or_its_end(content):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(EOFError, OSError):
            assert receive(ours, time.monotonic() + 30) in content


@pytest.mark.fault("what was hard to read once, kept in `tests/corpus.json`", "it is read, or refused with a sentence")
def test_what_is_kept_in_the_corpus_is_read_or_refused(tmp_path):
    recipe, rows = tmp_path / "recipe.toml", tmp_path / "rows.jsonl"
    for text in CORPUS["recipe"]:
        recipe.write_text(text, "utf-8", "surrogatepass")
        with contextlib.suppress(UserError):
            Recipe.load(recipe)
    for text in CORPUS["line of data"]:
        rows.write_text(text, "utf-8", "surrogatepass")
        with contextlib.suppress(UserError):
            open_prompts(Task(source=str(rows), prompt="a"), 0)
    for text in CORPUS["completion"]:
        final_answer(text), last_number_of(text), parse_number(text)
    for text, form in itertools.product(CORPUS["call"], FORMATS.values()):
        assert all(call.problem or call.name for call in form.calls(text))
    for text in CORPUS["message"]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(text.encode("latin-1"))
            theirs.shutdown(socket.SHUT_WR)
            with contextlib.suppress(EOFError, OSError):
                assert receive(ours, time.monotonic() + 30) in text.encode("latin-1")
