"""What the guarded processes are given to do in the tests."""

from __future__ import annotations

import os
import time


def add(a, b):
    return a + b


def spin():
    while True:
        pass


def allocate(megabytes):
    return len(bytearray(megabytes * 2**20))


def keep(megabytes, kept=[]):  # noqa: B006 (it is to be kept)
    kept.append(bytes(megabytes * 2**20))  # memory that is counted, but costs no time
    return len(kept)


def die(how):
    os.kill(os.getpid(), how)


def fails():
    raise ValueError("one\n  two")


def pid():
    return os.getpid()


def parent():
    return os.getppid()


def sleep():
    time.sleep(100)


def write(path):
    with open(path, "w") as file:
        file.write("x" * 100_000)


def unfit():
    return {1, 2}
