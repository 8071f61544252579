"""Roots that the solve of a group needs, to the accuracy that is promised, at any scale and beside any threshold."""

import math

import numpy as np
import pytest
import torch
from engine import ENGINES, forced, optimizer
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import GroupLasso

EPS = np.finfo(np.float32).eps
each_engine = pytest.mark.parametrize("engine", ENGINES)


def one_step(engine, w, gradient, psi=None, **options):
    """What after a first step with lr 1 and no averaging, and the state."""
    parameter = torch.nn.Parameter(torch.tensor(w, dtype=torch.float32))
    own = optimizer(engine, RAMDA, [parameter], lr=1.0, momentum=0.0, regularizer=psi, **options)
    parameter.grad = torch.tensor(gradient, dtype=torch.float32)
    with forced(engine):
        own.step()
    return parameter.detach().double().numpy(), own.state[parameter]


def bisection(b, d, lam):
    """The root of ||b / (rho d + lam)|| = 1 in extended precision; 0 where there is none."""
    b, d, lam = (np.asarray(value, dtype=np.longdouble) for value in (b, d, lam))
    if np.sum(b * b) <= lam * lam:
        return 0.0
    low, high = np.longdouble(0), np.sqrt(np.sum((b / d) ** 2))
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum((b / (middle * d + lam)) ** 2) > 1 else (low, middle)
    return float(low)


@each_engine
@pytest.mark.parametrize(
    "bits",
    [
        np.arange(0x3F800000, 0x41000000, 601, dtype=np.int32),  # [1, 8), of which all other floats are multiples
        np.arange(0x20000000, 0x5B000000, 30011, dtype=np.int32),  # whose squares, and their sum, are normal numbers
    ],
    ids=["mantissas", "scales"],
)
def test_the_cube_root_of_the_squares(engine, bits):
    """From W^0 = 0, W = -G / (cbrt(G^2) + eps) in the first step; the cube root may be wrong by 1e-7.

    The eager engine's is a power, whose exponent 1/3 in float32 is wrong by 1e-8.
    """
    g = bits.view(np.float32).astype(float)
    w, state = one_step(engine, np.zeros_like(g), g, eps=1e-37)
    u = state["grad_sq_sum"].double().numpy()
    expected = -g / np.cbrt(u)
    accuracy = 1e-7 + EPS + (1e-8 * np.abs(np.log(u)) if engine == "eager" else 0.0)
    assert np.all(np.abs(w - expected) <= accuracy * np.abs(expected))


@each_engine
def test_the_cube_root_of_small_and_no_squares(engine):
    """U down to denormal numbers and 0, where an engine may take them for 0, beside an eps of their roots' size."""
    g = np.geomspace(1e-23, 1e-18, 500).astype(np.float32).astype(float)
    g[0] = 0.0
    w, state = one_step(engine, np.zeros_like(g), g, eps=1e-14)
    u = state["grad_sq_sum"].double().numpy()
    normal = u > 1.2e-38
    expected = -g / (np.cbrt(u) + 1e-14)
    assert w[0] == 0 and 0 < normal.sum() < 490
    assert np.all(np.abs(w - expected)[normal] <= 1e-6 * np.abs(expected)[normal])
    assert np.all((w[1:] < 0) & (np.abs(w[1:]) <= 1.001 * g[1:] / 1e-14))


@each_engine
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(3, 4), (64, 5), (1000, 4), (7, 300)]),
    rows=st.booleans(),
    spread=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    gap=st.sampled_from([-0.5, -1e-3, 1e-3, 1e-2, 0.3, 0.9, 0.999]),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
)
def test_the_norm_of_a_group(engine, seed, shape, rows, spread, gap, scale):
    """The equation is solved to 5e-6: from b and d of the state, the minimiser in extended precision."""
    rng = np.random.default_rng(seed)
    gradient = (scale * np.exp(spread * rng.normal(size=shape)) * rng.normal(size=shape)).astype(np.float32)
    start = rng.normal(size=shape).astype(np.float32)
    u = (gradient.astype(float) ** 2).astype(np.float32).astype(float)
    d = np.cbrt(u) + 1e-6
    b = d * start.astype(float) - gradient.astype(float)
    sizes = np.sqrt((b * b).sum(axis=0))
    lam = float(np.median(sizes)) * (1 - gap)  # the threshold of all groups; the middle one lies ``gap`` from it
    psi = GroupLasso(lam, dims=(1,) if rows else (0,), size_scaled=False)
    found, _ = one_step(engine, start.T if rows else start, gradient.T if rows else gradient, psi)
    found = found.T if rows else found
    for k in range(shape[1]):
        if abs(sizes[k] / lam - 1) < 1e-5:
            continue  # on which side rounding decides
        rho = bisection(b[:, k], d[:, k], lam)
        assert (found[:, k] != 0).any() == (rho > 0)
        if rho > 0:
            expected = rho * b[:, k] / (rho * d[:, k] + lam)
            # ||x - x'||_P <= ||residual||_{P^-1}: 5e-6 lam of the equation, and rounding of the terms of b
            terms = d[:, k] * np.abs(start[:, k]) + np.abs(gradient[:, k])
            residual = 1e-5 * lam / math.sqrt(d[:, k].min()) + 8 * EPS * np.linalg.norm(terms / np.sqrt(d[:, k]))
            assert np.linalg.norm(np.sqrt(d[:, k]) * (found[:, k] - expected)) <= residual


@each_engine
@pytest.mark.parametrize("rows", [False, True])
def test_groups_at_the_threshold_are_zero_exactly_where_float64_says_so(engine, rows):
    """With U = V = 0 and G = 0, P = eps and b = eps W^0 is known exactly, and so is on which side a group lies."""
    eps = 2.0**-20
    w = np.random.default_rng(0).lognormal(size=(50, 4)).astype(np.float32)
    w = np.repeat(w[:, :1], 4, axis=1)
    size = eps * math.sqrt(math.fsum(float(x) ** 2 for x in w[:, 0]))
    for gap in [sign * 10.0**-k for k in range(2, 9) for sign in (1, -1)]:
        psi = GroupLasso(size * (1 - gap), dims=(1,) if rows else (0,), size_scaled=False)
        start = w.T if rows else w
        found, _ = one_step(engine, start, np.zeros_like(start), psi, eps=eps)
        assert ((found != 0) == (gap > 0)).all(), gap


@each_engine
@pytest.mark.parametrize(("shape", "dims"), [((70, 300), (0,)), ((300, 70), (1,)), ((40, 30, 3, 3), (0, 2, 3))])
def test_what_a_step_begins_with_does_not_matter(engine, shape, dims):
    """An engine may keep the norms it found; whatever stands there, the next step is as good."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) * torch.randn(shape).exp() for _ in range(3)]
    psi = GroupLasso(0.3, dims=dims)
    found = []
    for begin in (None, 0.0, 1e-30, 1e-3, 1e3, 1e30, math.inf, math.nan, -1.0):
        parameter = torch.nn.Parameter(start.clone())
        own = optimizer(engine, RAMDA, [parameter], momentum=0.0, regularizer=psi)
        for gradient in gradients:
            parameter.grad = gradient
            if begin is not None and "norms" in own.state[parameter]:
                own.state[parameter]["norms"].fill_(begin)
            with forced(engine):
                own.step()
        found.append(parameter.detach())
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=2e-5 * float(found[0].abs().max()))
        assert torch.equal(psi.group_norms(other) == 0, psi.group_norms(found[0]) == 0)


@each_engine
@pytest.mark.parametrize("dims", [(0,), (1,)])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_weights_of_extreme_sizes_stay_finite(engine, dims, scale):
    torch.manual_seed(0)
    start, gradients = scale * torch.randn(20, 12), [torch.randn(20, 12) for _ in range(2)]
    ends = []
    for dtype in (torch.float32, torch.float64):
        parameter = torch.nn.Parameter(start.to(dtype, copy=True))
        own = optimizer(engine, RAMDA, [parameter], regularizer=GroupLasso(1e-3, dims=dims))
        for gradient in gradients:
            parameter.grad = gradient.to(dtype)
            with forced(engine):
                own.step()
        ends.append(parameter.detach().double())
    assert (ends[0] - ends[1]).abs().max() <= 1e-5 * ends[1].abs().max()


def test_weights_that_shrink_end_in_zero_not_in_denormal_numbers():
    """The default engine of float32 weights on the CPU, where arithmetic with denormal numbers is slow."""
    pytest.importorskip("numba")
    parameter = torch.nn.Parameter(torch.full((64,), 2e-38))
    own = RAMDA([parameter], lr=0.1, momentum=0.5, regularizer=GroupLasso(10.0, dims=()))
    for _ in range(3):
        parameter.grad = torch.full((64,), 1e-3)
        own.step()
    assert (parameter == 0).all()
