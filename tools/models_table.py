"""Try every family of causal language models that transformers has, tiny and random, and write docs/models.md.

    python tools/models_table.py [NAME ...]     try these families, or all that were not tried yet
    python tools/models_table.py --page         write the page from what was found

A family is tried in a process of its own, with a time limit; what was found is kept in a file of JSON lines, so that a
broken-off run goes on (`--found`). `make models` does both.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import multiprocessing
import signal
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
MARK, END = "<!-- families -->\n", "<!-- end of families -->"
LIMIT = 240  # seconds for one family
WIDTH = 32

# The size of a field of a configuration, by the words that its name begins, ends or is made of. The first one counts.
SIZES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("hidden_size_per_layer_input", "per_layer"), 8),
    (("vocab_size_per_layer_input",), 512),
    (("hidden_size", "d_model", "n_embd", "embed_dim", "word_embed_proj_dim", "attention_hidden_size", "dim_model",
      "embedding_size", "moe_router_hidden_size", "lru_width"), WIDTH),
    (("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_blocks"), 2),
    (("encoder_layers",), 1),
    (("mamba_n_heads", "mamba_num_heads"), 8),
    (("linear_num_key_heads",), 2),
    (("linear_num_value_heads",), 4),
    (("num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_query_groups", "swa_num_key_value_heads"), 2),
    (("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "swa_num_attention_heads"), 4),
    (("mamba_d_ssm",), 64),
    (("mamba_n_groups", "n_groups", "mamba_ngroups"), 1),
    (("qk_head_dim",), 16),
    (("head_dim", "d_kv", "d_head"), 8),
    (("state_size", "d_state"), 8),
    (("q_lora_rank", "kv_lora_rank", "lora_rank", "o_lora_rank"), 16),
    (("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rotary_dim", "index_head_dim"), 8),
    (("index_n_heads",), 2),
    (("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "dim_ff"), 48),
    (("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts"),
     2),
    (("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "first_k_dense_replace", "topk_group",
      "n_group"), 1),
    (("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"), 4),
    (("max_position_embeddings", "n_positions", "n_ctx", "context_length", "max_sequence_length", "seq_length",
      "max_seq_len", "max_target_positions", "original_max_position_embeddings"), 128),
    (("sliding_window", "attention_window_size", "window_size", "attention_chunk_size"), 8),
    (("chunk_size",), 16),
    (("attn_layer_period", "attn_layer_offset", "full_attention_interval"), 2),
)  # fmt: skip

# What a family needs that no word says.
OWN: dict[str, dict[str, Any]] = {
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    "mamba2": {"num_heads": 8},
    "zamba2": {"layer_types": ["mamba", "hybrid"], "num_hidden_layers": 2},
    "nemotron": {"num_key_value_heads": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4},
    "zaya": {"num_experts_per_tok": 1},
    "ernie4_5_moe": {"moe_k": 2},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
}


def shrunk(name: str, vocabulary: int) -> Any:
    """A tiny configuration of a family. Raises whatever its class does where the guesses do not fit together."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[name]
    whole = kind()
    if whole.get_text_config(decoder=True) is not whole:
        kind = type(whole.get_text_config(decoder=True))
        whole = kind()
    fields = inspect.signature(kind.__init__).parameters
    chosen: dict[str, Any] = {}
    for field in fields:
        default = fields[field].default
        if isinstance(default, int) and not isinstance(default, bool):
            size = next((n for words, n in SIZES if any(field == w or field.endswith("_" + w) for w in words)), None)
            if size is not None and default:
                chosen[field] = size if default >= 1 else default
    if "kv_lora_rank" in fields or getattr(whole, "num_key_value_heads", 0) == getattr(whole, "num_attention_heads", 1):
        chosen |= {k: 4 for k in chosen if "key_value" in k or "kv_heads" in k}
    if kinds := list(dict.fromkeys(getattr(whole, "layer_types", None) or ())):
        layers = [*kinds, kinds[-1]] if len(kinds) == 1 else kinds
        chosen |= {"num_hidden_layers": len(layers)} | ({"layer_types": layers} if "layer_types" in fields else {})
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "vocab_size": vocabulary, "is_decoder": True,
              "use_cache": True}  # fmt: skip
    chosen |= {key: value for key, value in tokens.items() if key in fields}
    return kind(**{**chosen, **OWN.get(name, {})})


def make(name: str, vocabulary: int) -> Any:
    """A tiny random model of a family, in float32, its weights so large that log-probs are far from uniform."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    torch.manual_seed(7)
    kind = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])
    model = kind(shrunk(name, vocabulary)).float().eval()
    if (count := sum(p.numel() for p in model.parameters())) > 2e7:
        raise ValueError(f"still {count / 1e6:.0f}M parameters when shrunk")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.1)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    return model


def make_tokenizer() -> Any:
    """A byte-level tokenizer of 300 tokens."""
    from cohort.policy.scratch import make_tokenizer as learn

    return learn([f"What is {i} plus {i + 1}? {2 * i + 1}" for i in range(12)], 300)


def try_family(name: str, parts: tuple[str, ...] = ("sample", "grpo", "lora", "bf16")) -> dict[str, Any]:
    """What Cohort does with a tiny model of a family."""
    import torch
    from transformers.utils import logging

    import cohort
    from cohort.policy.policy import Policy

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    try:
        model = make(name, len(tokenizer))
    except Exception as error:  # whatever a configuration or a model raises at sizes that do not fit together
        return {"made": False, "why": short(error)}
    found: dict[str, Any] = {"made": True, "model": type(model).__name__}
    policy = Policy(model, tokenizer)
    try:
        policy.check()
    except cohort.UserError as error:
        return found | {"why": str(error)}
    mode = policy.mode
    found["path"] = "packed" if mode is None else "generic"
    if mode is None and policy.fused is not None:
        found["path"] = "packed, compiled kernels"
    if mode is not None:
        found |= {"because": mode.because, "rows": mode.rows, "cache": mode.cache, "own_head": mode.own_head}
    for part in parts:
        try:
            found |= PARTS[part](policy, name)
        except Exception as error:
            found[part] = f"fails: {short(error)}"
    return found


def sampled(policy: Any, _name: str) -> dict[str, Any]:
    """The largest difference of sampled log-probs to a plain forward pass of the row, and greedy rows to `generate`."""
    import torch

    from cohort.engine.engine import Engine
    from cohort.types import SampleRequest, Sampling

    draw = torch.Generator().manual_seed(1)
    prompts = [tuple(torch.randint(5, 250, (n,), generator=draw).tolist()) for n in (5, 23)]
    model, engine, worst, equal = policy.model, Engine(policy, max_rows=7), 0.0, 0
    requests = [SampleRequest(i, p, 4, i, Sampling(12, 0.7)) for i, p in enumerate(prompts)]
    drawn = {request.key: completions for request, completions in engine.sample(requests)}
    requests = [SampleRequest(i, p, 1, 0, Sampling(12, 0.0)) for i, p in enumerate(prompts)]
    greedy = {request.key: tuple(completions[0].tokens) for request, completions in engine.sample(requests)}
    policy.release()  # what follows is the model alone
    whole = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    for key, completions in drawn.items():
        for completion in completions:
            ids = torch.tensor([[*prompts[key], *completion.tokens]])
            with torch.no_grad():
                logits = model(input_ids=ids, **whole).logits[0, len(prompts[key]) - 1 : -1].float()
            plain = (logits / 0.7).log_softmax(-1).gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
            worst = max(worst, (plain - torch.tensor(completion.logprobs)).abs().max().item())
    try:
        for key, prompt in enumerate(prompts):
            options = {
                "do_sample": False,
                "max_new_tokens": 12,
                "eos_token_id": list(policy.eos_ids),
                "pad_token_id": 0,
            }
            out = model.generate(torch.tensor([prompt]), **options)
            equal += tuple(out[0, len(prompt) :].tolist()) == greedy[key]
        said = f"{equal} of {len(prompts)}"
    except Exception as error:
        said = f"generate itself fails: {short(error)}"
    return {"apart": worst, "greedy": said}


def rollout(completion: Any) -> Any:
    """A completion as the learner takes it."""
    from cohort.types import Rollout

    c = completion
    return Rollout(c.tokens, (True,) * len(c.tokens), c.logprobs, c.version, c.finish, "")


def updated(what: str, steps: int = 1) -> Any:
    """A function that samples two groups, pays them at random and takes a step on them, so many times: with a KL to the
    reference, with an adapter, or in bfloat16.
    """

    def run(policy: Any, name: str) -> dict[str, Any]:
        from cohort.algorithms.presets import preset
        from cohort.engine.engine import Engine
        from cohort.learn.batch import collate
        from cohort.learn.learner import Learner
        from cohort.learn.reference import Reference
        from cohort.policy.load import add_lora
        from cohort.policy.policy import Policy
        from cohort.settings import Lora, Optimizer
        from cohort.types import Group, Prompt, SampleRequest, Sampling

        model, named = make(name, len(policy.tokenizer)), ""
        model.config._name_or_path = model.name_or_path = "base"
        policy = Policy(model, policy.tokenizer, "bfloat16" if what == "bf16" else "float32", policy.mode)
        if what == "lora":
            policy = add_lora(policy, Lora(rank=2), 0)
            without = sorted({words.strip().partition(" ")[0] for words in policy.model.without_adapter.split("),")})
            named = f", none on {', '.join(without)}" if any(without) else ""
        objective = preset("grpo", kl_coef=0.01)
        learner = Learner(policy, objective, Optimizer(), reference=Reference(policy))
        norms, mismatch = [], 0.0
        for step in range(steps):
            requests = [SampleRequest(i, tuple(range(5, 20 + i)), 4, 9 * step + i, Sampling(8)) for i in range(2)]
            groups = []
            for request, completions in Engine(policy).sample(requests):
                rollouts = tuple(rollout(completion) for completion in completions)
                paid = (1.0, -1.0, 0.5, -0.5)
                groups.append(Group(request.key, Prompt("", tokens=request.tokens), rollouts, {}, paid, paid, paid))
            batch = collate(groups, objective, 8)
            batch = replace(batch, ref_logprobs=learner.reference_logprobs(batch))
            report = learner.update(batch, 1e-3).metrics
            norms.append(report["grad_norm"])
            mismatch = max(mismatch, abs(report["policy/mismatch"]))
        fine = any(norms) and all(map(math.isfinite, norms))
        return {what: f"yes{named}" if fine else f"gradient norms {norms}", f"{what}_mismatch": mismatch}

    return run


PARTS = {"sample": sampled, "grpo": updated("grpo", steps=3), "lora": updated("lora"), "bf16": updated("bf16")}


def short(error: BaseException) -> str:
    """The beginning of an error's text, on one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "..."


def speed() -> None:
    """Print tokens a second of the three paths on one model, the best of three turns that they take."""
    import torch

    from cohort.algorithms.presets import preset
    from cohort.engine.engine import Engine
    from cohort.learn.batch import collate
    from cohort.learn.learner import Learner
    from cohort.policy.generic import Mode
    from cohort.policy.policy import Policy
    from cohort.policy.scratch import make_model
    from cohort.settings import Optimizer, Scratch
    from cohort.types import Group, Prompt, SampleRequest, Sampling

    torch.set_num_threads(1)
    tokenizer, sizes = make_tokenizer(), Scratch(hidden_size=256, layers=6, heads=8, head_dim=32, intermediate_size=768)
    policies = {name: Policy(make_model(tokenizer, 1, sizes), tokenizer, mode=mode)
                for name, mode in (("compiled", None), ("plain", None), ("generic", Mode("measured")))}  # fmt: skip
    policies["plain"].fused = None
    requests = [SampleRequest(i, tuple(range(5, 101 + i)), 8, i, Sampling(64)) for i in range(8)]
    objective, paid, best = preset("dr_grpo"), (1.0, -1.0) * 4, {}
    for _ in range(3):
        for name, policy in policies.items():
            start = time.perf_counter()
            drawn = list(Engine(policy).sample(requests))
            sampled = time.perf_counter()
            rollouts = {r.key: tuple(rollout(c) for c in completions) for r, completions in drawn}
            groups = [
                Group(r.key, Prompt("", tokens=r.tokens), rollouts[r.key], {}, paid, paid, paid) for r in requests
            ]
            batch, learner = collate(groups, objective, 64), Learner(policy, objective, Optimizer(learning_rate=1e-9))
            begun = time.perf_counter()
            learner.update(batch, 1e-9)
            took = sampled - start, time.perf_counter() - begun
            rates = [len(batch.tokens) / seconds for seconds in took]
            best[name] = [max(pair) for pair in zip(rates, best.get(name, rates), strict=True)]
    for name, (sampling, learning) in best.items():
        print(f"{name}: {sampling:,.0f} tokens/s sampled, {learning:,.0f} tokens/s learnt from")


def page(known: dict[str, dict[str, Any]]) -> str:
    """The generated part of docs/models.md."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    runs = {name: known[name] for name in names if known.get(name, {}).get("path")}
    packed = sum(found["path"] != "generic" for found in runs.values())
    lines = [
        f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}: of {len(names)} "
        f"families {packed} take packed groups, {len(runs) - packed} the generic path, {len(names) - len(runs)} are "
        "listed below with the reason.",
        "",
        "| family | path | apart | greedy | GRPO | LoRA | bfloat16 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {_path(found)} | " + " | ".join(_cells(found)) + " |" for name, found in runs.items()]
    lines += ["", "Not in the table:", "", "| family | why |", "|---|---|"]
    for name in names:
        if name not in runs:
            found = known.get(name, {"why": "not tried"})
            kind = "the shrinker makes no model of it" if found.get("made") is False else "Cohort or the model refuses"
            why = found["why"].replace("|", "\\|")
            lines.append(f"| {name} | {why if name not in known else f'{kind}: {why}'} |")
    return "\n" + "\n".join(lines) + "\n"


def _path(found: dict[str, Any]) -> str:
    if found["path"] != "generic":
        return str(found["path"])
    notes = {"rows": {"equal": "rows of one length", "single": "one row at a time"},
             "cache": {"equal": "prompts of one length", "none": "no cache"}}  # fmt: skip
    said = [words[found[key]] for key, words in notes.items() if found[key] in words]
    return "; ".join(["generic", *said])


def _cells(found: dict[str, Any]) -> list[str]:
    """What was found of sampling, GRPO, LoRA and bfloat16."""
    trouble = str(found.get("sample", ""))
    cells = [
        f"{found['apart']:.0e}" if "apart" in found else trouble,
        str(found.get("greedy", "")).replace(" of ", "/"),
    ]
    for part in ("grpo", "lora", "bf16"):
        gap = f", {found[f'{part}_mismatch']:.0e}" if part == "bf16" and f"{part}_mismatch" in found else ""
        cells.append(str(found.get(part, "")) + gap)
    return [cell.replace("|", "\\|") for cell in cells]


def _child(name: str, pipe: Any) -> None:
    pipe.send(try_family(name))


def try_in_a_process(name: str) -> dict[str, Any]:
    """`try_family` in a forked process that has `LIMIT` seconds."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(name, theirs))
    child.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(LIMIT) else {"made": True, "why": f"not done within {LIMIT} seconds"}
    except EOFError:
        child.join()
        signals = -(child.exitcode or 0)
        found = {
            "made": True,
            "why": f"the process died ({signal.Signals(signals).name if signals > 0 else child.exitcode})",
        }
    child.kill()
    child.join()
    return found


def main() -> None:
    """Try families, or write the page."""
    import torch  # noqa: F401 -- loaded once, for all children
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    import cohort.train  # noqa: F401

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir(), "cohort-models.jsonl"))
    parser.add_argument("--page", action="store_true", help="write docs/models.md from what was found")
    parser.add_argument("--speed", action="store_true", help="measure the paths beside each other, and nothing else")
    given = parser.parse_args()
    if given.speed:
        speed()
        return
    known = {}
    if given.found.exists():
        known = {line["name"]: line for line in map(json.loads, given.found.read_text("utf-8").splitlines())}
    if given.page:
        begin, _, rest = PAGE.read_text("utf-8").partition(MARK)
        PAGE.write_text(begin + MARK + page(known) + END + rest.partition(END)[2], "utf-8")
        return
    for name in given.names or [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in known]:
        start = time.perf_counter()
        found = {"name": name, **try_in_a_process(name)}
        print(json.dumps(found), f"{time.perf_counter() - start:.0f}s", flush=True)
        with given.found.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
