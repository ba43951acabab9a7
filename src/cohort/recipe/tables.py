"""The tables of a recipe, each field with its default and one line on what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from cohort.recipe.wording import callable_path, report
from cohort.types import UserError

__all__ = [
    "Adaptive",
    "Critic",
    "Curriculum",
    "Environment",
    "Evaluate",
    "Lora",
    "Optimizer",
    "Policy",
    "Preferences",
    "Reference",
    "Reward",
    "Rollout",
    "Run",
    "Scratch",
    "Source",
    "Supervised",
    "Table",
    "Task",
    "reward_name",
]

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]  # strict=False: TOML and Python write lists
TOKENS, PROMPTS, COUNT = 10**7, 10**6, 10**9  # more than any run has: a slip of the hand is a sentence, not a crash
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Function = Annotated[
    Callable[..., Any], WithJsonSchema({"type": "string", "description": "A function, as module:function."})
]


class Table(BaseModel):
    """A frozen table. Values are taken as they are: "8" is not 8, and an unknown key is a mistake, not an extra."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError:
            from cohort.recipe.reading import mistakes  # it knows all tables, so it cannot be imported above

            raise UserError(report(mistakes(type(self), values))) from None

    # Tells pydantic that this is no change of behaviour: tables inside tables are then validated in one pass, so that
    # every mistake is found and not only the first.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class Scratch(Table):
    """A small base policy made from nothing, with its own tokenizer."""

    architecture: Literal["qwen3"] = Field(default="qwen3", description="Model family of the new policy.")
    hidden_size: int = Field(default=96, ge=8, le=2**16, description="Width of the model.")
    layers: int = Field(default=4, ge=1, le=1024, description="Number of layers.")
    heads: int = Field(default=4, ge=1, le=1024, description="Attention heads.")
    kv_heads: int = Field(default=2, ge=1, le=1024, description="Key-value heads; must divide the heads.")
    head_dim: int = Field(default=24, ge=2, le=4096, description="Width of one head; must be even.")
    intermediate_size: int = Field(default=256, ge=8, le=2**20, description="Width of the feed-forward layers.")
    vocabulary: int = Field(
        default=768, ge=1, le=2**24, description="Largest vocabulary of the tokenizer that is built."
    )
    max_positions: int = Field(
        default=1024, ge=16, le=TOKENS, description="Longest sequence, prompt and completion together, in tokens."
    )
    tie_embeddings: bool = Field(default=True, description="Use one matrix for input and output embeddings.")


class Lora(Table):
    """Low-rank adapters (peft): only these are trained, and the reference is the base with them off."""

    rank: int = Field(default=16, ge=1, le=2**16, description="Rank of the adapters.")
    alpha: float = Field(default=32.0, gt=0, description="Scale: the adapter's output is multiplied by alpha / rank.")
    targets: Texts | Literal["all-linear"] = Field(default="all-linear", description="Modules that get an adapter.")


class Policy(Table):
    """The model to train. A later stage that names none continues from the stage before it."""

    model: Text | None = Field(
        default=None, description='Hub id or directory to start from; "live": the model object given to cohort.train.'
    )
    scratch: Scratch | None = Field(default=None, description="Make a small new model instead of loading one.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the master weights.")
    compute: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the arithmetic.")
    lora: Lora | None = Field(default=None, description="Train low-rank adapters instead of all weights.")
    trust_remote_code: bool = Field(default=False, description="Allow code that comes with a hub model to run.")
    revision: Text | None = Field(default=None, description="Branch, tag or commit of a hub model.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto: the GPU if there is one."
    )


class Curriculum(Table):
    """Levels that rise with the success rate, for sources that have levels."""

    raise_at: float = Field(
        default=0.8, gt=0, le=1, description="Mean pass rate of the window's prompts at which the next level begins."
    )
    lower_at: float | None = Field(
        default=None, ge=0, lt=1, description="Mean pass rate at which it goes back a level; never when not given."
    )
    window: int = Field(
        default=32, ge=1, le=COUNT, description="Last prompts of the level that are looked at; a new level starts anew."
    )
    review: float = Field(default=0.0, ge=0, lt=1, description="Share of the prompts that are from easier levels.")


class Adaptive(Table):
    """Prompts that were all right or all wrong rest for some epochs, for sources with an end."""

    solved: float = Field(default=1.0, gt=0, le=1, description="Pass rate from which a prompt counts as solved.")
    hopeless: float = Field(default=0.0, ge=0, lt=1, description="Pass rate up to which a prompt counts as hopeless.")
    after: int = Field(default=1, ge=1, le=COUNT, description="Visits in a row that were so before the prompt rests.")
    rest: int = Field(default=1, ge=1, le=COUNT, description="Epochs it rests at first; twice as many each next time.")
    longest_rest: int = Field(default=8, ge=1, le=COUNT, description="Epochs after which every prompt is asked again.")


class Prompts(Table):
    """What a task and a source of a mixture have in common."""

    source: Text = Field(
        description="word_problems, arithmetic, reasoning_gym:TASK, verifiers:PACKAGE, a file, a directory, a hub id."
    )
    prompt: Text = Field(default="prompt", description="Column that holds the question.")
    answer: Text = Field(default="answer", description="Column that holds the gold answer.")
    messages: Text | None = Field(
        default=None, description="Column that holds a chat (a list of messages), used as prompt."
    )
    split: Text = Field(default="train", description="Split of the source to train on.")
    held_out: Annotated[float, Field(gt=0, lt=1)] | Text | None = Field(
        default=None, description="Problems to evaluate on: another source, or a share of this one such as 0.1."
    )
    held_out_split: Text | None = Field(default=None, description="Split of the source to evaluate on.")
    config: Text | None = Field(default=None, description="Configuration of a hub dataset.")
    answer_format: Literal["plain", "gsm8k"] = Field(
        default="plain", description="How the answer is written; gsm8k: what follows ####."
    )
    levels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] | None = Field(
        default=None,
        description="Levels of word_problems, arithmetic (else 1 and 2) or reasoning_gym (else its own settings).",
    )
    args: dict[str, Any] = Field(
        default={}, description="Settings of a reasoning_gym task, over those of the level, or of a verifiers package."
    )
    limit: int | None = Field(default=None, ge=1, le=COUNT, description="Use only the first so many prompts.")
    curriculum: Curriculum | None = Field(default=None, description="Let the level rise with the success rate.")
    adaptive: Adaptive | None = Field(default=None, description="Let prompts without signal rest.")


class Source(Prompts):
    """One source of a mixture."""

    weight: Weight | dict[str, Weight] = Field(
        default=1.0,
        description="Its share of the prompts, relative to the others: a number, or by step: { 0 = 1, 200 = 3 }.",
    )


class Task(Prompts):
    """Where prompts and gold answers come from."""

    completion: Text = Field(
        default="completion", description="Column that holds the demonstration, in supervised stages."
    )
    chosen: Text = Field(default="chosen", description="Column that holds the better answer, in reward_model stages.")
    rejected: Text = Field(
        default="rejected", description="Column that holds the worse answer, in reward_model stages."
    )
    margin: Text | None = Field(
        default=None, description="Column that says by how much the better answer should score higher, at least."
    )
    template: Literal["chat", "r1_zero", "none"] = Field(
        default="chat",
        description="How a question becomes a prompt: the model's chat template, R1-Zero's text, or as it is.",
    )
    system: str | None = Field(default=None, description="System message put before every question.")
    max_prompt_tokens: int | None = Field(
        default=None,
        ge=1,
        le=TOKENS,
        description="Longest prompt; when not given, what the context leaves beside rollout.max_tokens.",
    )
    too_long: Literal["error", "drop", "truncate_left"] = Field(
        default="error", description="What to do with a longer prompt."
    )
    careful: Share | dict[str, Share] = Field(
        default=1.0,
        description="word_problems, arithmetic: share of demonstrations that show their working, or one by steps.",
    )
    careful_first: int = Field(
        default=0,
        ge=0,
        le=COUNT,
        description="word_problems, arithmetic: the first so many demonstrations all show their working.",
    )
    sloppy_right: Share = Field(
        default=0.2, description="word_problems, arithmetic: share of the guesses without working that are right."
    )
    mixture: dict[str, Source] = Field(
        default={}, description="Several sources by name, which becomes the prompts' column domain, instead of one."
    )

    @model_validator(mode="before")
    @classmethod
    def _say_mixture(cls, given: Any) -> Any:
        """The source of a task with a mixture needs not be written."""
        if isinstance(given, Mapping) and given.get("mixture") and given.get("source") is None:
            return {**given, "source": "mixture"}
        return given


class Rollout(Table):
    """How groups of completions are sampled."""

    prompts_per_step: int = Field(default=16, ge=1, le=PROMPTS, description="Prompts of one training step.")
    group_size: int = Field(default=8, ge=1, le=2**16, description="Completions of each prompt.")
    max_tokens: int = Field(default=512, ge=1, le=TOKENS, description="Longest completion.")
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
    sampler: Literal["local"] = Field(default="local", description="Who samples; local: the engine in this process.")
    max_staleness: int = Field(
        default=0, ge=0, le=PROMPTS, description="Updates that a rollout may be behind; 0 is strictly on-policy."
    )
    max_rows: int = Field(default=256, ge=1, le=PROMPTS, description="Completions decoded at the same time.")
    resample_cap: int = Field(
        default=4,
        ge=1,
        le=PROMPTS,
        description="With zero_std = resample: sample at most so many times prompts_per_step prompts a step.",
    )


class Environment(Table):
    """What the policy acts in: nothing, where a completion is the whole rollout, or tools that it may call."""

    tools: Annotated[tuple[str | Function, ...], Field(strict=False)] = Field(
        default=(), description="Tools it may call: calculator, python, http, or module:function."
    )
    use: Text | Function | None = Field(
        default=None, description="An environment instead: module:function that makes one, or verifiers."
    )
    args: dict[str, Any] = Field(
        default={}, description="Settings of built-in tools by their name, or keyword arguments for the function."
    )
    format: Literal["auto", "tags", "hermes", "llama3"] = Field(
        default="auto", description="How calls are written; auto: as the chat template does, tags where there is none."
    )
    max_turns: int = Field(default=8, ge=1, le=10_000, description="Most turns of a rollout.")
    max_turn_tokens: int | None = Field(
        default=None, ge=1, le=TOKENS, description="Longest turn; what is left of rollout.max_tokens when not given."
    )
    max_result_tokens: int = Field(
        default=256, ge=1, le=TOKENS, description="What of a result is shown to the policy, in tokens."
    )
    concurrency: int = Field(default=16, ge=1, le=1024, description="Rollouts that are with tools at the same time.")
    timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds that a call of your function, or a step of your environment, may take."
    )


def reward_name(use: Any) -> str:
    """What a reward without a name is called: its function's name, or that of the built-in."""
    path = callable_path(use) if callable(use) else str(use)
    return path.rsplit(":", 1)[-1].rsplit(".", 1)[-1].strip("<>") or "reward"


class Reward(Table):
    """One way to score a completion. The reward of a rollout is the weighted sum of all of them."""

    use: Text | Function = Field(description="A built-in name, module:function, or a Python function.")
    weight: float = Field(
        default=1.0, description="Factor in the sum; negative: a penalty; 0: measured but not rewarded."
    )
    name: Text = Field(default="", description="Name in the metrics; the function's when not given.")
    style: Literal["cohort", "trl"] = Field(
        default="cohort",
        description="How a function is called; trl: (prompts, completions, **columns) -> list of numbers.",
    )
    args: dict[str, Any] = Field(default={}, description="Keyword arguments for the function.")
    timeout_s: float = Field(default=30.0, gt=0, description="Seconds that scoring one group may take.")
    split: Text | None = Field(
        default=None, description="The function scores steps; what separates them: blank_lines, lines or a regex."
    )
    fold: Literal["mean", "min", "last", "product"] | None = Field(
        default=None, description="Make one reward of the steps' scores, instead of supervising each step with its own."
    )
    when: dict[str, Any] = Field(
        default={}, description='Only for prompts whose columns have these values, such as { domain = "math" }.'
    )
    gate: Text | None = Field(
        default=None, description="Another reward by its name: where that one scores too little, this one is not paid."
    )
    gate_at: float = Field(default=0.5, description="Score of the gate from which this reward is paid.")
    gate_else: Literal["zero", "none"] = Field(
        default="zero", description="Below it this reward is 0, or, with none, left out as if it did not apply."
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Accept a bare name or function, and name the reward after its function."""
        if isinstance(given, str) or (callable(given) and not isinstance(given, Reward)):
            given = {"use": given}
        if isinstance(given, Mapping) and given.get("name") is None and given.get("use"):
            return {**given, "name": reward_name(given["use"])}
        return given


class Optimizer(Table):
    """AdamW and how a batch becomes updates."""

    learning_rate: float = Field(default=1e-6, ge=0, description="Peak learning rate.")
    warmup_steps: int = Field(default=0, ge=0, le=COUNT, description="Steps over which the learning rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="After the warm-up.")
    # 0.999 is what AdamW, TRL, verl and the DAPO recipe use, so a run moved over keeps its optimizer; 0.95, known from
    # pretraining, forgets faster than the few hundred noisy steps of a GRPO run reward.
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = Field(default=(0.9, 0.999), description="AdamW's two averages.")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    gradient_clip: float = Field(default=1.0, ge=0, description="Largest gradient norm; 0 is off.")
    updates_per_batch: int = Field(
        default=1, ge=1, le=PROMPTS, description="Optimizer updates that a batch is split into, by prompt."
    )
    epochs: int = Field(default=1, ge=1, le=PROMPTS, description="Passes over a batch.")
    tokens_per_micro_batch: int = Field(
        default=4096, ge=1, le=COUNT, description="Tokens in memory at once; does not change the result."
    )


class Critic(Table):
    """The value model of PPO (baseline = "critic")."""

    learning_rate: float | None = Field(
        default=None, ge=0, description="Learning rate; the optimizer's when not given."
    )
    gamma: float = Field(default=1.0, ge=0, le=1, description="Discount.")
    lam: float = Field(default=0.95, ge=0, le=1, description="GAE's lambda.")
    value_clip: float = Field(
        default=0.2, gt=0, description="How far values may move in one batch before the loss clips."
    )


class Evaluate(Table):
    """How held-out accuracy is measured."""

    problems: int = Field(
        default=500, ge=0, le=COUNT, description="Held-out problems to use, at most; 0: no evaluation."
    )
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
    max_tokens: int | None = Field(
        default=None, ge=1, le=TOKENS, description="Longest completion; rollout.max_tokens when not given."
    )


class Reference(Table):
    """The policy that the KL term compares with: the starting model, unless it is moved."""

    update_every: int = Field(default=0, ge=0, le=COUNT, description="Steps between updates from the policy; 0: never.")
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the old reference kept at an update (at every step if update_every is 0); else a copy.",
    )


class Run(Table):
    """How long, how often, and where."""

    steps: int = Field(default=100, ge=0, le=COUNT, description="Training steps.")
    evaluate_every: int = Field(
        default=0, ge=0, le=COUNT, description="Steps between evaluations; 0: before and after only."
    )
    save_every: int = Field(default=50, ge=0, le=COUNT, description="Steps between checkpoints; 0: at the end only.")
    keep_checkpoints: int = Field(default=2, ge=1, le=COUNT, description="Latest checkpoints to keep.")
    directory: Text = Field(default="runs", description="Directory in which the run gets a directory of its name.")
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        default="auto", description="CPU threads; auto: the fastest."
    )
    show_group_every: int = Field(
        default=25, ge=0, le=COUNT, description="Steps between groups shown on the console; 0: never."
    )
    workers: int = Field(default=1, ge=1, le=1024, description="Processes that compute rewards.")
    retries: int = Field(
        default=2,
        ge=0,
        le=100,
        description="Times that a group is scored again when a worker, sandbox or server failed; a timeout is not.",
    )
    failure_budget: Share = Field(
        default=0.1, description="Share of the last failure_window groups that may be lost so before the run stops."
    )
    failure_window: int = Field(default=100, ge=1, le=COUNT, description="Groups that the failure budget looks at.")
    gate: Literal["enforce", "warn", "off"] = Field(
        default="enforce",
        description="Before the first step: check that gold answers pay and junk does not; refuse, warn, or do not.",
    )
    save_rollouts: bool = Field(default=True, description="Keep every rollout of every step on disk.")


class Supervised(Table):
    """Settings of supervised stages (kind = "sft")."""

    examples_per_step: int = Field(default=64, ge=1, le=PROMPTS, description="Demonstrations of one training step.")


class Preferences(Table):
    """Settings of stages that train a reward model (kind = "reward_model")."""

    pairs_per_step: int = Field(default=64, ge=1, le=PROMPTS, description="Preference pairs of one training step.")
    centring: float = Field(
        default=0.01, ge=0, description="Weight of the term that keeps scores around 0; with 0 only differences count."
    )
