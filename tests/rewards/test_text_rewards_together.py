"""All rewards that read text, through workers: gold pays, junk does not, and nothing is left behind."""

import pytest
from hostile import EMPTY, LARGE

from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve_all
from leaks import nothing_more_than, of_this_process

ENDLESS = {"type": "string", "pattern": "^(a|aa)+$"}
PROMPT = 'Which of A. 6/4 or B. Paris is it? Answer in English with {"a": 1}.'


def verifiers():
    """`(spec, gold answer, completion that must pay)` of every reward that says what is right."""
    return [
        (RewardTable(use="math"), "\\frac{3}{2}", "\\boxed{1.5}"),
        (RewardTable(use="exact_number"), "1.5", "\\boxed{3/2}"),
        (RewardTable(use="choice"), "B", "The answer is (B)."),
        (RewardTable(use="exact_text"), "Lyon", "<answer>lyon</answer>"),
        (RewardTable(use="fuzzy_text", args={"threshold": 0.8}), "Lyon", "<answer>Lyon</answer>"),
        (RewardTable(use="f1_text"), "Lyon", "Lyon"),
        (RewardTable(use="json_schema", args={"schema": {"type": "object", "required": ["b"]}}), None, '{"b": 2}'),
        (RewardTable(use="constraints", args={"rules": [{"starts_with": "Dear"}, {"words": 2}]}), None, "Dear Ada"),
        (RewardTable(use="think_format"), None, "<think>a</think><answer>b</answer>"),
        (RewardTable(use="regex_format", args={"pattern": r"Answer: \d+"}), None, "Answer: 12"),
    ]


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = of_this_process()
    yield
    nothing_more_than(before, 5, of_this_process)


def test_gold_pays_and_junk_does_not():
    junk = (*EMPTY, PROMPT, "0", "1", "42", "A", "the", "{}", "[]", "true", "A, B, C, D")
    for spec, answer, right in verifiers():
        item = ScoringItem(PROMPT, (right, *junk), answer=answer)
        with RewardPool(resolve_all([spec]), workers=1) as pool:
            scores = pool.submit(item).result(timeout=60).scores[spec.use]
        assert scores[0] == 1, spec.use
        paid = [text for text, score in zip(junk, scores[1:]) if score]
        assert paid == [], spec.use


def test_hostile_groups_get_their_scores_and_harm_no_other():
    tower = "\\boxed{9^{9^{9}}+\\sqrt{2}}"
    catastrophic = '"' + "a" * 60 + '!"'
    texts = (*(LARGE[name][:20_000] for name in LARGE), tower, catastrophic, "\\boxed{\\sqrt{2}}")
    rewards = resolve_all(
        [
            RewardTable(use="math", args={"timeout_s": 0.2}),
            RewardTable(use="json_schema", args={"schema": ENDLESS, "timeout_s": 0.2}),
            RewardTable(use="regex_format", args={"pattern": r"(?s).*(a|aa)+$", "timeout_s": 0.2}),
            RewardTable(use="language", args={"language": "en"}),
            RewardTable(use="repetition"),
            RewardTable(use="fuzzy_text"),
            RewardTable(use="choice", args={"letters": "ABCDEFGHIJ"}, name="letter", when={"never": True}),
        ]
    )
    item = ScoringItem(PROMPT, texts, answer="\\sqrt{2}")
    with RewardPool(rewards, workers=2, retries=0) as pool:
        futures = [pool.submit(item) for _ in range(2)]
        groups = [future.result(timeout=100) for future in futures]
    for group in groups:
        assert group.scores["math"] == (0.0,) * (len(texts) - 1) + (1.0,)
        assert group.labels["math"][-3:] == ("wrong", "no_answer", "right")
        assert group.labels["json_schema"][-2] == "timeout"
        assert set(group.scores["json_schema"]) == {0.0}
        assert all(0 <= score <= 1 for score in group.scores["language"])
        assert all(-1 <= score <= 0 for score in group.scores["repetition"])
    assert all(repr(group.scores) == repr(groups[0].scores) for group in groups)
