"""Which way of running a model is right for it, found out on a few short random rows before it is trusted.

Everything is compared with the log-probs of the model's own forward pass over one row at a time, without padding. Both
sides compute in float32, whatever the policy computes in: rounding to bfloat16 moves the log-probs of a trained model
further than some wrong algorithms do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cohort.policy.attention import ATTENTION, PackedGroups, Scores
from cohort.policy.decode import PlainDecoder
from cohort.policy.generic import Mode, Shared, Together
from cohort.policy.verify import probe
from cohort.types import UserError

if TYPE_CHECKING:
    from cohort.policy.policy import Policy

MOST_APART = 1e-4  # of log-probs that are computed in two ways, in float32
KINDS = {"full_attention", "sliding_attention", "chunked_attention"}  # of layers that a layout knows; not sparse ones
STEPS = 8  # tokens decoded behind the prompts


def packed_differs(policy: Policy) -> str | None:
    """Why packed groups under Cohort's attention are not what the model computes; None where they are.

    Two prompts and four rollouts share one flat row, longer than a small sliding window; then the rollouts are decoded.
    A model that mixes neighbouring tokens outside attention (convolutions, state spaces), or whose attention does more
    than a layout knows of, is found out here.
    """
    config = policy.config
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - KINDS):
        return f"it has layers of {' and '.join(others)}"
    layout, texts = probe(policy.vocabulary, policy.max_context, policy.device)
    counter = _Counted(layout)
    try:
        with torch.no_grad(), policy.in_float32():
            policy.set_attention("eager")
            exact = [_plain(policy, text) for text in texts]
            policy.set_attention(ATTENTION)
            hidden = policy.plain_hidden(layout.tokens, layout.positions, counter)
            worst = max(
                apart(policy.logits(hidden[layout.predicting(row)]), exact[row][-n - 1 : -1])
                for row, n in enumerate(layout.rollout_lengths)
            )
    except Exception as error:  # a model may raise anything at what it was not made for
        return f"it does not run on packed rows: {_short(error)}"
    finally:
        policy.set_attention(ATTENTION)
    if counter.layers != list(range(config.num_hidden_layers)):
        return "it has layers that are not attention, or attention of its own"
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and not getattr(config, "layer_types", None) and window not in counter.windows:
        return f"its window of {window} positions is not told to its attention"
    if not worst <= MOST_APART:
        return f"packed rows change its log-probs by {worst:.2g}"
    try:
        with torch.no_grad(), policy.in_float32():
            worst = _decoded_packed(policy, layout.rollout_lengths, texts, exact)
    except Exception as error:  # as above
        return f"it does not decode from stored keys and values: {_short(error)}"
    return None if worst <= MOST_APART else f"decoding from stored keys and values changes its log-probs by {worst:.2g}"


def _decoded_packed(policy: Policy, lengths: list[int], texts: list[list[int]], exact: list[Tensor]) -> float:
    """What log-probs change by when the rollouts that end the texts are decoded token by token from stored keys and
    values, behind prompts that they share: a check of what samples where there are no compiled kernels.
    """
    order = sorted(range(len(texts)), key=lambda row: -lengths[row])  # those that still run are the first rows
    cut = [len(texts[row]) - lengths[row] for row in order]
    begun = [tuple(texts[row][:n]) for row, n in zip(order, cut, strict=True)]
    prompts = list(dict.fromkeys(begun))
    fused, policy.fused = policy.fused, None  # the compiled kernels prove themselves, on the first group that is drawn
    try:
        decoder = PlainDecoder(policy, len(order))
        slots, logits = decoder.prefill(prompts)
        slot = torch.tensor([slots[prompts.index(prompt)] for prompt in begun], device=policy.device)
        place = torch.arange(len(order), device=policy.device)
        of_prompt = [exact[order[begun.index(prompt)]][len(prompt) - 1] for prompt in prompts]
        worst = max(map(apart, logits, of_prompt))
        for step in range(min(STEPS, lengths[order[0]] - 1)):
            n = sum(lengths[row] > step + 1 for row in order)
            at = [(order[i], cut[i] + step) for i in range(n)]  # (text, place of the token that comes next)
            tokens = torch.tensor([texts[row][token] for row, token in at], device=policy.device)
            logits = decoder.decode(tokens, slot[:n], place[:n], torch.full_like(slot[:n], step))
            worst = max(worst, *map(apart, logits, (exact[row][token] for row, token in at)))
    finally:
        policy.fused = fused
    return worst


@torch.no_grad()
def find_mode(policy: Policy, because: str) -> Mode:
    """The fastest way to run the model by its own forward pass that gives the log-probs of rows alone, unpadded.

    Raises `UserError` for a model that is not causal, or that no way of running it is right for.
    """
    policy.release()
    _, texts = probe(policy.vocabulary, policy.max_context, policy.device)
    texts = [*texts, texts[0][::-1]]  # as long as another, so that two rows can run together without padding
    mode = Mode(because, rows="single", cache="none")
    with policy.in_float32():
        try:
            exact = [_plain(policy, text) for text in texts]
            _refuse_not_causal(policy, texts[0], exact[0])
        except UserError:
            raise
        except Exception as error:  # a model may raise anything
            raise _no_way(policy, because, _short(error)) from None
        by_row, decoded = partial(_by_row, policy, texts, exact), partial(_decoded, policy, texts, exact)
        mode = _first(policy, [replace(mode, own_head=own) for own in (False, True)], by_row)
        rows: tuple[Together, ...] = ("padded", "equal", "single")
        mode = _first(policy, [replace(mode, rows=way) for way in rows], by_row)
        caches: tuple[Shared, ...] = ("padded", "equal", "none")
        return _first(policy, [replace(mode, cache=way) for way in caches], decoded)


def _first(policy: Policy, modes: Sequence[Mode], difference: Callable[[], float]) -> Mode:
    """The first of `modes` under which the policy differs little."""
    why = ""
    for mode in modes:
        try:
            policy.take_generic(mode)
            worst = difference()
            if worst <= MOST_APART:
                return mode
            why = f"its log-probs move by {worst:.2g} where its rows are computed together or from a cache"
        except Exception as error:  # a model may raise anything at a kind of call that it was not made for
            why = _short(error)
    raise _no_way(policy, modes[0].because, why)


def _by_row(policy: Policy, texts: list[list[int]], exact: list[Tensor]) -> float:
    """What the rows' log-probs change by when the policy computes them, a long one, short ones and their prompts."""
    layout = PackedGroups([text[:2] for text in texts], [text[2:] for text in texts], range(len(texts)), policy.device)
    hidden = policy.hidden(layout.tokens, layout.positions, layout)
    return max(apart(policy.logits(hidden[layout.predicting(row)]), plain[1:-1]) for row, plain in enumerate(exact))


def _decoded(policy: Policy, texts: list[list[int]], exact: list[Tensor]) -> float:
    """What log-probs change by when rows are decoded: prompts of three lengths, one of them continued twice, the rows
    in another order than their prompts, some of which end before others.
    """
    assert policy.generic is not None
    cut = [max(1, len(text) - STEPS) for text in texts]
    states, hidden = policy.generic.prefill([text[:n] for text, n in zip(texts, cut, strict=True)])
    worst = max(map(apart, policy.logits(hidden), [plain[n - 1] for plain, n in zip(exact, cut, strict=True)]))
    for members, prompts in states:
        index = [*reversed(range(len(members))), 0]
        rows = prompts.take(torch.tensor(index, device=policy.device))
        for step in range(STEPS - 1):
            if step == STEPS // 2 and len(index) > 1:
                rows.keep(torch.arange(1, len(index), device=policy.device))
                index = index[1:]
            at = [(members[i], cut[members[i]] + step) for i in index]  # (text, place of the token that comes next)
            tokens = torch.tensor([texts[text][place] for text, place in at], device=policy.device)
            theirs = [exact[text][place] for text, place in at]
            worst = max(worst, *map(apart, policy.logits(rows.step(tokens)), theirs))
    return worst


def _refuse_not_causal(policy: Policy, text: list[int], exact: Tensor) -> None:
    """Raise `UserError` for a model whose predictions depend on what comes behind them, or on chance."""
    for n in (len(text) // 2, len(text) - 1):
        worst = apart(_plain(policy, text[:n]), exact[:n])
        if not worst <= MOST_APART:
            raise UserError(
                f"{type(policy.model).__name__} is no causal language model as it is configured: the log-probs of a "
                f"text change by {worst:.2g} when more text follows, so a rollout has none that could be learnt from"
            )


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of log-probs, given two sets of logits; as a sixteenth of the largest log-prob, by which
    rounding grows, where that is beyond 1.
    """
    ours, theirs = ours.float().log_softmax(-1), theirs.float().log_softmax(-1)
    return ((ours - theirs).abs().max() / (theirs.abs().max() / 16).clamp(min=1)).item()


def probed(policy: Policy) -> Tensor:
    """The logits `[n, V]` of a short random row by the model's own forward pass, in float32."""
    _, (text, *_) = probe(policy.vocabulary, policy.max_context, policy.device)
    with policy.in_float32():
        return _plain(policy, text)


def _plain(policy: Policy, tokens: list[int]) -> Tensor:
    """The logits `[n, V]` of the model's own forward pass over one row."""
    ids = torch.tensor([tokens], device=policy.device)
    takes = inspect.signature(policy.model.forward).parameters
    return policy.model(input_ids=ids, **({"use_cache": False} if "use_cache" in takes else {})).logits[0].float()


def _no_way(policy: Policy, because: str, why: str) -> UserError:
    return UserError(
        f"{type(policy.model).__name__} cannot be run by Cohort. Not by packed groups: {because}. "
        f"Not by its own forward pass either: {why}"
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160] + ("..." if len(text) > 160 else "")


class _Counted:
    """A layout that notes which layers asked it, and how far back they see."""

    def __init__(self, layout: PackedGroups):
        self.layout = layout
        self.layers: list[int] = []
        self.windows: set[int | None] = set()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """See `Layout`."""
        self.layers.append(layer)
        self.windows.add(scores.reach.window)
        return self.layout.attend(layer, query, key, value, scores)
