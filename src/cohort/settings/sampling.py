"""How completions are sampled: in training, and where held-out accuracy is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from cohort.settings.table import (
    TOKENS,
    Count,
    Function,
    Later,
    Many,
    NoEffect,
    OneOf,
    Resumable,
    Share,
    Table,
    Text,
    Texts,
    Tokens,
    key,
)
from cohort.types import Beams, Sampling

# Who may sample, and where it is: "module:name" of a function that opens a sampler (see `backends.base`).
SAMPLERS = {"local": "cohort.backends.local:open_engine", "vllm": "cohort.backends.vllm:Vllm"}


class Vllm(Table):
    """The server of `rollout.sampler = "vllm"`: one that exists, or one that Cohort starts and ends."""

    place = ("rollout", "vllm")

    url: Resumable[Text | None] = key(
        None, "A server that exists: http://localhost:8000/v1; when not given, one is started."
    )
    api_key_env: NoEffect[Text | None] = key(None, "Environment variable that holds the server's key.")
    directory: NoEffect[Text | None] = key(
        None, "Directory for weights that the server sees as well; a temporary one when not given."
    )
    python: NoEffect[Text | None] = key(
        None, "A server that is started: the Python that has vLLM; this one when not given."
    )
    port: NoEffect[Annotated[int, Field(ge=1, le=65535)] | None] = key(
        None, "A server that is started: its port; a free one when not given."
    )
    arguments: Resumable[Texts] = key(
        (), 'A server that is started: what it is told beside, such as "--enforce-eager".'
    )
    start_s: NoEffect[float] = key(600.0, "Seconds that a server may take to start.", gt=0)
    timeout_s: NoEffect[float] = key(600.0, "Seconds that one answer may take.", gt=0)
    retries: NoEffect[int] = key(
        3, "Times that an answer is asked for again, of a new server where it died.", ge=0, le=100
    )


class Rollout(Table):
    """How groups of completions are sampled."""

    prompts_per_step: Many = key(16, "Prompts of one training step.")
    group_size: int = key(8, "Completions of each prompt.", ge=1, le=2**16)
    groups: Later[Literal["sample", "beam", "diverse_beam", "greedy_plus_sample"]] = key(
        "sample",
        "How a group is found; sample: by draws from the policy. The others are not all draws: see docs/beams.md.",
    )
    length_penalty: Later[float] = key(
        1.0, "Beams: the log-prob of n tokens is divided by n to this power; 0 favours short completions.", ge=0, le=10
    )
    beam_groups: Later[Many | None] = key(
        None, "diverse_beam: parts of a group that avoid each other's tokens; one for each beam when not given."
    )
    diversity_penalty: Later[float] = key(
        0.5,
        "diverse_beam: nats that a token costs for each beam of the parts before that has just taken it.",
        ge=0,
        le=1e4,
    )
    max_tokens: Tokens = key(512, "Longest completion.")
    temperature: float = key(1.0, "Sampling temperature; also applied to every log-probability.", gt=0)
    top_p: float = key(1.0, "Nucleus sampling; 1 is off, as training needs.", gt=0, le=1)
    top_k: int = key(0, "Sample from the k likeliest tokens; 0 is off, as training needs.", ge=0, le=TOKENS)
    min_p: float = key(0.0, "Least share of the likeliest token's; 0 is off, as training needs.", ge=0, lt=1)
    stop: Texts = key((), "Texts that end a completion.")
    sampler: Annotated[str, OneOf(SAMPLERS)] = key(
        "local", "Who samples; local: the engine in this process; vllm: a server; or module:name of your own."
    )
    vllm: NoEffect[Later[Vllm | None]] = key(None, 'The server of sampler = "vllm".')
    max_staleness: int = key(0, "Training steps that a rollout may be behind; 0 is strictly on-policy.", ge=0, le=10**6)
    in_flight: Later[Literal["off", "keep", "recompute"]] = key(
        "off", "New weights for completions under way; keep, recompute: keys and values. See docs/cluster.md."
    )
    # Measured on SmolLM2-135M: 1e-5 in float32, 0.01 in bfloat16, 0.07 with weights rounded to 8 bits as well; 0.5 and
    # more with one of its 272 tensors replaced by noise.
    max_mismatch: NoEffect[Later[float]] = key(
        0.25, "Mean nats between log-probs of sampler and learner, of the same weights, at which a run stops.", gt=0
    )
    precision: Later[Literal["auto", "int8"]] = key(
        "auto", "Products of decoding; auto: in policy.compute; int8: in bytes, quicker (docs/kernels.md)."
    )
    over_sample: Later[Annotated[int, Field(ge=0, le=2**16)]] = key(
        0, "Completions begun beyond group_size, whose longest are cut: short answers are over-represented."
    )
    replay: Later[Annotated[int, Field(ge=0, le=10**6)]] = key(
        0, "Groups of earlier steps that each step learns from once more, as they were stored."
    )
    replay_age: Later[Many] = key(4, "Steps that such a group may be old.")
    max_rows: Many = key(256, "Completions decoded at the same time.")
    resample_cap: Many = key(
        4, "With zero_std = resample: sample at most so many times prompts_per_step prompts a step."
    )

    @property
    def draws(self) -> bool:
        """Whether all completions are draws from the policy."""
        return self.groups == "sample"

    @property
    def oldest(self) -> int:
        """Training steps that the weights behind a rollout may be behind."""
        return self.replay_age if self.replay else self.max_staleness

    def sampling(self) -> Sampling:
        """How completions are drawn."""
        return Sampling(self.max_tokens, self.temperature, self.top_p, self.top_k, self.min_p, tuple(self.stop))

    def of_groups(self) -> Sampling:
        """How the groups that are learnt from are found."""
        if self.groups in ("sample", "greedy_plus_sample"):
            return replace(self.sampling(), greedy_first=not self.draws)
        diverse = self.groups == "diverse_beam"
        parts = (self.beam_groups or self.group_size) if diverse else 1
        beams = Beams(parts, self.diversity_penalty if diverse else 0.0, self.length_penalty)
        return replace(self.sampling(), beams=beams)


class Evaluate(Table):
    """How held-out accuracy is measured."""

    problems: Count = key(500, "Held-out problems to use, at most; 0: no evaluation.")
    samples: int = key(1, "Sampled completions of each problem; 0: none.", ge=0, le=2**16)
    temperature: float = key(1.0, "Temperature of the sampled completions.", gt=0)
    top_p: float = key(1.0, "Nucleus sampling; 1 is off.", gt=0, le=1)
    top_k: int = key(0, "Sample from the k likeliest tokens; 0 is off.", ge=0, le=TOKENS)
    min_p: float = key(0.0, "Least share of the likeliest token's; 0 is off.", ge=0, lt=1)
    greedy: bool = key(True, "Also measure greedy decoding.")
    reward: Text | Function | None = key(None, "Verifier that decides what is right; the first reward when not given.")
    gold: Text | None = key(
        None, "Column of completions that are right as they stand, for the gate; else it writes out the answer."
    )
    max_tokens: Tokens | None = key(None, "Longest completion; rollout.max_tokens when not given.")
    cluster: Resumable[Text | None] = key(
        None, "Column that problems which belong together share: they count as one for intervals."
    )
    traces: Resumable[Count] = key(
        0, "Problems whose traces are cut, changed and exchanged, to see if answers need them; 0: none."
    )
    margin: NoEffect[Share] = key(
        0.02, "A loss of accuracy of at most this still counts as no worse, where models are paired."
    )

    def sampling(self, rollout: Rollout, greedy: bool) -> Sampling:
        """How evaluation completions are drawn; what is not said here is as in training."""
        limit, stop = self.max_tokens or rollout.max_tokens, tuple(rollout.stop)
        if greedy:
            return Sampling(limit, 0.0, stop=stop)
        return Sampling(limit, self.temperature, self.top_p, self.top_k, self.min_p, stop)
