"""Attention of packed groups in one kernel over the flat row, on a GPU: FlexAttention, whose mask is the layout.

No rectangle is padded and no prompt copied to its rollouts, forward or backward. Blocks of 128 x 128 in which nobody
sees anybody are skipped. Elsewhere, and where it cannot be compiled, packed groups attend in rectangles (`attention`),
which it is tested against.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cohort.policy.torch_compile import Compiled

if TYPE_CHECKING:
    from cohort.policy.attention import Reach, Scores


class FlatMask:
    """Who sees whom in a flat row of N tokens, of groups in which rollouts continue a shared prompt."""

    def __init__(self, group: Tensor, rollout: Tensor, position: Tensor):
        """`[N]` each: the group of a token, its rollout (-1: the prompt), and its position in the two."""
        self._group, self._rollout, self._position = group, rollout, position
        self._blocks: dict[Reach, Any] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor | None:
        """See `Layout.attend`; query, key and value are of one type. None: it cannot be done here."""
        if scores.sinks is not None or _flex().broken:
            return None

        cap = scores.softcap

        def bent(score: Tensor, *_: Tensor) -> Tensor:
            assert cap is not None
            return torch.tanh(score / cap) * cap

        flat = [x.transpose(0, 1)[None] for x in (query, key, value)]  # [1, H or K, N, D]
        how = {"block_mask": self._block_mask(scores.reach), "scale": scores.scale, "enable_gqa": True}
        out = _flex()(query.device, *flat, score_mod=None if cap is None else bent, **how)
        return None if out is None else out[0].transpose(0, 1)

    def _block_mask(self, reach: Reach) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        group, rollout, position = self._group, self._rollout, self._position

        def sees(_b: Tensor, _h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            mine = (group[i] == group[j]) & ((rollout[j] == rollout[i]) | (rollout[j] == -1))
            return mine & (position[j] <= position[i]) & ~reach.hides(position[i], position[j])

        if reach not in self._blocks:
            n = len(group)
            self._blocks[reach] = create_block_mask(sees, None, None, n, n, device=group.device)
        return self._blocks[reach]


@functools.cache
def _flex() -> Compiled:
    """FlexAttention: on a CPU its forward pass alone. Where it does not run it answers None."""
    from torch.nn.attention.flex_attention import flex_attention

    return Compiled(flex_attention, lambda *_, **__: None, "FlexAttention")
