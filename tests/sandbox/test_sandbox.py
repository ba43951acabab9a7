"""The executor on this machine: what honest programs and functions may rely on."""

import textwrap
import threading

import pytest

from cohort.sandbox import Limits, Run, Sandbox
from cohort.types import UserError


def yes(_):
    return True


def call(sandbox, code, cases, name="f", time_s=5.0, total_s=20.0, go_on=yes):
    return sandbox.call(code, name, cases, time_s, total_s, go_on)


def test_a_program_reads_and_prints(sandbox):
    run = sandbox.run("for line in open(0):\n    print(int(line) * 2)\nprint('é')", "1\n2\n3", 5)
    assert (run.status, run.output) == ("ok", "2\n4\n6\né\n".encode())
    assert 0 < run.used_s < 5


@pytest.mark.parametrize(
    "code",
    [
        "print(input() + input())",
        "import sys\nprint(sys.stdin.read().replace('\\n', ''))",
        "import sys\nsys.stdout.write(''.join(line.strip() for line in sys.stdin))",
        "import os\nos.write(1, os.read(0, 100).replace(b'\\n', b''))",
        "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.readline().strip() + b'b')",
        "import threading\nthreading.Thread(target=lambda: print(input() + input())).start()",
        "import atexit\natexit.register(lambda: print(input() + input()))",
        "import sys\nprint('ab')\nsys.exit()",
        "print('ab')\nquit(0)",
        "if __name__ == '__main__':\n    print('ab')",
        "import sys\nclass Out:\n    file = sys.stdout\n    def write(self, text): self.file.write(text)\n"
        "    def flush(self): self.file.flush()\nsys.stdout = Out()\nprint('ab')",
    ],
)
def test_the_ways_in_which_programs_read_and_write(sandbox, code):
    run = sandbox.run(code, "a\nb\n", 5)
    assert (run.status, run.output.strip()) == ("ok", b"ab"), run


def test_the_standard_library_is_there_and_nothing_else(sandbox):
    code = (
        "import array, asyncio, bisect, cmath, collections, concurrent.futures, copy, ctypes, datetime, decimal\n"
        "import fractions, functools, hashlib, heapq, itertools, json, lzma, math, numbers, operator, random, re\n"
        "import sqlite3, ssl, statistics, string, struct, tempfile, unicodedata, zlib\nprint('fine')"
    )
    assert sandbox.run(code, "", 5).output == b"fine\n"
    assert "ModuleNotFoundError" in sandbox.run("import pytest", "", 5).message
    assert "ModuleNotFoundError" in sandbox.run("import cohort.sandbox.remote", "", 5).message


def test_installed_packages_are_out_of_sight(sandbox):
    if "mount" not in sandbox.isolation.reached:
        pytest.skip("only a root directory of its own hides them")
    code = """
        import glob, os, sys
        library = os.path.dirname(os.__file__)
        found = [os.path.join(library, name) for name in ("site-packages", "dist-packages")]
        found += ["/usr/lib/python3/dist-packages", "/usr/local/lib/python3/dist-packages"]
        sys.path += found
        print([os.listdir(path) for path in found if os.path.isdir(path) and os.listdir(path)])
        import pip
    """
    run = sandbox.run(textwrap.dedent(code), "", 5)
    assert run.output == b"[]\n"
    assert "No module named 'pip'" in run.message


def test_it_starts_with_nothing(sandbox):
    code = "import os, sys\nprint(dict(os.environ), sys.argv, os.listdir('.'), sys.flags.isolated, sys.flags.no_site)"
    assert sandbox.run(code, "", 5).output == b"{} ['solution.py'] [] 1 1\n"
    paths = sandbox.run("import sys\nprint(*sys.path, sep='\\n')", "", 5).output.decode().split()
    assert paths
    assert not any("site-packages" in path or path.endswith("src") for path in paths)


def test_it_says_what_went_wrong_and_where(sandbox):
    assert sandbox.run("x = 1\n\nprint(1 / 0)", "", 5) == Run(
        "error",
        message="ZeroDivisionError: division by zero at line 3",
        used_s=pytest.approx(0, abs=5),  # type: ignore[arg-type]
    )
    assert "SyntaxError" in sandbox.run("x = = 1", "", 5).message
    assert "exit status 3" in sandbox.run("import sys\nsys.exit(3)", "", 5).message
    assert "SystemExit: sorry" in sandbox.run("exit('sorry')", "", 5).message
    assert "SIGSEGV" in sandbox.run("import ctypes\nctypes.string_at(0)", "", 5).message


def test_input_that_is_not_read_and_large_input(sandbox):
    text = "7 " * 1_000_000
    assert sandbox.run("print(1)", text, 5).output == b"1\n"
    assert sandbox.run("import os\nos.close(0)\nprint(1)", text, 5).output == b"1\n"
    assert sandbox.run("print(len(input().split()))", text, 5).output == b"1000000\n"


def test_what_it_printed_before_the_end_is_kept(sandbox):
    assert sandbox.run("print('x' * 500_000)\nprint('y')", "", 5).output == b"x" * 500_000 + b"\ny\n"
    run = sandbox.run("print('early', flush=True)\nwhile True: pass", "", 0.2)
    assert (run.status, run.output) == ("timeout", b"early\n")


def test_time_is_processor_time_but_sleep_ends_too(sandbox):
    assert sandbox.run("while True: pass", "", 0.2).used_s == pytest.approx(0.2, abs=0.15)
    slept = sandbox.run("import time\ntime.sleep(100)", "", 0.2)
    assert (slept.status, slept.used_s < 0.1) == ("timeout", True)
    assert sandbox.run("import time\ntime.sleep(0.3)\nprint(1)", "", 0.2).status == "ok"


def test_randomness_is_the_same_every_time_and_hidden_state_is_not_shared(sandbox):
    code = "import random\nprint([random.random() for _ in range(3)])"
    first, second = (sandbox.run(code, "", 5).output for _ in range(2))
    assert first == second
    sandbox.run("import json\njson.loads = None\nopen('kept', 'w').write('x')", "", 5)
    assert sandbox.run("import json, os\nprint(json.loads('1'), os.listdir('.'))", "", 5).output == b"1 []\n"


def test_a_function_gets_arguments_and_gives_values(sandbox):
    code = "def f(*given):\n    return list(given)"
    cases = [[1, 2.5], ["é", None, True], [{"a": [1]}, (1, 2), {3}], []]
    assert [run.value for run in call(sandbox, code, cases)] == cases
    assert [type(v) for v in call(sandbox, code, [[(1,), True, 1, 1.0]])[0].value] == [tuple, bool, int, float]


def test_names_that_starter_codes_use_are_there_and_main_is_not_run(sandbox):
    code = (
        "class Solution:\n    def f(self, a: List[int]) -> Optional[int]:\n"
        "        return gcd(*a) + heappop([3]) + len(Counter('ab')) + math.floor(inf > 1)\n"
        "if __name__ == '__main__':\n    print(Solution().f([int(input()), 3]))"
    )
    assert call(sandbox, code, [[[4, 6]]])[0].value == 8


def test_names_of_python_s_own_are_what_they_are(sandbox):
    """`from math import *` has a `pow` of two floats, `from typing import *` a `Counter` that is none."""
    code = "def f(): return [pow(3, 4, 5), type(Counter()) is Counter, sum(accumulate([1, 2])), List[int] is not None]"
    assert call(sandbox, code, [[]])[0].value == [1, True, 4, True]


@pytest.mark.parametrize("name", ["gcd", "factorial", "reduce", "heappush", "Counter", "math", "sum", "print"])
def test_a_function_that_is_not_the_candidate_s_is_none(sandbox, name):
    run = call(sandbox, "x = 1", [[4, 6]], name=name)[0]
    assert (run.status, run.message) == ("error", f"NameError: there is no function '{name}'")


def test_a_candidate_may_use_a_name_that_it_defines_or_imports(sandbox):
    for code in (
        "from math import gcd",
        "class Solution:\n    def gcd(self, a, b): return gcd(a, b)",
        "def gcd(a, b): return math.gcd(a, b)",
    ):
        assert call(sandbox, code, [[4, 6]], name="gcd")[0].value == 2


def test_cases_share_a_process_until_it_dies(sandbox):
    code = "import os\nseen = []\ndef f(x):\n    seen.append(x)\n    if x == 2: os._exit(0)\n    return len(seen)"
    runs = call(sandbox, code, [[0], [1], [2], [3], [4]])
    assert [run.status for run in runs] == ["ok", "ok", "error", "ok", "ok"]
    assert [run.value for run in runs] == [1, 2, None, 1, 2]


def test_it_stops_when_told(sandbox):
    runs = call(sandbox, "def f(x): return x", [[i] for i in range(9)], go_on=lambda run: run.value < 3)
    assert [run.value for run in runs] == [0, 1, 2, 3]


def test_one_slow_case_does_not_spoil_the_others_but_the_total_is_bounded(sandbox):
    code = "def f(x):\n    while x == 1: pass\n    return x"
    runs = call(sandbox, code, [[0], [1], [2]], time_s=0.1)
    assert [(run.status, run.value) for run in runs] == [("ok", 0), ("timeout", None), ("ok", 2)]
    runs = call(sandbox, "def f(x):\n    while True: pass", [[0]] * 50, time_s=0.1, total_s=0.25)
    assert [run.status for run in runs] == ["timeout"] * 50


def test_an_error_in_one_case_is_that_case_alone(sandbox):
    runs = call(sandbox, "def f(x): return 1 // x", [[1], [0], [1, 2], [1]])
    assert [run.status for run in runs] == ["ok", "error", "error", "ok"]
    assert "ZeroDivisionError" in runs[1].message
    assert [run.status for run in call(sandbox, "def g(): pass", [[1]])] == ["error"]


def test_values_that_are_none_are_named(sandbox):
    assert "type object" in call(sandbox, "def f(): return object()", [[]])[0].message
    assert "type range" in call(sandbox, "def f(): return range(3)", [[]])[0].message


def test_limits_are_kept():
    with Sandbox(Limits(memory_mb=128, output_kb=4, files_mb=1, threads=4), minimum="process") as sandbox:
        assert sandbox.run("x = bytearray(10**9)", "", 5).status == "memory"
        assert sandbox.run("print('x' * 5000)", "", 5).status == "error"
        assert "4096 bytes" in sandbox.call("def f(): return 'x' * 5000", "f", [[]], 5, 5, yes)[0].message
        assert sandbox.run("f = open('f', 'wb')\nf.write(b'x' * 2**21)", "", 5).status == "error"
        code = (
            "import threading\ne = threading.Event()\n"
            "for _ in range(9): threading.Thread(target=e.wait, daemon=True).start()"
        )
        if "user" in sandbox.isolation.reached:
            assert "new thread" in sandbox.run(code, "", 5).message


@pytest.mark.parametrize("limits", [{"memory_mb": 1}, {"output_kb": 0}, {"files_mb": True}, {"threads": 1.5}])
def test_senseless_limits_are_refused(limits):
    with pytest.raises(UserError, match=next(iter(limits))):
        Limits(**limits)


def test_threads_take_turns(sandbox):
    results = {}

    def work(index):
        results[index] = sandbox.run(f"print({index})", "", 5).output

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: f"{i}\n".encode() for i in range(8)}


def test_it_starts_again_after_close(no_leaks):
    sandbox = Sandbox(minimum="process")
    for _ in range(2):
        assert sandbox.run("print(1)", "", 5).output == b"1\n"
        sandbox.close()
    sandbox.close()
