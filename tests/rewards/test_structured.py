"""JSON against a JSON Schema: what fits, what does not, and hostile answers and schemas."""

import json

import pytest
from hostile import EMPTY, LARGE

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.guarded import end_guards
from cohort.rewards.verifiers.structured.structured import check_schema, json_schema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "mail": {"type": "string", "format": "email"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    end_guards()


def judged(text, schema=PERSON, **options):
    scored = json_schema(text, {}, schema, **options)
    return scored.value, scored.label


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada", "age": 36}',
        ' {"age": 36, "name": "Ada", "mail": "ada@example.org"}\n',
        '```json\n{"name": "Ada", "age": 36}\n```',
        '```\n{"name": "Ada", "age": 36}\n```',
        '<think> {"name": 1} </think><answer>{"name": "Ada", "age": 36}</answer>',
        '<answer>\n```json\n{"name": "Ada", "age": 36}\n```\n</answer>',
    ],
)
def test_what_fits_pays(text):
    assert judged(text) == (1, "valid")
    assert judged(text, json.dumps(PERSON)) == (1, "valid")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"name": "Ada"}', "invalid"),
        ('{"name": "Ada", "age": "36"}', "invalid"),
        ('{"name": "Ada", "age": 36, "more": 1}', "invalid"),
        ('{"name": "Ada", "age": -1}', "invalid"),
        ('{"name": "Ada", "age": 36, "mail": "nobody"}', "invalid"),
        ('["name", "age"]', "invalid"),
        ("null", "invalid"),
        ('{"name": "Ada", "age": 36, "age": 36}', "not_json"),
        ('{"name": "Ada", "age": NaN}', "not_json"),
        ('{"name": "Ada", "age": 36,}', "not_json"),
        ("{'name': 'Ada', 'age': 36}", "not_json"),
        ('Here it is: {"name": "Ada", "age": 36}', "not_json"),
        ('{"name": "Ada", "age": 36} {"name": "Ada", "age": 36}', "not_json"),
        ('```json\n{"name": "Ada", "age": 36}\n```\n```json\n{}\n```', "not_json"),
        ('<answer>{"name": "Ada", "age": 36}</answer><answer>{"name": "Ada", "age": 36}</answer>', "not_json"),
        ('{"name": "Ada", "age": 36}</answer>', "not_json"),
        ('{"name": "Ada", "age": ' + "9" * 5000 + "}", "not_json"),
    ],
)
def test_what_does_not_fit_does_not_pay(text, label):
    assert judged(text) == (0, label)


def test_well_formed_json_may_pay_a_part():
    assert judged('{"name": "Ada"}', well_formed=0.2) == (0.2, "invalid")
    assert judged("{", well_formed=0.2) == (0, "not_json")


def test_each_row_may_have_its_own_schema():
    row = {"schema": json.dumps({"type": "integer"}), "plain": {"type": "string"}}
    assert json_schema("3", row, column="schema").value == 1
    assert json_schema('"3"', row, column="schema").value == 0
    assert json_schema('"3"', row, column="plain").value == 1
    with pytest.raises(ValueError, match=r"no schema in its column 'shema' \(did you mean 'schema'\?\)"):
        json_schema("3", row, column="shema")
    with pytest.raises(ValueError, match="both are given"):
        json_schema("3", row, PERSON, column="schema")
    with pytest.raises(ValueError, match="neither is given"):
        json_schema("3", row)


@pytest.mark.parametrize("text", EMPTY)
def test_empty_shells_and_openers_do_not_pay(text):
    assert judged(text)[0] == 0


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_does_not_pay(name):
    assert judged(LARGE[name])[0] == 0


@pytest.mark.parametrize(
    ("text", "schema", "label"),
    [
        ("1e999", {"type": "number", "multipleOf": 0.01}, "not_json"),
        ("-1e999", {"type": "number", "maximum": 0}, "not_json"),
        ("9" * 400, {"type": "number", "multipleOf": 0.01}, "invalid"),
        ('"a{99999999999999999999}"', {"type": "string", "format": "regex"}, "invalid"),
    ],
)
def test_values_that_the_library_cannot_look_at_are_answers_that_do_not_fit(text, schema, label):
    assert judged(text, schema) == (0, label)


NESTED = {"type": "array", "items": {"$ref": "#"}}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("[" * 900 + "]" * 900, NESTED),
        ("[" * 100_000 + "]" * 100_000, NESTED),
        (json.dumps("a" * 40 + "!"), {"type": "string", "pattern": r"^(a|aa)+$"}),
        (
            json.dumps({"a" * 40 + "!": 1}),
            {"patternProperties": {r"^(a|aa)+$": {"type": "string"}}, "minProperties": 2},
        ),
        (json.dumps([[i] for i in range(20_000)] + [[0]]), {"uniqueItems": True}),
        ("1", {"$ref": "#"}),
        ("1", {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ],
)
def test_answers_and_schemas_that_never_end_cost_their_limit(text, schema):
    value, label = judged(text, schema, timeout_s=0.4)
    assert value == 0 or text.startswith("[[[")
    assert label in ("timeout", "invalid", "not_json", "memory", "valid")
    assert judged('{"name": "Ada", "age": 36}') == (1, "valid")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "whole"}, "whole"),
        ({"$ref": "http://localhost:9/schema.json"}, "localhost"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ("{", "not JSON"),
        ("3", "int"),
        (3, "int"),
        ([], "list"),
        ({"type": "string", "pattern": "("}, "regex"),
        ({"required": ["name"]}, "say which type"),
        ({}, "say which type"),
        (True, "say which type"),
    ],
)
def test_an_unusable_schema_is_refused(schema, said):
    with pytest.raises(ValueError, match=said):
        check_schema({}, schema)
    if said not in ("regex", "say which type"):  # at a run's time, these two are only looked at where they matter
        with pytest.raises(ValueError, match=said):
            judged("3", schema)


def test_it_is_a_built_in_reward():
    reward = resolve(RewardTable(use="json_schema", args={"schema": PERSON}))
    assert reward.score(ScoringItem("p", ('{"name": "Ada", "age": 36}', "{}", "no"))) == (1, 0, 0)
    assert reward.completion_timeout_s == 2
