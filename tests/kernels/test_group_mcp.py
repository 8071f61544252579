"""Compiled loops of GroupMCP against float64 and the eager engine: a strong metric, a weak one, and both at once."""

import numpy as np
import pytest
import torch
from engine import optimizer

from ramda_theory import kernels
from ramda_theory.kernels.cpu import support
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import GroupMCP

pytestmark = pytest.mark.skipif(support.missing() is not None, reason="no compiled loops here")
SHAPES = [(30, 17), (40, 64), (3, 8)]


def structured(engine, cls, psi, dtype, scale):
    """What after six steps of gradients whose sizes differ from entry to entry."""
    random = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter((0.3 * torch.randn(shape, generator=random)).to(dtype)) for shape in SHAPES]
    own = optimizer("default", cls, params, lr=1e-2, regularizer=psi)
    with kernels.using(engine):
        for _ in range(6):
            for parameter in params:
                sizes = scale * torch.exp(2 * torch.randn(parameter.shape, generator=random))
                parameter.grad = (sizes * torch.randn(parameter.shape, generator=random)).to(dtype)
            own.step()
    with own.structured_point():
        return [parameter.detach().to(torch.float64, copy=True) for parameter in params]


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
@pytest.mark.parametrize("dims", [(0,), (1,)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_compiled_groups_are_those_of_float64(cls, dims, scale):
    kinds = set()
    for gamma in (1e-2, 1.0, 100.0):
        for weight in (1e-2, 0.1, 1.0, 10.0):
            psi = GroupMCP(weight * (scale if cls in (RAMDA, RMDA, ProxSGD) else 1.0), gamma, dims)
            found = structured("cpu", cls, psi, torch.float32, scale)
            for x, exact in zip(found, structured("eager", cls, psi, torch.float64, scale), strict=True):
                kinds |= set(psi.structure(exact).pattern.reshape(-1).tolist())
                assert torch.equal(x == 0, exact == 0)
                torch.testing.assert_close(x, exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max()))
    assert scale != 1.0 or kinds == {0, 1, 2}, "zero, curved and flat groups are to be met"


@pytest.mark.parametrize("value", [0.0, float("nan")])
@pytest.mark.parametrize("cls", [RAMDA, ProxSGD])
@pytest.mark.parametrize("dims", [(0,), (1,)])
def test_a_group_without_gradient_is_zero_and_a_nan_stays_in_its_group(cls, dims, value):
    parameter = torch.nn.Parameter(torch.zeros(6, 5))
    own = cls([parameter], regularizer=GroupMCP(0.1, 3.0, dims), on_nonfinite="ignore")
    parameter.grad = torch.ones(6, 5)
    parameter.grad.narrow(1 - dims[0], 2, 1).fill_(value)
    with kernels.using("cpu"):
        own.step()
    group = parameter.detach().select(1 - dims[0], 2)
    assert bool((group == 0).all()) if value == 0 else bool(group.isnan().all())
    others = [i for i in range(parameter.shape[1 - dims[0]]) if i != 2]
    assert bool(parameter.detach().index_select(1 - dims[0], torch.tensor(others)).isfinite().all())


def test_one_group_in_metrics_of_every_kind():
    """Against the float64 minimiser that `metric_prox` finds; among them groups with two minima."""
    from ramda_theory.kernels.cpu.group_mcp import mcp_shift

    random, both = np.random.default_rng(0), 0
    for _ in range(1500):
        b = random.normal(size=5).astype(np.float32)
        d = np.exp(3 * random.normal(size=5)).astype(np.float32)
        weight, gamma, scale = np.exp(random.normal(size=3) * (0.7, 1.0, 1.0))
        psi = GroupMCP(weight, gamma, size_scaled=False)
        exact = psi.metric_prox(-b.astype(float)[:, None], d.astype(float)[:, None], scale)[:, 0]
        _, shift = mcp_shift(b, d, 0.0, scale * weight, scale / gamma, gamma * weight)
        np.testing.assert_allclose(b / (d + shift), exact, rtol=2e-6, atol=1e-7 * np.abs(exact).max())
        if np.linalg.norm(exact) > gamma * weight:  # the flat one is lower: is there a curved one too?
            below, inside = np.linalg.norm(b) > scale * weight, np.linspace(1e-3, 1, 400) * gamma * weight
            norms = [np.linalg.norm(b / (rho * (d - scale / gamma) + scale * weight)) for rho in inside]
            both += below and min(norms) < 1
    assert both >= 20
