"""Rollouts of several turns: their tokens, masks and seeds, their limits, and what becomes of failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from cohort.engine.engine import Engine
from cohort.environments import (
    FORMATS,
    Episodes,
    OneTurn,
    Rules,
    SingleTurn,
    Tools,
    build_tools,
    choose_format,
    open_dialogue,
)
from cohort.policy.policy import Policy
from cohort.policy.text import completion_reader
from cohort.types import (
    Completion,
    InfrastructureError,
    Observation,
    Prompt,
    SampleRequest,
    Sampling,
    UserError,
)
from tiny import make_tiny

MANY = Sampling(max_tokens=200)


@dataclass
class Scripted:
    """A sampler that writes what `script(request, member)` says, ended by the end token or, with "|", by a stop."""

    tokenizer: object
    script: Callable[[SampleRequest, int], str]
    version: int = 3
    asked: list[list[SampleRequest]] = field(default_factory=list)

    def sample(self, requests):
        requests = list(requests)
        self.asked.append(requests)
        for request in requests:
            yield request, tuple(self.completion(request, member) for member in range(request.count))

    def completion(self, request, member):
        text = self.script(request, member)
        tokens = self.tokenizer.encode(text.removesuffix("|"), add_special_tokens=False)  # type: ignore[attr-defined]
        tokens += [] if text.endswith("|") else [self.tokenizer.eos_token_id]  # type: ignore[attr-defined]
        finish = "stop" if len(tokens) <= request.sampling.max_tokens else "length"
        tokens = tokens[: request.sampling.max_tokens]
        return Completion(tuple(tokens), tuple(-0.5 - i for i in range(len(tokens))), finish, self.version)  # type: ignore[arg-type]


def text_of(tokenizer, request):
    return tokenizer.decode(list(request.tokens))


def prompts_of(tokenizer, *questions):
    made = [Prompt.make(text=question) for question in questions]
    return {i: replace(p, tokens=tuple(tokenizer.encode(p.text))) for i, p in enumerate(made)}


def requests_of(prompts, count=1, sampling=MANY):
    return [SampleRequest(key, prompt.tokens, count, 100 + key, sampling) for key, prompt in prompts.items()]


def player(sampler, tokenizer, tools=("calculator",), environment=None, name="tags", **rules):
    chosen = choose_format(tokenizer, name, chat=name != "tags") if environment is None else None
    built = build_tools(tools, {}, 5.0)
    eos = [tokenizer.eos_token_id]
    dialogue = open_dialogue(tokenizer, chosen, name != "tags", [tool.schema for tool in built], eos, 100)
    stop = chosen.stop if chosen else ()
    return Episodes(
        sampler,
        environment or Tools(built, FORMATS[name]),
        dialogue,
        completion_reader(tokenizer, stop),
        Rules(**{"max_turns": 5, "stop": stop, **rules}),
    )


def play(player, prompts, count=1, sampling=MANY):
    return {request.key: played for request, played in player(requests_of(prompts, count, sampling), prompts)}


def test_turns_of_several_weights_are_spans_and_the_oldest_is_the_rollouts_version(tokenizer):
    class Updated(Scripted):
        def completion(self, request, member):
            drawn = super().completion(request, member)
            updated = "<result>40" in text_of(tokenizer, request)  # the second turn of the first rollout
            return replace(drawn, version=4, versions=((0, 4), (2, 5))) if updated else drawn

    sampler = Updated(tokenizer, calls_then_answers(tokenizer))
    (played,) = play(player(sampler, tokenizer), prompts_of(tokenizer, "Add."), count=2).values()
    start = played[0].turns[1].start
    assert (played[0].version, played[0].versions) == (3, ((0, 3), (start, 4), (start + 2, 5)))
    assert (played[1].version, played[1].versions) == (3, ())


def calls_then_answers(tokenizer):
    def script(request, member):
        text = text_of(tokenizer, request)
        if "<result>" in text:
            return f" so {text.rpartition('<result>')[2].partition('</result>')[0]}"
        return f"<tool>calculator: {member} + 40</tool>|"

    return script


def test_a_rollout_is_the_policys_tokens_and_the_tools_in_turn(tokenizer):
    sampler = Scripted(tokenizer, calls_then_answers(tokenizer))
    prompts = prompts_of(tokenizer, "Add.", "Please add.")
    for played in play(player(sampler, tokenizer), prompts, count=3).values():
        for member, rollout in enumerate(played):
            first, second = rollout.turns
            assert first.text == f"<tool>calculator: {member} + 40</tool>"
            assert second.text == f" so {member + 40}"
            assert rollout.text == first.text + second.text
            assert rollout.finish == "stop"
            assert rollout.version == 3
            said = f"<result>{member + 40}</result>"
            assert tokenizer.decode(rollout.tokens, skip_special_tokens=True) == first.text + said + second.text
            inside = set(range(first.start, first.end)) | set(range(second.start, second.end))
            assert [i in inside for i in range(len(rollout.tokens))] == list(rollout.mask)
            assert tokenizer.decode(rollout.tokens[first.end : second.start]) == said
            expected = [-0.5 - i for i in range(first.end)] + [0.0] * (second.start - first.end)
            expected += [-0.5 - i for i in range(second.end - second.start)]
            assert list(rollout.logprobs) == expected
            (call,) = first.observation.calls
            assert (call.name, call.arguments) == ("calculator", {"expression": f"{member} + 40"})
            assert [m["role"] for m in rollout.transcript] == ["assistant", "tool", "assistant"]
            assert rollout.transcript[1]["content"] == str(member + 40)


def test_a_turn_is_sampled_from_the_ids_of_all_that_came_before(tokenizer):
    sampler = Scripted(tokenizer, calls_then_answers(tokenizer))
    prompts = prompts_of(tokenizer, "Add.", "Please add.")
    played = play(player(sampler, tokenizer), prompts, count=2)
    first, second = sampler.asked
    assert [(r.tokens, r.count, r.seed) for r in first] == [(prompts[0].tokens, 2, 100), (prompts[1].tokens, 2, 101)]
    assert len(second) == 4
    assert len({request.seed for request in (*first, *second)}) == 6
    rollouts = [rollout for key in (0, 1) for rollout in played[key]]
    for request, key, rollout in zip(second, (0, 0, 1, 1), rollouts, strict=True):
        assert request.tokens == prompts[key].tokens + rollout.tokens[: rollout.turns[1].start]
        assert request.sampling.max_tokens == MANY.max_tokens - rollout.turns[1].start
        assert request.sampling.stop == ("</tool>",)


def test_rollouts_that_are_over_take_no_further_turn(tokenizer):
    def script(request, member):
        text = text_of(tokenizer, request)
        return "<tool>calculator: 1</tool>|" if text.count("<result>") < 2 and "two" in text else "done"

    sampler = Scripted(tokenizer, script)
    played = play(player(sampler, tokenizer), prompts_of(tokenizer, "one", "two"), count=2)
    assert [len(requests) for requests in sampler.asked] == [2, 2, 2]
    assert [len(rollout.turns) for key in (0, 1) for rollout in played[key]] == [1, 1, 3, 3]


def always_calls(request, member):
    return "<tool>calculator: 1 + 1</tool>|"


@pytest.mark.parametrize(
    ("rules", "sampling", "turns", "finish"),
    [
        ({"max_turns": 3}, MANY, 3, "tool"),
        ({"max_turns": 1}, MANY, 1, "tool"),
        ({"max_turn_tokens": 4}, MANY, 1, "length"),
        ({}, Sampling(max_tokens=60), None, "length"),
    ],
)
def test_limits(tokenizer, rules, sampling, turns, finish):
    (rollout,) = play(player(Scripted(tokenizer, always_calls), tokenizer, **rules), prompts_of(tokenizer, "?"),
                      sampling=sampling)[0]  # fmt: skip
    assert rollout.finish == finish
    assert turns is None or len(rollout.turns) == turns
    assert len(rollout.tokens) <= sampling.max_tokens
    assert rollout.mask[-1]  # nothing is said that nobody reads
    assert rollout.turns[-1].observation.messages == ()
    assert rollout.turns[-1].end == len(rollout.tokens)


def test_no_tool_runs_for_a_turn_that_was_cut_off(tokenizer):
    text = "<tool>calculator: 1 + 1</tool> and so on and on"
    limit = len(tokenizer.encode(text)) - 2
    sampler = Scripted(tokenizer, lambda request, member: text)
    (rollout,) = play(player(sampler, tokenizer), prompts_of(tokenizer, "?"), sampling=Sampling(limit))[0]
    assert (rollout.finish, rollout.turns[0].observation.calls) == ("length", ())


def test_through_a_chat_template_the_last_turn_is_the_text(chat_tokenizer):
    name, tokenizer = chat_tokenizer
    calls = {
        "hermes": '<tool_call>{"name": "calculator", "arguments": {"expression": "12+30"}}</tool_call>',
        "llama3": '{"name": "calculator", "parameters": {"expression": "12+30"}}',
    }

    def script(request, member):
        return "It is 42." if "42" in text_of(tokenizer, request) else calls[name]

    (rollout,) = play(player(Scripted(tokenizer, script), tokenizer, name=name), prompts_of(tokenizer, "?"))[0]
    assert rollout.text == "It is 42."
    assert rollout.turns[0].text == calls[name]
    assert rollout.transcript[1] == {"role": "tool", "name": "calculator", "content": "42"}
    assert [rollout.tokens[turn.end - 1] for turn in rollout.turns] == [tokenizer.eos_token_id] * 2
    assert all(rollout.mask[turn.end - 1] for turn in rollout.turns)  # the policy has ended its turns itself


class Talks:
    """An environment with a state of its own: says how often it was spoken to, `often` times."""

    def __init__(self, often=2, delay=lambda state: 0.0):
        self.often, self.delay, self.begun = often, delay, []

    def reset(self, prompt, seed):
        self.begun.append((prompt.text, seed))
        return [seed, 0]

    def step(self, state, reply):
        time.sleep(self.delay(state))
        state[1] += 1
        content = f" you spoke {state[1]} times. "
        return Observation(({"role": "user", "content": content},)) if state[1] <= self.often else Observation()


def engine_play(policy, environment, questions, count=3, max_tokens=40, **rules):
    tokenizer = policy.tokenizer
    prompts = prompts_of(tokenizer, *questions)
    return prompts, play(
        player(Engine(policy, max_rows=8), tokenizer, environment=environment, tools=(), max_turn_tokens=9, **rules),
        prompts,
        count,
        Sampling(max_tokens, stop=(" ", "a")),
    )


@pytest.fixture
def talking_policy(tokenizer):
    """A tiny policy whose turns end often: at any space."""
    model = make_tiny("qwen3", tokenizer)
    model.config.max_position_embeddings = 512
    return Policy(model, tokenizer)


def test_single_turn_is_the_trivial_environment(talking_policy):
    """The general way and the direct one give the same rollouts, bit for bit."""
    tokenizer = talking_policy.tokenizer
    prompts = prompts_of(tokenizer, "Ann has 3 apples.", "Bob has 4 pears. He eats one.")
    sampling, stop = Sampling(20, stop=("a",)), ("a",)
    requests = requests_of(prompts, 4, sampling)
    read = completion_reader(tokenizer, stop)
    direct = OneTurn(Engine(talking_policy), read)
    dialogue = open_dialogue(tokenizer, None, False, (), [1], 100)
    general = Episodes(Engine(talking_policy), SingleTurn(), dialogue, read, Rules(max_turns=3))
    ours = {request.key: played for request, played in direct(requests, prompts)}
    theirs = {request.key: played for request, played in general(requests, prompts)}
    assert ours == {key: tuple(replace(r, turns=()) for r in played) for key, played in theirs.items()}
    assert all(len(r.turns) == 1 for played in theirs.values() for r in played)


def test_a_rollout_does_not_depend_on_its_neighbours(talking_policy):
    questions = ["Ann has 3 apples.", "Bob has 4 pears. He eats one.", "Cleo sells 12 stamps."]
    _, together = engine_play(talking_policy, Talks(), questions)
    assert max(len(r.turns) for played in together.values() for r in played) == 3
    for key, question in enumerate(questions):
        prompts = prompts_of(talking_policy.tokenizer, question)
        alone = player(Engine(talking_policy), talking_policy.tokenizer, environment=Talks(), tools=(),
                       max_turn_tokens=9)  # fmt: skip
        request = SampleRequest(0, prompts[0].tokens, 3, 100 + key, Sampling(40, stop=(" ", "a")))
        ((_, played),) = alone([request], prompts)
        assert [r.tokens for r in played] == [r.tokens for r in together[key]]


def test_how_long_tools_take_changes_nothing(talking_policy):
    questions = ["Ann has 3 apples.", "Bob has 4 pears. He eats one.", "Cleo sells 12 stamps."]
    _, quick = engine_play(talking_policy, Talks(), questions)
    _, slow = engine_play(talking_policy, Talks(delay=lambda state: (state[0] % 7) / 100), questions, concurrency=3)
    assert quick == slow


def test_every_rollout_has_a_state_and_a_seed_of_its_own(talking_policy):
    environment = Talks()
    engine_play(talking_policy, environment, ["a", "b"])
    assert [text for text, _ in environment.begun] == ["a"] * 3 + ["b"] * 3
    assert len({seed for _, seed in environment.begun}) == 6


def test_tools_of_different_rollouts_run_at_the_same_time(tokenizer):
    barrier = threading.Barrier(4, timeout=20)

    class Meets(SingleTurn):
        def step(self, state, reply):
            barrier.wait()  # passes only when four are here
            return Observation()

    sampler = Scripted(tokenizer, lambda request, member: "hello")
    played = play(
        player(sampler, tokenizer, environment=Meets(), tools=(), concurrency=4), prompts_of(tokenizer, "?"), 4
    )
    assert all(rollout.finish == "stop" for rollout in played[0])


class Fails(SingleTurn):
    """An environment in which the world fails one rollout of the prompt "two"."""

    def __init__(self, error, at="step"):
        self.error, self.at = error, at

    def reset(self, prompt, seed):
        if self.at == "reset" and prompt.text == "two":
            raise self.error
        return prompt.text

    def step(self, state, reply):
        if self.at == "step" and state == "two" and "member 1" in reply:
            raise self.error
        more = state != "two" and "member" in reply
        return Observation(({"role": "user", "content": "go on"},)) if more else Observation()


@pytest.mark.parametrize("at", ["reset", "step"])
@pytest.mark.parametrize("error", [InfrastructureError("down"), ConnectionError("down"), TimeoutError("down")])
def test_a_group_whose_world_failed_is_lost_and_the_others_go_on(tokenizer, at, error):
    def script(request, member):
        return "more" if "go on" in text_of(tokenizer, request) else f"member {member}"

    made = player(Scripted(tokenizer, script), tokenizer, environment=Fails(error, at), tools=())
    played = play(made, prompts_of(tokenizer, "one", "two", "three"), 2)
    assert isinstance(played[1], InfrastructureError)
    assert "down" in str(played[1])
    assert [len(rollout.turns) for key in (0, 2) for rollout in played[key]] == [2] * 4


def test_an_environment_that_hangs_loses_the_group(tokenizer):
    release = threading.Event()

    class Hangs(SingleTurn):
        def step(self, state, reply):
            release.wait(60)
            return Observation()

    sampler = Scripted(tokenizer, lambda request, member: "hello")
    played = play(player(sampler, tokenizer, environment=Hangs(), tools=(), timeout_s=0.1), prompts_of(tokenizer, "?"))
    release.set()
    assert "no answer within 0.1 s" in str(played[0])


@pytest.mark.parametrize("at", ["reset", "step"])
def test_an_environment_whose_code_is_broken_stops_everything(tokenizer, at):
    made = player(Scripted(tokenizer, lambda r, m: f"member {m}"), tokenizer, tools=(),
                  environment=Fails(NameError("qqq"), at))  # fmt: skip
    with pytest.raises(UserError, match=rf"the environment's {at} raised NameError: qqq at .*test_play\.py:\d+"):
        play(made, prompts_of(tokenizer, "one", "two"), 2)


def test_an_environment_must_return_an_observation(tokenizer):
    class Wrong(SingleTurn):
        def step(self, state, reply):
            return "go on"

    made = player(Scripted(tokenizer, lambda r, m: "x"), tokenizer, tools=(), environment=Wrong())
    with pytest.raises(UserError, match="step returned str; it must return an Observation"):
        play(made, prompts_of(tokenizer, "one"))


@pytest.mark.parametrize(
    "messages",
    ["higher", {"role": "user", "content": "x"}, ({"content": "x"},), ({"role": "user", "content": None},), ("x",), 3],
)
def test_what_an_observation_holds_must_be_messages(tokenizer, messages):
    class Wrong(SingleTurn):
        def step(self, state, reply):
            return Observation(messages)

    made = player(Scripted(tokenizer, lambda r, m: "x"), tokenizer, tools=(), environment=Wrong())
    with pytest.raises(UserError, match=r"step returned Observation\(.*its messages are a tuple of \{\"role\""):
        play(made, prompts_of(tokenizer, "one"))


def test_groups_come_as_soon_as_they_are_over(tokenizer):
    """A group that is done in its first turn can be scored while others go on."""
    sampler = Scripted(tokenizer, lambda r, m: always_calls(r, m) if "two" in text_of(tokenizer, r) else "done")
    prompts = prompts_of(tokenizer, "two", "one")
    stream = player(sampler, tokenizer, max_turns=4)(requests_of(prompts), prompts)
    request, _ = next(stream)
    assert request.key == 1
    assert len(sampler.asked) == 1  # nobody has taken a second turn yet
    assert [request.key for request, _ in stream] == [0]
