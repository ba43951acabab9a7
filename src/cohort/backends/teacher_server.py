"""A teacher at an OpenAI-compatible server that gives the log-probs of a prompt's tokens, as vLLM's does.

Each rollout is one request to /v1/completions: the token ids of prompt and rollout, `prompt_logprobs` for them, and one
token more than nothing to write. The server is shown token ids, so that nothing is tokenised twice.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from cohort.rewards.judge.post import Passing, Post
from cohort.settings import Teacher as TeacherTable
from cohort.types import Batch, InfrastructureError, UserError

_LARGEST_REPLY = 1 << 28  # bytes: some hundred a token


class ServedTeacher:
    """Asks a server about the tokens of rollouts. Raises `UserError` where a person must mend something, also where the
    server gives no answer: a step without its teacher teaches nothing, and the run goes on from it later.
    """

    def __init__(self, name: str, table: TeacherTable):
        key = None
        if table.api_key_env is not None and not (key := os.environ.get(table.api_key_env, "").strip()):
            raise UserError(
                f"the key of the teacher '{name}' is missing: set the environment variable {table.api_key_env}"
            )
        assert table.url is not None
        base = table.url.rstrip("/")
        address = base if base.endswith("/completions") else f"{base}/completions"
        self._post = Post(f"teacher '{name}'", address, key, table.timeout_s, _LARGEST_REPLY)
        self._name, self._table = name, table

    def ask(self, batch: Batch, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs of the `wanted` tokens `[N]` of a batch, in their order, and whether each is the likeliest."""
        rows, starts = [], (batch.lengths.cumsum(0) - batch.lengths).tolist()
        for row, (start, length) in enumerate(zip(starts, batch.lengths.tolist(), strict=True)):
            own = wanted[start : start + length].nonzero()[:, 0].tolist()
            if own:
                prompt = batch.prompts[int(batch.group[row])]
                rows.append(
                    ([*prompt, *batch.tokens[start : start + length].tolist()], [len(prompt) + at for at in own])
                )
        with ThreadPoolExecutor(self._table.concurrency) as pool:
            futures = [pool.submit(self._of, tokens, places) for tokens, places in rows]
            try:
                said = [one for future in futures for one in future.result()]
            except BaseException as error:
                for future in futures:
                    future.cancel()
                if isinstance(error, InfrastructureError):
                    raise UserError(
                        f"{error}. The run is saved up to here; resume it when the server answers"
                    ) from None
                raise
        return torch.tensor([value for value, _ in said]), torch.tensor([first for _, first in said])

    def _of(self, tokens: Sequence[int], places: Sequence[int]) -> list[tuple[float, bool]]:
        """What the server says of the tokens at `places`."""
        body = {
            "model": self._table.model,
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 1,
        }
        why = ""
        for attempt in range(self._table.retries + 1):
            self._post.wait(attempt)
            try:
                reply = self._post(body)
            except Passing as error:
                why = str(error)
                continue
            return [self._entry(entry, tokens[at]) for at, entry in self._entries(reply, len(tokens), places)]
        tries = self._table.retries + 1
        raise InfrastructureError(
            f"the teacher '{self._name}' at {self._post.address} gave no log-probs in {tries} tries; {why}"
        )

    def _entries(self, reply: bytes, length: int, places: Sequence[int]) -> list[tuple[int, Any]]:
        """What a reply has at `places` of the prompt: `{token id: {"logprob": ..., "rank": ...}}` each."""
        try:
            whole = json.loads(reply)
            listed = whole["choices"][0].get("prompt_logprobs") or whole["prompt_logprobs"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            listed = None
        if not isinstance(listed, list) or len(listed) != length:
            raise UserError(
                f"the teacher '{self._name}' at {self._post.address} gave no prompt_logprobs, one for each token of "
                "the prompt: use a server that does, such as vLLM's, or load the teacher here, without url"
            )
        return [(at, listed[at]) for at in places]

    def _entry(self, entry: Any, token: int) -> tuple[float, bool]:
        """The log-prob of a token, and whether it is the likeliest."""
        try:
            value, of_all = float(entry[str(token)]["logprob"]), [float(one["logprob"]) for one in entry.values()]
        except (LookupError, TypeError, ValueError, AttributeError):
            value, of_all = math.nan, []
        if not -math.inf < value <= 1e-3:
            raise UserError(
                f"the teacher '{self._name}' at {self._post.address} gave no log-prob of token {token}: is it the "
                "model whose tokenizer the student has?"
            )
        return min(value, 0.0), value >= max(of_all)
