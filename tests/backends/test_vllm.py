"""vLLM serves adapters that Cohort exports, and samples while Cohort trains, also on a cluster (`make test-vllm`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers
from clusters import HERE, kill, tickets
from peft import PeftModel

from cohort.backends.base import open_sampler
from cohort.backends.cluster.samplers import Samplers
from cohort.backends.proving import claimed, prove
from cohort.commands.export import export
from cohort.commands.verify import checked
from cohort.policy.adapters import add_lora
from cohort.policy.attention import PackedGroups
from cohort.policy.load import load_policy, save_policy
from cohort.settings import Lora, Rollout, Stage, Task, Vllm
from cohort.types import SampleRequest, Sampling

PYTHON = Path(os.environ.get("COHORT_VLLM", Path(__file__).parents[2] / ".venv-vllm/bin/python"))
TOKENS = [5, 9, 17, 33, 12, 40, 7, 21, 50, 44, 3, 28]

# What a user of vLLM writes: the log-probs of a text's tokens under the base, and under the base with the adapter.
ASK = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
base, adapter, tokens = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
adapters = {"enable_lora": True, "max_lora_rank": 8}
engine = LLM(base, dtype="float32", max_model_len=64, max_num_seqs=1, enforce_eager=True, **adapters)
how, text = SamplingParams(max_tokens=1, prompt_logprobs=0), [{"prompt_token_ids": tokens}]
said = {}
for name, asked in {"base": None, "adapter": LoRARequest("trained", 1, adapter)}.items():
    answer = engine.generate(text, how, lora_request=asked, use_tqdm=False)[0].prompt_logprobs
    said[name] = [one[token].logprob for one, token in zip(answer[1:], tokens[1:])]
print("said", json.dumps(said))
"""


pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason="no environment with vLLM: make test-vllm makes one"),
]


@pytest.fixture
def checkpoint_dir(tmp_path, tokenizer):
    """A model that is large enough for vLLM's kernels."""
    where = tmp_path / "base"
    torch.manual_seed(5)
    config = transformers.Qwen3Config(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, vocab_size=len(tokenizer), max_position_embeddings=128, eos_token_id=1, pad_token_id=0,
        bos_token_id=None,
    )  # fmt: skip
    transformers.Qwen3ForCausalLM(config).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture
def served(tmp_path, monkeypatch):
    """`[rollout]` with a server on the CPU."""
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CACHE_ROOT": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return {"sampler": "vllm", "vllm": Vllm(python=str(PYTHON), arguments=("--enforce-eager",))}


def test_an_exported_adapter_says_in_vllm_what_it_says_here(checkpoint_dir, tmp_path):
    policy = add_lora(load_policy(str(checkpoint_dir)), Lora(rank=8, targets=("q_proj", "down_proj")), seed=3)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    save_policy(policy, tmp_path / "trained")
    export(str(tmp_path / "trained"), "adapter", str(tmp_path / "adapter"))

    words = [str(PYTHON), "-c", ASK, str(checkpoint_dir), str(tmp_path / "adapter"), json.dumps(TOKENS)]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CACHE_ROOT": str(tmp_path / "cache"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(words, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("said "))[5:])

    def here(model):
        with torch.no_grad():
            logprobs = model(torch.tensor([TOKENS])).logits[0, :-1].log_softmax(-1)
        return logprobs.gather(-1, torch.tensor(TOKENS[1:])[:, None])[:, 0]

    plain = transformers.AutoModelForCausalLM.from_pretrained(checkpoint_dir)
    ours = {"base": here(plain), "adapter": here(PeftModel.from_pretrained(plain, str(tmp_path / "adapter")))}
    for name, logprobs in ours.items():
        assert torch.allclose(torch.tensor(said[name]), logprobs, atol=1e-3), name
    assert (ours["adapter"] - ours["base"]).abs().max() > 0.1


@pytest.mark.parametrize("lora", [False, True])
def test_a_server_draws_from_every_version_of_the_weights_and_again_after_it_was_killed(checkpoint_dir, served, lora):
    policy = load_policy(str(checkpoint_dir))
    policy = add_lora(policy, Lora(rank=8, targets=("q_proj", "down_proj")), seed=3) if lora else policy
    sampler: Any = open_sampler(policy, rollout := Rollout(max_rows=8, **served))
    stage = Stage(task=Task(source="word_problems"), rollout=rollout)
    asked = [SampleRequest(0, TOKENS, 4, 1, Sampling(max_tokens=16, temperature=0.8))]
    before: list[int] = []
    for version in range(3):
        if version:
            with torch.no_grad():
                for weight in policy.module.parameters():
                    weight.add_(torch.randn_like(weight) * 0.05 * weight.requires_grad)
        if version == 2:
            psutil.Process(sampler._server._process.pid).children()[0].kill()
        sampler.publish(version)
        prove(claimed(policy, version, True), sampler, stage)
        ((_, drawn),) = sampler.sample(asked)
        for one in drawn:
            layout = PackedGroups([TOKENS], [list(one.tokens)], [0], policy.device)
            hidden = policy.plain_hidden(layout.tokens, layout.positions, layout)
            at = layout.predictors(torch.zeros(len(one.tokens), dtype=torch.long), torch.arange(len(one.tokens)))
            logs = (policy.logits(hidden[at]) / 0.8).log_softmax(-1)
            own = logs.gather(-1, torch.tensor(list(one.tokens))[:, None])[:, 0].detach()
            assert torch.allclose(own, torch.tensor(list(one.logprobs)), atol=5e-3)
            assert one.version == version
        assert len({tuple(one.tokens) for one in drawn}) > 1  # each has a seed of its own
        ((_, again),) = sampler.sample(asked)
        assert [list(one.tokens) for one in again] == [list(one.tokens) for one in drawn]
        now = [token for one in drawn for token in one.tokens]
        assert now != before
        before = now
    psutil.Process(sampler._server._process.pid).children()[0].kill()
    ((_, again),) = sampler.sample(asked)
    assert [token for one in again for token in one.tokens] == before
    sampler.close()


def test_it_samples_on_a_cluster_though_server_and_sampler_are_killed(run, served, ray, monkeypatch):
    """The log-probs of every step are those of its own weights, which moved; every prompt is learnt from once."""
    sample, seen = Samplers.sample, []

    def sampled(self, requests):
        if self.version == 1:
            servers()[-1].kill()
        if self.version == 2:
            assert kill("SamplerActor") == 1
        for found in sample(self, requests):
            seen.extend(one.pid for one in servers() if one.pid not in seen)
            yield found

    monkeypatch.setattr(Samplers, "sample", sampled)
    done = run("served", steps=3, rollout={"max_rows": 12, **served}, **HERE)
    assert len(seen) == 3
    assert not servers()
    assert tickets(done) == [*range(3 * 3)]
    assert all(line["policy/mismatch"] < 1e-4 for line in done.metrics if line["step"])
    assert done.metrics[-1]["policy/kl"] > 1e-2
    found = checked(done.directory, 4, None, "")
    assert found["holds"], [one for one in found["checks"] if one["status"] == "failed"]
    assert "log-probs of version 2" in [one["name"] for one in found["checks"]]


def servers():
    """The servers that this process has begun, or its actors."""
    every = psutil.Process().children(recursive=True)
    running = [one for one in every if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in running if one.cmdline()[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]]
