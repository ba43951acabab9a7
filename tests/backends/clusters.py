"""What tests of a cluster look at: the bits of a run, and processes to kill."""

from __future__ import annotations

import os
import signal

import psutil
import pyarrow.parquet
import torch
from safetensors.torch import load_file

HERE = {"address": "local", "deadline_s": 240}


def weights(done):
    return load_file(done.final / "model.safetensors")


def rollouts(done):
    """Of every step its tickets, and all tokens with their log-probs."""
    found = []
    for path in sorted((done.directory / "log").glob("step-*.parquet")):
        rows = pyarrow.parquet.read_table(path).to_pylist()
        found.append([(row["ticket"], list(row["tokens"]), list(row["logprobs"])) for row in rows])
    return found


def same(one, other):
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rollouts(one) == rollouts(other)


def kill(kind, how=signal.SIGKILL, most=None):
    """Send a signal to the actors of a kind, at most so many of them; how many there were."""
    found = [
        one
        for one in psutil.Process().children(recursive=True)
        if one.status() != psutil.STATUS_ZOMBIE and "".join(one.cmdline()).startswith(f"ray::{kind}")
    ]
    for one in found[:most]:
        os.kill(one.pid, how)
    return len(found[:most])


def tickets(done):
    """Of every step, the tickets of its groups: of a run that lost nothing each prompt once, in their order."""
    return [ticket for step in rollouts(done) for ticket in dict.fromkeys(ticket for ticket, _, _ in step)]
