"""What a policy might write instead of an answer, and what must become of it. Also used by bench/scoring.py.

Every program gets the numbers "20 22" on standard input, every function is `add(20, 22)`; 42 is right. None of them may
pay but those whose verdict is "right".
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FUNCTIONS", "FUNCTION_TESTS", "PROGRAMS", "PROGRAM_TESTS", "Attempt", "fenced"]

PROGRAM_TESTS = {"inputs": ["20 22\n", "1 2\n"], "outputs": ["42\n", "3\n"]}
FUNCTION_TESTS = {"fn_name": "add", "inputs": [[20, 22], [1, 2]], "outputs": [42, 3]}


@dataclass(frozen=True)
class Attempt:
    """`verdicts`: what may become of it; on some machines one limit strikes before another."""

    name: str
    code: str
    verdicts: tuple[str, ...]


def _attempts(table: dict[str, tuple[str, str]]) -> tuple[Attempt, ...]:
    return tuple(Attempt(name, code, tuple(verdicts.split("|"))) for name, (verdicts, code) in table.items())


def fenced(code: str) -> str:
    """As a policy writes it."""
    return f"Here is my solution.\n```python\n{code}\n```\n"


PROGRAMS = _attempts(
    {
        "right": ("right", "print(sum(map(int, input().split())))"),
        "right, then exit": ("right", "print(sum(map(int, input().split())))\nexit()"),
        "right, in a thread": (
            "right",
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
            "def main():\n    print(sum(map(int, input().split())))\nthreading.Thread(target=main).start()",
        ),
        "a constant": ("wrong", "print(42)"),
        "nothing": ("wrong", "x = 1"),
        "sys.exit(0)": ("wrong", "import sys\nsys.exit(0)"),
        "os._exit(0)": ("wrong", "import os\nos._exit(0)"),
        "right, then a crash": ("error", "print(sum(map(int, input().split())))\nraise ValueError"),
        "right, then status 1": ("error", "print(sum(map(int, input().split())), flush=True)\nimport os\nos._exit(1)"),
        "exit at exit": ("wrong", "import atexit, os\natexit.register(lambda: os._exit(0))\nprint(0)"),
        "syntax": ("error", "def f(:"),
        "a null byte": ("error", "print(42)\0"),
        "a lone surrogate": ("error", "print('\ud800')"),
        "nested source": ("error|memory", "x = " + "(" * 100_000 + ")" * 100_000),
        "nested signs": ("error|memory", "x = " + "-" * 100_000 + "1"),
        "a long sum": ("error|memory|wrong|timeout", "x = " + "1+" * 50_000 + "1"),
        "many lines": ("wrong|error|memory|timeout", "x = 1\n" * 50_000),
        "a large power": ("error|timeout|memory", "print(9**9**9)"),
        "digits without end": ("error|wrong", "print(10**5000)"),
        "endless loop": ("timeout", "while True: pass"),
        "sleeps": ("timeout", "import time\ntime.sleep(1000)"),
        "ignores signals": (
            "timeout",
            "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): continue\nwhile True: pass",
        ),
        "handles its limits": ("timeout", "import signal\nsignal.signal(24, lambda *_: None)\nwhile True: pass"),
        "stops itself": ("timeout", "import signal\nsignal.raise_signal(signal.SIGSTOP)\nwhile True: pass"),
        "ends by a signal without a name": ("error|wrong", "import signal\nsignal.raise_signal(40)\nprint(0)"),
        "kills itself": ("memory|wrong", "import signal\nsignal.raise_signal(signal.SIGKILL)\nprint(0)"),
        "answers on stderr": ("wrong", "import sys\nsys.stderr.write('42\\n')"),
        "answers too late": (
            "wrong",
            "import threading, time\ndef late():\n    time.sleep(9)\n    print(42)\n"
            "threading.Thread(target=late, daemon=True).start()",
        ),
        "reads its input twice": ("error", "print(sum(map(int, open(0).read().split())))\nprint(int(open(0).read()))"),
        "fork bomb": ("error|timeout", "import os\nwhile True: os.fork()"),
        "thread bomb": (
            "error|timeout|memory",
            "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
        ),
        "memory bomb": ("memory|timeout", "x = []\nwhile True: x.append(bytearray(10**7))"),
        "one large object": ("memory", "x = bytearray(10**12)"),
        "output flood": ("error", "while True: print('42' * 10_000)"),
        "stderr flood": ("timeout", "import sys\nwhile True: sys.stderr.write('x' * 100_000)"),
        "file bomb": ("error", "i = 0\nwhile True:\n    open(str(i), 'w').write('x' * 10**6)\n    i += 1"),
        "large file": ("error", "f = open('f', 'wb')\nwhile True: f.write(b'x' * 10**6)"),
        "many files": ("error", "i = 0\nwhile True:\n    open(str(i), 'w')\n    i += 1"),
        "socket": ("error", "import socket\nsocket.socket().connect(('127.0.0.1', 1))"),
        "name lookup": ("error", "import socket\nprint(socket.gethostbyname('example.org'))"),
        "reads passwd": ("error", "print(open('/etc/passwd').read())"),
        "reads the environment": ("error", "print(open('/proc/self/environ').read())"),
        "reads memory": ("error", "print(open('/proc/self/mem', 'rb').read(1))"),
        "looks around": ("error", "import os\nprint(os.listdir('/'))"),
        "climbs out": ("error", "import os\nprint(os.listdir('../..'))"),
        "writes to the library": ("error", "import os\nopen(os.__file__, 'a').write('x')"),
        "kills its parent": ("error", "import os\nos.kill(os.getppid(), 9)"),
        "kills everybody": ("error", "import os\nos.kill(-1, 9)"),
        "starts a program": ("error", "import subprocess\nprint(subprocess.check_output(['/bin/echo', '42']))"),
        "replaces itself": ("error", "import os\nos.execv('/bin/echo', ['echo', '42'])"),
        "leaves a daemon": (
            "error",
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1000)\nprint(42)",
        ),
        "crashes": ("error", "import ctypes\nctypes.string_at(0)"),
        "aborts": ("error", "import os\nos.abort()"),
        "raises its limits": ("error", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
        "system calls": (
            "wrong",
            "import ctypes\nc = ctypes.CDLL(None)\nprint([c.ptrace(0, 0, 0, 0), c.unshare(0x10000000), c.setuid(0), "
            "c.chroot(b'/'), c.mount(b'x', b'/tmp', b'tmpfs', 0, 0), c.prctl(1, 0, 0, 0, 0)])",
        ),
        "forged frames": ("error|wrong", "import os\nos.write(4, b'V\\0\\0\\0\\2t1' * 100)\nprint(0)"),
        "forged failure": ("wrong|error", "import os\nos.write(4, b'X\\0\\0\\0\\4oops')\nprint(0)"),
        "a huge frame": ("error", "import os\nos.write(4, b'V\\xff\\xff\\xff\\xff')\nprint(0)"),
        "a flood of frames": ("error", "import os\nwhile True: os.write(4, b'V\\0\\0\\0\\0' * 1000)"),
        "closes everything": ("wrong", "import os\nos.closerange(0, 100)"),
        "invalid utf-8": ("wrong", "import os\nos.write(1, b'\\xff\\xfe42')"),
        "finds the tests": (
            "wrong",
            "import gc, sys\nkinds = (dict, list, tuple)\n"
            "found = [o for o in gc.get_objects() if isinstance(o, kinds) and '42' in str(o)[:1000]]\n"
            "frame = sys._getframe()\nwhile frame:\n    found += [v for v in frame.f_locals.values() if v == '42']\n"
            "    frame = frame.f_back\nprint(max(map(str, found), default='', key=len)[:100])",
        ),
    }
)

FUNCTIONS = _attempts(
    {
        "right": ("right", "def add(a, b):\n    return a + b"),
        "right, a method": (
            "right",
            "class Solution:\n    def add(self, a: int, b: List[int]) -> int:\n        return a + b",
        ),
        "right, with prints": ("right", "def add(a, b):\n    print('x' * 1_000_000)\n    return a + b"),
        "a constant": ("wrong", "def add(a, b):\n    return 42"),
        "None": ("wrong", "def add(a, b):\n    a + b"),
        "True": ("wrong", "def add(a, b):\n    return True"),
        "text": ("wrong", "def add(a, b):\n    return str(a + b)"),
        "a list of it": ("wrong", "def add(a, b):\n    return [a + b]"),
        "agrees with everything": (
            "error",
            "class Yes:\n    def __eq__(self, other): return True\ndef add(a, b):\n    return Yes()",
        ),
        "an int that agrees": (
            "wrong",
            "class Yes(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"
            "def add(a, b):\n    return Yes(7)",
        ),
        "no function": ("error", "x = 42"),
        "exits": ("error", "import sys\ndef add(a, b):\n    sys.exit(0)"),
        "exits hard": ("error", "import os\ndef add(a, b):\n    os._exit(0)"),
        "exits at once": ("error", "import os\nos._exit(0)"),
        "raises": ("error", "def add(a, b):\n    raise KeyError(a)"),
        "raises what cannot be shown": (
            "error",
            "class E(BaseException):\n    def __str__(self): raise SystemExit(0)\ndef add(a, b):\n    raise E",
        ),
        "rewrites the harness": (
            "wrong|error|timeout",
            "import sys\nframe = sys._getframe()\nwhile frame:\n    names = frame.f_globals\n"
            "    if 'values' in names: names['values'].encode = lambda value, most: b't'\n"
            "    if 'write_frame' in names: names['write_frame'] = lambda *_: None\n"
            "    frame = frame.f_back\ndef add(a, b):\n    return 0",
        ),
        "answers ahead": (
            "wrong|error",
            "import os\nframe = b'V\\0\\0\\0\\6i\\0\\0\\0\\1\\x2a'\nos.write(4, frame)\nos.write(4, frame)\n"
            "def add(a, b):\n    return 0",
        ),
        "reads ahead": ("timeout|wrong|error", "import os\ndef add(a, b):\n    return os.read(3, 1000).count(b'*')"),
        "closes the result pipe": ("error", "import os\ndef add(a, b):\n    os.close(4)\n    return a + b"),
        "prints into the result pipe": (
            "error",
            "import os\nos.dup2(4, 1)\ndef add(a, b):\n    print('4' * 100, flush=True)\n    return a + b",
        ),
        "ends by a signal without a name": (
            "error|wrong",
            "import signal\ndef add(a, b):\n    signal.raise_signal(40)\n    return 0",
        ),
        "half a character": ("wrong", "def add(a, b):\n    return '\\ud800\\0'"),
        "forged bytes": ("error", "import os\ndef add(a, b):\n    os.write(4, b'V\\0\\0\\0\\3i\\0\\0')\n    return 0"),
        "a deep value": ("error", "def add(a, b):\n    x = []\n    for _ in range(100_000): x = [x]\n    return x"),
        "a cycle": ("error", "def add(a, b):\n    x = []\n    x.append(x)\n    return x"),
        "a huge value": ("error|memory|timeout", "def add(a, b):\n    return 'x' * 50_000_000"),
        "a huge int": ("error", "def add(a, b):\n    return 1 << 50_000_000"),
        "keys that collide": (
            "error",
            "import os, struct\ndef add(a, b):\n    p = 2**61 - 1\n"
            "    keys = [b'i\\0\\0\\0\\x0a' + (i * p).to_bytes(10, 'big', signed=True) for i in range(30_000)]\n"
            "    body = b''.join(key + b'n' for key in keys)\n"
            "    data = b'm' + struct.pack('!I', 30_000) + body\n"
            "    os.write(4, b'V' + struct.pack('!I', len(data)) + data)\n    return 0",
        ),
        "endless": ("timeout", "def add(a, b):\n    while True: pass"),
        "endless at import": ("timeout", "while True: pass"),
        "memory": ("memory|timeout", "def add(a, b):\n    x = [0]\n    while True: x += x"),
        "forks": ("error", "import os\ndef add(a, b):\n    os.fork()\n    return a + b"),
        "recursion": ("error", "def add(a, b):\n    return add(a, b)"),
        "a generator": ("error", "def add(a, b):\n    yield a + b"),
        "NaN": ("wrong", "def add(a, b):\n    return float('nan')"),
        "beyond all floats": ("wrong", "def add(a, b):\n    return 10**400"),
    }
)
