"""Reference solutions in extended precision: bisection on monotone scalar equations, entry by entry or group by group.

Slow, and as independent of the solvers as a reference can be: nothing of them is used but the data of the subproblem.
Values of NumPy's ``longdouble`` (64-bit mantissa on x86, at least float64 elsewhere).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ramda_theory.arrays import to_host
from ramda_theory.subproblem.problem import Subproblem

HALVINGS = 200


def bisection_reference(problem: Subproblem) -> np.ndarray:
    """The global minimiser of Q, as longdouble.

    Covers every regularizer that separates.

    Parameters
    ----------
    problem : Subproblem
        That of (4), its arrays of any library.

    Returns
    -------
    longdouble array of the shape of the data

    Raises
    ------
    ValueError
        For other subproblems.
    """
    psi, alpha = problem.regularizer, np.longdouble(problem.weight_sum)
    anchor, grad_sum, d = (to_host(a).astype(np.longdouble) for a in (problem.anchor, problem.grad_sum, problem.metric))
    b = d * anchor - grad_sum
    name = type(psi).__name__
    if name in SCALAR:
        minimizer: np.ndarray = np.sign(b) * scalar_minimizer(SCALAR[name](psi, alpha), np.abs(b), d)
        return minimizer
    if name in GROUPED:
        return grouped_minimizer(GROUPED[name], psi, b, d, alpha)
    raise ValueError(f"no bisection reference for {psi!r}")


class Scalar(NamedTuple):
    """A function of one number as published: alpha phi'(t) for t > 0, alpha phi(t), and where phi' is not smooth."""

    slope: Callable[[Any], Any]
    phi: Callable[[Any], Any]
    breaks: list[np.longdouble]


def l1(psi: Any, alpha: np.longdouble) -> Scalar:
    lam = np.longdouble(psi.weight)
    return Scalar(lambda t: alpha * lam + 0 * t, lambda t: alpha * lam * t, [])


def elastic_net(psi: Any, alpha: np.longdouble) -> Scalar:
    lam, l2 = np.longdouble(psi.weight), np.longdouble(psi.l2)
    return Scalar(lambda t: alpha * (lam + l2 * t), lambda t: alpha * (lam * t + l2 * t * t / 2), [])


def mcp(psi: Any, alpha: np.longdouble) -> Scalar:
    lam, gamma = np.longdouble(psi.weight), np.longdouble(psi.gamma)

    def phi(t: Any) -> Any:
        t = np.minimum(t, gamma * lam)
        return alpha * (lam * t - t * t / (2 * gamma))

    return Scalar(lambda t: alpha * np.maximum(lam - t / gamma, 0), phi, [gamma * lam])


def scad(psi: Any, alpha: np.longdouble) -> Scalar:
    lam, a = np.longdouble(psi.weight), np.longdouble(psi.a)

    def phi(t: Any) -> Any:
        middle = np.clip(t, lam, a * lam)
        return alpha * (lam * np.minimum(t, lam) + (middle - lam) * (2 * a * lam - middle - lam) / (2 * (a - 1)))

    return Scalar(lambda t: alpha * np.clip((a * lam - t) / (a - 1), 0, lam), phi, [lam, a * lam])


SCALAR = {"L1": l1, "ElasticNet": elastic_net, "MCP": mcp, "SCAD": scad}
GROUPED = {"GroupLasso": "lasso", "SparseGroupLasso": "sparse", "GroupMCP": "mcp"}


def scalar_minimizer(function: Scalar, b: np.ndarray, d: np.ndarray) -> np.ndarray:
    """argmin_{t >= 0} 1/2 d t^2 - b t + alpha phi(t) for b >= 0: the best of 0 and the zeros of each smooth piece."""
    slope, phi, breaks = function
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


def grouped_minimizer(kind: str, psi: Any, b: np.ndarray, d: np.ndarray, alpha: np.longdouble) -> np.ndarray:
    """Group by group, the root rho of ||b / (rho d + lam)|| = 1, after soft-thresholding by the l1 part."""
    x = np.zeros_like(b)
    for index in group_indices(psi, b.shape):
        root = np.sqrt(np.longdouble(len(index[0]))) if psi.size_scaled else np.longdouble(1)
        lam, bg, dg = alpha * np.longdouble(psi.weight) * root, b[index], d[index]
        if kind == "sparse":
            ratio = np.longdouble(psi.l1_ratio)
            bg = np.sign(bg) * np.maximum(np.abs(bg) - alpha * np.longdouble(psi.weight) * ratio, 0)
            lam = lam * (1 - ratio)
        if kind == "mcp":
            x[index] = lowest_of_mcp(bg, dg, alpha, np.longdouble(psi.weight) * root, np.longdouble(psi.gamma))
            continue
        if np.sqrt(np.sum(bg**2)) <= lam:
            continue
        low, high = np.longdouble(0), 2 * np.sqrt(np.sum((bg / dg) ** 2))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            short = np.sum((bg / (middle * dg + lam)) ** 2) > 1
            low, high = (middle, high) if short else (low, middle)
        x[index] = high * bg / (high * dg + lam)
    return x


def lowest_of_mcp(b: Any, d: Any, alpha: np.longdouble, weight: np.longdouble, gamma: np.longdouble) -> Any:
    """The lowest of a group's stationary points under MCP: 0, b/d, and where its norm rho <= gamma weight bends.

    There x = rho b / den, den = rho (d - alpha/gamma) + alpha weight, and ||b / den||^2 = 1, convex in rho: two roots
    at most, of which only the smaller can be a minimum.
    """

    def den(rho: np.longdouble) -> Any:
        return rho * (d - alpha / gamma) + alpha * weight

    def bisect(low: Any, high: Any, left: Callable[[Any], Any]) -> Any:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) else (low, middle)
        return low

    def objective(x: Any) -> Any:
        size = np.minimum(np.sqrt(np.sum(x**2)), gamma * weight)
        return np.sum(d * x * x / 2 - b * x) + alpha * (weight * size - size * size / (2 * gamma))

    candidates = [0 * b, b / d]
    if alpha * weight > 0:
        bottom = bisect(
            np.longdouble(0), gamma * weight, lambda rho: np.sum(b**2 * (d - alpha / gamma) / den(rho) ** 3) > 0
        )
        rho = bisect(np.longdouble(0), bottom, lambda rho: np.sum((b / den(rho)) ** 2) > 1)
        candidates.append(rho * b / den(rho))
    return min(candidates, key=objective)


def group_indices(psi: Any, shape: tuple[int, ...]) -> list[tuple[np.ndarray, ...]]:
    """Index arrays of every group of an array of this shape."""
    if psi.labels is not None:
        return [np.nonzero(np.asarray(psi.labels) == label) for label in sorted(set(psi.labels))]
    seen = shape if psi.view is None else psi.view
    axes = {axis % len(seen) for axis in psi.dims}
    kept = [size for axis, size in enumerate(seen) if axis not in axes]
    positions = np.indices(seen)
    group = np.zeros(seen, dtype=int)
    for axis, size in zip([a for a in range(len(seen)) if a not in axes], kept, strict=True):
        group = group * size + positions[axis]
    return [np.nonzero(group.reshape(shape) == index) for index in range(int(np.prod(kept)))]
