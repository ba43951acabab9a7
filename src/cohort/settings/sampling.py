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
)
from cohort.types import Beams, Sampling

# Who may sample, and where it is: "module:name" of a function that opens a sampler (see `backends.base`).
SAMPLERS = {"local": "cohort.backends.local:open_engine", "vllm": "cohort.backends.vllm:Vllm"}


class Vllm(Table):
    """The server of `rollout.sampler = "vllm"`: one that exists, or one that Cohort starts and ends."""

    place = ("rollout", "vllm")

    url: Resumable[Text | None] = Field(
        default=None, description="A server that exists: http://localhost:8000/v1; when not given, one is started."
    )
    api_key_env: NoEffect[Text | None] = Field(
        default=None, description="Environment variable that holds the server's key."
    )
    directory: NoEffect[Text | None] = Field(
        default=None, description="Directory for weights that the server sees as well; a temporary one when not given."
    )
    python: NoEffect[Text | None] = Field(
        default=None, description="A server that is started: the Python that has vLLM; this one when not given."
    )
    port: NoEffect[Annotated[int, Field(ge=1, le=65535)] | None] = Field(
        default=None, description="A server that is started: its port; a free one when not given."
    )
    arguments: Resumable[Texts] = Field(
        default=(), description='A server that is started: what it is told beside, such as "--enforce-eager".'
    )
    start_s: NoEffect[float] = Field(default=600.0, gt=0, description="Seconds that a server may take to start.")
    timeout_s: NoEffect[float] = Field(default=600.0, gt=0, description="Seconds that one answer may take.")
    retries: NoEffect[int] = Field(
        default=3, ge=0, le=100, description="Times that an answer is asked for again, of a new server where it died."
    )


class Rollout(Table):
    """How groups of completions are sampled."""

    prompts_per_step: Many = Field(default=16, description="Prompts of one training step.")
    group_size: int = Field(default=8, ge=1, le=2**16, description="Completions of each prompt.")
    groups: Later[Literal["sample", "beam", "diverse_beam", "greedy_plus_sample"]] = Field(
        default="sample",
        description="How a group is found; sample: by draws from the policy. The others are not all draws: see "
        "docs/beams.md.",
    )
    length_penalty: Later[float] = Field(
        default=1.0,
        ge=0,
        le=10,
        description="Beams: the log-prob of n tokens is divided by n to this power; 0 favours short completions.",
    )
    beam_groups: Later[Many | None] = Field(
        default=None,
        description="diverse_beam: parts of a group that avoid each other's tokens; one for each beam when not given.",
    )
    diversity_penalty: Later[float] = Field(
        default=0.5,
        ge=0,
        le=1e4,
        description="diverse_beam: nats that a token costs for each beam of the parts before that has just taken it.",
    )
    max_tokens: Tokens = Field(default=512, description="Longest completion.")
    temperature: float = Field(
        default=1.0, gt=0, description="Sampling temperature; also applied to every log-probability."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling; 1 is off, as training needs.")
    top_k: int = Field(
        default=0, ge=0, le=TOKENS, description="Sample from the k likeliest tokens; 0 is off, as training needs."
    )
    min_p: float = Field(
        default=0.0, ge=0, lt=1, description="Least share of the likeliest token's; 0 is off, as training needs."
    )
    stop: Texts = Field(default=(), description="Texts that end a completion.")
    sampler: Annotated[str, OneOf(SAMPLERS)] = Field(
        default="local",
        description="Who samples; local: the engine in this process; vllm: a server; or module:name of your own.",
    )
    vllm: NoEffect[Later[Vllm | None]] = Field(default=None, description='The server of sampler = "vllm".')
    max_staleness: int = Field(
        default=0, ge=0, le=10**6, description="Training steps that a rollout may be behind; 0 is strictly on-policy."
    )
    in_flight: Later[Literal["off", "keep", "recompute"]] = Field(
        default="off",
        description="New weights for completions under way; keep, recompute: keys and values. See docs/cluster.md.",
    )
    # Measured on SmolLM2-135M: 1e-5 in float32, 0.01 in bfloat16, 0.07 with weights rounded to 8 bits as well; 0.5 and
    # more with one of its 272 tensors replaced by noise.
    max_mismatch: NoEffect[Later[float]] = Field(
        default=0.25,
        gt=0,
        description="Mean nats between log-probs of sampler and learner, of the same weights, at which a run stops.",
    )
    precision: Later[Literal["auto", "int8"]] = Field(
        default="auto",
        description="Products of decoding; auto: in policy.compute; int8: in bytes, quicker (docs/kernels.md).",
    )
    over_sample: Later[Annotated[int, Field(ge=0, le=2**16)]] = Field(
        default=0,
        description="Completions begun beyond group_size, whose longest are cut: short answers are over-represented.",
    )
    replay: Later[Annotated[int, Field(ge=0, le=10**6)]] = Field(
        default=0, description="Groups of earlier steps that each step learns from once more, as they were stored."
    )
    replay_age: Later[Many] = Field(default=4, description="Steps that such a group may be old.")
    max_rows: Many = Field(default=256, description="Completions decoded at the same time.")
    resample_cap: Many = Field(
        default=4, description="With zero_std = resample: sample at most so many times prompts_per_step prompts a step."
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

    problems: Count = Field(default=500, description="Held-out problems to use, at most; 0: no evaluation.")
    samples: int = Field(default=1, ge=0, le=2**16, description="Sampled completions of each problem; 0: none.")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the sampled completions.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling; 1 is off.")
    top_k: int = Field(default=0, ge=0, le=TOKENS, description="Sample from the k likeliest tokens; 0 is off.")
    min_p: float = Field(default=0.0, ge=0, lt=1, description="Least share of the likeliest token's; 0 is off.")
    greedy: bool = Field(default=True, description="Also measure greedy decoding.")
    reward: Text | Function | None = Field(
        default=None, description="Verifier that decides what is right; the first reward when not given."
    )
    gold: Text | None = Field(
        default=None,
        description="Column of completions that are right as they stand, for the gate; else it writes out the answer.",
    )
    max_tokens: Tokens | None = Field(
        default=None, description="Longest completion; rollout.max_tokens when not given."
    )
    cluster: Resumable[Text | None] = Field(
        default=None, description="Column that problems which belong together share: they count as one for intervals."
    )
    traces: Resumable[Count] = Field(
        default=0,
        description="Problems whose traces are cut, changed and exchanged, to see if answers need them; 0: none.",
    )
    margin: NoEffect[Share] = Field(
        default=0.02,
        description="A loss of accuracy of at most this still counts as no worse, where models are paired.",
    )

    def sampling(self, rollout: Rollout, greedy: bool) -> Sampling:
        """How evaluation completions are drawn; what is not said here is as in training."""
        limit, stop = self.max_tokens or rollout.max_tokens, tuple(rollout.stop)
        if greedy:
            return Sampling(limit, 0.0, stop=stop)
        return Sampling(limit, self.temperature, self.top_p, self.top_k, self.min_p, stop)
