"""The remote executor against a server that speaks SandboxFusion's API."""

import json
import time

import pytest
from fusion_server import Fusion

from cohort.sandbox import Limits, RemoteSandbox, SandboxError
from cohort.sandbox.contract import require
from cohort.types import UserError


@pytest.fixture(scope="module")
def server():
    with Fusion() as fusion:
        yield fusion


@pytest.fixture
def remote(server):
    server.requests.clear()
    server.troubles.clear()
    return RemoteSandbox(server.url, Limits(memory_mb=300), retries=2, backoff_s=0.01)


def yes(_):
    return True


def test_a_program_runs_there(server, remote):
    run = remote.run("print(int(input()) + 1)", "41\n", 7.0)
    assert (run.status, run.output) == ("ok", b"42\n")
    (request,) = server.requests
    assert request["path"] == "/run_code"
    assert request["language"] == "python"
    assert (request["stdin"], request["run_timeout"], request["memory_limit_MB"]) == ("41\n", 7.0, 300)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("import sys\nsys.exit(3)", "error", "exit status 3"),
        ("raise ValueError('no')", "error", "ValueError: no"),
        ("raise MemoryError", "memory", "MemoryError"),
        ("while True: pass", "timeout", "0.3 s"),
        ("print('x' * 2_000_000)", "error", "1024 KiB"),
        ("print('\ud800')", "error", "Unicode"),
    ],
)
def test_what_became_of_a_program(remote, code, status, words):
    run = remote.run(code, "", 0.3 if status == "timeout" else 10.0)
    assert run.status == status
    assert words in run.message


def test_a_function_is_called_there_with_all_cases_in_one_request(server, remote):
    code = (
        "print('noise')\nclass Solution:\n    def f(self, *given: List[int]):\n"
        "        print(given)\n        return list(given)"
    )
    cases = [[1, 2.5], ["é", None, True], [{"a": [1]}, (1, 2)], []]
    runs = remote.call(code, "f", cases, 5, 20, yes)
    assert [run.value for run in runs] == cases
    assert len(server.requests) == 1
    assert remote.call(code, "f", cases, 5, 20, lambda run: run.value != cases[1]) == runs[:2]


def test_only_what_the_candidate_defines_is_its_function_there(remote):
    assert [run.status for run in remote.call("x = 1", "gcd", [[4, 6]], 5, 20, yes)] == ["error"]
    assert remote.call("def f(x): return [pow(3, x, 5), gcd(4, 6)]", "f", [[4]], 5, 20, yes)[0].value == [1, 2]


def test_a_process_that_dies_costs_one_case(server, remote):
    code = "import os, sys\ndef f(x):\n    if x == 1: os._exit(0)\n    if x == 2: raise KeyError\n    return x"
    runs = remote.call(code, "f", [[0], [1], [2], [3]], 5, 20, yes)
    assert [run.status for run in runs] == ["ok", "error", "error", "ok"]
    assert len(server.requests) == 2


def test_time_is_limited_for_one_case_and_for_all(remote):
    code = "def f(x):\n    while x: pass\n    return x"
    runs = remote.call(code, "f", [[0], [1], [0]], 0.2, 20, yes)
    assert [run.status for run in runs] == ["ok", "timeout", "ok"]
    code = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n" + code
    runs = remote.call(code, "f", [[1], [0], [0]], 0.2, 0.5, yes)
    assert [run.status for run in runs] == ["timeout"] * 3


@pytest.mark.parametrize(
    "code",
    [
        "def f(x): return object()",
        "def g(x): pass",
        "x = = 1",
        "import sys\nsys.exit(0)",
        "def f(x):\n    y = []\n    for _ in range(9999): y = [y]\n    return y",
        "\ud800",
    ],
)
def test_what_is_no_answer_is_an_error(remote, code):
    assert [run.status for run in remote.call(code, "f", [[1], [2]], 5, 20, yes)] == ["error", "error"]


def test_forged_answers_are_only_answers(remote):
    code = (
        "import sys\nframe = sys._getframe()\nwhile 'job' not in frame.f_locals: frame = frame.f_back\n"
        "mark = frame.f_locals['job']['mark']\n"
        "print(f'\\n{mark} 0 value 69000000012a')\nprint(f'\\n{mark} 1 value zz')\nprint(f'\\n{mark} 2')\n"
        "def f(x): return 7"
    )
    runs = remote.call(code, "f", [[1], [2]], 5, 20, yes)
    assert [(run.status, run.value) for run in runs] == [("ok", 42), ("error", None)]


def test_a_forged_answer_is_no_larger_than_others(remote):
    code = (
        "import sys\nframe = sys._getframe()\nwhile 'job' not in frame.f_locals: frame = frame.f_back\n"
        "size = frame.f_locals['job']['most'] + 1\n"
        "print('\\n' + frame.f_locals['job']['mark'], 0, 'value', '73' + size.to_bytes(4, 'big').hex() + '41' * size)\n"
        "def f(x): return 7"
    )
    runs = remote.call(code, "f", [[1]], 5, 20, yes)
    assert [(run.status, run.value) for run in runs] == [("error", None)]


def test_a_flood_is_the_candidate_s_and_is_not_read_to_its_end(server, remote, monkeypatch):
    monkeypatch.setattr("cohort.sandbox.remote._LONGEST_ANSWER", 50_000)
    run = remote.run("print('x' * 100_000)", "", 10.0)
    assert (run.status, run.message) == ("error", "it wrote far too much")
    flood = "def f(x):\n    print('x' * 100_000)\n    return x"
    assert [run.status for run in remote.call(flood, "f", [[1]], 5, 20, yes)] == ["error"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        500, 503, 429, "hang up", "half an answer", "not HTTP", "not json", "[]", "null",
        json.dumps({"status": "SandboxError", "message": "x"}),
        json.dumps({"run_result": {"status": "Finished"}}),
        json.dumps({"run_result": {"status": "Finished", "return_code": "0"}}),
        json.dumps({"run_result": {"status": "Finished", "return_code": 0, "stdout": ["1"]}}),
        json.dumps({"run_result": {"status": "Finished", "return_code": 0, "execution_time": {}}}),
    ],
)  # fmt: skip
def test_troubles_of_the_server_are_tried_again(server, remote, trouble):
    server.troubles += [trouble, trouble]
    assert remote.run("print(1)", "", 5).output == b"1\n"
    assert len(server.requests) == 3
    server.troubles += [trouble] * 3
    with pytest.raises(SandboxError, match="failed 3 times"):
        remote.run("print(1)", "", 5)


def test_a_server_that_is_not_there_is_an_error_of_the_sandbox():
    remote = RemoteSandbox("http://127.0.0.1:9", retries=1, backoff_s=0.01)
    began = time.monotonic()
    with pytest.raises(SandboxError, match=r"127\.0\.0\.1:9"):
        remote.run("print(1)", "", 5)
    with pytest.raises(SandboxError):
        remote.call("def f(): return 1", "f", [[]], 5, 5, yes)
    assert time.monotonic() - began < 20


@pytest.mark.fault("a remote sandbox that sends elsewhere, or answers nonsense", "it is not followed, and a sentence")
@pytest.mark.parametrize("trouble", [404, 401, 422, 302, 303, 307])  # a redirect is not followed
def test_a_wrong_address_is_the_person_s_to_mend(server, remote, trouble):
    server.troubles.append(trouble)
    with pytest.raises(UserError, match=str(trouble)):
        remote.run("print(1)", "", 5)
    assert len(server.requests) == 1


def test_its_level_is_remote_and_enough(remote):
    assert remote.isolation.level == "remote"
    require(remote.isolation, "isolated")
    with pytest.raises(UserError, match="http"):
        RemoteSandbox("sandbox:8080")
    assert RemoteSandbox("http://a:1/run_code/")._url == RemoteSandbox("http://a:1")._url == "http://a:1/run_code"
