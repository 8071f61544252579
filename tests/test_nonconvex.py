"""Nonconvex regularizers: weak convexity, and global minimisers in any metric against a fine grid."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from backends import BACKENDS, DOUBLE, to_numpy
from examples import EXAMPLES, example_point

from ramda_theory.regularizers import MCP, SCAD, GroupMCP, group_mcp_equation
from ramda_theory.subproblem import Subproblem
from ramda_theory.subproblem.bisection import bisection_reference


@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_weak_convexity(regularizer):
    """psi + rho/2 ||.||^2 is midpoint convex with rho = weak_convexity, and with no smaller rho."""
    rng = np.random.default_rng(2)
    shape = example_point(regularizer, rng).shape
    rho = regularizer.weak_convexity

    def gap(x, y, rho):
        middle = 0.5 * (x + y)
        psi = 0.5 * plain.value(regularizer, x) + 0.5 * plain.value(regularizer, y) - plain.value(regularizer, middle)
        return psi + rho / 8 * np.sum((x - y) ** 2)

    for scale in (0.1, 1.0, 10.0):
        for _ in range(20):
            x, y = scale * rng.standard_normal((2, *shape))
            assert gap(x, y, rho) >= -1e-12 * scale**2 * x.size
    assert (rho == 0) == regularizer.convex
    if rho > 0:  # along a ray psi is a concave parabola of curvature -rho: at 1 to 2 weights (MCP), 1.5 to 3.5 (SCAD)
        piece = plain.pieces(regularizer, shape)[0]
        unit = np.zeros(shape)
        unit.ravel()[piece] = 1 / np.sqrt(len(piece))
        weight = regularizer.weight * np.sqrt(len(piece))
        assert gap(1.5 * weight * unit, 2.5 * weight * unit, 0.999 * rho) < 0


def phi(psi, t):
    """The published penalty of a number, for an array of them."""
    lam, t = psi.weight, np.abs(t)
    if isinstance(psi, SCAD):
        middle = (2 * psi.a * lam * t - t * t - lam * lam) / (2 * (psi.a - 1))
        return np.where(t <= lam, lam * t, np.where(t <= psi.a * lam, middle, lam * lam * (psi.a + 1) / 2))
    return np.where(t <= psi.gamma * lam, lam * t - t * t / (2 * psi.gamma), psi.gamma * lam * lam / 2)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("ratio", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0, 1.001, 1.1, 2.0, 10.0, 1e6])
@pytest.mark.parametrize("psi", [MCP(0.8, 1.5), MCP(1.3, 40.0), SCAD(0.8, 2.05), SCAD(1.3, 3.7)], ids=str)
def test_no_grid_point_is_lower(psi, ratio, backend):
    """The metric is ``ratio`` times what makes the problem convex; the grid spans every minimum of every problem."""
    scale = 1.7
    diag = backend.round(ratio * scale * psi.weak_convexity)
    reach = getattr(psi, "gamma", 0) or psi.a  # flat beyond reach * weight
    jump = psi.weight * np.sqrt(scale * diag * (reach + 1))
    b = backend.round(np.linspace(-1.3, 1.3, 81) * max(jump, diag * reach * psi.weight, scale * psi.weight))
    x = to_numpy(psi.metric_prox(-backend.array(b), backend.array(np.full(81, diag)), scale))
    grid = np.linspace(-0.1, 1.1, 4001)[:, None] * (b / diag)
    grid = np.concatenate([grid, 0 * grid[:1], x + np.linspace(-0.01, 0.01, 41)[:, None] * x])

    def q(t):
        return 0.5 * diag * t**2 - b * t + scale * phi(psi, t)

    rounding = 8 * (2.0**-52 + backend.eps**2) * (b**2 / diag + scale * phi(psi, b / diag))
    assert np.all(q(x) <= np.min(q(grid), axis=0) + rounding)


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("step", [0.1, 1.0, 2.9, 3.0, 3.1, 10.0, 1e3])
def test_no_grid_point_is_lower_for_the_group_prox(step, backend):
    """GroupMCP with groups of two entries, on a grid of the plane; from step = gamma = 3 on it is not convex."""
    psi = GroupMCP(0.4, 3.0, dims=(0,))
    weight = 0.4 * np.sqrt(2)
    reach = max(step * weight, weight * np.sqrt(step * 3.0), 3.0 * weight)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 40))
    z *= np.linspace(0.02, 1.5, 40) * reach / np.linalg.norm(z, axis=0)
    x = to_numpy(psi.prox(backend.array(z), step))
    line = np.linspace(-1.6 * reach, 1.6 * reach, 161)
    plane = np.stack(np.meshgrid(line, line)).reshape(2, -1)
    one = MCP(weight, 3.0)
    for z_g, x_g in zip(z.T, x.T, strict=True):
        points = np.concatenate([plane, 0 * plane[:, :1], z_g[:, None] * np.linspace(0, 1, 401)], axis=1)
        q = 0.5 * np.sum((points - z_g[:, None]) ** 2, axis=0) + step * phi(one, np.linalg.norm(points, axis=0))
        q_x = 0.5 * np.sum((x_g - z_g) ** 2) + step * phi(one, np.linalg.norm(x_g))
        assert q_x <= np.min(q) + 1e-14 * (np.sum(z_g**2) + step * phi(one, reach))


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize(
    ("psi", "scale", "tie", "simpler"),
    [
        (MCP(1.0, 1.0), 4.0, 2.0, 0.0),  # 0 ties with 2
        (MCP(1.0, 1.0), 1.0, 1.0, 0.0),  # a whole segment ties: the metric equals the weak convexity
        (SCAD(1.0, 3.0), 4.0, 4.0, 0.0),  # 0 ties with 4
        (SCAD(1.0, 3.0), 3.0, 3.5, 0.5),  # 0.5, next to zero, ties with 3.5 on the flat branch
    ],
    ids=str,
)
def test_ties_go_to_the_simpler_structure(psi, scale, tie, simpler, backend):
    one = backend.array([1.0])
    for sign in (1.0, -1.0):
        b = backend.array([sign * tie])
        assert float(psi.metric_prox(-b, one, scale)[0]) == sign * simpler
        above = b * (1 + 2 * backend.eps)
        assert float(psi.metric_prox(-above, one, scale)[0]) == float(above[0])


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_ties_of_groups_go_to_zero(backend):
    z = backend.array([[3.0], [4.0]])
    assert not np.any(to_numpy(GroupMCP(1.0, 1.0, size_scaled=False).prox(z, 25.0)))
    beyond = z * (1 + 2.0**-50)
    assert np.array_equal(to_numpy(GroupMCP(1.0, 1.0, size_scaled=False).prox(beyond, 25.0)), to_numpy(beyond))


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9, 1.0, 1.1, 3.0, 30.0, 1e6])
def test_no_grid_point_is_lower_for_group_mcp_in_a_metric(ratio, backend):
    """Groups of two entries on a grid of the plane, in metrics above, across and below scale/gamma = ratio."""
    weight, gamma = 0.4, 3.0
    psi, scale = GroupMCP(weight, gamma, dims=(0,), size_scaled=False), gamma * ratio
    one = MCP(weight, gamma)
    rng = np.random.default_rng(5)
    diag = np.array([[1.0, 1.0, 0.2], [1.0, 5.0, 40.0]])[:, rng.integers(3, size=60)]
    direction = rng.standard_normal((2, 60))
    direction /= np.linalg.norm(direction, axis=0)
    size = np.linspace(0.05, 2.0, 60) * max(scale * weight, weight * np.sqrt(scale * gamma), 0.5)
    b = direction * size
    x = to_numpy(psi.metric_prox(backend.array(-b), backend.array(diag), scale))
    angles = np.linspace(0, 2 * np.pi, 181)
    circles = np.stack([np.cos(angles), np.sin(angles)])
    for b_g, d_g, x_g in zip(b.T, diag.T, x.T, strict=True):
        reach = 1.5 * np.linalg.norm(b_g / d_g)
        plane = (circles[:, :, None] * np.linspace(0, reach, 101)).reshape(2, -1)
        near = x_g[:, None] * (1 + np.linspace(-0.01, 0.01, 11))
        points = np.concatenate([plane, near, (b_g / d_g)[:, None]], axis=1)

        def q(points, b_g=b_g, d_g=d_g):
            smooth = np.sum(0.5 * d_g[:, None] * points**2 - b_g[:, None] * points, axis=0)
            return smooth + scale * phi(one, np.linalg.norm(points, axis=0))

        assert q(x_g[:, None])[0] <= np.min(q(points)) + 1e-14 * np.sum(b_g**2 / d_g)


@pytest.mark.parametrize("device", [False, True])
@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_group_mcp_is_the_lowest_that_algorithm_2_finds(backend, device, monkeypatch):
    """One group at a time, by a plain loop of Algorithm 2 from several starts; and stationary to rounding."""
    monkeypatch.setattr(group_mcp_equation, "is_host", lambda array: not device)
    rng = np.random.default_rng(6)
    for trial in range(6):
        weight, gamma, scale = np.exp(rng.normal(size=3))
        psi = GroupMCP(weight, gamma, dims=(0,), size_scaled=False)
        diag = backend.round(np.exp(rng.normal(size=(5, 12)) * rng.choice([0.1, 1.0, 3.0], size=12)))
        b = backend.round(rng.normal(size=(5, 12)) * np.exp(rng.normal(size=12) * 1.5) * scale * weight)
        x = to_numpy(psi.metric_prox(backend.array(-b), backend.array(diag), scale)).astype(float)
        for b_g, d_g, x_g in zip(b.T[:, :, None], diag.T[:, :, None], x.T[:, :, None], strict=True):
            problem = Subproblem(0 * b_g, -b_g, d_g, scale, psi)
            assert float(problem.residual(x_g)) <= 16 * backend.eps * np.linalg.norm(np.abs(b_g) + d_g * np.abs(x_g))
            value, theta = float(problem.objective(x_g)), 0.5 / d_g.max()
            for start in (0 * b_g, b_g / d_g, b_g / (d_g + 1), b_g / (d_g + 10), -b_g):
                z = start
                for _ in range(40):
                    z = psi.prox(z - theta * problem.gradient(z), scale * theta)
                allowed = 16 * backend.eps * float(np.sum(b_g**2 / d_g))
                assert value <= float(problem.objective(z)) + allowed, trial


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_group_mcp_is_what_bisection_finds(scale):
    rng = np.random.default_rng(7)
    psi = GroupMCP(0.3, 2.0)
    diag, b = np.exp(3 * rng.normal(size=(6, 80))), rng.normal(size=(6, 80)) * np.exp(2 * rng.normal(size=80))
    reference = bisection_reference(Subproblem(0 * b, -b, diag, scale, psi)).astype(float)
    np.testing.assert_allclose(psi.metric_prox(-b, diag, scale), reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1e-120, 1e120])
def test_group_mcp_in_other_units(size):
    """x, b and lam in units of 1/size: far beyond where a cube stays in range."""
    rng = np.random.default_rng(8)
    diag, b = np.exp(rng.normal(size=(4, 30))), 3 * rng.normal(size=(4, 30))
    x = GroupMCP(0.5, 2.0).metric_prox(-b, diag, 3.0)
    scaled = GroupMCP(0.5 * size, 2.0).metric_prox(-b * size, diag, 3.0)
    np.testing.assert_allclose(scaled / size, x, rtol=1e-13)
    assert 0 < np.count_nonzero(x) < x.size
