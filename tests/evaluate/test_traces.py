"""Where a trace is, what becomes of its tokens, and whether an answer is found to need it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from cohort.engine.engine import Engine
from cohort.evaluate.accuracy import evaluate
from cohort.evaluate.traces import KEPT, LABEL, Numbers, exchanged, parted, use_of_traces
from cohort.policy.text import reader
from cohort.rewards import RewardPool, RewardTable, resolve, score_group
from cohort.rewards.verifiers.final_answer import last_number_of
from cohort.rewards.verifiers.trace import trace_of
from cohort.types import Group, Prompt, Rollout, SampleRequest, Sampling
from cohort.views.traces import need_of_traces
from letters import ids, letters


@pytest.mark.parametrize(
    ("text", "trace", "bridge"),
    [
        ("<think> 2 + 3 = 5 </think><answer> 5 </answer>", " 2 + 3 = 5 ", "</think>"),
        ("2 + 3 = 5</think>\n\\boxed{5}", "2 + 3 = 5", "</think>"),  # the prompt has opened the tag
        ("<think>a</think>b<think>c</think>5", "a</think>b<think>c", "</think>"),
        ("She has 2 + 3 = 5.\n#### 5", "She has 2 + 3 = 5.\n", "####"),
        ("So \\boxed{4}, no: $2 + 3 = \\boxed{5}$", "So \\boxed{4}, no: $2 + 3 = ", "\\boxed{"),
        ("2 + 3 <answer>5</answer>", "2 + 3 ", "<answer>"),
        ("<think> it goes on and on", " it goes on and on", ""),
        ("<think> </think><answer>5</answer>", None, None),
        ("#### 5", None, None),
        ("2 + 3 is 5", None, None),  # nothing says where the answer begins
    ],
)
def test_a_trace_is_what_stands_before_the_answer(text, trace, bridge):
    found = trace_of(text)
    assert (found and text[found.start : found.end]) == trace
    assert (found and text[found.end : found.after]) == bridge


def group(tokens, text, key="?", answer="5"):
    rollout = Rollout(tokens, (True,) * len(tokens), (0.0,) * len(tokens), 3, "stop", text)
    return Group(0, Prompt.make(text=key, answer=answer), (rollout,), accuracy=(1.0,))


@pytest.mark.parametrize(
    ("pieces", "trace", "bridge"),
    [
        (("<think>", " 2", "+3", "</think>", "<answer>", "5", "</answer>"), (1, 2), (3,)),
        (("<thi", "nk> 2", "+3", ".</", "think>", "<answer>5</answer>"), (2,), (3, 4)),  # over both ends
        (("<think>", " 2", "+3", "</think", "><answer>", "5</answer>"), (1, 2), (3,)),  # into the answer
        (("2+", "3=5\n##", "## ", "5"), (0,), (1,)),
        (("2+3=5\n#### 5",), None, None),  # all in one token
        (("<think>", "2+3", "</think>"), None, None),  # no answer
    ],
)
def test_a_completion_falls_into_whole_tokens(pieces, trace, bridge):
    tokens = tuple(range(len(pieces)))
    found = parted(group(tokens, "".join(pieces)), lambda some: "".join(pieces[token] for token in some))
    if trace is None:
        assert found is None
        return
    assert (found.trace, found.bridge) == (trace, bridge)
    assert found.head + found.trace + found.bridge + found.answer == tokens


def test_other_numbers_leave_all_else_and_the_length(tokenizer):
    numbers, read = Numbers(tokenizer), reader(tokenizer)
    trace = tuple(tokenizer.encode(" 12 + 30 = 42 apples, 42", add_special_tokens=False))
    changed = numbers.changed(trace, 5)
    assert changed == numbers.changed(trace, 5) != numbers.changed(trace, 6)
    assert len(changed) == len(trace)
    before, after = read(trace), read(changed)
    other = dict(zip(before, after, strict=True))
    assert all(other[sign] == sign for sign in other if not sign.isdigit())
    assert all(other[sign] != sign and other[sign].isdigit() for sign in other if sign.isdigit())
    assert after.split()[4] == after.split()[-1]  # 42 is the same number both times


def test_no_number_becomes_a_special_token_or_a_byte():
    made = letters(special=["<|kept_1|>", "<|kept_2|>"], plain=["<0x31>", "<0x32>"])
    trace = tuple(ids(made, "7<|kept_1|><0x31>"))
    changed = Numbers(made).changed(trace, 0)
    assert changed[1:] == trace[1:]
    assert made.decode(changed[0]) in "12345689"  # no number begins with 0


def test_a_trace_without_numbers_is_told_in_another_order():
    made = letters()
    trace = tuple(ids(made, "easy one"))
    changed = Numbers(made).changed(trace, 0)
    assert changed != trace
    assert sorted(changed) == sorted(trace)
    assert Numbers(made).changed(trace[:1], 0) is None


def test_traces_go_to_problems_with_another_answer_that_have_room():
    made = letters()
    texts = [f"{'x' * n}\n#### {n % 3}" for n in range(1, 9)]
    read = reader(made)
    ours = [parted(group(ids(made, text), text, key=text), read) for text in texts]
    found = exchanged(ours, longest=12, seed=1)
    assert found
    for one in ours:
        other = found.get(one.group.prompt.id)
        assert other is None or other.said != one.said
        assert other is None or len(one.with_trace(other.trace)) + len(one.answer) <= 12
    assert exchanged(ours[:1], 99, 1) == {}


class Talker:
    """A player of a policy that adds, and answers by its trace, or does not look at it."""

    def __init__(self, tokenizer, reads):
        self.tokenizer, self.reads, self.asked = tokenizer, reads, []

    def __call__(self, requests, prompts):
        for request in reversed(requests):  # in the order in which groups finish
            self.asked.append(request)
            prompt, said = prompts[request.key], self.tokenizer.decode(request.tokens)
            forced = said.removeprefix(prompt.text)
            a, b = map(int, prompt.text.split("+"))
            if not forced:
                rest = "no trace" if a == 9 else f"<think>{a}+{b}={a + b}</think><answer>{a + b}</answer>"
            else:
                trace = forced[len("<think>") : -len("</think>")]
                answer = last_number_of(trace) or "0" if self.reads else str(a + b)
                rest = f"<answer>{answer}</answer>"
            tokens = ids(self.tokenizer, rest)
            assert len(tokens) <= request.sampling.max_tokens
            yield request, (Rollout(tokens, (True,) * len(tokens), (-1.0,) * len(tokens), 3, "stop", rest),)


class Pool(RewardPool):
    """Scores at once, in this process."""

    def __init__(self):
        pass

    def submit(self, item):
        future = Future()
        future.set_result(score_group([resolve(RewardTable(use="exact_number"))], item))
        return future


def measured(reads, count=8):
    made = letters(plain=["<think>", "</think>", "<answer>", "</answer>"])
    prompts = [Prompt.make(text=f"{n}+{n + 1}", answer=str(2 * n + 1)) for n in range(2, 2 + count)]
    prompts = [replace(prompt, tokens=tuple(ids(made, prompt.text))) for prompt in prompts]
    sampling = Sampling(20, 0.0)
    play = Talker(made, reads)
    answered = evaluate(play, prompts, Pool(), sampling, 1, 0)
    return play, use_of_traces(answered, 100, play, Pool(), sampling, 0, reader(made), made)


def test_an_answer_that_is_read_off_its_trace_is_found_to_need_it():
    _, use = measured(reads=True)
    assert (use.traced, use.untraced) == (7, 1)
    assert use.right.mean == 1.0
    assert use.changes["removed"].changed.mean == 1.0
    assert use.changes["removed"].right.mean == 0.0
    assert use.changes["corrupted"].changed.mean == 1.0
    assert use.changes["exchanged"].changed.mean == use.followed.mean == 1.0
    found = use.metrics()
    assert found["eval/trace_removed_changed_low"] > 0.5
    assert {f"eval/trace_{name}_{what}" for name in KEPT for what in ("changed", "right")} <= set(found)
    assert "right 100.0%, without their traces 0.0%; other answers without their traces 100.0% [59.0%, 100.0%]" in (
        said := need_of_traces(found)
    )
    assert said.endswith("the answers need their traces, and follow them")


def test_an_answer_that_does_not_look_at_its_trace_is_found_not_to_depend_on_it():
    _, use = measured(reads=False, count=60)
    assert all(one.changed.mean == 0.0 and one.right.mean == 1.0 for one in use.changes.values())
    assert use.followed.mean == 0.0
    assert need_of_traces(use.metrics()).endswith("the answers do not depend on their traces")


def test_what_was_given_is_kept_apart_from_what_was_written():
    _, use = measured(reads=True)
    one = use.groups[0]
    assert one.labels[LABEL] == (*KEPT, "corrupted", "exchanged")
    for rollout in one.rollouts:
        given = list(rollout.mask).count(False)
        assert not any(rollout.mask[:given])
        assert all(rollout.mask[given:])
        assert set(rollout.logprobs[:given]) == {0.0}
        assert len(rollout.tokens) <= 20


def test_traces_that_nobody_wrote_are_said():
    made = letters()
    prompt = replace(Prompt.make(text="9+1", answer="10"), tokens=tuple(ids(made, "9+1")))
    play, sampling = Talker(made, True), Sampling(20, 0.0)
    answered = evaluate(play, [prompt], Pool(), sampling, 1, 0)
    use = use_of_traces(answered, 5, play, Pool(), sampling, 0, reader(made), made)
    assert use.metrics() == {"eval/traced": 0.0, "eval/untraced": 1.0}
    assert need_of_traces(use.metrics()) == "traces: none of 1 answer has one"


def test_a_policy_that_goes_on_from_its_own_beginning_says_the_same(tiny_policy, tokenizer):
    prompt = tuple(tokenizer.encode("How many apples?", add_special_tokens=False))
    engine = Engine(tiny_policy, max_rows=4)
    ((_, (whole,)),) = engine.sample([SampleRequest(0, prompt, 1, 1, Sampling(24, 0.0))])
    for cut in (1, 7, 12):
        begun = (*prompt, *map(int, whole.tokens[:cut]))
        ((_, (rest,)),) = engine.sample([SampleRequest(0, begun, 1, 2, Sampling(24 - cut, 0.0))])
        assert np.array_equal(rest.tokens, whole.tokens[cut:])


@pytest.mark.parametrize(
    ("removed", "other", "says"),
    [
        ((0.6, 0.9), (0.0, 0.1), "the answers need their traces, but do not follow them"),
        ((0.6, 0.9), (0.2, 0.7), "the answers need their traces, and some follow them"),
        ((0.2, 0.6), (0.0, 0.1), "some answers need their traces"),
        ((0.0, 0.05), (0.0, 0.05), "the answers do not depend on their traces"),
        ((0.0, 0.05), (0.2, 0.4), "the answers can do without their traces, and some follow what these say"),
    ],
)
def test_a_verdict_holds_for_the_whole_interval(removed, other, says):
    metrics = {"eval/traced": 40.0, "eval/untraced": 0.0, "eval/traced_right": 0.5, "eval/trace_removed_right": 0.1}
    metrics |= {"eval/trace_followed": 0.1, "eval/trace_followed_low": other[0], "eval/trace_followed_high": other[1]}
    for name, (low, high) in {"removed": removed, "corrupted": other, "exchanged": other}.items():
        key = f"eval/trace_{name}_changed"
        metrics |= {key: (low + high) / 2, f"{key}_low": low, f"{key}_high": high}
    assert need_of_traces(metrics).endswith(says)
    assert need_of_traces({"eval/greedy": 0.5}) == ""
