"""A local server that speaks the routes of vLLM's that a sampler needs, well or badly as a test wants it."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from cohort.engine.sampling import RowSampling, choose
from cohort.seeds import unit_uniforms


class FakeVllm:
    """Holds a model and computes what it says by its plain forward pass. `script` is used up by requests for
    completions: "drop" (no reply), a status, or seconds to wait. `deaf` takes no weights, `raw` gives raw log-probs.
    """

    def __init__(self, model: str, key: str = "", dev: bool = True):
        self.key, self.dev, self.deaf, self.raw = key, dev, False, False
        self.script: list[Any] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lock = threading.RLock()
        self.begin(model)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                if outer.key and key != outer.key and self.path.startswith("/v1"):
                    status, said = 401, {"error": "Unauthorized"}
                else:
                    status, said = outer.reply(self.path, body)
                raw = json.dumps(said).encode()
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self._server.server_port}"

    def begin(self, model: str) -> None:
        """Serve a model as after a start."""
        self.served, self.adapters = model, dict[str, Any]()
        self.model = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager").eval()

    def reply(self, route: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.asked.append((route, body))
            if route == "/began":  # by a process that stands for a server of its own, see `stand_in`
                self.begin(body["model"])
                return 200, {}
            if route == "/v1/completions" and self.script:
                what = self.script.pop(0)
                if what == "drop" or isinstance(what, int):
                    return (0 if what == "drop" else what), {"error": "so it was told"}
                time.sleep(what)
            if route == "/health":
                return 200, {}
            if route == "/v1/models":
                return 200, {"data": [{"id": "cohort", "root": self.served}]}
            if route == "/v1/completions":
                return 200, {"choices": [self.complete(body)]}
            if not self.dev:
                return 404, {"detail": "Not Found"}
            if route == "/reset_prefix_cache":
                return 200, {"success": True}
            try:
                return self.load(route, body)
            except Exception as error:
                return 500, {"error": str(error)[:200]}

    def load(self, route: str, body: dict[str, Any]) -> tuple[int, Any]:
        if route == "/collective_rpc":
            assert body["method"] == "reload_weights"
            if not self.deaf:
                new = AutoModelForCausalLM.from_pretrained(body["kwargs"]["weights_path"])
                self.model.load_state_dict(new.state_dict())
        elif route == "/v1/load_lora_adapter":
            base = AutoModelForCausalLM.from_pretrained(self.served, attn_implementation="eager")
            self.adapters[body["lora_name"]] = PeftModel.from_pretrained(base, body["lora_path"]).eval()
        elif route == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        return 200, {}

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self.model if body["model"] == "cohort" else self.adapters[body["model"]]
        if "prompt_logprobs" in body:
            tokens = body["prompt"]
            logs = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
            said = [{str(t): {"logprob": float(row[t])}} for row, t in zip(logs, tokens[1:], strict=True)]
            return {"prompt_logprobs": [None, *said]}
        drawn = unit_uniforms(body["seed"], body["max_tokens"]) if "seed" in body else [0.5]
        how = [[body["temperature"]], [body.get("top_p", 1.0)], [body.get("top_k", 0)], [body.get("min_p", 0.0)]]
        whole, found, logprobs = list(body["prompt"]), [], []
        for uniform in drawn:
            logits = model(torch.tensor([whole])).logits[:, -1].float()
            token, logprob = choose(logits, torch.tensor([uniform]), RowSampling(*map(torch.tensor, how)), not self.raw)
            whole.append(int(token))
            found.append(int(token))
            logprobs.append(float(logprob))
            if int(token) in body.get("stop_token_ids", ()):
                break
        finish = "stop" if found[-1] in body.get("stop_token_ids", ()) else "length"
        return {"token_ids": found, "logprobs": {"token_logprobs": logprobs}, "finish_reason": finish}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def stand_in(directory: Path, fake: FakeVllm) -> Path:
    """A "Python with vLLM": its server is a process that can be killed, and asks `fake` for all that it answers."""
    path = directory / "python-with-vllm"
    path.write_text(
        f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).with_name("vllm_stand_in.py")} {fake.root} "$@"\n'
    )
    path.chmod(0o755)
    return path
