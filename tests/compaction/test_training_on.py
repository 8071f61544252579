"""Training goes on in the small model as it would have in the large one, as long as what left stays zero."""

import pytest
import torch
from torch import nn

from ramda_theory.model import compact, coupled_param_groups
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD, structured_param_groups
from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, SparseGroupLasso
from ramda_theory.workloads.digits import digit_splits

OPTIMIZERS = {
    "RAMDA": lambda groups: RAMDA(groups, lr=1e-2, momentum=0.5),
    "RMDA": lambda groups: RMDA(groups, lr=0.3, momentum=0.5),
    "ProxSGD": lambda groups: ProxSGD(groups, lr=0.3),
    "ProxAdamW": lambda groups: ProxAdamW(groups, lr=2e-3),
}
REGULARIZERS = (
    GroupLasso(1e-2),
    GroupLasso(8e-2, size_scaled=False),
    SparseGroupLasso(1e-2, 0.3),
    GroupMCP(1e-2, 30.0),
)


def digits_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    ).double()  # fmt: skip


def train(model, optimizer, steps, start=0):
    data = digit_splits()["train"]
    model.train()
    for step in range(start, start + steps):
        batch = torch.arange(64 * step, 64 * step + 64) % len(data.digits)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.images[batch].double()), data.digits[batch]).backward()
        optimizer.step()


def hold_at_zero(model, optimizer, small):
    """What left is zero, and so is its state."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            for axis, index in small.cuts[key].kept.items() if key in small.cuts else ():
                gone = torch.tensor(sorted(set(range(parameter.shape[axis])) - set(index.tolist())))
                for tensor in (parameter, *optimizer.state[parameter].values()):
                    if tensor.shape == parameter.shape:
                        tensor.index_fill_(axis, gone, 0.0)


QUICK = ("RAMDA", "ProxSGD")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in OPTIMIZERS])
def test_the_trajectory_is_the_same(name):
    """As that of the large model in which all that left is zero, the rows of channels that nobody reads included."""
    psi = REGULARIZERS[list(OPTIMIZERS).index(name)]
    model = digits_network()
    images = digit_splits()["train"].images[:4].double()
    optimizer = OPTIMIZERS[name](coupled_param_groups(model, psi, images))
    train(model, optimizer, 40)
    if hasattr(optimizer, "restart"):
        optimizer.adopt_structured_point()
        optimizer.restart(memory=20)
    small = compact(model, images, training=True, low_rank=False)
    assert 0.1 < small.parameters[1] / small.parameters[0] < 0.95, small.parameters
    going_on = optimizer.compact(small)
    assert type(going_on) is type(optimizer)
    hold_at_zero(model, optimizer, small)
    gone = {key: value.detach().clone() for key, value in model.named_parameters()}
    train(model, optimizer, 10, 40)
    train(small.model, going_on, 10, 40)
    own = dict(small.model.named_parameters())
    for key, large in model.named_parameters():
        cut = small.cuts.get(key)
        part = large if cut is None else cut.of(large.detach(), shifted=False)
        torch.testing.assert_close(own[key], part, rtol=1e-9, atol=1e-10)
        assert not torch.equal(large, gone[key])
    left = sum(int(p.count_nonzero()) for p in model.parameters())
    assert left == sum(int(p.count_nonzero()) for p in small.model.parameters())  # what left stayed zero


def test_axes_views_and_entries():
    """Groups of one layer keep their weights though they have lost entries."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        model[2].weight[:, [1, 5]] = 0.0
        model[0].weight[[1, 5]], model[0].bias[[1, 5]] = 0.0, 0.0
    x = torch.randn(30, 6, dtype=torch.float64)
    for psi in (GroupLasso(1e-2), L1(1e-2), SparseGroupLasso(1e-2, 0.4)):
        optimizer = RAMDA(structured_param_groups(model, psi), lr=1e-2)
        model(x).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            for state in optimizer.state.values():
                state["grad_sum"].mul_(0.5)
        optimizer.adopt_structured_point()
        small = compact(model, x, low_rank=False)
        new = optimizer.compact(small)
        for group in new.param_groups:
            if group["regularizer"] is not None:
                assert [tuple(p.shape) for p in group["params"]]
        part = model[0].weight.detach()[:, :1] * 0 + 1.0
        value = psi.value(model[2].weight.detach())
        own = new.param_groups[-2]["regularizer"].value(small.model[2].weight.detach())
        assert part.numel() and own == pytest.approx(float(value), rel=1e-12)


def test_refusals():
    model, other = (nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6)) for _ in range(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(8, 1) @ torch.randn(1, 6))
    small = compact(model, torch.randn(2, 6))
    with pytest.raises(ValueError, match="became two factors"):
        RAMDA(model.parameters()).compact(small)
    with pytest.raises(ValueError, match="is none of the model"):
        RAMDA(other.parameters()).compact(small)
