"""What an export says when somebody else reads it: run in a process of its own, with no part of Cohort.

    python -P read_back.py JOB RESULT

JOB is JSON: the `directory`, its `form` ("merged", "adapter" or "gguf"), for gguf the `file` and what transformers
has to be told beside it (`config`), `rows` of tokens with how many of them are the prompt, and `texts`. RESULT is a
safetensors file: the log-probs of the tokens after each prompt, end to end, in float32; SHA-256 of every parameter, and
the tokens of the texts, are in its metadata.
"""

import hashlib
import json
import sys
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def read(job: dict[str, Any]) -> tuple[Any, Any]:
    """The model, in float32, and the tokenizer, as their libraries read them."""
    where, form = job["directory"], job["form"]
    if form == "adapter":
        from peft import PeftConfig, PeftModel

        base = PeftConfig.from_pretrained(where).base_model_name_or_path
        options = {"trust_remote_code": job["trust_remote_code"], "revision": job["revision"]}
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **options)
        return PeftModel.from_pretrained(model, where), AutoTokenizer.from_pretrained(where)
    named = {"gguf_file": job["file"]} if form == "gguf" else {"trust_remote_code": job["trust_remote_code"]}
    extra = {}
    if job["config"]:
        extra["config"] = AutoConfig.from_pretrained(where, **named)
        extra["config"].update(job["config"])
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **extra, **named)
    return model, AutoTokenizer.from_pretrained(where, **named)


def digest(value: torch.Tensor) -> str:
    """SHA-256 of the numbers, as 64 hex digits."""
    return hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()


def main(job_file: str, result: str) -> None:
    """Read, compute, write."""
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    torch.set_num_threads(job["threads"])
    model, tokenizer = read(job)
    model.eval()
    found = []
    for prompt, tokens in job["rows"]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, prompt - 1 : -1].float()
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(tokens[prompt:])[:, None])[:, 0])
    said = {
        "sha256": json.dumps({name: digest(value) for name, value in model.named_parameters()}),
        "texts": json.dumps([tokenizer.encode(text, add_special_tokens=False) for text in job["texts"]]),
        "template": json.dumps(tokenizer.chat_template),
        "ends": json.dumps(tokenizer.eos_token_id),
    }
    save_file({"logprobs": torch.cat(found)}, result, metadata=said)


if __name__ == "__main__":
    main(*sys.argv[1:])
