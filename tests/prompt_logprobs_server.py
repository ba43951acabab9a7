"""A local server that gives the log-probs of a prompt's tokens, as vLLM's /v1/completions does, well or badly."""

from __future__ import annotations

import json
from typing import Any

import torch

from judge_server import JudgeServer


class PromptLogprobsServer(JudgeServer):
    """Answers with what a model gives the tokens that it is shown. `script` is used up first, as of `JudgeServer`."""

    def __init__(self, model: Any) -> None:
        super().__init__(lambda texts, body: {"raw": json.dumps(self.answer(body["prompt"])).encode()})
        self._model = model

    @torch.no_grad()
    def answer(self, tokens: list[int]) -> dict[str, Any]:
        logs = self._model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        entries: list[Any] = [None]
        for row, token in zip(logs[:-1], tokens[1:]):
            top = int(row.argmax())
            entries.append({str(t): {"logprob": float(row[t]), "decoded_token": "?"} for t in {top, token}})
        return {"choices": [{"text": "", "prompt_logprobs": entries}]}
