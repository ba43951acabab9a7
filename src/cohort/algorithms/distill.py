"""What a teacher says of the student's own samples: divergences over the vocabulary, and advantages by sampled token.

P is the teacher, Q the student. `kl` is differentiated as it stands (GKD 2306.13649). `advantages` needs the teacher's
log-probs of the sampled tokens alone: log Q - log P of a token is an unbiased estimate of the reverse KL, and its
negative, as an advantage, has the gradient of it (Thinking Machines, On-Policy Distillation, 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cohort.algorithms.fields import nearest
from cohort.algorithms.trust import later_sums

if TYPE_CHECKING:
    from cohort.algorithms.objective import Objective

KINDS = ("reverse", "forward", "jsd")
RESTS = ("bucket", "renormalise", "none")


def kl(
    student_logits: Tensor,  # [..., V]
    teacher_logits: Tensor,  # [..., V]
    kind: str = "reverse",
    beta: float = 0.5,
    k: int | None = None,
    rest: str | bool = "bucket",
) -> Tensor:
    """A divergence between two softmaxes, in nats, [...]. Gradients flow to the student alone.

    reverse  KL(Q || P): the student leaves what the teacher would not say
    forward  KL(P || Q): the student covers all that the teacher says
    jsd      beta KL(P || M) + (1 - beta) KL(Q || M), M = beta P + (1 - beta) Q, 0 < beta < 1. It vanishes at both ends
             (JSD / beta tends to the forward KL), so values are comparable at one beta only.

    `reverse_kl` and `forward_kl` are the same as `reverse` and `forward`. With `k` only the teacher's k likeliest words
    are looked at, and `rest` says what becomes of the others: they are one "bucket" (or True; never more than the whole
    KL), or left out, and both sides "renormalise" (or False), or left out of the sum ("none", which pushes words
    outside the k down even where the student is the teacher).

    Half precision is raised to float32. Raises ValueError for logits of other shapes and for values that mean nothing.
    """
    kind, rest = kind.removesuffix("_kl"), {True: "bucket", False: "renormalise"}.get(rest, rest)  # type: ignore
    _check(student_logits, teacher_logits, kind, beta, k, rest)
    student, teacher = (_log_softmax(logits) for logits in (student_logits, teacher_logits.detach()))
    if k is not None and k < student.shape[-1]:
        words = teacher.topk(k, -1).indices
        student, teacher = (_restricted(one, words, str(rest)) for one in (student, teacher))
    if kind == "forward":
        return _divergence(teacher, student)
    if kind == "reverse":
        return _divergence(student, teacher)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * _divergence(teacher, mixture) + (1 - beta) * _divergence(student, mixture)


def advantages(o: Objective, own: Tensor, old: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Advantages [B, T] with what the teacher says of each token, a = log P - log Q, Q being the old policy:

    add       A_t + coef * a_t, or with a discount coef * sum_{k >= t} discount^(k - t) a_k over the policy's own tokens
    reweight  A_t * (1 - coef + coef * clip(exp(sign(A_t) a_t), 0.8, 1.2)): RLSD (2604.03128), which never turns a sign
    position  A_t + coef * w_t * a_t, w_t = 1 + discount * (1 - sum_{j < t} |a_j| / sum_j |a_j|): IW-OPD (2606.22600)

    All tensors are [B, T]. Where `teacher` is NaN no teacher speaks of the token, and a is 0. There is no gradient.
    """
    a = (teacher - old).detach().nan_to_num(0.0).masked_fill(~mask, 0)
    return FORMS[o.teacher_form](o, own, a, mask)


def _add(o: Objective, own: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    if o.teacher_discount:
        a = later_sums(a, mask, o.teacher_discount)
    return own + o.teacher_coef * a


def _reweight(o: Objective, own: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    bounded = (own.sign() * a).exp().clamp(0.8, 1.2)
    return own * (1 - o.teacher_coef + o.teacher_coef * bounded)


def _position(o: Objective, own: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    size = a.abs()
    total = size.sum(1, keepdim=True)
    before = (size.cumsum(1) - size) / total.masked_fill(total == 0, 1)
    return own + o.teacher_coef * (1 + o.teacher_discount * (1 - before)) * a


FORMS: dict[str, Callable[[Objective, Tensor, Tensor, Tensor], Tensor]] = {
    "add": _add,
    "reweight": _reweight,
    "position": _position,
}


def _check(student: Tensor, teacher: Tensor, kind: str, beta: float, k: int | None, rest: str | bool) -> None:
    if student.shape != teacher.shape or not student.ndim:
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)}; give both as "
            "[..., V], over one vocabulary"
        )
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is no divergence{nearest(kind, KINDS)}")
    if kind == "jsd" and not 0 < beta < 1:
        raise ValueError(
            f"beta={beta!r} must be between 0 and 1, where the divergence is 0 everywhere; the forward KL is "
            "kind='forward', the reverse KL kind='reverse'"
        )
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ValueError(f"k={k!r} must be a whole number of at least 1, or None for the whole vocabulary")
    if rest not in RESTS:
        raise ValueError(f"rest={rest!r} is unknown{nearest(rest, RESTS)}")


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits).log_softmax(-1)


def _restricted(logs: Tensor, words: Tensor, rest: str) -> Tensor:
    """Log-probs [..., V] of some words [..., k], and with a bucket that of all the others behind them."""
    found = logs.gather(-1, words)
    if rest == "renormalise":
        return found - found.logsumexp(-1, keepdim=True)
    if rest == "bucket":
        return torch.cat([found, logs.scatter(-1, words, -math.inf).logsumexp(-1, keepdim=True)], -1)
    return found


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """sum_v p (ln p - ln q) of log-probs; a word of probability 0 under p adds nothing, in value and in gradient."""
    return (p.exp() * (p - q).masked_fill(p.isneginf(), 0)).sum(-1)
