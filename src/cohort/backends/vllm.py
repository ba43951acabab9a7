"""`rollout.sampler = "vllm"`: a vLLM server draws the completions, and is given the weights after every update.

Token ids go in and come out, so nothing is tokenised twice. Weights lie in a numbered directory that the server reads:
whole models by its route /collective_rpc (`reload_weights`), adapters by /v1/load_lora_adapter. It then says the
log-probs of a fixed text, the canary, which `backends.proving` compares with the learner's after every load.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import orjson

from cohort.backends.vllm_server import VllmServer
from cohort.frozen_array import FrozenArray
from cohort.policy.fit import refuse_broken
from cohort.policy.load import save_policy
from cohort.policy.policy import Policy
from cohort.rewards.judge.post import Passing, Post
from cohort.seeds import derive_seed
from cohort.settings import Rollout
from cohort.settings import Vllm as VllmTable
from cohort.types import Completion, InfrastructureError, SampleRequest, UserError

SAME = 0.05  # nats by which a server may differ from what it said of the same weights, from another batch or kernel
_LARGEST = 1 << 28  # bytes of a reply
_AT_ONCE = 64  # requests of one client: a pool of connections has 100
_DEV = "start it with VLLM_SERVER_DEV_MODE=1 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment"


class Vllm:
    """A `types.Sampler` that also has a canary. Made of the policy that it samples from, which stays the learner's."""

    apart = True

    def __init__(self, policy: Policy, rollout: Rollout):
        policy.refuse_classifier()
        self._policy, self._rollout, self._table = policy, rollout, rollout.vllm or VllmTable()
        self.version = 0  # of the weights that the next token will be drawn from
        key = None
        if (name := self._table.api_key_env) is not None and not (key := os.environ.get(name, "").strip()):
            raise UserError(f"the key of the vLLM server is missing: set the environment variable {name}")
        if policy.has_adapter:
            _refuse_adapter(policy)
        try:
            self._home = Path(tempfile.mkdtemp(prefix="cohort-vllm-", dir=self._table.directory))
        except OSError as error:
            raise UserError(f"rollout.vllm.directory cannot be written to: {error}") from None
        weakref.finalize(self, shutil.rmtree, self._home, ignore_errors=True)
        self._server = None if self._table.url else VllmServer(self._table, rollout.max_rows, self._home / "server.log")
        self._key = key or (self._server.key if self._server else None)
        self._base = (self._table.url or "").rstrip("/").removesuffix("/completions").removesuffix("/v1").rstrip("/")
        self._model, self._served = "", ""  # what requests name: the model, or its adapter; and the model alone
        self._holds: tuple[int, Path] | None = None  # the weights that it was given last, and where they lie
        self._proven: tuple[Sequence[int], Sequence[int], Sequence[float]] | None = None  # what it said of them
        self._lock, self._well, self._lives = threading.Lock(), threading.Event(), 0
        self._clients: dict[tuple[str, int], Post] = {}
        self._sick = ""  # why it was lost, until it has shown its weights again
        self._well.set()

    def publish(self, version: int) -> None:
        """Write the weights as they are, and have the server read them. Raises `UserError` where it cannot."""
        place, old = self._home / f"version-{version}", self._holds
        shutil.rmtree(place, ignore_errors=True)
        refuse_broken(self._policy.module)
        if old is None:
            save_policy(self._policy, place)  # with all that a server needs to start
        else:
            self._policy.module.save_pretrained(place)
        self._proven, self._holds = None, (version, place)
        if old is None:
            self._begin()
            self._load(started=self._server is not None)
        elif self._is_alive():
            self._load()
            self._sick = ""
        else:
            self._revive(self._lives, "it does not answer")
        self.version = version
        if old is not None and old[1] != place:
            shutil.rmtree(old[1], ignore_errors=True)

    def canary(self, prompt: Sequence[int], tokens: Sequence[int]) -> Sequence[float]:
        """See `types.ProvingSampler`."""
        said = self._canary(prompt, tokens)
        self._proven = prompt, tokens, said
        return said

    def close(self) -> None:
        """End a server that was started here, and delete the weights that it read."""
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        """Yield each request with its completions, in the order in which groups finish. Raises `UserError` where the
        server gives none, also after it was started anew.
        """
        wanted = list(requests)
        if self._holds is None:  # nobody trains: the weights at hand are sampled from
            self.publish(self.version)
        pool = ThreadPoolExecutor(min(self._rollout.max_rows, max(1, sum(one.count for one in wanted))))
        try:
            owner: dict[Future[Completion], tuple[int, int]] = {}
            for index, request in enumerate(wanted):
                for member in range(request.count):
                    owner[pool.submit(self._complete, request, member)] = index, member
            done: dict[int, dict[int, Completion]] = {}
            left = set(owner)
            while left:
                ended, left = wait(left, return_when=FIRST_COMPLETED)
                for future in ended:
                    index, member = owner[future]
                    done.setdefault(index, {})[member] = future.result()
                for index in [i for i, found in done.items() if len(found) == wanted[i].count]:
                    found = done.pop(index)
                    yield wanted[index], tuple(found[i] for i in range(wanted[index].count))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, request: SampleRequest, member: int) -> Completion:
        how = request.sampling
        body = {
            "prompt": list(request.tokens),
            "max_tokens": how.max_tokens,
            "temperature": 0 if how.greedy_first and not member else how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k,
            "min_p": how.min_p,
            "seed": derive_seed(request.seed, member),
            "stop": list(how.stop),
            "include_stop_str_in_output": True,
            "stop_token_ids": list(self._policy.eos_ids),
            "ignore_eos": True,  # those of the server's own configuration, which may be others
            "skip_special_tokens": False,
            "logprobs": 0,
            "return_token_ids": True,
        }
        version, choice = self.version, self._ask(body, member)
        try:
            tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            finish = choice["finish_reason"]
            assert len(tokens) == len(logprobs) > 0
            assert finish in ("stop", "length")
            assert all(-math.inf < one <= 1e-3 for one in logprobs)
        except (LookupError, TypeError, AssertionError):
            raise UserError(
                f"the vLLM server at {self._base} gave no token ids with their log-probs, as return_token_ids and "
                "logprobs ask for: use vLLM 0.10.2 or newer"
            ) from None
        drawn, given = FrozenArray(np.array(tokens, np.int64)), FrozenArray(np.array(logprobs, np.float32))
        return Completion(drawn, given, finish, version)

    def _canary(self, prompt: Sequence[int], tokens: Sequence[int], healing: bool = False) -> list[float]:
        whole = [*prompt, *tokens]
        body = {"prompt": whole, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        said = self._once(body) if healing else self._ask(body)
        try:
            return [
                float(said["prompt_logprobs"][at][str(whole[at])]["logprob"]) for at in range(len(prompt), len(whole))
            ]
        except (LookupError, TypeError, ValueError):
            raise UserError(f"the vLLM server at {self._base} gave no prompt_logprobs: is it vLLM's?") from None

    def _begin(self) -> None:
        """The first time: start the server where it is ours, and see what it is."""
        if self._server is not None:
            self._start()
        served = self._reachable("GET", "/v1/models")
        self._served = self._model = served["data"][0]["id"]
        if self._policy.has_adapter and self._server is None:
            base = str(self._policy.model.name_or_path)
            root = str(served["data"][0].get("root") or self._served)
            if Path(base).name != Path(root).name:
                raise UserError(
                    f"the vLLM server at {self._base} serves {root}, and the adapter that is trained belongs to {base}"
                )

    def _start(self) -> None:
        assert self._server is not None
        assert self._holds is not None
        policy, rank = self._policy, 0
        if policy.has_adapter:
            rank = policy.module.peft_config[policy.module.active_adapter].r
        model = str(policy.model.name_or_path) if rank else str(self._holds[1])
        self._base = self._server.start(model, policy.compute_name, policy.max_context, rank)

    def _load(self, started: bool = False) -> None:
        """Have the server read the weights that it is to hold. `started`: it began with them."""
        assert self._holds is not None
        version, place = self._holds
        where = str(place.absolute())
        try:
            if self._policy.has_adapter:
                before, self._model = self._model, f"{place.parent.name}-{version}"
                try:
                    self._firmly("/v1/load_lora_adapter", {"lora_name": self._model, "lora_path": where})
                except InfrastructureError as error:  # a server that was not reached for a while may have it still
                    if "already been loaded" not in str(error):
                        raise
                if before not in (self._served, self._model):
                    with contextlib.suppress(UserError):  # a server that was started anew has never had it
                        self._post("/v1/unload_lora_adapter", {"lora_name": before})
            elif not started:
                self._firmly("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": where}})
            if not started and orjson.loads(self._firmly("/reset_prefix_cache", {}) or b"{}").get("success") is False:
                raise UserError(f"the vLLM server at {self._base} did not reset its prefix cache: it has other users")
            probe = {"prompt": list(self._policy.eos_ids[:1]), "max_tokens": 1, "temperature": 1.0, "top_k": 1}
            reply = self._firmly("/v1/completions", {"model": self._model, **probe, "logprobs": 0})
            certain = orjson.loads(reply)["choices"][0]["logprobs"]["token_logprobs"][0]
        except (Passing, InfrastructureError) as error:
            raise UserError(
                f"the vLLM server at {self._base} did not take the weights of step {version} from {where} ({error}): "
                "it must serve the model that is trained, and see that directory (rollout.vllm.directory)"
            ) from None
        if not certain > -1e-3:  # the only token that top_k = 1 leaves has probability 1
            raise UserError(
                f"the vLLM server at {self._base} gives log-probs of another distribution than it samples from: start "
                "it with --logprobs-mode processed_logprobs"
            )

    def _ask(self, body: Mapping[str, Any], client: int = 0) -> Any:
        """The one choice of a reply; asked again, of a new server where the old one died."""
        why = ""
        for attempt in range(self._table.retries + 1):
            if not self._well.wait(self._table.start_s + self._table.timeout_s):
                raise UserError(f"the vLLM server at {self._base} was waited for in vain: it does not come back")
            while self._sick:
                self._revive(self._lives, self._sick)
            lives = self._lives
            try:
                self._client("/v1/completions", client).wait(attempt)
                return self._once(body, client)
            except Passing as error:
                why = str(error)
                if not why.startswith("HTTP ") or not self._is_alive():
                    self._revive(lives, why)
            except InfrastructureError as error:
                raise UserError(str(error)) from None
        raise UserError(
            f"the vLLM server at {self._base} gave no answer in {self._table.retries + 1} tries; {why}. The run is "
            "saved up to here; resume it when the server answers"
        )

    def _once(self, body: Mapping[str, Any], client: int = 0) -> Any:
        reply = self._post("/v1/completions", {"model": self._model, **body}, client)
        try:
            return orjson.loads(reply)["choices"][0]
        except (ValueError, LookupError, TypeError):
            raise Passing("HTTP 200 and no completion") from None

    def _revive(self, lives: int, why: str) -> None:
        """Start a server anew that died (or wait until another's answers), and let it work only when it has shown that
        it holds the weights that it is to hold. Of many threads that ask for it, the first does it.
        """
        with self._lock:
            if self._lives != lives:
                return
            self._well.clear()
            self._sick = why
            try:
                if self._server is not None:
                    self._clients.clear()
                    self._start()
                else:
                    self._await_return()
                self._load(started=self._server is not None)
                if self._proven is not None:
                    prompt, tokens, said = self._proven
                    now = self._canary(prompt, tokens, healing=True)
                    if not max(abs(a - b) for a, b in zip(now, said, strict=True)) <= SAME:
                        raise UserError(
                            f"the vLLM server at {self._base} came back after it was lost ({why}), and holds other "
                            f"weights than those of step {self.version}, which it was given"
                        )
            except Passing as error:
                raise UserError(
                    f"the vLLM server at {self._base} was lost ({why}) and did not return: {error}"
                ) from None
            else:
                self._sick = ""
            finally:
                self._lives += 1
                self._well.set()

    def _await_return(self) -> None:
        try:
            self._reachable("GET", "/health", self._table.start_s)
        except UserError as error:
            raise Passing(str(error)) from None

    def _is_alive(self) -> bool:
        try:
            self._reachable("GET", "/health", 0.0)
        except UserError:
            return False
        return True

    def _reachable(self, method: str, route: str, patience_s: float = 0.0) -> Any:
        """What a route that costs nothing says. Raises `UserError` where nobody answers in time."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with httpx2.Client(headers=headers, timeout=30.0) as http:
            return VllmServer.answer(http, method, self._base + route, patience_s)

    def _post(self, route: str, body: Mapping[str, Any], client: int = 0) -> bytes:
        try:
            return self._client(route, client)(body)
        except UserError as error:
            if "HTTP 404" in str(error) and route != "/v1/completions":
                raise UserError(f"the vLLM server at {self._base} has no route {route}: {_DEV}") from None
            raise

    def _firmly(self, route: str, body: Mapping[str, Any]) -> bytes:
        """The same, asked again where what went wrong may pass."""
        for attempt in range(self._table.retries + 1):
            self._client(route).wait(attempt)
            try:
                return self._post(route, body)
            except Passing:
                if attempt == self._table.retries:
                    raise
        raise AssertionError

    def _client(self, route: str, number: int = 0) -> Post:
        which = self._base + route, number // _AT_ONCE
        if (client := self._clients.get(which)) is None:
            client = Post("vLLM server", which[0], self._key, self._table.timeout_s, _LARGEST)
            self._clients[which] = client
        return client


def _refuse_adapter(policy: Policy) -> None:
    """Raise `UserError` for an adapter that vLLM cannot put on a model."""
    config = policy.module.peft_config[policy.module.active_adapter]
    for bad, what in (
        (getattr(config, "use_dora", False), "is a DoRA (policy.lora.dora)"),
        (config.modules_to_save, "trains whole modules beside it (policy.lora.modules_to_save)"),
        (getattr(policy.model, "dequantised_from", ""), "belongs to a GGUF file"),
    ):
        if bad:
            raise UserError(f'the adapter {what}, which a vLLM server cannot load: set rollout.sampler = "local"')
