"""A key that nothing reads does nothing: in small runs of every kind, each key of each table of a recipe is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import injected
import pytest
from transformers import AutoModelForCausalLM

import cohort
from cohort import settings
from cohort.monitor.watcher import Watcher
from cohort.recipe import Recipe
from cohort.settings import DETECTORS, Monitor, Prompts, Table
from cohort.settings.distill import Divergence
from cohort.train import train
from cohort.views.console import Console
from prompt_logprobs_server import PromptLogprobsServer

SOURCE = str(Path(cohort.__file__).parent)
CARRIERS = ("recipe", "views")  # rooms that carry keys and show them: nothing is done with a key there
BASES = (Table, Prompts, Divergence)
KEYS = {
    (table.__name__, key)
    for table in vars(settings).values()
    if isinstance(table, type) and issubclass(table, Table) and table not in BASES
    for key in table.model_fields
}
SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


class Reads:
    """The keys that are read while Cohort runs, (table, key) each, wherever something may come of it."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look on at every read of an attribute of a table, and at every table that is turned into a dictionary."""
        dump: Callable[..., dict[str, Any]] = Table.model_dump

        def get(table: Table, name: str) -> Any:
            if (type(table).__name__, name) in KEYS and reader_counts():
                self.found.add((type(table).__name__, name))
            return object.__getattribute__(table, name)

        def dumped(table: Table, *, exclude: Iterable[str] = (), **options: Any) -> dict[str, Any]:
            if reader_counts():
                self.found |= {(type(table).__name__, key) for key in type(table).model_fields if key not in exclude}
            return dump(table, exclude={*exclude}, **options)

        monkeypatch.setattr(Table, "__getattribute__", get, raising=False)
        monkeypatch.setattr(Table, "model_dump", dumped)


def reader_counts() -> bool:
    """Whether what reads a table now is a part of Cohort that does something with it. A method of the table reads for
    whoever called it, and so does the watching `get` below it; pydantic and tests do not count.
    """
    frame = sys._getframe(2)
    while frame is not None and (
        frame.f_code.co_filename.startswith(f"{SOURCE}/settings/")
        or (frame.f_code.co_filename == __file__ and frame.f_code.co_name == "get")
    ):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_filename.startswith(SOURCE):
        return False
    return Path(frame.f_code.co_filename).relative_to(SOURCE).parts[0] not in CARRIERS


def recipes(tmp_path: Path, rows: Path, checkpoint: Path, server: str = "") -> dict[str, dict[str, Any]]:
    """Small recipes that have a use for every key between them."""
    pairs = tmp_path / "pairs.jsonl"
    line = {"prompt": "What would you like?", "chosen": "a plum please", "rejected": "plum", "by": 1.0}
    pairs.write_text("".join(json.dumps({**line, "number": number}) + "\n" for number in range(12)))
    run = {"steps": 1, "directory": str(tmp_path / "runs"), "threads": 1, "gate": "warn"}
    small: dict[str, Any] = {"run": run, "rollout": {"prompts_per_step": 2, "group_size": 2, "max_tokens": 4}}
    own = {"source": str(rows), "prompt": "question", "answer": "solution"}
    words = {"source": "word_problems", "curriculum": {"window": 1}}  # two levels
    sft = {"kind": "sft", "policy": {"scratch": SCRATCH}, "supervised": {"examples_per_step": 2}, "run": run}
    vowels = {"use": "vowels:share_of_vowels", "name": "vowels"}
    return {
        "adapters": {
            **small,
            "policy": {"model": str(checkpoint), "lora": {"rank": 2}},
            "task": {**own, "held_out": 0.25, "adaptive": {}},
            "reward": [vowels, {"use": "exact_number", "gate": "vowels"}],
            "evaluate": {"problems": 2},
            "suite": [{"source": str(rows), "prompt": "question", "answer": "solution"}],
            "run": {**run, "evaluate_every": 1, "stop": {"metric": "eval/greedy", "threshold": 1.0}},
        },
        "watched": {  # by detectors, one of which has something to say
            **small,
            "policy": {"model": str(checkpoint)},
            "task": own,
            "reward": ["scorers:never"],
            "evaluate": {"problems": 0},
            "monitor": {"adapt": {"constant_reward": {"setting": "learning_rate", "factor": 0.5, "bound": 1e-9}}},
            "run": {**run, "steps": 5},
        },
        "levels": {
            **small,
            "run": {**run, "steps": 2},  # the second on the second level, from which the first is reviewed
            "policy": {"scratch": SCRATCH},
            "task": {**words, "template": "none"},
            "environment": {"tools": ["calculator"]},
            "reward": ["scorers:right"],
            "objective": {"preset": "ppo"},
            "evaluate": {"problems": 2},
        },
        "mixture": {
            **small,
            "policy": {"model": str(checkpoint)},
            "task": {"mixture": {"words": words, "own": {**own, "adaptive": {}}}},
            "reward": [vowels],
            "evaluate": {"problems": 0},
        },
        "kept": {
            **small,
            "kind": "reject",
            "policy": {"model": str(checkpoint)},
            "task": own,
            "reward": [vowels],
            "reject": {"least": {"vowels": 0.0}, "truncated": True, "balance": "difficulty"},
            "evaluate": {"problems": 0},
        },
        "kept and learnt": {
            **small,
            "kind": "rft",
            "policy": {"model": str(checkpoint)},
            "task": own,
            "reward": [vowels],
            "reject": {"least": {"vowels": 0.0}, "truncated": True},
            "supervised": {"examples_per_step": 2},
            "rft": {"mode": "offline"},
            "run": {**run, "steps": 2},
            "evaluate": {"problems": 0},
        },
        "preferred": {
            "kind": "dpo",
            "policy": {"model": str(checkpoint)},
            "task": {"source": str(pairs)},
            "preferences": {"pairs_per_step": 2},
            "run": run,
        },
        "taught": {
            **small,
            "kind": "distill",
            "policy": {"model": str(checkpoint)},
            "task": own,
            "distillation": {"teacher": {"big": {"model": str(checkpoint)}}, "divergence": "jsd"},
            "evaluate": {"problems": 0},
        },
        "taught by a server": {
            **small,
            "kind": "distill",
            "policy": {"model": str(checkpoint)},
            "task": own,
            "distillation": {"teacher": {"far": {"model": "x", "url": server, "tokenizer": str(checkpoint)}}},
            "evaluate": {"problems": 0},
        },
        "taught by itself": {
            **small,
            "kind": "self_distill",
            "policy": {"model": str(checkpoint)},
            "task": own,
            "reward": [vowels],
            "evaluate": {"problems": 0},
        },
        "made-examples": {**sft, "task": {"source": "word_problems"}},
        "examples": {**sft, "task": {**own, "completion": "solution"}},
        "pairs": {
            "kind": "reward_model",
            "policy": {"scratch": SCRATCH},
            "task": {"source": str(pairs), "margin": "by"},
            "preferences": {"pairs_per_step": 2},
            "run": run,
        },
    }


def test_every_key_of_a_recipe_is_read(tmp_path, rows, checkpoint_dir, monkeypatch):
    reads, server = Reads(), PromptLogprobsServer(AutoModelForCausalLM.from_pretrained(checkpoint_dir))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    tables = recipes(tmp_path, rows, checkpoint_dir, server.url)
    made = {name: Recipe(name=name.replace(" ", "-"), **one) for name, one in tables.items()}
    with monkeypatch.context() as patch:
        reads.watch(patch)
        for recipe in made.values():
            train(recipe, console=Console(quiet=True))
        for name in DETECTORS:  # the thresholds of a detector, where what it looks at is there
            table = Monitor()
            watcher = Watcher(table)
            for line, groups in injected.steps(name):
                for found in watcher.see(line, groups):
                    table.action_of(found.detector)
    server.close()
    unread = sorted(".".join(key) for key in KEYS - reads.found)
    assert not unread, f"nothing reads {', '.join(unread)}"


def test_what_carries_and_shows_keys_does_not_count(tmp_path, rows, checkpoint_dir, monkeypatch):
    """Nor does a table that is made, compared, copied or printed."""
    tables = recipes(tmp_path, rows, checkpoint_dir)["adapters"]
    reads = Reads()
    reads.watch(monkeypatch)
    recipe = Recipe(name="looked-at", **tables)
    (stage,) = recipe.stages
    assert stage == stage.model_copy()
    assert "vowels" in repr(stage)
    assert stage.rollout.sampling().max_tokens == 4  # read by a test
    assert not reads.found
