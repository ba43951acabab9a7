"""The reward for code: from a completion to a score, and what it does when the sandbox fails."""

import json
import sys
from typing import Any

import pytest

from cohort.rewards import RewardFailure, RewardPool, RewardTable, ScoringItem, resolve, resolve_all
from cohort.rewards.verifiers.code import code as module
from cohort.rewards.verifiers.code.code import check_code, close_executors, code, executor_for, extract_code
from cohort.rewards.workers.process import limit_s
from cohort.sandbox import WALL_PER_CPU, Limits, Sandbox, SandboxError, local
from cohort.types import InfrastructureError, UserError
from hostile_code import FUNCTION_TESTS, FUNCTIONS, PROGRAM_TESTS, PROGRAMS, fenced
from leaks import left_behind, nothing_more_than

ARGS: dict[str, Any] = {"isolation": "process", "memory_mb": 256}


@pytest.fixture(autouse=True, scope="module")
def nothing_stays():
    before = left_behind()
    yield
    close_executors()
    nothing_more_than(before)


def score(text, tests=FUNCTION_TESTS, **args):
    return code(fenced(text), tests, **{**ARGS, **args})


# --- the code of a completion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("```python\nx\n```", "x"),
        ("```py\nx\n```", "x"),
        ("```Python3 \nx\n``` ", "x"),
        ("First:\n```python\nx\n```\nBetter:\n```python\ny\n```\nDone.", "y"),
        ("```python\nx\n```\nIt prints\n```\n42\n```\n", "x"),
        ("```python\nx\n```\n```json\n{}\n```", "x"),
        ("```python\nx\n```\n```python\ny", "x"),  # the last closed one
        ("```python\nx = '''\n```text\n'''\n```", "x = '''\n```text\n'''"),
        ("1. Do this:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("````python\nx\n````", "x"),
        ("```python\r\nx\r\n```\r\n", "x\r"),
        ("<think>```python\nx\n```</think>\n```python\ny\n```", "y"),
        ("```python\nforgotten\n```python\nx\n```", "x"),
        ("```python\n\n```", None),
        ("```python\nx", None),
        ("```\nx\n```", None),
        ("```javascript\nx\n```", None),
        ("x", None),
        ("", None),
        ("``python\nx\n``", None),
        ("```python x```", None),
    ],
)
def test_it_is_the_last_closed_block_fenced_as_python(completion, found):
    assert extract_code(completion) == found


def test_by_option_it_is_the_whole_text():
    assert extract_code("x\n```python\ny\n```", "whole") == "x\n```python\ny\n```"
    assert extract_code(" \n", "whole") is None


@pytest.mark.parametrize(
    "hostile", ["```python\n" * 100_000, "```" * 300_000, "`" * 1_000_000, "```python\n" + "\n" * 10**6]
)
def test_hostile_completions_are_read_in_linear_time(hostile):
    assert extract_code(hostile) is None


# --- scores -----------------------------------------------------------------------------------------------------------


def test_all_tests_must_pass():
    assert score("def add(a, b): return a + b").value == 1.0
    one = score("def add(a, b): return 42")
    assert (one.value, one.label) == (0.0, "wrong")
    assert code("no code", FUNCTION_TESTS, **ARGS).label == "no_code"
    assert code("def add(a, b): return a + b", FUNCTION_TESTS, extract="whole", **ARGS).value == 1.0


def test_a_function_of_the_library_is_no_answer():
    tests = {"fn_name": "gcd", "inputs": [[4, 6], [9, 6]], "outputs": [2, 3]}
    assert (score("x = 1", tests).value, score("x = 1", tests).label) == (0.0, "error")
    assert score("def gcd(a, b): return gcd(b, a % b) if b else a", tests).value == 1.0


def test_credit_can_be_shared():
    tests = {"fn_name": "f", "inputs": [[i] for i in range(4)], "outputs": [0, 1, 2, 3]}
    assert score("def f(x): return min(x, 2)", tests, credit="share").value == 0.75
    assert score("def f(x): return [][x]", tests, credit="share").value == 0.0
    some = score("import os\ndef f(x): return x if x != 1 else os._exit(0)", tests, credit="share")
    assert (some.value, some.label) == (0.75, "error")
    slow = score("def f(x):\n    while x == 0: pass\n    return x", tests, credit="share", time_s=0.1)
    assert (slow.value, slow.label) == (0.75, "timeout")
    programs = {"inputs": ["1", "2", "3"], "outputs": ["1", "2", "4"]}
    half = score("print(input())", programs, credit="share")
    assert (half.value, half.label) == (pytest.approx(2 / 3), "wrong")


def test_time_for_all_tests_together_is_limited():
    tests = {"inputs": ["1"] * 50, "outputs": ["1"] * 50}
    slow = score("while True: pass", tests, credit="share", time_s=0.1, total_s=0.25)
    assert (slow.value, slow.label) == (0.0, "timeout")
    burns = "import time\nwhile time.process_time() < 0.1: pass\nprint(1)"
    assert score(burns, tests, time_s=1.0, total_s=0.3).label == "timeout"
    assert score(burns, {"inputs": ["1"] * 2, "outputs": ["1"] * 2}, time_s=1.0, total_s=5.0).value == 1.0


def test_the_tolerance_is_for_decimals():
    tests = {"fn_name": "f", "inputs": [[]], "outputs": [0.3]}
    assert score("def f(): return 0.1 + 0.2", tests).value == 1.0
    assert score("def f(): return 0.1 + 0.2", tests, tolerance=0.0).value == 0.0
    assert score("def f(): return 0.31", tests, tolerance=0.1).value == 1.0
    assert score("print(0)", {"inputs": [""], "outputs": ["0.0001"]}).value == 0.0


def test_wrapped_results_may_be_either():
    tests = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2]]}
    assert score("def f(x): return x", tests).value == 1.0
    assert score("def f(x): return [x]", tests).value == 1.0
    assert score("def f(x): return [[x]]", tests).value == 0.0
    assert score("def f(x): return True", tests).value == 0.0


def test_rows_are_checked_before_a_run():
    check_code(json.dumps(FUNCTION_TESTS), **ARGS)
    for wrong in (
        {"credit": "most"},
        {"extract": "first"},
        {"isolation": "remote"},
        {"time_s": 0},
        {"total_s": float("inf")},
        {"time_s": True},
        {"tolerance": 1.5},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            check_code(FUNCTION_TESTS, **wrong)
    with pytest.raises(ValueError, match="assertions"):
        check_code("assert add(1, 2) == 3")
    with pytest.raises(UserError, match="memory_mb"):
        check_code(FUNCTION_TESTS, memory_mb=1)
    with pytest.raises(UserError, match="http"):
        check_code(FUNCTION_TESTS, url="nowhere")


# --- hostile code -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(), ("namespaces",)], ids=["all", "without namespaces"])
def strict(request):
    """The executor of untrusted code at every level that is enough by default."""
    with Sandbox(Limits(memory_mb=256), minimum="process", without=request.param) as sandbox:
        if sandbox.isolation.level == "process":
            pytest.skip(f"this machine reaches '{sandbox.isolation.level}'")
        yield sandbox


@pytest.mark.parametrize("attempt", PROGRAMS, ids=lambda a: a.name)
def test_hostile_programs_do_not_pay(attempt, strict, monkeypatch):
    check_attempt(attempt, PROGRAM_TESTS, strict, monkeypatch)


@pytest.mark.parametrize("attempt", FUNCTIONS, ids=lambda a: a.name)
def test_hostile_functions_do_not_pay(attempt, strict, monkeypatch):
    check_attempt(attempt, FUNCTION_TESTS, strict, monkeypatch)


def check_attempt(attempt, tests, executor, monkeypatch):
    monkeypatch.setitem(module._executors, (None, "filtered", 256), executor)
    slow = "timeout" in attempt.verdicts
    time_s = 0.15 if slow else 5.0
    for credit in ("all",) if slow else ("all", "share"):
        scored = code(fenced(attempt.code), tests, credit, time_s=time_s, total_s=2 * time_s, memory_mb=256)
        assert scored.label in attempt.verdicts
        if "right" in attempt.verdicts:
            assert scored.value == 1.0
        else:
            assert scored.value == 0.0 or (credit == "share" and attempt.name in ("a constant", "answers ahead"))
    assert executor.run("print(1)", "", 5.0).output == b"1\n"


# --- when the sandbox fails, and when it is not good enough -----------------------------------------------------------


class Broken:
    """An executor whose sandbox does not work, so many times."""

    def __init__(self, times):
        self.times = times

    def run(self, *_):
        raise SandboxError("no processes left")

    call = run


def test_a_broken_sandbox_is_no_score(monkeypatch):
    monkeypatch.setitem(module._executors, (None, "process", 256), Broken(1))
    for tests in (FUNCTION_TESTS, PROGRAM_TESTS):
        with pytest.raises(InfrastructureError, match="no processes left"):
            score("x = 1", tests)


def fails_at_first(completion, answer):
    """As `code`, but the launcher has died when it is called for the first time."""
    import os
    import signal
    import time

    import psutil

    executor = executor_for(None, "process", 256)
    if "marked" not in globals():
        globals()["marked"] = True
        executor.run("", "", 5.0)
        keeper = psutil.Process(executor._launcher._process.pid)  # type: ignore[attr-defined]
        os.kill(keeper.children(recursive=True)[-1].pid, signal.SIGKILL)
        time.sleep(0.2)
    return code(completion, answer, isolation="process", memory_mb=256)


def test_the_pool_tries_again_when_the_sandbox_failed():
    item = ScoringItem("q", (fenced("def add(a, b): return a + b"), "nothing"), answer=FUNCTION_TESTS)
    with RewardPool(resolve_all([RewardTable(use=fails_at_first)]), workers=1) as pool:
        scored = pool.submit(item).result(timeout=60)
    assert scored.rewards == (1.0, 0.0)
    assert scored.labels["fails_at_first"] == ("right", "no_code")
    assert sum(scored.retries.values()) == 1


def test_a_machine_that_is_not_safe_enough_stops_the_run(monkeypatch):
    monkeypatch.setattr(local._Launched, "_hello", lambda *_: module.Sandbox and _process_level())
    monkeypatch.setattr(module, "_executors", {})
    with pytest.raises(UserError, match="Landlock and seccomp"):
        code(fenced("x = 1"), FUNCTION_TESTS)
    with pytest.raises(UserError, match="Landlock and seccomp"):
        module._start(None, "filtered", 256)


def _process_level():
    from cohort.sandbox import Isolation

    return Isolation("process", (), {"landlock": "too old", "seccomp": "too old"})


# --- in the pool ------------------------------------------------------------------------------------------------------


def test_it_is_built_in_and_counts_its_verdicts():
    reward = resolve(RewardTable(use="code", args={**ARGS, "total_s": 3.0}))
    assert limit_s(reward, 10) == pytest.approx(30 + 10 * WALL_PER_CPU * 3.0)
    texts = [a.code for a in FUNCTIONS if a.name in ("right", "a constant", "raises", "exits hard")]
    item = ScoringItem("q", (*map(fenced, texts), "words"), answer=json.dumps(FUNCTION_TESTS))
    before = left_behind()
    with RewardPool([reward], workers=2) as pool:
        results = [pool.submit(item).result(timeout=60) for _ in range(3)]
    nothing_more_than(before)
    assert {result.rewards for result in results} == {(1.0, 0.0, 0.0, 0.0, 0.0)}
    assert results[0].labels["code"] == ("right", "wrong", "error", "error", "no_code")


def test_tests_that_cannot_be_run_stop_the_run_with_the_reason():
    item = ScoringItem("q", (fenced("x = 1"),), answer=["assert add(1, 2) == 3"])
    with (
        RewardPool(resolve_all([RewardTable(use="code", args=ARGS)]), workers=1) as pool,
        pytest.raises(RewardFailure, match="assertions"),
    ):
        pool.submit(item).result(timeout=60)


def test_importing_rewards_loads_no_http_client():
    import subprocess

    run = "import sys, cohort.rewards; print(*{'urllib.request', 'http.client', 'asyncio'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True).stdout.strip() == ""
