"""Tiny models and tokenizers, made here: nothing is downloaded."""

from __future__ import annotations

import copy
import getpass
import os
import signal
import socketserver
import sys
import tempfile

# In a shell's background Ctrl-C is ignored, under nohup a hang-up, and what tests start would ignore it too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Byte code is kept, in folders that git ignores: else every process that tests start would compile Cohort once more,
# and pytest rewrite the assertions of all files in every run.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False

# Tests sign with a key of their own, and never with that of the person who runs them.
os.environ["COHORT_KEY"] = os.path.join(tempfile.gettempdir(), f"cohort-tests-{getpass.getuser()}", "key.pem")

import cloudpickle
import pytest
import torch
from hypothesis import settings
from transformers.utils import logging

from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.settings import Scratch
from cohort.tasks import open_demonstrations
from once import Once, emptied
from tiny import make_tiny, on_path

# The same examples in every run, so that what is green here is green elsewhere. `pytest --hypothesis-profile=search`
# looks for new ones.
settings.register_profile("suite", deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("suite")

# A server of one test says that its client has gone while another test reads what a command said.
_handle_error = socketserver.BaseServer.handle_error
socketserver.BaseServer.handle_error = lambda *of: (
    None if isinstance(sys.exception(), ConnectionError) else _handle_error(*of)
)

# What a sync promises shows where the power fails, and no test cuts it: what was written is read whole without it, by
# this process and by all others of the machine. A run syncs some 90 times, for milliseconds each. Whether and when it
# syncs is seen by the tests that put a function of their own here; processes that tests start sync as ever.
os.fsync = lambda handle: None

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

ARCHITECTURES = ("qwen3", "qwen2", "llama", "gemma3")
PATHS = ("fused", "plain")  # compiled kernels, and PyTorch alone


@pytest.fixture(autouse=True, scope="module")
def rewards_by_value(request):
    """Functions of a test's module go to reward workers by value, as those of a script do: no worker then imports the
    module, and with it the whole of Cohort and PyTorch, which takes 5 seconds at each start.
    """
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="session")
def tokenizer():
    made = open_demonstrations("word_problems", seed=0, careful=0.5)
    return make_tokenizer([f"{made[i].prompt.text} {made[i].completion}" for i in range(300)], 400)


@pytest.fixture(
    params=[(kind, path) for kind in ARCHITECTURES for path in PATHS if (kind, path) != ("gemma3", "fused")]
)
def policy_and_plain(request, tokenizer):
    """A policy, and an untouched copy of its model that computes attention its own way."""
    kind, path = request.param
    model = make_tiny(kind, tokenizer)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    return on_path(Policy(model, tokenizer), path), plain


@pytest.fixture(params=PATHS)
def tiny_policy(request, tokenizer):
    return on_path(Policy(make_tiny("qwen3", tokenizer), tokenizer), request.param)


@pytest.fixture
def small_model(tokenizer):
    sizes = Scratch(hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=64)
    return make_model(tokenizer, 3, sizes)


@pytest.fixture
def checkpoint_dir(tmp_path, tokenizer, small_model):
    """A checkpoint as a user would have one."""
    where = tmp_path / "base"
    small_model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def _place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    return place, Once(place, tmp_path_factory.mktemp("kept"))


@pytest.fixture
def place(_place):
    """An empty directory that has one path for all tests of a module, to which `once` belongs."""
    return emptied(_place[0])


@pytest.fixture
def once(_place, place):
    """`once(name, make)`: what `make` leaves in `place`, made by the first test of a module that asks for the name."""
    return _place[1]


@pytest.fixture(scope="module")
def ray():
    """Ray, where there is one; what it has started on this machine ends with the module."""
    found = pytest.importorskip("ray", reason="needs the extra ray: make test-cluster")
    yield found
    found.shutdown()
