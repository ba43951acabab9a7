"""A key that nothing reads does nothing: in small runs of every kind, each key of each table of a recipe is read, and
what a kind does not read is what it says that it does not.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import injected
import pytest
from transformers import AutoModelForCausalLM

import cohort
from cohort import settings
from cohort.monitor.watcher import Watcher
from cohort.recipe import Recipe
from cohort.settings import DETECTORS, KINDS, SCORERS, Adaptive, Curriculum, Monitor, Prompts, Stage, Stop, Table, Task
from cohort.settings.distill import Divergence
from cohort.settings.table import table_of, value_problem
from cohort.train import train
from cohort.train.directory import as_kept
from cohort.train.stage import kind_of
from cohort.train.unread import as_read, refuse_unread, unread_keys
from cohort.types import UserError
from cohort.views.console import Console
from prompt_logprobs_server import PromptLogprobsServer

SOURCE = str(Path(cohort.__file__).parent)
CARRIERS = ("recipe/", "views/", "train/unread.py")  # these carry keys and show them: nothing is done with a key there
# Keys that common code reads for kinds that make nothing of them.
IN_PASSING = {
    *("task.completion", "task.chosen", "task.rejected", "task.margin", "task.answer", "task.messages"),
    *("task.special_tokens", "task.curriculum", "task.adaptive", "rollout.temperature", "policy.router_aux_coef"),
    *("preferences.history", "run.keep_best", "run.stop", "evaluate.reward", "reject.pairs", "optimizer.epochs"),
}
# Keys that are read where another one asks for them, and else refused in a sentence of their own, or without effect.
ASKED_FOR = (
    *("environment.", "critic.", "reference.", "self_distillation.", "cluster."),
    *("task.levels", "task.args", "task.curriculum", "task.adaptive", "preferences.replay"),
    *("rollout.length_penalty", "rollout.beam_groups", "rollout.diversity_penalty", "rollout.replay_age"),
)
BASES = (Table, Prompts, Divergence)
FAR = (settings.Vllm, settings.Cluster)  # what is elsewhere, which tests/backends looks at
KEYS = {
    (table.__name__, key)
    for table in vars(settings).values()
    if isinstance(table, type) and issubclass(table, Table) and table not in (*BASES, *FAR)
    for key in table.model_fields
    if key != "vllm"
}
SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 64}


class Reads:
    """The keys that are read while Cohort runs, (table, key) each, wherever something may come of it."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()
        self.by_kind: dict[str, set[tuple[str, str]]] = {kind: set() for kind in KINDS}
        self.kind = ""  # of the stage that is under way

    def add(self, table: Table, *keys: str) -> None:
        if (file := reader()) and not file.startswith(CARRIERS):
            self.found |= {(type(table).__name__, key) for key in keys}
            if self.kind and not file.startswith("account/"):
                self.by_kind[self.kind] |= {(type(table).__name__, key) for key in keys}

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look on at every read of an attribute of a table, and at every table that is turned into a dictionary."""
        dump: Callable[..., dict[str, Any]] = Table.model_dump

        def get(table: Table, name: str) -> Any:
            if (type(table).__name__, name) in KEYS:
                self.add(table, name)
            return object.__getattribute__(table, name)

        def dumped(table: Table, *, exclude: Iterable[str] = (), **options: Any) -> dict[str, Any]:
            self.add(table, *(key for key in type(table).model_fields if key not in exclude))
            return dump(table, exclude={*exclude}, **options)

        monkeypatch.setattr(Table, "__getattribute__", get, raising=False)
        monkeypatch.setattr(Table, "model_dump", dumped)


def reader() -> str:
    """The file of Cohort that reads a table now; "" for anybody else, as pydantic and tests. A method of the table
    reads for whoever called it, and so does the watching below it.
    """
    frame = sys._getframe(2)
    while frame is not None and (
        frame.f_code.co_filename.startswith(f"{SOURCE}/settings/")
        or (frame.f_code.co_filename == __file__ and frame.f_code.co_name in ("get", "dumped"))
    ):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_filename.startswith(SOURCE):
        return ""
    return Path(frame.f_code.co_filename).relative_to(SOURCE).as_posix()


def recipes(tmp_path: Path, rows: Path, checkpoint: Path, server: str = "") -> dict[str, dict[str, Any]]:
    """Small recipes that have a use for every key between them."""
    pairs = tmp_path / "pairs.jsonl"
    line = {"prompt": "What would you like?", "chosen": "a plum please", "rejected": "plum", "by": 1.0}
    pairs.write_text("".join(json.dumps({**line, "number": number}) + "\n" for number in range(12)))
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"What is {n}?", "answer": "1"}) + "\n" for n in range(3)))
    labelled = tmp_path / "steps.jsonl"
    solution = {"completions": ["a plum", "please"], "labels": [True, False]}
    labelled.write_text("".join(json.dumps({"prompt": f"Say {n}", **solution}) + "\n" for n in range(3)))
    measured = {"evaluate": {"problems": 1}, "reward": [{"use": "exact_number"}]}
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
            "rollout": {**small["rollout"], "replay": 1},
            "objective": {"correction": "token_truncate", "correction_max": 2.0},
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
            "rollout": {**small["rollout"], "groups": "diverse_beam"},
            "policy": {"model": str(checkpoint)},
            "task": {"mixture": {"words": words, "own": {**own, "adaptive": {}}}},
            "reward": [vowels],
            "evaluate": {"problems": 0},
        },
        "kept": {
            **small,
            "kind": "reject",
            "policy": {"model": str(checkpoint)},
            "task": {**own, "held_out": 0.25},
            "reward": [vowels],
            "reject": {"least": {"vowels": 0.0}, "truncated": True, "balance": "difficulty"},
            "evaluate": {"problems": 1},
        },
        "kept and learnt": {
            **small,
            "kind": "rft",
            "policy": {"model": str(checkpoint)},
            "task": {**own, "held_out": 0.25},
            "reward": [vowels],
            "reject": {"least": {"vowels": 0.0}, "truncated": True},
            "supervised": {"examples_per_step": 2},
            "rft": {"mode": "offline"},
            "run": {**run, "steps": 2},
            "evaluate": {"problems": 1},
        },
        "preferred": {
            "kind": "dpo",
            "policy": {"model": str(checkpoint)},
            "task": {"source": str(pairs), "held_out": str(asked)},
            "preferences": {"pairs_per_step": 2, "history": [str(pairs)]},
            "run": run,
            **measured,
        },
        "taught": {
            **small,
            "kind": "distill",
            "policy": {"model": str(checkpoint)},
            "task": {**own, "held_out": 0.25},
            "distillation": {"teacher": {"big": {"model": str(checkpoint)}}, "divergence": "jsd"},
            **measured,
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
            "task": {**own, "held_out": 0.25},
            "reward": [vowels],
            "evaluate": {"problems": 1},
        },
        "made-examples": {**sft, "task": {"source": "word_problems"}},
        "examples": {
            **sft,
            "policy": {"model": str(checkpoint)},
            "task": {**own, "completion": "solution", "held_out": 0.25},
            **measured,
        },
        "pairs": {
            "kind": "reward_model",
            "policy": {"model": str(checkpoint)},
            "task": {"source": str(pairs), "held_out": str(pairs), "margin": "by"},
            "preferences": {"pairs_per_step": 2, "history": [str(pairs)]},
            "run": run,
        },
        "steps": {
            "kind": "process_model",
            "policy": {"model": str(checkpoint)},
            "task": {"source": str(labelled), "held_out": str(labelled)},
            "preferences": {"pairs_per_step": 2},
            "run": run,
        },
        "asked": {
            "kind": "evaluate",
            "policy": {"model": str(checkpoint)},
            "task": {**own, "held_out": 0.25},
            "run": {key: value for key, value in run.items() if key != "steps"},
            **measured,
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
            reads.kind = recipe.stages[0].kind
            train(recipe, console=Console(quiet=True))
        reads.kind = ""
        for name in DETECTORS:  # the thresholds of a detector, where what it looks at is there
            table = Monitor()
            watcher = Watcher(table)
            for line, groups in injected.steps(name):
                for found in watcher.see(line, groups):
                    table.action_of(found.detector)
    server.close()
    unread = sorted(".".join(key) for key in KEYS - reads.found)
    assert not unread, f"nothing reads {', '.join(unread)}"
    for kind in KINDS:
        wrong = [key for key in keys_of(kind) if is_wrong(kind, key, reads.by_kind[kind])]
        assert not wrong, f"{kind} stages say wrongly whether they read {', '.join(wrong)}"


def keys_of(kind: str) -> Iterator[str]:
    """The keys of a kind's tables that hold a plain value which may change a result."""
    for name in kind_of(Stage(kind=kind, task=Task(source="?"))).tables:
        inner, in_list = table_of(Stage.model_fields[name])
        for key, field in () if in_list else inner.model_fields.items():
            if "no effect" not in field.metadata:
                yield f"{name}.{key}"


def is_wrong(kind: str, path: str, read: set[tuple[str, str]]) -> bool:
    name, _, key = path.partition(".")
    is_read = (table_of(Stage.model_fields[name])[0].__name__, key) in read
    if path in unread_keys(Stage(kind=kind, task=Task(source="?"))):
        return is_read and path not in IN_PASSING
    return not is_read and not path.startswith(ASKED_FOR)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_a_kind_does_not_read_is_refused_in_a_stage_and_not_outside(kind):
    stage = Stage(kind=kind, task=Task(source="?"))
    for name, _, key in (path.partition(".") for path in unread_keys(stage)):
        value = other_value(name, key)
        with pytest.raises(
            UserError, match=rf"has {name}\.{key} = .*, which a stage of kind '{kind}' does not read: rem"
        ):
            refuse_unread(two_stages(kind, {}, {name: {key: value}}))
        shared = two_stages(kind, {name: {key: value}}, {})
        refuse_unread(shared)
        default = getattr(getattr(stage, name), key)
        assert [getattr(getattr(one, name), key) for one in as_read(shared).stages] == [value, default]
        kept = Recipe.from_tables(tomllib.loads(as_kept(shared)))
        refuse_unread(kept)
        assert getattr(kept.stages[-1], name) == getattr(as_read(shared).stages[-1], name)


def test_a_stage_that_draws_nothing_reads_no_key_of_draws():
    measured = {"evaluate": {"problems": 0}, "reward": "exact_number", "rollout": {"precision": "int8"}}
    with pytest.raises(UserError, match=r"has rollout.precision = 'int8', which a .* does not read: .*no completions"):
        refuse_unread(two_stages("sft", {}, measured))
    refuse_unread(two_stages("sft", {}, {**measured, "evaluate": {"problems": 1}}))
    refuse_unread(two_stages("sft", {"rollout": {"precision": "int8"}}, {"evaluate": {"problems": 0}}))


def other_value(name: str, key: str) -> Any:
    """A value of a key that is not its default."""
    table = table_of(Stage.model_fields[name])[0]
    given: dict[str, Any] = {
        "stop": Stop(metric="loss", patience=1),
        "curriculum": Curriculum(),
        "adaptive": Adaptive(),
    }
    given["history"] = ("earlier.jsonl",)
    tried = (given.get(key), 3, 0.7, "other", "beam", "keep", "int8", "on", False, "gsm8k", True)
    return next(one for one in tried if one is not None and is_other(table, key, one))


def is_other(table: type[Table], key: str, value: Any) -> bool:
    return value != table.model_fields[key].default and not value_problem(table, key, value)


def two_stages(kind: str, outside: dict[str, Any], own: dict[str, Any]) -> Recipe:
    """A stage that reads what stands outside, as far as that matters here, and one of `kind`."""
    first = {"kind": "own_parts:Shrink", "name": "first"}
    taught = {"distillation": {"teacher": {"big": {"model": "m"}}}} if kind == "distill" else {}
    rewarded = {} if kind in SCORERS else {"reward": "exact_number"}
    tables: dict[str, Any] = {"policy": {"model": "m"}, "task": {"source": "?"}}
    for name, keys in outside.items():
        tables[name] = tables.get(name, {}) | keys
    last = {"kind": kind, "name": "last", **taught, **rewarded, **own}
    return Recipe(name="x", stage=[first, last], **tables)


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
