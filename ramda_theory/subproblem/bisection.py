"""Reference solutions in extended precision: bisection on monotone scalar equations, entry by entry or group by group.

Slow, and as independent of the solvers as a reference can be: nothing of them is used but the data of the subproblem.
Values of NumPy's ``longdouble`` (64-bit mantissa on x86, at least float64 elsewhere).
"""

from __future__ import annotations

import itertools

import numpy as np

from ramda_theory.arrays import to_host
from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, Regularizer, SparseGroupLasso
from ramda_theory.subproblem.problem import Subproblem

HALVINGS = 200


def bisection_reference(problem: Subproblem) -> np.ndarray:
    """The global minimiser of Q, as longdouble.

    Covers every regularizer that separates; for `GroupMCP` the metric must exceed weight_sum/gamma.

    Raises
    ------
    ValueError
        For other subproblems.
    """
    psi, alpha = problem.regularizer, np.longdouble(problem.weight_sum)
    anchor, grad_sum, d = (to_host(a).astype(np.longdouble) for a in (problem.anchor, problem.grad_sum, problem.metric))
    b = d * anchor - grad_sum
    if isinstance(psi, (L1, ElasticNet, MCP, SCAD)):
        return np.sign(b) * scalar_minimizer(psi, np.abs(b), d, alpha)
    if isinstance(psi, (GroupLasso, SparseGroupLasso, GroupMCP)):
        return grouped_minimizer(psi, b, d, alpha)
    raise ValueError(f"no bisection reference for {psi!r}")


def slope_and_breaks(psi: Regularizer, alpha: np.longdouble):
    """alpha phi'(t) for t > 0, alpha phi(t), and the points between which phi' is smooth."""
    lam = np.longdouble(psi.weight)
    if isinstance(psi, L1):
        return lambda t: alpha * lam + 0 * t, lambda t: alpha * lam * t, []
    if isinstance(psi, ElasticNet):
        l2 = np.longdouble(psi.l2)
        return lambda t: alpha * (lam + l2 * t), lambda t: alpha * (lam * t + l2 * t * t / 2), []
    if isinstance(psi, MCP):
        reach = np.longdouble(psi.gamma) * lam

        def mcp(t):
            t = np.minimum(t, reach)
            return alpha * (lam * t - t * t / (2 * np.longdouble(psi.gamma)))

        return lambda t: alpha * np.maximum(lam - t / np.longdouble(psi.gamma), 0), mcp, [reach]
    assert isinstance(psi, SCAD)
    a = np.longdouble(psi.a)

    def scad(t):
        middle = np.clip(t, lam, a * lam)
        return alpha * (lam * np.minimum(t, lam) + (middle - lam) * (2 * a * lam - middle - lam) / (2 * (a - 1)))

    return lambda t: alpha * np.clip((a * lam - t) / (a - 1), 0, lam), scad, [lam, a * lam]


def scalar_minimizer(psi: Regularizer, b: np.ndarray, d: np.ndarray, alpha: np.longdouble) -> np.ndarray:
    """argmin_{t >= 0} 1/2 d t^2 - b t + alpha phi(t) for b >= 0: the best of 0 and the zeros of each smooth piece."""
    slope, phi, breaks = slope_and_breaks(psi, alpha)
    best = np.zeros_like(b)
    best_value = np.zeros_like(b)
    edges = [np.longdouble(0), *breaks, np.longdouble(np.inf)]
    for low_edge, high_edge in itertools.pairwise(edges):
        # On a piece the derivative d t - b + alpha phi'(t) is linear: bisect where it rises, else try the ends.
        low = np.broadcast_to(low_edge, b.shape).copy()
        high = np.minimum(high_edge, 2 * b / d + low_edge)
        high = np.maximum(high, low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            rising = d * middle - b + slope(middle) > 0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        for t in (low, np.broadcast_to(low_edge, b.shape)):
            value = d * t * t / 2 - b * t + phi(t)
            better = value < best_value
            best, best_value = np.where(better, t, best), np.where(better, value, best_value)
    return best


def grouped_minimizer(
    psi: GroupLasso | SparseGroupLasso | GroupMCP, b: np.ndarray, d: np.ndarray, alpha: np.longdouble
) -> np.ndarray:
    """Group by group, the root rho of ||b / (rho d + lam)|| = 1, after soft-thresholding by the l1 part."""
    x = np.zeros_like(b)
    for index in group_indices(psi, b.shape):
        root = np.sqrt(np.longdouble(len(index[0]))) if psi.size_scaled else np.longdouble(1)
        lam, bg, dg = alpha * np.longdouble(psi.weight) * root, b[index], d[index]
        if isinstance(psi, SparseGroupLasso):
            ratio = np.longdouble(psi.l1_ratio)
            bg = np.sign(bg) * np.maximum(np.abs(bg) - alpha * np.longdouble(psi.weight) * ratio, 0)
            lam = lam * (1 - ratio)
        if isinstance(psi, GroupMCP):
            gamma = np.longdouble(psi.gamma)
            if not np.all(dg > alpha / gamma):
                raise ValueError("no bisection reference for GroupMCP unless the metric exceeds weight_sum/gamma")
            flat = bg / dg
            if np.sqrt(np.sum(flat**2)) > gamma * np.longdouble(psi.weight) * root:
                x[index] = flat
                continue
            dg = dg - alpha / gamma
        if np.sqrt(np.sum(bg**2)) <= lam:
            continue
        low, high = np.longdouble(0), 2 * np.sqrt(np.sum((bg / dg) ** 2))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            short = np.sum((bg / (middle * dg + lam)) ** 2) > 1
            low, high = (middle, high) if short else (low, middle)
        x[index] = high * bg / (high * dg + lam)
    return x


def group_indices(psi: GroupLasso | SparseGroupLasso | GroupMCP, shape: tuple[int, ...]) -> list[tuple]:
    """Index arrays of every group of an array of this shape."""
    labels = getattr(psi, "labels", None)
    if labels is not None:
        return [np.nonzero(np.asarray(labels) == label) for label in sorted(set(labels))]
    axes = {axis % len(shape) for axis in psi.dims}
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    positions = np.indices(shape)
    group = np.zeros(shape, dtype=int)
    for axis, size in zip([a for a in range(len(shape)) if a not in axes], kept, strict=True):
        group = group * size + positions[axis]
    return [np.nonzero(group == index) for index in range(int(np.prod(kept)))]
