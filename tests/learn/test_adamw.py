"""AdamW in less memory: beside torch's own, exact when it goes on, and refused where it saves nothing."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from cohort.learn.adamw import BLOCK, SmallAdamW, dynamic_map, rounded_by_chance
from cohort.learn.optimizer import FILE, load_optimizer, open_optimizer, save_optimizer
from cohort.recipe import Recipe
from cohort.settings import Optimizer
from cohort.types import UserError

RATE = 0.01


def model(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(96, 128), torch.nn.Tanh(), torch.nn.Linear(128, 64)).to(dtype)


def learn(module, optimizer, steps, first=0):
    """Steps towards a fixed linear function: the losses."""
    losses = []
    for step in range(first, first + steps):
        torch.manual_seed(100 + step)
        x = torch.randn(32, 96)
        loss = (module(x.to(module[0].weight.dtype)).float() - x[:, :64].flip(1)).square().mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = RATE
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def opened(dtype=torch.float32, **table):
    module = model(dtype)
    return module, open_optimizer(Optimizer(weight_decay=0.1, learning_rate=RATE, **table), module)


def test_in_float32_it_takes_the_steps_of_torch():
    """In pieces, and with the averages moved to another device and back, which here is the same one."""
    plain, ours = opened(), model()
    groups = [{"params": [p for p in ours.parameters() if p.dim() > 1], "weight_decay": 0.1}]
    groups.append({"params": [p for p in ours.parameters() if p.dim() < 2]})
    small = SmallAdamW(groups, (0.9, 0.999), 1e-8, home=torch.device("cpu"))
    assert learn(plain[0], plain[1], 5) == learn(ours, small, 5)
    assert all(torch.equal(a, b) for a, b in zip(plain[0].parameters(), ours.parameters(), strict=True))


def test_the_dynamic_map_is_that_of_the_libraries():
    """Places that bitsandbytes and torchao 0.18 (`create_dynamic_map`) have."""
    signed, unsigned = dynamic_map(True), dynamic_map(False)
    assert len(signed.unique()) == len(unsigned.unique()) == 256
    places = torch.tensor([0, 1, 64, 126, 127, 128, 129, 192, 254, 255])
    expected = [-0.99296874, -0.97890627, -0.09859375, -5.5e-07, 0, 5.5e-07, 3.25e-06, 0.12109375, 0.99296874, 1.0]
    torch.testing.assert_close(signed[places], torch.tensor(expected))
    expected = [0, 3.25e-07, 7.75e-07, 0.012109376, 0.11054687, 0.61679685, 0.99648440, 1.0]
    torch.testing.assert_close(unsigned[torch.tensor([0, 1, 2, 64, 128, 200, 254, 255])], torch.tensor(expected))


def test_averages_in_8_bits_are_near_and_take_a_quarter():
    (plain, adamw), (ours, small) = opened(), opened(state="8bit")
    learn(plain, adamw, 1), learn(ours, small, 1)
    big = ours[0].weight
    state = small.state[big]
    assert state["exp_avg"].dtype is state["exp_avg_sq"].dtype is torch.uint8
    kept = sum(x.nbytes for x in state.values())
    assert kept == 2 * big.numel() + 8 * big.numel() // BLOCK + 4
    exact = adamw.state[plain[0].weight]["exp_avg"].view(-1, BLOCK)
    values = dynamic_map(True)[state["exp_avg"].int()].view(-1, BLOCK) * state["exp_avg_scale"][:, None]
    assert ((values - exact).abs().amax(1) <= 0.0075 * exact.abs().amax(1)).all()  # half of its widest step, and a bit
    assert small.state[ours[0].bias]["exp_avg"].dtype is torch.float32  # few numbers are kept as they are


def accuracy(dtype=torch.float32, **table):
    """Of a small classifier after 500 steps whose rate is too small for bfloat16, on 4,000 held-out rows."""
    torch.manual_seed(0)
    teacher, rate = torch.nn.Linear(64, 16), 2e-4
    module = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 16)).to(dtype)
    optimizer = open_optimizer(Optimizer(learning_rate=rate, **table), module)
    for group in optimizer.param_groups:
        group["lr"] = rate
    draw = torch.Generator().manual_seed(1)
    for _ in range(500):
        x = torch.randn(64, 64, generator=draw)
        right = teacher(x).argmax(-1)
        torch.nn.functional.cross_entropy(module(x.to(dtype)).float(), right).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    x = torch.randn(4000, 64, generator=draw)
    return (module(x.to(dtype)).argmax(-1) == teacher(x).argmax(-1)).float().mean().item()


@pytest.mark.filterwarnings("ignore:a step of optimizer.learning_rate")
def test_they_learn_as_much():
    exact = accuracy()
    assert exact > 0.5
    assert accuracy(state="8bit") == pytest.approx(exact, abs=0.02)
    assert accuracy(torch.bfloat16, stochastic_rounding=True) == pytest.approx(exact, abs=0.02)
    assert accuracy(torch.bfloat16, stochastic_rounding=True, state="8bit") == pytest.approx(exact, abs=0.02)
    assert accuracy(torch.bfloat16) < exact - 0.1  # rounded to the nearest


def test_a_row_that_is_seldom_met_is_not_thrown_away():
    """A token that comes once, beside others of far larger gradients: its square must not be rounded to 0."""
    table = torch.nn.Embedding(64, 128)
    before = table.weight.detach().clone()
    small = SmallAdamW([{"params": [table.weight]}], (0.9, 0.999), 1e-8, bits=8)
    small.param_groups[0]["lr"] = RATE
    for step in range(40):
        table.weight.grad = torch.zeros_like(table.weight)
        table.weight.grad[::2] = 1.0
        if not step:
            table.weight.grad[1::2] = 1e-4
        small.step()
    assert ((table.weight - before)[1::2].abs() < 40 * RATE).all()


@pytest.mark.parametrize(
    ("table", "dtype"),
    [
        ({"state": "8bit"}, torch.float32),
        ({"stochastic_rounding": True}, torch.bfloat16),
        ({"state": "8bit", "stochastic_rounding": True}, torch.bfloat16),
    ],
)
def test_it_goes_on_bit_by_bit(tmp_path, table, dtype):
    whole, optimizer = opened(dtype, **table)
    learn(whole, optimizer, 3)
    save_optimizer(optimizer, tmp_path)
    resumed, other = opened(dtype, **table)
    resumed.load_state_dict(whole.state_dict())
    load_optimizer(other, tmp_path)
    assert learn(whole, optimizer, 3, first=3) == learn(resumed, other, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(("before", "after"), [("8bit", "float32"), ("float32", "8bit")])
def test_a_fork_may_keep_its_averages_in_another_form(tmp_path, before, after):
    module, optimizer = opened(state=before)
    learn(module, optimizer, 2)
    save_optimizer(optimizer, tmp_path)
    saved = load_file(tmp_path / FILE)
    other_module, other = opened(state=after)
    load_optimizer(other, tmp_path)
    save_optimizer(other, tmp_path)
    found = load_file(tmp_path / FILE)
    assert any(key.endswith("_scale") for key in saved) == (before == "8bit")
    assert any(key.endswith("_scale") for key in found) == (after == "8bit")
    other_module.load_state_dict(module.state_dict())
    assert learn(other_module, other, 1, first=2)[0] == learn(module, optimizer, 1, first=2)[0]
    assert learn(other_module, other, 3, first=3) == pytest.approx(learn(module, optimizer, 3, first=3), rel=0.01)


def test_rounding_by_chance_is_exact_in_the_mean():
    torch.manual_seed(0)
    x = torch.randn(512) * 10.0 ** torch.randint(-4, 3, (512,))
    draw = torch.Generator().manual_seed(3)
    many = torch.stack([rounded_by_chance(x, draw).double() for _ in range(4000)])
    step = x.abs().double() * 2.0**-7  # at most so far apart are neighbours in bfloat16
    assert ((many - x.double()).abs() <= step).all()
    assert ((many.mean(0) - x.double()).abs() < 5 * step * 0.5 / 4000**0.5).all()
    odd = torch.tensor([1.0, -0.5, 0.0, float("inf"), float("-inf")])
    assert torch.equal(rounded_by_chance(odd, draw).float(), odd)
    assert rounded_by_chance(torch.tensor([float("nan")]), draw).isnan().all()


def test_small_steps_survive_in_the_mean():
    """A thousandth of what bfloat16 tells apart: rounded to the nearest, nothing ever moves."""
    found = {}
    for by_chance in (False, True):
        p = torch.nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
        small = SmallAdamW([{"params": [p]}], (0.9, 0.999), 1e-8, by_chance=by_chance)
        small.param_groups[0]["lr"] = 2.0**-7 / 1000
        for _ in range(50):
            p.grad = -torch.ones_like(p)
            small.step()
        found[by_chance] = (p.float().mean().item() - 1) / (50 * 2.0**-7 / 1000)
    assert found[False] == 0.0
    assert found[True] == pytest.approx(1.0, abs=0.1)


def test_what_saves_nothing_is_refused():
    for table, said in (
        ({"offload": True}, "optimizer.offload keeps averages away from a GPU, and the weights are on the CPU"),
        ({"stochastic_rounding": True}, "optimizer.stochastic_rounding is for weights in bfloat16"),
    ):
        with pytest.raises(UserError, match=said):
            opened(**table)
    base = {"policy": {"model": "any", "device": "cpu"}, "task": {"source": "x.jsonl"}, "reward": ["exact_number"]}
    cluster = {"address": "local", "learners": 2}
    for tables, said in (
        ({"optimizer": {"offload": True}}, "policy.device is 'cpu'"),
        ({"optimizer": {"stochastic_rounding": True}}, "policy.dtype is 'float32'"),
        ({"optimizer": {"state": "8bit"}, "cluster": cluster}, "cluster.learners is 2"),
    ):
        with pytest.raises(UserError, match=said):
            Recipe(**base, **tables)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_averages_stay_on_the_cpu_beside_a_gpu():
    module = model().cuda()
    optimizer = open_optimizer(Optimizer(offload=True, state="8bit"), module)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert {x.device.type for state in optimizer.state.values() for x in state.values()} == {"cpu"}
