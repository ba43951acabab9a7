"""Traces of a run: measured beside its evaluations, at no change of what it learns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator

import pytest

from cohort.backends.local import open_engine
from cohort.policy.policy import Policy
from cohort.record.rollouts import read_rows
from cohort.settings import Rollout
from cohort.types import Completion, SampleRequest
from cohort.views.console import Console


class Thinks:
    """The engine; but what is answered greedily has a trace, and an answer that is read off it."""

    def __init__(self, policy: Policy, rollout: Rollout):
        self._engine, self._policy = open_engine(policy, rollout), policy

    @property
    def version(self) -> int:
        return self._engine.version

    def publish(self, version: int) -> None:
        self._engine.publish(version)

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        for request in requests:
            if request.sampling.temperature:
                yield from self._engine.sample([request])
                continue
            _, _, trace = self._policy.tokenizer.decode(request.tokens).partition("<think>")
            begun = "</think>" in trace
            number = trace.partition("=")[2][:1] if begun else request.key % 7 + 1
            said = ("" if begun else f"<think>={number}</think>") + f"<answer>{number}</answer>"
            tokens = (*self._policy.tokenizer.encode(said, add_special_tokens=False), self._policy.eos_ids[0])
            yield request, (Completion(tokens, (0.0,) * len(tokens), "stop", self.version),)


MEASURED = {"problems": 8, "samples": 0, "traces": 6, "reward": "exact_number"}


@pytest.fixture
def thinking(run):
    def start(name, console=None, **changes):
        rollout, task = {"sampler": f"{__name__}:Thinks", "max_tokens": 24}, {"held_out": 0.5}
        return run(name=name, rollout=rollout, task=task, console=console, **{"evaluate": MEASURED, **changes})

    return start


def test_what_is_measured_of_traces_changes_nothing_that_is_learnt(thinking):
    file = io.StringIO()
    done = thinking("measured", Console(file=file))
    plain = thinking("plain", evaluate=MEASURED | {"traces": 0})
    weights = "model.safetensors"
    assert (done.directory / "final" / weights).read_bytes() == (plain.directory / "final" / weights).read_bytes()
    before, after = (line for line in done.metrics if "eval/traced" in line)
    assert before["eval/traced"] == after["eval/traced"] == 6
    assert before["eval/trace_removed_changed"] == before["eval/trace_corrupted_changed"] == 1.0
    assert before["eval/trace_followed"] == 1.0
    assert "other answers without their traces 100.0%" in " ".join(
        file.getvalue().split("after: traces of 6 problems")[1].split()
    )
    rows = read_rows(done.directory / "log" / "eval-000000-traces.parquet")
    assert {json.loads(row["labels"])["trace"] for row in rows} == {
        *("removed", "kept_25", "kept_50", "kept_75", "corrupted", "exchanged")
    }
    claim = json.loads((done.directory / "record.json").read_bytes())["stages"][0]["behaviour"]["performance"]
    assert claim["value"]["after"]["trace_removed_changed"] == 1.0
    assert "the answers need their traces" in (done.directory / "card.md").read_text()
