"""GRPO, alone: a policy that can add two digits, but mostly guesses, learns to do it from a reward.

    python examples/grpo_loop.py            # about a quarter of a minute on a CPU; the reward goes from 0.2 to 0.9

Read it downward, copy it into a notebook, change it: the task, the reward, the objective. It is the algorithm without
what a run needs around it: `cohort train` scores in processes that can be killed, checks a reward before it trusts it,
evaluates, keeps every rollout, and resumes exactly.

Shapes: P prompts, G completions of each (the group), B = P * G completions in all, T tokens of the longest of them,
N tokens in a flat row, M tokens that the policy chose, V words of the vocabulary.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from cohort.algorithms import objectives
from cohort.engine.engine import Engine
from cohort.policy.attention import PackedGroups
from cohort.policy.policy import Policy
from cohort.policy.scratch import make_model, make_tokenizer
from cohort.policy.text import reader
from cohort.settings import Scratch
from cohort.types import SampleRequest, Sampling

PROMPTS, GROUP, MAX_TOKENS = 16, 16, 3  # P, G, and the longest completion: a digit, the end, and one to spare
QUESTIONS = [(a, b) for a in range(10) for b in range(10 - a)]  # the 55 sums that have one digit


def reward(completion: str, answer: int) -> float:
    """1 for the right answer, 0 for all else."""
    return float(completion == str(answer))


def token_logprobs(policy: Policy, prompts: list[list[int]], completions: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Log-probs `[B, T]` of the completions' tokens under the policy as it is, with their gradient; and the mask."""
    # All tokens lie in one flat row of N: prompt 1, its G completions, prompt 2, ... The layout says which tokens see
    # which, so a prompt is computed once for its whole group, and no token is padding.
    owner = [index * len(prompts) // len(completions) for index in range(len(completions))]  # [B]: whose each one is
    layout = PackedGroups(prompts, completions, owner, policy.device)
    hidden = policy.hidden(layout.tokens, layout.positions, layout)  # [N, hidden]

    lengths = torch.tensor([len(c) for c in completions])  # [B]
    mask = torch.arange(int(lengths.max())) < lengths[:, None]  # [B, T]
    row, column = mask.nonzero(as_tuple=True)  # [M]: the M tokens that were chosen, completion by completion
    logits = policy.logits(hidden[layout.predictors(row, column)])  # [M, V], each from the token before it
    chosen = torch.tensor([token for c in completions for token in c])  # [M]
    found = logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]  # [M]
    return torch.zeros(mask.shape).masked_scatter(mask, found), mask


def update(policy: Policy, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of a loss."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.module.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def main(steps: int = 100, cold_start: int = 300, seed: int = 0) -> list[float]:
    """Train, print, and return the mean reward of every step."""
    torch.set_num_threads(1)  # the fastest for so small a model, and the same numbers every time
    draw = random.Random(seed)

    # The policy: a small Qwen3 with random weights. For one of yours: cohort.policy.load.load_policy(PATH).
    tokenizer = make_tokenizer([f"{a}+{b}={a + b}" for a, b in QUESTIONS], vocabulary=300)
    policy = Policy(make_model(tokenizer, seed, Scratch(hidden_size=64, layers=2, intermediate_size=128)), tokenizer)
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=2e-3)
    # The engine runs the policy's own module: whatever the optimizer does, the next completion comes from it.
    engine = Engine(policy)
    read = reader(tokenizer, policy.eos_ids)  # tokens as text, without the end token
    # Which GRPO? Any preset, and any of its fields as a keyword; `cohort explain` prints the equation.
    objective = objectives.preset("dr_grpo")

    # Cold start: supervised steps on answers of which three in ten are right and the rest are any digit. The policy
    # learns what an answer looks like, learns to add, and guesses mostly: as a base model can do more than it does.
    for _ in range(cold_start):
        sums = draw.choices(QUESTIONS, k=64)
        shown = [a + b if draw.random() < 0.3 else draw.randrange(10) for a, b in sums]
        prompts = [tokenizer.encode(f"{a}+{b}=") for a, b in sums]
        examples = [[*tokenizer.encode(str(digit)), tokenizer.eos_token_id] for digit in shown]
        logprobs, mask = token_logprobs(policy, prompts, examples)  # [64, 2] both
        update(policy, optimizer, -logprobs.sum() / mask.sum())

    history = []
    for step in range(1, steps + 1):
        # 1. Sample a group of G completions for each of P prompts.
        questions = draw.choices(QUESTIONS, k=PROMPTS)
        prompts = [tokenizer.encode(f"{a}+{b}=") for a, b in questions]
        requests = [
            SampleRequest(i, tokens, GROUP, seed=draw.getrandbits(62), sampling=Sampling(MAX_TOKENS))
            for i, tokens in enumerate(prompts)
        ]
        groups = {request.key: group for request, group in engine.sample(requests)}  # they come as they finish
        completions = [[*one.tokens] for i in range(PROMPTS) for one in groups[i]]  # B of them, group by group
        texts = [read(c) for c in completions]

        # 2. Score every completion.
        answers = [a + b for a, b in questions for _ in range(GROUP)]
        rewards = torch.tensor([reward(t, a) for t, a in zip(texts, answers)]).view(PROMPTS, GROUP)  # [P, G]

        # 3. Advantages: how much better than the rest of its group. No critic: the group is the baseline.
        advantages = objective.advantages(rewards)  # [P, G]

        # 4. One update. Good completions become likelier, bad ones less likely, each by its advantage.
        logprobs, mask = token_logprobs(policy, prompts, completions)  # [B, T] both
        loss = objectives.policy_loss(
            objective,
            logprobs=logprobs,
            old_logprobs=logprobs.detach(),  # one update a batch: the policy before the update is the policy itself
            mask=mask,
            advantages=advantages.flatten(),  # [B]
            max_tokens=MAX_TOKENS,
        )
        update(policy, optimizer, loss)
        engine.publish(step)  # what is sampled from now on comes from weights of this number

        history.append(rewards.mean().item())
        if step % 10 == 0 or step == 1:
            a, b = questions[0]
            print(f"step {step:3}  reward {history[-1]:.3f}  {a}+{b}= {' '.join(map(repr, texts[:6]))}")
    return history


if __name__ == "__main__":
    main()
