"""The workers: order, failures, hangs, deaths, and nothing left behind."""

import concurrent.futures
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from cohort.rewards import (
    GroupLost,
    RewardFailure,
    RewardPool,
    RewardTable,
    ScoringItem,
    resolve_all,
    score_group,
    trl,
)
from cohort.rewards.workers import pool
from cohort.rewards.workers.lane import Patience
from cohort.rewards.workers.surroundings import BoundedLog
from cohort.types import InfrastructureError, UserError
from leaks import nothing_more_than, of_this_process


def rewards_of(*uses, **fields):
    return resolve_all([use if isinstance(use, RewardTable) else RewardTable(use=use, **fields) for use in uses])


def item(*completions, **fields):
    return ScoringItem(**{"prompt": "2 + 2 =", "completions": completions or ("4", "5"), "answer": "4", **fields})


def gone(pid):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie":
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = of_this_process()
    yield
    nothing_more_than(before, 5, of_this_process)


def test_it_scores_as_this_process_does_in_any_order():
    def mine(completion, answer, level):
        return level * (completion == answer)

    rewards = rewards_of(
        mine, lambda completion: None if completion == "5" else len(completion), "random", "think_format"
    )
    items = [item("4", "5", str(index), row={"level": index}, seed=index) for index in range(60)]
    with RewardPool(rewards, workers=3) as pool:
        futures = [pool.submit(entry) for entry in items]
        for entry, future in zip(items, futures):
            scored, expected = future.result(timeout=30), score_group(rewards, entry)
            assert repr(scored.scores) == repr(expected.scores)  # repr: NaN equals itself
            assert repr(scored.rewards) == repr(expected.rewards)
            assert list(scored.seconds) == ["mine", "lambda", "random", "think_format"]


def test_closures_lambdas_and_trl_functions_are_shipped():
    table = {"4": 0.75}
    rewards = rewards_of(lambda completion: table.get(completion), trl(closes(3)))
    with RewardPool(rewards, workers=1) as pool:
        scored = pool.submit(item()).result(timeout=30)
    assert scored.scores["lambda"][0] == 0.75
    assert math.isnan(scored.scores["lambda"][1])
    assert scored.scores["inner"] == (3.0, 4.0)
    assert scored.rewards == (3.75, 4.0)


def closes(first):
    def inner(prompts, completions, **columns):
        return [first + index for index in range(len(completions))]

    return inner


def test_a_worker_loads_neither_torch_nor_numpy_and_starts_fast():
    with RewardPool(
        rewards_of(lambda completion: sum(name in sys.modules for name in ("torch", "transformers", "numpy"))),
        workers=1,
    ) as pool:
        assert pool.submit(item()).result(timeout=30).rewards == (0, 0)
        started = time.monotonic()
        with RewardPool(rewards_of(lambda completion: 1), workers=1) as other:
            other.submit(item()).result(timeout=30)
        assert time.monotonic() - started < 5  # 0.15 s on an idle machine


def test_path_and_directory_are_those_of_the_trainer(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "far_away_rewards.py").write_text(
        "import os\ndef here(completion):\n    return len(os.getcwd())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "kept")
    rewards = rewards_of("far_away_rewards:here")
    with RewardPool(rewards, workers=1) as pool:
        monkeypatch.chdir("/")  # what the trainer does later does not move its workers
        assert pool.submit(item()).result(timeout=30).rewards == (len(str(tmp_path)),) * 2
    del sys.modules["far_away_rewards"]


def test_a_function_that_raises_is_a_failure_and_the_worker_goes_on():
    def mine(completion):
        return {"4": 1}[completion]

    with RewardPool(rewards_of(mine), workers=1) as pool:
        futures = [pool.submit(item("5")), pool.submit(item("4"))]
        with pytest.raises(RewardFailure) as caught:
            futures[0].result(timeout=30)
        assert futures[1].result(timeout=30).rewards == (1,)
    assert str(caught.value).startswith("reward 'mine' raised KeyError: '5' at ")
    assert f"{__file__}:{mine.__code__.co_firstlineno + 1}" in str(caught.value)
    assert (caught.value.prompt, caught.value.completion) == ("'2 + 2 ='", "'5'")


@pytest.mark.fault("a reward that returns what is no score", "the run stops, and names it")
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", [1], ...], ids=repr)
def test_a_value_that_is_no_score_is_a_failure(value):
    with (
        RewardPool(rewards_of(lambda completion: value), workers=1) as pool,
        pytest.raises(RewardFailure, match="returned"),
    ):
        pool.submit(item()).result(timeout=30)


def test_other_mistakes_of_the_user_come_back_as_such():
    with RewardPool(rewards_of(lambda completion, absent: 1), workers=1) as pool:
        with pytest.raises(UserError, match="asks for a parameter 'absent'"):
            pool.submit(item()).result(timeout=30)
        with pytest.raises(UserError, match="cannot be sent to a reward worker"):
            pool.submit(item(row={"lock": threading.Lock()})).result(timeout=30)
    lock = threading.Lock()
    with pytest.raises(UserError, match="reward 'lambda' cannot be sent to a worker process"):
        RewardPool(rewards_of(lambda completion: lock.locked()))


class OddError(BaseException):
    """Not an Exception."""


@pytest.mark.fault("a reward that raises, or exits", "the run stops, and names it")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, OddError], ids=lambda e: e.__name__)
def test_whatever_a_function_raises_is_its_failure(error):
    def mine(completion):
        raise error("one\n  two")

    for reward in (mine, trl(lambda completions: mine("x"))):
        with RewardPool(rewards_of(reward), workers=1) as pool, pytest.raises(RewardFailure) as caught:
            pool.submit(item()).result(timeout=30)
        assert f"raised {error.__name__}: one two at {__file__}:" in str(caught.value)


@pytest.mark.fault(
    "a reward that hangs", "its worker is killed; the group is counted as lost, and never scored 0", "the group"
)
def test_a_hang_is_killed_once_and_reported_but_never_scored():
    def hangs(completion):
        while completion == "hang":
            pass
        return 1

    with RewardPool(rewards_of("random", RewardTable(use=hangs, timeout_s=0.5)), workers=1) as pool:
        pool.submit(item()).result(timeout=30)
        futures = [pool.submit(item("hang")), pool.submit(item("4"))]
        with pytest.raises(GroupLost) as caught:
            futures[0].result(timeout=30)
        assert futures[1].result(timeout=30).scores["hangs"] == (1,)
    message = str(caught.value)
    assert message.startswith("reward 'hangs' took more than 0.5 s on the prompt '2 + 2 ='")
    assert "1 try" in message  # it would hang again
    assert "timeout_s" in message
    assert (caught.value.reward, caught.value.timeout, caught.value.retries) == ("hangs", True, {"hangs": 0})


def test_who_waits_is_told_what_for_at_growing_intervals(monkeypatch):
    def sleepy(completion):
        time.sleep(float(completion))
        return 1.0

    monkeypatch.setattr(pool, "SAID_AFTER_S", 0.1)
    said = []
    with RewardPool(rewards_of(sleepy, timeout_s=2), say=said.append) as asked:
        asked.submit(item("0")).result()  # its start is over
        said.clear()
        asked._usual_s = asked._say_at_s = 0.1
        assert asked.submit(item("1")).result().rewards == (1.0,)
        assert said
        assert all("waiting for reward 'sleepy', asked " in text and "given up after 2 s" in text for text in said)
        assert len(said) <= 3  # after 0.1, 0.3 and 0.7 s
        said.clear()
        assert asked.submit(item("0.9")).result().rewards == (1.0,)  # it is known by now to take that long
        assert said == []


def test_who_waits_for_one_lost_group_after_the_other_is_told_how_long_in_all():
    def sleepy(completion):
        time.sleep(float(completion))
        return 1.0

    said = []
    with RewardPool(rewards_of(sleepy, timeout_s=0.5), say=said.append) as asked:
        asked.submit(item("0")).result()  # its start is over
        said.clear()
        asked._usual_s = asked._say_at_s = 0.1
        for _ in range(4):
            with pytest.raises(InfrastructureError, match="took more than"):
                asked.submit(item("60")).result()
    seconds = [int(text.split()[3]) for text in said]
    assert seconds == sorted(seconds)
    assert seconds[-1] >= 1
    assert len(said) <= 6  # not once for every group


@pytest.mark.fault("a reward that hangs where no signal reaches it", "the same", "the group")
def test_a_hang_in_the_middle_of_c_code_is_killed_too():
    def catastrophic(completion):
        import re

        return bool(re.match(r"(a+)+$", completion))

    rewards = rewards_of(catastrophic, timeout_s=0.5)
    with RewardPool(rewards, workers=1, retries=0) as pool, pytest.raises(InfrastructureError, match="1 try"):
        pool.submit(item("a" * 60 + "!")).result(timeout=30)


@pytest.mark.parametrize(
    ("die", "how"),
    [(lambda: os._exit(3), "exit status 3"), (lambda: os.kill(os.getpid(), signal.SIGSEGV), "killed by SIGSEGV")],
    ids=["exit", "segfault"],
)
def test_a_worker_that_dies_is_replaced_and_reported(die, how):
    def fatal(completion):
        return die() if completion == "die" else 1

    with RewardPool(rewards_of(fatal), workers=1, backoff_s=0) as pool:
        futures = [pool.submit(item("die")), pool.submit(item("4"))]
        with pytest.raises(InfrastructureError, match=f"reward 'fatal' ended its worker process .{how}") as caught:
            futures[0].result(timeout=30)
        assert futures[1].result(timeout=30).rewards == (1,)
    assert "the prompt '2 + 2 ='" in str(caught.value)


def test_a_death_that_does_not_repeat_costs_only_a_retry(tmp_path):
    mark = tmp_path / "mark"

    def once(completion):
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return 1

    with RewardPool(rewards_of(once), workers=1, backoff_s=0) as pool:
        assert pool.submit(item()).result(timeout=30).rewards == (1, 1)
    mark.unlink()
    with RewardPool(rewards_of(once), workers=1, retries=0) as pool, pytest.raises(InfrastructureError):
        pool.submit(item()).result(timeout=30)


@pytest.mark.fault("SIGKILL of a reward worker", "another one scores the group")
def test_a_worker_killed_from_outside_is_replaced():
    with RewardPool(rewards_of(lambda completion: os.getpid()), workers=1) as pool:
        (pid, _) = pool.submit(item()).result(timeout=30).rewards
        os.kill(int(pid), signal.SIGKILL)
        (other, _) = pool.submit(item()).result(timeout=30).rewards
        assert other != pid


def test_rewards_that_cannot_start_are_reported_to_every_group():
    class Unloadable:
        def __reduce__(self):
            return (int, ("not a number",))

    held = Unloadable()
    with RewardPool(rewards_of(lambda completion: held and 1), workers=1) as pool:
        for _ in range(2):
            with pytest.raises(RewardFailure, match="reward 'lambda' cannot be loaded in a worker: ValueError"):
                pool.submit(item()).result(timeout=30)


def test_a_start_that_hangs_is_reported():
    class Slow:
        def __reduce__(self):
            return (time.sleep, (60,))

    held = Slow()
    slow = rewards_of(lambda completion: held, timeout_s=0.5)  # a start may take as long as a group at least
    pool = RewardPool(slow, workers=1, retries=0, start_timeout_s=0.5)
    with pool, pytest.raises(InfrastructureError, match="at its start"):
        pool.submit(item()).result(timeout=30)


def test_printing_harms_nothing_and_is_kept_in_the_log(tmp_path, capfd):
    def chatty(completion):
        print("seen", completion)
        print("\x00\xff" * 1000, file=sys.stderr)
        os.write(1, b"raw\n")
        subprocess.run(["echo", "from a child"])
        sys.stdout.close()
        return 1

    with RewardPool(rewards_of(chatty), workers=1, log=tmp_path / "rewards.log") as pool:
        assert pool.submit(item("4")).result(timeout=30).rewards == (1,)
    log = (tmp_path / "rewards.log").read_bytes()
    assert all(text in log for text in (b"seen 4\n", b"raw\n", b"from a child\n"))
    with RewardPool(rewards_of(lambda completion: print("unheard") or 1), workers=1) as pool:
        assert pool.submit(item()).result(timeout=30).rewards == (1, 1)
    assert capfd.readouterr() == ("", "")


SECRETS = {
    "OPENAI_API_KEY": "k", "HF_TOKEN": "k", "AWS_SECRET_ACCESS_KEY": "k", "AWS_ACCESS_KEY_ID": "k", "GH_PAT": "k",
    "PGPASSWORD": "k", "MYSQL_PWD": "k", "GOOGLE_APPLICATION_CREDENTIALS": "k", "my_token": "k", "SSH_AUTH_SOCK": "k",
    "DATABASE_URL": "postgres://me:k@host/db", "SENTRY_DSN": "k", "SESSION_COOKIE": "k", "apikey": "k", "Key": "k",
}  # fmt: skip
PLAIN = {
    "PATH_OF_MINE": "x", "TOKENIZERS_PARALLELISM": "false", "GIT_AUTHOR_NAME": "x", "MONKEY": "x", "KEYBOARD": "x",
    "HOME_PAGE": "https://host/x@y", "OLDPWD": "/",
}  # fmt: skip


def test_workers_do_not_see_secrets(monkeypatch, tmp_path):
    def seen(completion, mine=""):
        (tmp_path / f"seen{mine}").write_text(json.dumps(sorted(os.environ)))
        return 1.0

    for name, value in (SECRETS | PLAIN).items():
        monkeypatch.setenv(name, value)
    given = ({}, {"pass_environment": ["HF_TOKEN", "NOT_THERE"]})
    for number, more in enumerate(given):
        args = {"mine": "GH_PAT"} if number else {}  # as a judge's args name its key
        with RewardPool(rewards_of(RewardTable(use=seen, args=args)), workers=1, **more) as pool:
            assert pool.submit(item("a")).result(timeout=30).rewards == (1.0,)
    first, second = (set(json.loads((tmp_path / name).read_text())) for name in ("seen", "seenGH_PAT"))
    assert first & set(SECRETS) == set()
    assert first >= set(PLAIN)
    assert second & set(SECRETS) == {"HF_TOKEN", "GH_PAT"}


def test_a_reward_that_lacks_a_variable_is_told_how_it_gets_it(monkeypatch):
    def asks(completion):
        return len(os.environ["OPENAI_API_KEY"])

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with (
        RewardPool(rewards_of(asks), workers=1) as pool,
        pytest.raises(RewardFailure, match=r'KeyError.*run.pass_environment = \["OPENAI_API_KEY"\] passes it on'),
    ):
        pool.submit(item()).result(timeout=30)


@pytest.mark.fault("a reward that prints without end", "its log keeps the last of it")
def test_a_log_without_end_stays_small(tmp_path):
    with open(tmp_path / "log", "ab", buffering=0) as file:
        log = BoundedLog(file, largest=1000)
        for number in range(200):
            file.write(b"line %d\n" % number)
            log.trim()
        log.close()
    text = (tmp_path / "log").read_bytes()
    assert len(text) < 1200
    assert text.startswith(b"... the first ")
    assert text.endswith(b"line 198\nline 199\n")


@pytest.mark.fault("a reward that forks", "only the worker answers")
def test_a_forked_child_does_not_answer_for_the_worker():
    def forks(completion):
        if os.fork() == 0:
            return 99  # the child comes back from the call like its parent
        return 1

    with RewardPool(rewards_of(forks), workers=1) as pool:
        for _ in range(3):
            assert pool.submit(item()).result(timeout=30).rewards == (1, 1)


def test_children_of_a_killed_reward_die_with_it(tmp_path):
    def breeds(completion):
        child = subprocess.Popen(["sleep", "100"])
        (tmp_path / "pid").write_text(str(child.pid))
        if completion == "die":
            os._exit(1)
        time.sleep(100)

    for completion in ("hang", "die"):
        with RewardPool(rewards_of(breeds, timeout_s=0.5), workers=1, retries=0) as pool:
            with pytest.raises(InfrastructureError):
                pool.submit(item(completion)).result(timeout=30)
            assert gone(int((tmp_path / "pid").read_text()))


def apart(path, how):
    """Start a process that no signal to a group or session reaches, and write down which."""
    program = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    if how == "daemon":
        program = f"import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); {program}"
    subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    while not path.exists() or not path.read_text():
        time.sleep(0.01)


@pytest.mark.fault("a reward that starts daemons", "they end with its worker")
@pytest.mark.skipif(sys.platform != "linux", reason="there is a keeper on Linux only")
@pytest.mark.parametrize("how", ["session", "daemon"])
@pytest.mark.parametrize("then", ["hang", "die", "score"])
def test_children_in_sessions_of_their_own_die_with_their_worker(tmp_path, then, how):
    def breeds(completion):
        apart(tmp_path / "pid", how)
        if then == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100 if then == "hang" else 0)
        return 1.0

    with RewardPool(rewards_of(breeds, timeout_s=3), workers=1, retries=0) as pool:
        if then == "score":
            assert pool.submit(item("a")).result(timeout=30).rewards == (1.0,)
        else:
            with pytest.raises(GroupLost):
                pool.submit(item("a")).result(timeout=30)
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_scores_of_functions_that_draw_or_iterate_sets_are_the_same_in_every_worker():
    def draws(completion):
        return random.random()

    def hashes(completion):
        return hash(completion) % 1000

    seen = []
    for _ in range(2):
        with RewardPool(rewards_of(draws, hashes), workers=1) as pool:
            seen.append(pool.submit(item(seed=3)).result(timeout=30).scores)
    assert seen[0] == seen[1]
    assert len(set(seen[0]["draws"])) == 2


def test_close_is_quick_whatever_runs_and_may_be_called_twice():
    pool = RewardPool(rewards_of(lambda completion: time.sleep(100)), workers=2)
    futures = [pool.submit(item()) for _ in range(5)]
    deadline = time.monotonic() + 20
    while not all(future.running() for future in futures[:2]) and time.monotonic() < deadline:
        time.sleep(0.01)
    started = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - started < 3
    for future in futures[:2]:
        with pytest.raises(InfrastructureError, match="closed"):
            future.result(timeout=0)
    for future in futures[2:]:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=0)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(item())


def test_close_before_the_workers_are_up():
    for _ in range(10):
        RewardPool(rewards_of(lambda completion: 1), workers=2).close()


def test_close_does_not_wait_for_a_slow_start():
    class Slow:
        def __reduce__(self):
            return (time.sleep, (60,))

    held = Slow()
    rewards = rewards_of(lambda completion: held)
    for pause in (0, 0, 0, 0.01, 0.3):  # before, while and after the worker is started
        pool = RewardPool(rewards, workers=2)
        time.sleep(pause)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 10


def test_a_cancelled_group_is_not_scored():
    with RewardPool(rewards_of(lambda completion: time.sleep(0.3) or 1), workers=1) as pool:
        first, second, third = (pool.submit(item("4")) for _ in range(3))
        assert second.cancel()
        assert third.result(timeout=30).rewards == first.result().rewards == (1,)


def test_values_out_of_range():
    for fields in ({"workers": 0}, {"retries": -1}):
        with pytest.raises(UserError, match="reward pool"):
            RewardPool(rewards_of(lambda completion: 1), **fields)  # type: ignore[arg-type]


SCRIPT = """
    import os, sys, time
    from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve_all
    print("main runs", flush=True)
    LIMIT = 3
    class Score:
        def __init__(self, value): self.value = value
    def mine(completion, row):
        if completion == "sleep":
            time.sleep(100)
        return row["score"].value + LIMIT + 0 * len(os.environ)
    pool = RewardPool(resolve_all([RewardTable(use=mine)]), workers=2)
    def item(*completions): return ScoringItem("p", completions, row={"score": Score(4)})
    print(pool.submit(item("c")).result().rewards, flush=True)
"""


def script(tail):
    return textwrap.dedent(SCRIPT) + textwrap.dedent(tail)


@pytest.mark.parametrize("way", ["file", "stdin", "command"])
def test_a_main_without_a_guard_works_and_runs_once(tmp_path, way):
    text = script("pool.close()")
    (tmp_path / "main.py").write_text(text)
    arguments = {"file": ["main.py"], "stdin": ["-"], "command": ["-c", text]}[way]
    ran = subprocess.run(
        [sys.executable, *arguments],
        input=text if way == "stdin" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("main runs\n(7.0,)\n", "", 0)


CACHED = """
import functools, threading
from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve

@functools.lru_cache
def plain(text): return len(text)
@functools.cache
def forever(text): return len(text)
@functools.lru_cache(maxsize=3, typed=True)
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

class Box:
    @functools.cached_property
    def size(self): return 10
    @functools.lru_cache
    def method(self, text): return len(text)
    @staticmethod
    @functools.cache
    def static(text): return len(text)

box = Box()

def mine(completion):
    assert (fibonacci.cache_parameters(), fibonacci(30)) == ({"maxsize": 3, "typed": True}, 832040)
    return plain(completion) + forever(completion) + box.size + box.method(completion) + Box.static(completion)

@functools.lru_cache
def direct(completion): return float(len(completion))

def local():
    @functools.cache
    def helper(text): return len(text)
    return lambda completion: helper(completion)

lock = threading.Lock()
def locked(completion):
    with lock:
        return 1.0

@functools.singledispatch
def kind(value): return 1.0
def dispatched(completion): return kind(completion)

for function in (mine, direct, local(), locked, dispatched):
    try:
        with RewardPool([resolve(RewardTable(use=function))], workers=1) as pool:
            print(pool.submit(ScoringItem("?", ("a", "bb"))).result().rewards)
    except Exception as error:
        print("into a module" in str(error))
"""


@pytest.mark.parametrize("way", ["script", "notebook"])
def test_cached_helpers_of_a_script_or_notebook_reach_workers(tmp_path, way):
    (tmp_path / "main.py").write_text(CACHED)
    arguments = ["main.py"] if way == "script" else ["-c", f"exec({CACHED!r})"]  # as a notebook, without a file
    ran = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines() == ["(14.0, 18.0)", "(1.0, 2.0)", "(1.0, 2.0)", "True", "True"], ran.stderr


def test_a_script_that_forgets_to_close_ends_cleanly(tmp_path):
    text = script("pool.submit(item('sleep'))\nprint(*[lane._worker._process.pid for lane in pool._lanes])")
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert all(gone(int(pid)) for pid in ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_trainer_however_it_ends(how):
    text = script("""
        future = pool.submit(item("sleep"))
        while not future.running(): time.sleep(0.01)
        print(*[lane._worker._process.pid for lane in pool._lanes], flush=True)
        with pool:
            future.result()
    """)
    trainer = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [trainer.stdout.readline() for _ in range(3)]
    pids = [int(pid) for pid in lines[-1].split()]
    assert len(pids) == 2
    assert all(psutil.pid_exists(pid) for pid in pids)
    trainer.send_signal(how)
    _, errors = trainer.communicate(timeout=10)
    assert ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
    assert all(gone(pid) for pid in pids)


@pytest.mark.fault("SIGKILL of the trainer, as the system does where memory runs out", "all that it had started ends")
@pytest.mark.skipif(sys.platform != "linux", reason="there is a keeper on Linux only")
def test_no_process_in_a_session_of_its_own_outlives_a_killed_trainer(tmp_path):
    text = textwrap.dedent("""
        import subprocess, sys, time
        from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve

        def breeds(completion):
            child = subprocess.Popen(["sleep", "100"], start_new_session=True)
            open(sys.argv[1], "w").write(str(child.pid))
            time.sleep(100)

        if __name__ == "__main__":
            with RewardPool([resolve(RewardTable(use=breeds))], workers=1) as pool:
                pool.submit(ScoringItem("?", ("a",))).result()
        """)
    (tmp_path / "main.py").write_text(text.replace("sys.argv[1]", repr(str(tmp_path / "pid"))))
    trainer = subprocess.Popen([sys.executable, tmp_path / "main.py"])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    trainer.kill()
    trainer.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_fork_of_the_trainer_leaves_the_workers_alone():
    with RewardPool(rewards_of(lambda completion: os.getpid()), workers=1) as pool:
        before = pool.submit(item()).result(timeout=30).rewards
        child = os.fork()
        if child == 0:
            pool.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert pool.submit(item()).result(timeout=30).rewards == before


@pytest.mark.fault("rewards by the thousand", "no process, thread or descriptor more")
def test_many_groups_leave_nothing_behind():
    with RewardPool(rewards_of("exact_number"), workers=2) as pool:
        futures = [pool.submit(item(f"<answer>{index}</answer>", answer=index)) for index in range(1000)]
        assert all(future.result(timeout=30).rewards == (1,) for future in futures)


# ---- what is tried again, and what that keeps


def counting(path, name):
    """A reward that says how often it was called, in whatever process."""

    def called(completion):
        with open(path / name, "a") as file:
            file.write("x")
        return float(len((path / name).read_text()))

    return called


@pytest.mark.parametrize("trouble", ["death", "unavailable"])
def test_a_retry_goes_on_with_the_reward_that_failed(tmp_path, trouble):
    def fails_twice(completion):
        (tmp_path / "tries").open("a").write("x")
        tries = len((tmp_path / "tries").read_text())
        if tries <= 2:
            if trouble == "death":
                os._exit(1)
            raise InfrastructureError("the sandbox is down")
        return float(tries)

    rewards = rewards_of(
        RewardTable(use=counting(tmp_path, "before"), name="before"),
        fails_twice,
        RewardTable(use=counting(tmp_path, "after"), name="after"),
    )
    with RewardPool(rewards, workers=1, retries=2, backoff_s=0) as pool:
        scored = pool.submit(item("4")).result(timeout=30)
    assert scored.scores == {"before": (1.0,), "fails_twice": (3.0,), "after": (1.0,)}  # what stood was not done again
    assert scored.retries == {"fails_twice": 2}


def test_what_a_reward_asks_may_fail_without_costing_its_worker(tmp_path):
    def asks(completion):
        if completion == "down":
            raise InfrastructureError("http://judge does not answer")
        return os.getpid()

    with RewardPool(rewards_of(asks), workers=1, retries=1, backoff_s=0) as pool:
        (before,) = pool.submit(item("up")).result(timeout=30).rewards
        with pytest.raises(GroupLost) as caught:
            pool.submit(item("down")).result(timeout=30)
        (after,) = pool.submit(item("up")).result(timeout=30).rewards
    assert before == after  # the same process
    assert "reward 'asks' could not judge (http://judge does not answer) on the prompt" in str(caught.value)
    assert "2 tries" in str(caught.value)
    assert (caught.value.reward, caught.value.timeout, caught.value.retries) == ("asks", False, {"asks": 1})


def test_two_rewards_that_fail_once_each_are_counted_apart(tmp_path):
    def once(name):
        def reward(completion):
            if not (tmp_path / name).exists():
                (tmp_path / name).touch()
                os._exit(1)
            return 1

        return RewardTable(use=reward, name=name)

    with RewardPool(rewards_of(once("a"), once("b")), workers=1, retries=1, backoff_s=0) as pool:
        assert pool.submit(item("4")).result(timeout=30).retries == {"a": 1, "b": 1}


def test_waits_grow_and_have_an_end():
    patience = Patience(retries=100, backoff_s=0.5)
    assert [patience.wait_s(retry) for retry in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert patience.wait_s(100) == 30.0
    assert Patience(retries=1, backoff_s=0).wait_s(1) == 0


def test_close_does_not_sit_out_a_wait():
    def down(completion):
        raise InfrastructureError("down")

    pool = RewardPool(rewards_of(down), workers=1, retries=5, backoff_s=1000)
    future = pool.submit(item("4"))
    deadline = time.monotonic() + 20
    while not future.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    pool.close()
    with pytest.raises(GroupLost, match="closed"):
        future.result(timeout=0)


def test_results_come_to_their_groups_whatever_happens_to_others(tmp_path):
    """Deaths, servers that are down, hangs and broken functions among good groups: nobody gets another's scores."""

    def troubled(completion, level):
        import time

        mark = tmp_path / f"{completion}-{level}"
        if completion == "dies once" and not mark.exists():
            mark.touch()
            os._exit(1)
        if completion == "down once" and not mark.exists():
            mark.touch()
            raise InfrastructureError("down")
        if completion == "hangs":
            time.sleep(100)
        if completion == "breaks":
            raise ValueError("broken")
        return level

    kinds = ("good", "dies once", "good", "down once", "good", "breaks")
    cases = [kinds[index % len(kinds)] for index in range(48)]
    cases[7] = cases[23] = "hangs"
    with RewardPool(rewards_of(troubled, timeout_s=0.7), workers=3, retries=1, backoff_s=0) as pool:
        futures = [pool.submit(item(kind, row={"level": index})) for index, kind in enumerate(cases)]
        for index, (kind, future) in enumerate(zip(cases, futures)):
            if kind == "hangs":
                with pytest.raises(GroupLost, match=r"took more than 0\.7 s"):
                    future.result(timeout=60)
            elif kind == "breaks":
                with pytest.raises(RewardFailure, match="broken"):
                    future.result(timeout=60)
            else:
                assert future.result(timeout=60).rewards == (index,)
