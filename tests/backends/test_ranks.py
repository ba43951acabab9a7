"""Two ranks of the learner, on gloo, have the gradient of one process, whatever each of them has to compute."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from cohort.algorithms.objectives import preset
from cohort.backends.base import Origin
from cohort.backends.cluster.batches import joined, part, parts
from cohort.backends.local import Local
from cohort.learn.ranks import Ranks, whole
from cohort.policy.load import Start
from cohort.settings import Cluster, Optimizer, Stage, Task
from cohort.types import Batch

pytest.importorskip("ray", reason="takes a while, and is of a cluster: make test-cluster")
LENGTHS = [[7, 3], [12, 9, 1], [30, 4], [5], [2, 2, 2]]  # of the rollouts of each prompt


def a_batch() -> Batch:
    torch.manual_seed(0)
    lengths = torch.tensor([length for own in LENGTHS for length in own])
    n = int(lengths.sum())
    return Batch(
        prompts=tuple(tuple(range(5, 8 + 4 * number)) for number in range(len(LENGTHS))),
        group=torch.tensor([number for number, own in enumerate(LENGTHS) for _ in own]),
        tokens=torch.randint(5, 100, (n,)),
        lengths=lengths,
        mask=torch.rand(n) < 0.8,
        sampler_logprobs=-torch.rand(n),
        advantages=torch.randn(n),
        token_weight=torch.full((n,), 1.0 / n),
        versions=torch.zeros(len(lengths), dtype=torch.long),
        version=1,
    )


def opened(
    model: str, lora: bool, ranks: Ranks | None = None, checkpoint: Path | None = None, spare: bool = False
) -> Local:
    """`spare`: activations are computed again, and weights kept in the CPU's memory."""
    table: Any = {"model": model, "checkpointing": "on" if spare else "auto", **({"lora": {"rank": 4}} if lora else {})}
    stage = Stage(
        cluster=Cluster(offload=spare),
        task=Task(source="word_problems"),
        policy=table,
        optimizer=Optimizer(tokens_per_micro_batch=40, learning_rate=1e-3),
    )
    objective = preset("grpo", kl_coef=0.1)
    backend = Local(stage, objective, Origin(1, Start(), list, checkpoint), ranks)
    if checkpoint is not None:
        backend.load(checkpoint)
    return backend


def gradient(backend: Local, batch: Batch) -> tuple[dict[str, torch.Tensor], float]:
    """The gradient of every weight in one piece, and the loss."""
    sums, loss = backend._learner._gradients(batch, 40)
    if (ranks := backend.policy.ranks) is not None:
        sums, loss = ranks.merged(sums, loss)
    found = {name: whole(p.grad).clone() for name, p in backend.policy.module.named_parameters() if p.requires_grad}
    backend._learner.optimizer.zero_grad(True)
    assert float(sums["tokens"]) == float(a_batch().mask.sum())
    return found, loss


def held(compute: Any) -> tuple[int, Any]:
    """How many numbers a computation has kept for its backward passes, and what it gives."""
    count = [0]

    def keep(value: torch.Tensor) -> torch.Tensor:
        count[0] += value.numel()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        found = compute()
    return count[0], found


def rank_of_two(rank: int, meeting: str, model: str, lora: bool, place: str) -> None:
    torch.set_num_threads(1)
    backend = opened(model, lora, Ranks.join(rank, 2, meeting, 120))
    batch = a_batch()
    mine = part(batch, parts(batch, 2)[rank])
    mine = backend.score(backend.score(mine, "old"), "reference")
    found, loss = gradient(backend, mine)
    all_or_nothing = backend.score(part(batch, [[], range(len(LENGTHS))][rank]), "reference")
    idle, _ = gradient(backend, all_or_nothing)  # one has nothing to do
    thrifty = opened(model, lora, backend._ranks, spare=True)
    kept, (same, _) = held(lambda: gradient(thrifty, mine))
    assert all(torch.equal(same[name], value) for name, value in found.items())
    assert kept < held(lambda: gradient(backend, mine))[0] / 1.5
    report = backend.update(mine, 1e-3)
    backend.save(Path(place) / "saved")
    if rank == 0:
        torch.save((mine, found, idle, loss, dict(report.metrics)), Path(place) / "said.pt")
    torch.distributed.destroy_process_group()


def rank_of_three(rank: int, meeting: str, model: str, lora: bool, place: str) -> None:
    """Go on from what two ranks have saved, and from what one has; save again."""
    torch.set_num_threads(1)
    ranks, where = Ranks.join(rank, 3, meeting, 120), Path(place)
    found = {}
    for name in ("saved", "alone"):
        backend = opened(model, lora, ranks, where / name)
        state = backend._learner.optimizer.state_dict()["state"]
        found[name] = {at: {key: whole(value) for key, value in own.items()} for at, own in state.items()}
        backend.save(where / f"{name} by three")
    if rank == 0:
        torch.save(found, where / "found.pt")
    torch.distributed.destroy_process_group()


def averages(backend: Local) -> dict[str, torch.Tensor]:
    state = backend._learner.optimizer.state_dict()["state"]
    return {f"{at}.{key}": whole(value) for at, own in state.items() for key, value in own.items()}


def meeting() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lora", [False, True])
def test_two_ranks_have_the_gradient_of_one_process_which_reads_what_they_save(checkpoint_dir, tmp_path, lora):
    for name in ("saved", "alone", "saved by three", "alone by three"):
        (tmp_path / name).mkdir()
    given = (str(checkpoint_dir), lora, str(tmp_path))
    torch.multiprocessing.spawn(rank_of_two, (meeting(), *given), nprocs=2)
    mine, found, idle, loss, metrics = torch.load(tmp_path / "said.pt", weights_only=False)
    alone = opened(str(checkpoint_dir), lora)
    alone.policy.fused = None
    batch = alone.score(alone.score(a_batch(), "old"), "reference")
    assert torch.allclose(mine.old_logprobs, part(batch, parts(batch, 2)[0]).old_logprobs, atol=1e-5)
    expected, own_loss = gradient(alone, batch)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6), name
    unscored, _ = gradient(alone, alone.score(a_batch(), "reference"))
    assert all(torch.allclose(idle[name], value, rtol=1e-5, atol=1e-6) for name, value in unscored.items())
    assert loss == pytest.approx(own_loss, abs=1e-6)
    report = alone.update(batch, 1e-3).metrics
    for name in ("grad_norm", "loss", "policy/kl", "policy/mismatch", "tokens/trained"):
        assert metrics[name] == pytest.approx(report[name], rel=1e-5, abs=1e-6), name
    again = opened(str(checkpoint_dir), lora, checkpoint=tmp_path / "saved")  # on another number of ranks
    for (name, one), other in zip(again.policy.module.named_parameters(), alone.policy.module.parameters()):
        assert torch.allclose(one, other, atol=2e-4), name
    assert averages(again).keys() == averages(alone).keys()
    for name, one in averages(alone).items():
        assert torch.allclose(averages(again)[name], one, rtol=1e-4, atol=1e-6), name
    if lora:
        return
    # Two ranks, and one, are gone on from by three; what three save is read by one: the same bits.
    shards = sorted(one.name for one in (tmp_path / "saved" / "optimizer").iterdir())
    assert len(shards) == 2
    assert all(one.endswith(".safetensors") for one in shards)
    assert not (tmp_path / "saved" / "optimizer.safetensors").exists()
    alone.save(tmp_path / "alone")
    torch.multiprocessing.spawn(rank_of_three, (meeting(), *given), nprocs=3)
    found = torch.load(tmp_path / "found.pt", weights_only=False)
    for name, before in (("saved", again), ("alone", alone)):
        after = opened(str(checkpoint_dir), lora, checkpoint=tmp_path / f"{name} by three")
        for key, value in averages(before).items():
            at, own = key.split(".", 1)
            assert torch.equal(found[name][int(at)][own], value), (name, key)
            assert torch.equal(averages(after)[key], value), (name, key)
        for one, other in zip(before.policy.module.parameters(), after.policy.module.parameters(), strict=True):
            assert torch.equal(one, other)


def test_parts_of_a_batch_are_even_and_whole_again():
    batch = a_batch()
    shares = parts(batch, 2)
    assert sorted([*shares[0], *shares[1]]) == list(range(len(LENGTHS)))
    tokens = [sum(len(batch.prompts[one]) + sum(LENGTHS[one]) for one in own) for own in shares]
    assert abs(tokens[0] - tokens[1]) <= 0.2 * sum(tokens)
    said = [replace(one, old_logprobs=one.tokens.float()) for one in (part(batch, own) for own in shares)]
    assert torch.equal(joined(batch, shares, said).old_logprobs, batch.tokens.float())
