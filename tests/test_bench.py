"""The benchmarks: that they count what they say, and that every number is there. No timing is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import compare
import gpu
import learning
import length
import length_texts
import pytest
import run_sampling
import sampling
import scaling
import time_to_result
import torch
import turns
import vs_trl
from cases import CASES, REWARDS, Case, make
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cohort.policy.attention import PackedGroups

BENCH = Path(__file__).parent.parent / "bench"
TINY = gpu.TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of the tiny case."""
    where = tmp_path_factory.mktemp("case")
    make(TINY, where, prompts=6)
    return where


def test_sides_take_turns():
    order = []
    sides = {name: lambda name=name: order.append(name) or {"step_s": [len(order)]} for name in "ab"}
    found = turns.take_turns(sides, rounds=3)
    assert order == ["a", "b"] * 3
    assert turns.median(found["a"], "step_s") == 3
    assert turns.median(found["b"], "step_s") == 4


def test_a_turn_drops_its_warm_up_and_says_why_it_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "HERE", tmp_path)
    (tmp_path / "fine.py").write_text("print('noise'); print('{\"step_s\": [9, 1, 2], \"peak_gb\": 3}')")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such kernel')")
    assert turns.turn(sys.executable, "fine.py", warm_up=1) == {"step_s": [1, 2], "peak_gb": 3}
    with pytest.raises(SystemExit, match="no such kernel"):
        turns.turn(sys.executable, "broken.py")


def test_a_result_goes_where_it_was_asked_for(tmp_path, capsys):
    given = Namespace(json=tmp_path / "new" / "out.json", markdown=tmp_path / "new" / "out.md")
    for title in ("One", "Two"):
        turns.publish(given, title, turns.table(("a", "b"), [(1, 2)]), {"x": 1}, packages={"trl": "1.16.0"})
    text = given.markdown.read_text()
    assert text.index("## One") < text.index("## Two")
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |" in text
    assert "trl 1.16.0" in text
    assert text.replace("\n\n", "\n") == capsys.readouterr().out.replace("\n\n", "\n")
    written = json.loads(given.json.read_text())
    assert written["data"] == {"x": 1}
    assert {"processor", "cores", "packages"} <= written["machine"].keys()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_of_a_process_is_its_own():
    """getrusage's would begin with what this process, which has torch loaded, has resident."""
    command = [sys.executable, "-c", "import turns; print(turns.peak_gb())"]
    peak = float(subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=True).stdout)
    assert 0 < peak < 0.1 < turns.peak_gb()


def test_a_case_survives_the_command_line():
    for case in CASES.values():
        assert Case.read(case.json()) == case
        assert case.beside in ("", *CASES)


def test_prompts_are_as_long_as_the_case_says(made):
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    rows = [json.loads(line) for line in (made / "prompts.jsonl").read_text().splitlines()]
    ids = [tokenizer(row["prompt"])["input_ids"] for row in rows]
    assert ids == run_sampling.read_prompts(made)
    assert {len(row) for row in ids} == {TINY.prompt_tokens}
    assert [row["alive"] for row in rows] == [True, False] * 3


def test_rewards_differ_where_they_should():
    texts = [f"w{i}" for i in range(8)]
    assert len({REWARDS["varied"](text, False) for text in texts}) == 8
    assert len({REWARDS["half_dead"](text, True) for text in texts}) == 8
    assert {REWARDS["half_dead"](text, False) for text in texts} == {0.0}


def test_no_completion_ends_where_none_should(made):
    prompts = run_sampling.read_prompts(made)
    long = replace(TINY, max_tokens=200)
    sample = run_sampling.open_cohort(long, str(made / "model"), "float32", "cpu")
    assert sample(prompts) == len(prompts) * TINY.group_size * 200
    generate = run_sampling.open_generate(TINY, str(made / "model"), "float32")
    assert generate(prompts) == len(prompts) * TINY.group_size * TINY.max_tokens


def test_some_end_where_they_may(tmp_path):
    case = replace(TINY, vocabulary=8, ends=True, max_tokens=64)
    make(case, tmp_path)
    prompts = run_sampling.read_prompts(tmp_path)
    for side in (run_sampling.open_cohort, run_sampling.open_generate):
        assert len(prompts) <= side(case, str(tmp_path / "model"), "float32", "cpu")(prompts) < case.rows * 64


def test_tokens_are_counted_up_to_the_end():
    assert run_sampling.count_tokens(torch.tensor([[5, 1, 0, 0], [5, 6, 7, 8], [1, 0, 0, 0], [2, 2, 2, 1]])) == 11


def test_work_is_what_the_packed_batch_holds():
    case = replace(TINY, prompts=3, group_size=4)
    lengths = [1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 1, 2]
    batch = learning.make_batch(case, lengths)
    rows = batch.tokens.split(lengths)
    work = learning.count(batch)
    assert work.tokens == PackedGroups(batch.prompts, rows, batch.group.tolist()).tokens.numel()
    assert work.predicted == sum(lengths)
    whole = [(case.prompt_tokens, n - 1) for n in lengths]
    seen = sum(p + i for p, n in whole for i in range(1, n + 1))  # keys of the i-th token of each rollout
    assert work.pairs == seen + 3 * sum(range(1, case.prompt_tokens + 1))


def test_every_group_of_a_made_batch_has_signal():
    batch = learning.make_batch(replace(TINY, ends=True, vocabulary=4, group_size=8))
    assert (batch.advantages[batch.mask] != 0).all()
    assert len(set(batch.lengths.tolist())) > 1


def test_flops_are_those_of_the_plain_model(made):
    """torch's own counter on the plain model: linear layers are `mm`, attention is `bmm`."""
    config = AutoConfig.from_pretrained(made / "model")
    model = AutoModelForCausalLM.from_pretrained(made / "model", attn_implementation="eager")
    n = 24
    with FlopCounterMode(display=False) as counter:
        # Embeddings with a gradient, as when they are trained: the first layer then has a backward product of its own.
        embedded = model.model.embed_tokens(torch.arange(2, 2 + n)[None])
        model(inputs_embeds=embedded).logits.sum().backward()
    counted = counter.get_flop_counts()["Global"]
    work = learning.Work(tokens=n, predicted=n, pairs=n * n)  # eager attention computes the masked half too
    assert counted[torch.ops.aten.mm] == learning.work_flops(config, work)
    assert counted[torch.ops.aten.bmm] == learning.attention_flops(config, work)


def test_decoding_reads_every_weight_and_key_once_a_step(made):
    config = AutoConfig.from_pretrained(made / "model")
    model = AutoModelForCausalLM.from_pretrained(made / "model")
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    prompts = TINY.prompts * TINY.prompt_tokens
    expected = sum(2 * (matrices + token * (prompts + TINY.rows * t)) for t in range(1, TINY.max_tokens))
    assert gpu.decode_bytes(config, TINY) == expected


@pytest.mark.slow
def test_gpu_runs_without_one(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCH / "gpu.py"), "--device", "cpu", "--tiny", "--rounds", "1", "--threads", "1"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for what in ("tokens/s | bandwidth limit", "tokens/s | generate", "MFU |", "| step |"):
        assert what in done.stdout
    found = json.loads(out.read_text())["data"]
    numbers = [*found["decode_s"], *found["generate_s"], *found["update_s"], *found["steps"]["cohort"][0]["step_s"]]
    assert len(numbers) == 3 + TINY.steps - 1
    assert found["flops"] > found["attention_flops"] > 0
    assert found["bandwidth"] > 0
    assert found["matmul"] > 0


def fake_turns(step, tokens, peak):
    times = {"step_s": [step], "sample_s": [step / 4], "score_s": [0.0], "learn_s": [step * 3 / 4]}
    return [{**times, "tokens": [tokens], "peak_gb": peak, "flops": [30.0], "gemm_flops_per_s": [40.0]}]


def test_the_ratio_is_per_token():
    row = vs_trl.row("small", {"cohort": fake_turns(1.0, 200, 0.5), "trl": fake_turns(4.0, 100, 2.0)})
    assert "**8.0x**" in row
    assert row[-4:] == ["25%", "75%", "25% / 0% / 75%", "25% / 0% / 75%"]


def test_a_case_brings_the_one_it_is_compared_with():
    chosen = vs_trl.families(["small-dead-groups", "29m", "small"])
    assert [[case.name for case in cases] for cases in chosen] == [["small", "small-dead-groups"], ["29m"]]
    measured = {
        "small": {"cohort": fake_turns(1.0, 100, 1), "trl": fake_turns(4.0, 100, 1)},
        "small-dead-groups": {"cohort": fake_turns(0.5, 100, 1), "trl": fake_turns(4.0, 100, 1)},
    }
    line = vs_trl.comparison(CASES["small-dead-groups"], measured)
    assert line[-2:] == ["100% (+0.00 s)", "50% (-0.50 s)"]


def test_sampling_names_its_ratios():
    sides = {"cohort": 900.0, "generate": 300.0, "vllm": 450.0}
    more = {"tokens": [640], "token_flops": 2.0, "gemm_flops_per_s": [3600.0]}
    found = {side: [{"tokens_per_s": [rate], **more}] for side, rate in sides.items()}
    row = sampling.row(CASES["small"], "float32", found)[2:]
    assert row == ["10", "900", "300", "450", "**3.0x**", "**2.0x**", "50%"]


def test_scaling_sees_linear_and_flat_growth(tmp_path):
    linear = {n: dict.fromkeys(("step_s", "sample_s", "learn_s", "memory_gb"), n / 100) for n in (2, 4, 8)}
    flat = {n: dict.fromkeys(("step_s", "sample_s", "learn_s", "memory_gb"), 0.5) for n in (2, 4, 8)}
    assert scaling.slope(linear, "step_s") == pytest.approx(1)
    assert scaling.slope(flat, "memory_gb") == 0
    assert next(reversed(list(scaling.rows("x", linear))))[-1] == "1.00"
    scaling.draw({series.title: linear if series.grows else flat for series in scaling.SERIES}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_scaling_varies_one_thing_at_a_time():
    for series in scaling.SERIES:
        assert len(series.points) >= 5
        assert len(series.fewer().points) == 3
    sizes = list(scaling.SERIES[3].points)
    assert sizes[0] < 300_000
    assert sizes[-1] > 28_000_000
    assert all(case.prompt_tokens == 1024 and case.max_tokens == 1 for case in scaling.SERIES[4].points.values())


def test_parameters_are_those_of_the_model(tmp_path):
    case = scaling.wide(64)
    make(case, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert scaling.parameters(case) == sum(p.numel() for p in model.parameters() if p.dim() == 2)


def test_the_first_checkpoint_at_the_target_ends_the_clock(monkeypatch):
    known = {"a": 0.5, "b": 0.8, "c": 0.9}
    asked = []
    monkeypatch.setattr(time_to_result, "accuracy", lambda _, name, __: asked.append(name) or known[name])
    trained = {"step_s": [1.0] * 6, "checkpoints": {"2": "a", "4": "b", "6": "c"}}
    found = time_to_result.until(Path(), trained, 0.8, 1)
    assert (found["step"], found["seconds"], asked) == (4, 4.0, ["a", "b"])
    never = time_to_result.until(Path(), trained, 0.95, 1)
    assert time_to_result.row(0, found, never) == ["0", "not reached in 6 steps", "4.0 s (4 steps, 80.0%)", "-"]
    late = {**found, "seconds": 20.0}
    assert time_to_result.row(0, found, late)[-1] == "**5.0x**"


def test_the_short_texts_are_the_same_everywhere(tmp_path):
    length_texts.write_texts(tmp_path / "a.jsonl", 50)
    length_texts.write_texts(tmp_path / "new" / "b.jsonl", 50)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "new" / "b.jsonl").read_bytes()
    texts = length_texts.texts(200)
    assert len(set(texts)) == 200
    assert length_texts.texts(50) == texts[:50]
    for text in texts:
        assert 4 <= text.count(". ") + 1 <= 6
        assert "{" not in text


def curve(seconds, rewards):
    pairs = enumerate(zip([seconds] * len(rewards), rewards, strict=True), 1)
    return [{"step": step, "seconds": spent, "reward": reward, "tokens": 30 - step} for step, (spent, reward) in pairs]


def test_the_length_exercise_reads_a_curve_by_the_mean_of_five_steps():
    rising = curve(2.0, [0.0, -1, -1, -1, -1, -1, -0.4, -0.4, -0.4, -0.4, -0.4])
    assert length.smooth(rising, "reward")[:2] == [0.0, -0.5]
    assert length.reached(rising, -0.5) == (11, 22.0)  # the first steps' mean is of too few
    assert length.reached(rising, -0.1) is None


def test_the_length_exercise_says_how_much_sooner():
    slow, fast = curve(60.0, [-1.0] * 5 + [-0.2] * 5), curve(15.0, [-1.0] * 5 + [-0.2] * 5)
    text = length.measures({"TRL": slow, "Cohort": fast}, goal=-0.5)
    assert "| -1.00, -0.20 | -1.00, -0.20 |" in text
    assert "| 9.0 min (9 steps) | 2.2 min (9 steps) | **4.0x** |" in text
    assert "| 10.0 min (10 steps) | 2.5 min (10 steps) | **4.0x** |" in text
    assert "not reached" in length.measures({"Cohort": fast}, goal=0.0)


def test_a_ratio_that_has_moved_is_said(tmp_path, capsys, monkeypatch):
    def result(name, **ratios):
        given = Namespace(json=tmp_path / name, markdown=None)
        turns.publish(given, "Steps", "", {"raw": [1.0]}, ratios=ratios)
        return str(given.json)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["compare.py", *words, "--baseline", str(tmp_path / "kept.json")])
        compare.main()

    with pytest.raises(SystemExit, match="2"):
        run(result("first.json", faster=8.0, memory=0.4))
    run(str(tmp_path / "first.json"), "--keep")
    assert "data" not in json.loads((tmp_path / "kept.json").read_text())
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        run(result("near.json", faster=7.5, memory=0.42, share=0.5))
    assert "| share | - | 0.5 | - | not in the baseline |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        run(result("far.json", faster=5.0))
    said = capsys.readouterr().out
    assert "| faster | 8 | 5 | -38% | **moved** |" in said
    assert "| memory | 0.4 | - | - | not measured |" in said
    run(str(tmp_path / "far.json"), "--keep")
    assert json.loads((tmp_path / "kept.json").read_text())["ratios"] == {"faster": 5.0, "memory": 0.4}


def test_every_side_has_its_ratios():
    sides = {"cohort": fake_turns(1.0, 100, 0.5), "trl": fake_turns(8.0, 100, 2.0)}
    steps = vs_trl.ratios("small", sides)
    assert steps == {"small, faster per token": 8.0, "small, memory": 0.25, "small, share of the limit": 0.75}
    rates: Any = {name: [{"tokens_per_s": [rate]}] for name, rate in (("cohort", 30.0), ("vllm", 10.0))}
    rates["cohort"][0] |= {"token_flops": 2.0, "gemm_flops_per_s": [120.0]}
    assert sampling.ratios(rates) == {"against vllm": 3.0, "share of the rate": 0.5}
    assert learning.share({"flops": 30.0, "update_s": [1.0], "gemm_flops_per_s": [40.0]}) == 0.75
