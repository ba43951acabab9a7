"""Packed groups by FlexAttention: its forward pass on the CPU, against the rectangles of the same layout."""

from __future__ import annotations

import pytest
import torch

from cohort.policy import flex
from cohort.policy.attention import PackedGroups, Reach, Scores
from cohort.policy.torch_compile import Compiled

PROMPTS, ROLLOUTS, GROUP = (37, 1, 16), (40, 3, 1, 130, 17, 16), (0, 0, 1, 1, 2, 2)
KINDS = [
    Scores(0.3),
    Scores(0.3, Reach(window=9)),
    Scores(0.3, Reach(chunk=16)),
    Scores(0.3, softcap=5.0),
]


def layout(flexes, device="cpu"):
    found = PackedGroups([[2] * n for n in PROMPTS], [[3] * n for n in ROLLOUTS], GROUP, device)
    found.flexes = flexes
    return found


def inputs(device="cpu"):
    torch.manual_seed(0)
    count = sum(PROMPTS) + sum(n - 1 for n in ROLLOUTS)
    return [torch.randn(count, heads, 16, device=device) for heads in (4, 2, 2)]


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("scores", KINDS)
def test_it_attends_as_the_rectangles_do(scores):
    given = inputs()
    found, expected = (layout(flexes).attend(0, *given, scores) for flexes in (True, False))
    assert not flex._flex().broken
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_what_it_cannot_do_is_done_in_rectangles(monkeypatch):
    """Sinks, which have no place in its softmax; and a machine on which it does not compile, which is said once."""
    given, sinks = inputs(), Scores(0.3, sinks=torch.randn(4))
    assert torch.equal(layout(True).attend(0, *given, sinks), layout(False).attend(0, *given, sinks))

    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    fails = Compiled(broken, lambda *_, **__: None, "FlexAttention")
    monkeypatch.setattr(flex, "_flex", lambda: fails)
    with pytest.warns(UserWarning, match="FlexAttention does not run here .*no such kernel"):
        found = layout(True).attend(0, *given, KINDS[0])
    assert torch.equal(found, layout(False).attend(0, *given, KINDS[0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("scores", KINDS)
def test_compiled_it_has_their_gradients_too(scores):
    found = []
    for flexes in (True, False):
        given = [x.requires_grad_() for x in inputs("cuda")]
        out = layout(flexes, "cuda").attend(0, *given, scores)
        out.square().sum().backward()
        found.append([out, *(x.grad for x in given)])
    assert not flex._flex().broken
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
