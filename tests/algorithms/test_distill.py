"""What a teacher says: divergences against sums written out, and the worked numbers of published code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cohort.algorithms import distill
from cohort.algorithms.objectives import Objective, policy_loss

STUDENT, TEACHER = [1.0, 0.2, -0.5, -1.0], [0.4, 0.9, -0.2, -1.5]
PLAIN: dict[str, Any] = {"kl_coef": 0.0, "aggregation": "token_mean", "teacher_coef": 1.0}
UNCLIPPED: dict[str, Any] = {**PLAIN, "clip_low": None, "clip_high": None}


def found(logits=STUDENT, teacher=TEACHER, **how):
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    value = distill.kl(z, torch.tensor(teacher, dtype=torch.float64), **how)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def close(value, expected, within=1e-9):
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), atol=within, rtol=0)


@pytest.mark.parametrize(
    ("how", "value", "gradient"),
    [
        ({"kind": "forward"}, 0.176407331, (0.254394287, -0.244030872, -0.040539501, 0.030176087)),
        ({"kind": "reverse"}, 0.174300745, (0.244323395, -0.213334619, -0.056568143, 0.025579366)),
        ({"kind": "jsd"}, 0.043110982, (0.060278568, -0.055021380, -0.012059291, 0.006802103)),
        ({"kind": "jsd", "beta": 0.1}, 0.015758495, None),
        ({"kind": "jsd", "beta": 0.9}, 0.015611588, None),
        ({"kind": "jsd", "beta": 0.001}, 0.000176216, None),
        # verl's: the sum over the k alone
        ({"kind": "forward", "k": 2, "rest": "none"}, 0.152896235, (.138976158, -.295891581, .097673469, .059241954)),
        ({"kind": "reverse", "k": 2, "rest": "none"}, 0.170727630, None),
        # ms-swift's and SDPO's
        ({"kind": "forward", "k": 2, "rest": False}, 0.206220812, None),
        ({"kind": "reverse", "k": 2, "rest": "renormalise"}, 0.199943144, None),
        ({"kind": "jsd", "k": 2, "rest": "renormalise"}, 0.049882098, None),
        ({"kind": "forward", "k": 2}, 0.163525868, None),
        ({"kind": "reverse", "k": 2, "rest": True}, 0.160625953, None),
        ({"kind": "jsd", "k": 2, "rest": "bucket"}, 0.039817569, None),
        ({"kind": "reverse_kl", "k": 4}, 0.174300745, None),
    ],
)  # fmt: skip
def test_worked_numbers(how, value, gradient):
    now, slope = found(**how)
    close(now, value)
    if gradient is not None:
        close(slope, gradient, 2e-8 if how.get("rest") == "none" else 1e-9)  # computed there in float32


def written_out(q, p, kind, beta):
    """The divergence of two lists of probabilities, and its derivative by each of q."""
    if kind == "forward":
        return sum(b * math.log(b / a) for a, b in zip(q, p)), [-b / a for a, b in zip(q, p)]
    if kind == "reverse":
        return sum(a * math.log(a / b) for a, b in zip(q, p)), [math.log(a / b) + 1 for a, b in zip(q, p)]
    m = [beta * b + (1 - beta) * a for a, b in zip(q, p)]
    value = sum(beta * b * math.log(b / c) + (1 - beta) * a * math.log(a / c) for a, b, c in zip(q, p, m))
    return value, [(1 - beta) * math.log(a / c) for a, c in zip(q, m)]


def softmax(logits):
    top = max(logits)
    total = sum(math.exp(z - top) for z in logits)
    return [math.exp(z - top) / total for z in logits]


@pytest.mark.parametrize(("kind", "beta"), [("forward", 0.5), ("reverse", 0.5), ("jsd", 0.5), ("jsd", 0.2)])
@pytest.mark.parametrize("rest", [None, "bucket", "renormalise"])
def test_value_and_gradient_are_those_of_sums_written_out(kind, beta, rest):
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        z, t = (3 * torch.randn(7, dtype=torch.float64, generator=generator) for _side in range(2))
        now, slope = found(z.tolist(), t.tolist(), kind=kind, beta=beta, **({"k": 3, "rest": rest} if rest else {}))
        q, p = softmax(z.tolist()), softmax(t.tolist())
        words = sorted(range(7), key=lambda v: -p[v])[:3] if rest else list(range(7))
        parts = [[v] for v in words] + ([[v for v in range(7) if v not in words]] if rest == "bucket" else [])
        whole_q, whole_p = (sum(x[v] for v in words) if rest == "renormalise" else 1 for x in (q, p))
        q_of, p_of = ([sum(x[v] for v in part) / w for part in parts] for x, w in ((q, whole_q), (p, whole_p)))
        value, by_part = written_out(q_of, p_of, kind, beta)
        # from the parts to the logits: dq_v/dz_u = q_v (1[u=v] - q_u), inside what q is normalised over
        inside = [v for part in parts for v in part]
        mean = sum(by_part[i] * q[v] / whole_q for i, part in enumerate(parts) for v in part)
        of = {v: by_part[i] for i, part in enumerate(parts) for v in part}
        expected = [q[v] / whole_q * (of[v] - mean) if v in inside else 0.0 for v in range(7)]
        close(now, value)
        close(slope, expected)


def test_a_bucket_is_never_more_than_the_whole():
    generator = torch.Generator().manual_seed(0)
    z, t = (4 * torch.randn(50, 12, dtype=torch.float64, generator=generator) for _ in range(2))
    for kind in distill.KINDS:
        whole = distill.kl(z, t, kind)
        for k in (1, 3, 11):
            part = distill.kl(z, t, kind, k=k)
            assert (part <= whole + 1e-12).all()
            assert (part >= -1e-12).all()


def test_equal_logits_have_no_divergence_and_no_gradient_and_words_that_nobody_can_say_do_no_harm():
    for how in ({}, {"k": 2}, {"k": 2, "rest": "renormalise"}):
        for kind in distill.KINDS:
            value, slope = found(STUDENT, [z + 5 for z in STUDENT], kind=kind, **how)
            close(value, 0.0)
            close(slope, [0.0] * 4)
    value, slope = found([*STUDENT, -math.inf], [*TEACHER, -math.inf], kind="reverse")
    close(value, 0.174300745)
    assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"kind": "revers"}, "did you mean 'reverse'"),
        ({"kind": "jsd", "beta": 1.0}, "the reverse KL kind='reverse'"),
        ({"k": 0}, "whole number"),
        ({"k": 2, "rest": "tail"}, "rest='tail' is unknown"),
        ({"teacher": [1.0, 2.0]}, "over one vocabulary"),
    ],
)
def test_what_means_nothing_is_refused(how, words):
    with pytest.raises(ValueError, match=words):
        found(**how)


def test_half_precision_is_raised():
    z = torch.tensor(STUDENT, dtype=torch.bfloat16)
    assert distill.kl(z, z).dtype == torch.float32


# ---- the sampled token


@pytest.fixture
def taught(example, pad):
    """The worked example with a teacher."""
    teacher = pad([[-0.6, -0.3, -1.5], [-1.4, -0.9], [-0.5, -1.3, -0.7, -2.4], [-0.9, -0.6, -0.2]])

    def loss(advantages=None, sampler=None, **fields):
        value = policy_loss(
            Objective(**fields),
            logprobs=example.logprobs,
            old_logprobs=example.old_logprobs,
            mask=example.mask,
            advantages=torch.zeros(4, dtype=torch.float64) if advantages is None else advantages,
            teacher_logprobs=teacher.masked_fill(~example.mask, math.nan),
            sampler_logprobs=sampler,
        )
        (gradient,) = torch.autograd.grad(value, example.logprobs)
        return value.item(), gradient

    return loss


def test_the_forms_have_the_numbers_of_published_code(taught, example):
    def near(number):
        return pytest.approx(number, abs=1e-9)

    dapo = {**PLAIN, "clip_high": 0.28}
    assert taught(**UNCLIPPED)[0] == near(-0.276502230)  # tinker-cookbook, over the tokens
    assert taught(example.A, **dapo)[0] == near(-0.024153999)  # ms-swift, slime
    assert taught(example.A, **{**dapo, "teacher_coef": 0.1})[0] == near(0.217977366)
    rlsd = {**dapo, "teacher_coef": 0.5, "teacher_form": "reweight"}
    assert taught(example.A, **rlsd)[0] == near(0.194909169)  # ms-swift's RLSD
    plain = {**PLAIN, "surrogate": "reinforce"}
    position = {**plain, "teacher_form": "position", "teacher_discount": 0.5}
    assert taught(**position)[0] == near(0.125467803)  # TRL's IW-OPD
    mopd = {**plain, "correction": "token_mask", "correction_min": 0.5, "correction_max": 5.0}
    assert taught(sampler=example.sampler_logprobs, **mopd)[0] == near(0.189548587)  # NeMo-RL's


def test_a_discount_adds_what_is_ahead_of_a_token_and_leaves_out_what_others_wrote():
    mask = torch.tensor([[True, True, False, True]])
    a = torch.tensor([[0.4, 0.2, 7.0, 0.5]], dtype=torch.float64)
    got = distill.advantages(Objective(teacher_coef=1.0, teacher_discount=0.9), 0 * a, 0 * a, a, mask)
    close(got, [[0.985, 0.65, 0.0, 0.5]])


def test_where_no_teacher_speaks_there_is_no_signal(taught, example):
    own = Objective(**{**UNCLIPPED, "teacher_coef": 0.0})
    nobody = torch.full_like(example.old_logprobs, math.nan)
    given = {"logprobs": example.logprobs, "old_logprobs": example.old_logprobs, "mask": example.mask}
    for form in ("add", "reweight", "position"):
        o = Objective(**{**UNCLIPPED, "teacher_form": form, "teacher_discount": 0.0 if form != "position" else 0.5})
        with_nobody = policy_loss(o, **given, advantages=example.A, teacher_logprobs=nobody)
        assert with_nobody.item() == pytest.approx(policy_loss(own, **given, advantages=example.A).item(), abs=1e-12)
    with pytest.raises(ValueError, match="teacher_logprobs is missing"):
        policy_loss(Objective(**UNCLIPPED), **given, advantages=example.A)
    with pytest.raises(ValueError, match="teacher_logprobs has shape"):
        policy_loss(Objective(**UNCLIPPED), **given, advantages=example.A, teacher_logprobs=nobody[:2])


def test_the_sampled_signal_has_the_gradient_of_the_reverse_kl_in_expectation():
    z = torch.tensor(STUDENT, dtype=torch.float64, requires_grad=True)
    logs, teacher = z.log_softmax(0), torch.tensor(TEACHER, dtype=torch.float64).log_softmax(0)
    o = Objective(**{**UNCLIPPED, "surrogate": "reinforce"})
    every = torch.ones(4, 1, dtype=torch.bool)  # each word once, weighted by how often it is drawn
    a = distill.advantages(o, torch.zeros(4, 1), logs.detach()[:, None], teacher[:, None], every)[:, 0]
    (gradient,) = torch.autograd.grad(-(logs.detach().exp() * a * logs).sum(), z)
    close(gradient, (0.244323395, -0.213334619, -0.056568143, 0.025579366))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"zero_std": "drop"}, "zero_std='drop' cannot go with a teacher"),
        ({"teacher_form": "position"}, "needs teacher_discount"),
        ({"teacher_form": "reweight", "teacher_coef": 1.5}, "use at most 1"),
        ({"teacher_discount": 1.5}, "at most 1"),
        ({"teacher_form": "multiply"}, "teacher_form='multiply' is unknown"),
    ],
)
def test_combinations_that_make_no_sense(fields, words):
    with pytest.raises(ValueError, match=words):
        Objective(**{**PLAIN, **fields})
    assert Objective(**PLAIN).trains_without_signal
    assert not Objective(**{**PLAIN, "teacher_form": "reweight"}).trains_without_signal
