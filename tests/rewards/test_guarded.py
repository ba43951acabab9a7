"""Guarded calls: limits that end a call and nothing else, and nothing left behind."""

import os
import signal
import threading
import time

import psutil
import pytest

from cohort.rewards.guarded import Ended, end_guards, guarded
from cohort.types import InfrastructureError
from leaks import nothing_more_than, of_this_process


def call(name, cpu_s=5.0, **arguments):
    return guarded(f"guard_cases:{name}", cpu_s, **arguments)


def gone(pid):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie":
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left():
    end_guards()
    before = of_this_process()
    yield
    end_guards()
    nothing_more_than(before, 5, of_this_process)


def test_a_call_returns_what_the_function_returns():
    assert call("add", a=1, b=2) == 3
    assert call("add", a=[1], b=[{"x": None}]) == [1, {"x": None}]
    assert call("add", a="\ud800\x00", b="\u6211") == "\ud800\x00\u6211"
    assert len(call("add", a="x" * 3_000_000, b="y")) == 3_000_001


def test_one_child_serves_many_calls_and_not_this_process():
    pids = {call("pid") for _ in range(20)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_a_call_that_takes_too_long_ends_and_the_next_one_works():
    before = call("pid")
    with pytest.raises(Ended) as ended:
        call("spin", cpu_s=0.2)
    assert ended.value.how == "timeout"
    assert gone(before)
    assert call("add", a=1, b=2) == 3
    assert call("pid") != before


def test_a_call_that_takes_too_much_memory_ends():
    with pytest.raises(Ended) as ended:
        call("allocate", megabytes=3000)
    assert ended.value.how == "memory"
    assert call("allocate", megabytes=10) == 10 * 2**20


def test_what_earlier_calls_keep_is_not_held_against_a_later_one():
    counts = [call("keep", megabytes=300) for _ in range(8)]  # 1 GB is all that a child may have
    assert counts.count(1) >= 2
    assert max(counts) < 8


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_a_crash_is_the_calls_own(how):
    with pytest.raises(Ended) as ended:
        call("die", how=int(how))
    assert ended.value.how == "crash"
    assert call("add", a=1, b=2) == 3


def test_a_kill_from_outside_is_the_machines_fault():
    with pytest.raises(InfrastructureError, match="killed from outside"):
        call("die", how=int(signal.SIGKILL))


def test_a_call_that_gets_no_processor_time_is_the_machines_fault():
    with pytest.raises(InfrastructureError, match=r"less than 0.1 s of processor time in 0.4 s"):
        call("sleep", cpu_s=0.1)


def test_a_function_that_raises_is_a_mistake_in_it():
    for name, said in (("fails", "ValueError: one two"), ("absent", "AttributeError"), ("unfit", "TypeError")):
        with pytest.raises(RuntimeError, match=f"guard_cases:{name} raised {said}"):
            call(name)
    with pytest.raises(RuntimeError, match="ModuleNotFoundError"):
        guarded("no_such_module_at_all:x", 1.0)


def test_a_child_writes_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="OSError"):
        call("write", path=str(tmp_path / "file"))
    assert (tmp_path / "file").stat().st_size == 0


def test_a_server_that_died_is_replaced():
    server = psutil.Process(call("parent"))
    server.kill()
    assert call("add", a=1, b=2) == 3
    assert call("parent") != server.pid


def test_a_call_that_is_interrupted_does_not_answer_the_next_one():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    assert call("add", a=1, b=1) == 2
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            call("spin", cpu_s=1.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert call("add", a=1, b=2) == 3


def test_threads_may_call_at_the_same_time():
    found = []
    threads = [
        threading.Thread(target=lambda number=number: found.extend(call("add", a=number, b=0) for _ in range(20)))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([0, 1, 2, 3] * 20)


def test_a_fork_gets_a_server_of_its_own():
    ours = call("parent")
    child = os.fork()
    if child == 0:
        theirs = call("parent")
        end_guards()
        os._exit(0 if theirs != ours else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call("parent") == ours


def test_the_end_takes_all_of_them_along():
    pids = [call("pid"), call("parent")]
    end_guards()
    assert all(gone(pid) for pid in pids)
    end_guards()
    assert call("add", a=1, b=2) == 3
