"""The routes of `cohort serve`, asked over HTTP as clients ask them; `make test-agents` asks them by OpenAI's own."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from agents import post

from cohort.commands.serve import Desk, serve
from cohort.engine.engine import Engine
from cohort.environments.endpoint.app import Server
from cohort.environments.endpoint.talk import Talk
from cohort.environments.endpoint.wire import ApiError
from cohort.listening import listen
from cohort.policy.policy import Policy
from cohort.types import Sampling, UserError
from tiny import make_tiny


@pytest.fixture(scope="module")
def desk(tokenizer):
    policy = Policy(make_tiny("qwen3", tokenizer), tokenizer)
    desk = Desk("tiny", Engine(policy, 4), Talk(tokenizer, policy.eos_ids), Sampling(32), 60.0, 64)
    threading.Thread(target=desk.work, daemon=True).start()
    return desk


@pytest.fixture(scope="module")
def url(desk):
    def session(path, key):
        if key == "wrong":
            raise ApiError(401, "this is not the key that `cohort serve` has printed", "invalid_api_key")
        return desk

    server = Server(session)
    yield f"{server.url}/v1"
    server.close()


QUESTION = [{"role": "user", "content": "What is 2 plus 3?"}]


def ask(url, path="/chat/completions", key="any", **body):
    return post(url, key, path, **{"model": "tiny", **body})


def events(url, path="/chat/completions", **body):
    """The data of a stream's events."""
    asked = urllib.request.Request(url + path, json.dumps({"model": "tiny", "stream": True, **body}).encode())
    asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.decode().strip() for line in answer]
    found = [line.removeprefix("data: ") for line in lines if line]
    assert found.pop() == "[DONE]"
    return [json.loads(one) for one in found]


def test_an_answer_is_the_engines_own(url, desk):
    found = ask(url, messages=QUESTION, max_tokens=12, seed=5, n=2, logprobs=True, top_logprobs=3, temperature=0.8)
    again = ask(url, messages=QUESTION, max_tokens=12, seed=5, n=2, temperature=0.8)
    assert found["object"] == "chat.completion"
    assert found["model"] == "tiny"
    first, second = found["choices"]
    assert first["message"]["role"] == "assistant"
    assert first["message"]["content"] != second["message"]["content"]
    assert [one["message"] for one in again["choices"]] == [first["message"], second["message"]]  # a seed repeats
    assert found["usage"]["completion_tokens"] <= 24
    for choice in found["choices"]:
        for token in choice["logprobs"]["content"]:
            assert len(token["top_logprobs"]) == 3
            best = token["top_logprobs"][0]["logprob"]
            assert token["logprob"] <= best + 1e-4  # the pass over all tokens and the decoder agree
            same = [one["logprob"] for one in token["top_logprobs"] if one["token"] == token["token"]]
            assert not same or min(abs(one - token["logprob"]) for one in same) < 1e-3


def test_log_probs_are_of_the_temperature(url, desk):
    """The gaps between log-probs at temperature 2 are half of those at 1."""
    cold, hot = (
        ask(url, "/completions", prompt="Two and", max_tokens=1, seed=1, logprobs=20, temperature=warm)["choices"][0]
        for warm in (1.0, 2.0)
    )
    gaps = [
        sorted(one["logprobs"]["top_logprobs"][0].values(), reverse=True)[0]
        - sorted(one["logprobs"]["top_logprobs"][0].values(), reverse=True)[-1]
        for one in (cold, hot)
    ]
    assert gaps[0] == pytest.approx(2 * gaps[1], rel=1e-3)


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_a_stream_says_the_same_as_an_answer(url, path):
    body = {"messages": QUESTION} if "chat" in path else {"prompt": "Two and three"}
    body |= {"max_tokens": 20, "seed": 3, "n": 2, "stop": ["e"]}
    plain = ask(url, path, **body)
    chunks = events(url, path, stream_options={"include_usage": True}, **body)
    assert chunks[-1]["usage"] == plain["usage"]
    for index, choice in enumerate(plain["choices"]):
        mine = [one["choices"][0] for one in chunks[:-1] if one["choices"][0]["index"] == index]
        text = "".join((one["delta"].get("content") or "") if "delta" in one else one["text"] for one in mine)
        assert text == (choice["message"]["content"] if "message" in choice else choice["text"])
        assert "e" not in text
        assert mine[-1]["finish_reason"] == choice["finish_reason"]


def test_requests_share_the_decoder_and_do_not_change_each_other(url):
    def one(seed):
        return ask(url, "/completions", prompt=f"Question {seed % 3}", max_tokens=30, seed=seed)["choices"][0]["text"]

    alone = [one(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(one, range(6))) == alone


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"messages": []}, 400, "messages"),
        ({}, 400, "must provide a messages"),
        ({"messages": QUESTION, "temperature": 3}, 400, "temperature"),
        ({"messages": QUESTION, "max_tokens": 10_000}, 400, "positions"),
        ({"messages": QUESTION, "nonsense": 1}, 400, "Unrecognized request argument supplied: nonsense"),
        ({"messages": QUESTION, "model": "gpt-4"}, 404, "it is 'tiny'"),
        ({"messages": QUESTION, "logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"messages": QUESTION, "response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"messages": QUESTION, "top_logprobs": 50, "logprobs": True}, 400, "top_logprobs"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "king"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "no text"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": 5}]}, 400, "a tool call without"),
        ({"messages": [{"role": "tool", "content": "5"}]}, 400, "roles system, user and assistant"),
        (
            {"messages": QUESTION, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
            400,
            "no tool calls that Cohort reads",
        ),
        ({"messages": QUESTION, "key": "wrong"}, 401, "not the key"),
    ],
)
def test_what_is_wrong_is_one_sentence_in_openais_shape(url, body, status, said):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, **body)
    error = json.load(caught.value)["error"]
    assert caught.value.code == status
    assert said in error["message"]
    assert {"message", "type", "param", "code"} == set(error)
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("data", "header", "status"),
    [(b"{", "application/json", 400), (b"{}", "text/plain", 415), (b" " * (9 << 20), "application/json", 413)],
)
def test_a_body_that_is_no_request(url, data, header, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{url}/completions", data, {"Content-Type": header}), timeout=60)
    assert caught.value.code == status
    assert "message" in json.load(caught.value)["error"]


def test_names_of_other_hosts_are_not_answered(url):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{url}/models", headers={"Host": "evil.example"}), timeout=60)
    assert caught.value.code == 400
    with urllib.request.urlopen(f"{url}/models", timeout=60) as answer:
        assert [one["id"] for one in json.load(answer)["data"]] == ["tiny"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/nothing", timeout=60)


def test_a_request_ends_at_its_deadline(desk, url):
    desk.timeout_s = 0.0
    try:
        found = ask(url, "/completions", prompt="a", max_tokens=60, temperature=1.0)
    finally:
        desk.timeout_s = 60.0
    assert found["choices"][0]["finish_reason"] in ("length", "stop")
    assert found["usage"]["completion_tokens"] <= 2


@pytest.fixture(autouse=True, scope="module")
def one_thread_here():
    torch.set_num_threads(1)


def test_a_port_that_is_taken(url):
    port = int(url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(UserError, match="another --port may be free"):
        listen("127.0.0.1", port)


class Idle:
    """A model that is asked for its name alone, with the key that was printed and with another."""

    name = "idle"

    def __init__(self, printed):
        self.printed, self.codes = printed, []

    def work(self):
        said = self.printed()
        port, key = re.search(r":(\d+)/v1", said)[1], re.search(r"sk-\S+", said)[0]
        for given in (key, "sk-other", ""):
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models")
            asked.add_header("Authorization", f"Bearer {given}")
            try:
                self.codes.append(urllib.request.urlopen(asked, timeout=60).status)
            except urllib.error.HTTPError as error:
                self.codes.append(error.code)


def test_another_host_needs_the_key_that_is_said_once(monkeypatch, capsys):
    idle = Idle(lambda: capsys.readouterr().out)
    monkeypatch.setattr("cohort.commands.serve.open_desk", lambda *given: idle)
    serve("idle", "0.0.0.0", 0, None, 4, 60.0)
    assert idle.codes == [200, 401, 401]
