"""The endpoint asked by OpenAI's own client and by an agent library: `make test-agents`, else skipped."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
import torch
from tests.environments.conftest import TEMPLATES

from cohort.commands.serve import Desk
from cohort.engine.engine import Engine
from cohort.environments.endpoint.agents import open_agent
from cohort.environments.endpoint.app import Server
from cohort.environments.endpoint.play import AgentPlay, Endpoint
from cohort.environments.endpoint.talk import Talk
from cohort.environments.episodes import Rules
from cohort.policy.policy import Policy
from cohort.policy.scratch import make_tokenizer
from cohort.types import Completion, Prompt, Rollout, SampleRequest, Sampling
from tiny import make_tiny

openai = pytest.importorskip("openai")
QUESTION = [{"role": "user", "content": "What is 2 plus 3?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'


@pytest.fixture(scope="module")
def client(tokenizer):
    torch.set_num_threads(1)
    policy = Policy(make_tiny("qwen3", tokenizer), tokenizer)
    desk = Desk("tiny", Engine(policy, 4), Talk(tokenizer, policy.eos_ids), Sampling(32), 60.0, 64)
    threading.Thread(target=desk.work, daemon=True).start()
    server = Server(lambda path, key: desk)
    yield openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    server.close()


def test_answers_streams_and_models(client):
    asked = {"model": "tiny", "messages": QUESTION, "max_tokens": 16, "seed": 4, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    text = client.completions.create(model="tiny", prompt="Two", max_tokens=5, n=2, seed=1, logprobs=2)
    assert len(text.choices) == 2
    assert [one.id for one in client.models.list()] == ["tiny"]


def test_refusals_are_the_clients_own_errors(client):
    with pytest.raises(openai.BadRequestError, match="n cannot be 999"):
        client.chat.completions.create(model="tiny", messages=QUESTION, temperature=1.9, n=999)
    with pytest.raises(openai.NotFoundError, match="it is 'tiny'"):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="no tool calls that Cohort reads"):
        client.chat.completions.create(model="tiny", messages=QUESTION, tools=[TOOL])


class Scripted:
    """A sampler that says what it is told to, one text after the other."""

    version = 3

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts, self.prompts = tokenizer, list(texts), []

    def sample(self, requests):
        for request in requests:
            self.prompts.append(tuple(request.tokens))
            text = self.texts.pop(0)
            tokens = (*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id)
            yield request, (Completion(tokens, (-0.5,) * len(tokens), "stop", self.version),)

    def publish(self, version):
        """Nothing changes."""


@pytest.fixture
def chat_tokenizer():
    template, end, special = TEMPLATES["hermes"]
    made = make_tokenizer(["What is 2 plus 3? It is 5.", CALL], 400)
    made.add_special_tokens({"eos_token": end, "additional_special_tokens": special})
    made.chat_template = template
    return made


@pytest.fixture
def play(chat_tokenizer):
    opened = []

    def run(agent, texts, **rules):
        sampler = Scripted(chat_tokenizer, texts)
        opened.append(Endpoint(open_agent(agent, {}), retries=0))
        rules = {"max_turns": 8, "timeout_s": 60.0, **rules}
        player = AgentPlay(opened[-1], sampler, Rules(**rules), Talk(chat_tokenizer, (chat_tokenizer.eos_token_id,)))
        asked = SampleRequest(0, (1,), 1, 5, Sampling(4096))
        ((_, played),) = player([asked], {0: Prompt.make(text="What is 2 plus 3?")})
        return played, sampler

    yield run
    for one in opened:
        one.close()


def with_tools(prompt, base_url, api_key):
    client = openai.OpenAI(base_url=base_url, api_key=api_key)
    messages = [{"role": "user", "content": prompt}]
    while True:
        said = client.chat.completions.create(model="gpt-4o", messages=messages, tools=[TOOL]).choices[0].message
        messages.append(said)
        if not said.tool_calls:
            return said.content
        for call in said.tool_calls:
            result = sum(json.loads(call.function.arguments).values())
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})


async def with_tools_async(prompt, base_url, api_key):
    async with openai.AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
        found = await asyncio.gather(
            *(
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"{prompt} {one}"}])
                for one in range(2)
            )
        )
    return [1.0 if "5" in one.choices[0].message.content else 0.0 for one in found]


def test_an_agent_with_tools_is_one_row(play):
    (rollout,), sampler = play(with_tools, [CALL, "It is 5."])
    assert isinstance(rollout, Rollout)
    assert rollout.text == "It is 5."
    assert len(rollout.rows) == 1
    assert len(rollout.turns) == 2
    assert rollout.turns[0].observation.messages[0]["content"] == "5"
    first, second = sampler.prompts
    assert second[: len(first)] == first  # and behind it what was sampled, token by token
    assert rollout.version == 3


def test_calls_at_the_same_time_are_rows_with_rewards_of_their_own(play):
    (rollout,), _ = play(with_tools_async, ["It is 5.", "It is 4."])
    assert len(rollout.rows) == 2
    assert sorted(turn.reward for turn in rollout.turns) == [0.0, 1.0]


def test_a_stream_inside_of_a_rollout(play):
    def streams(prompt, base_url, api_key):
        client = openai.OpenAI(base_url=base_url, api_key=api_key)
        chunks = client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}], stream=True)
        return "".join(one.choices[0].delta.content or "" for one in chunks)

    (rollout,), _ = play(streams, ["It is 5."])
    assert rollout.text == rollout.turns[0].text == "It is 5."


def test_a_budget_ends_an_agent_that_would_ask_for_ever(play):
    (rollout,), _ = play(with_tools, [CALL] * 3, max_turns=3)
    assert rollout.finish == "tool"
    assert len(rollout.turns) == 3


def test_an_agent_of_smolagents(play):
    smolagents = pytest.importorskip("smolagents")

    @smolagents.tool
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: One.
            b: The other.
        """
        return a + b

    def solve(prompt, base_url, api_key):
        model = smolagents.OpenAIServerModel(model_id="policy", api_base=base_url, api_key=api_key)
        agent = smolagents.ToolCallingAgent(tools=[add], model=model, max_steps=4, verbosity_level=0)
        return str(agent.run(prompt))

    final = '<tool_call>{"name": "final_answer", "arguments": {"answer": "5"}}</tool_call>'
    (rollout,), _ = play(solve, [CALL, final])
    assert rollout.text == "5"
    assert len(rollout.turns) == 2
    assert rollout.mask.count(True) == sum(turn.end - turn.start for turn in rollout.turns)
