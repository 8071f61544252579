"""The nuclear norm's subproblem: the package's accelerated solver beside plain proximal gradient with an SVD."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import numpy as np

from ramda_theory.regularizers import NuclearNorm
from ramda_theory.subproblem import Subproblem, solve

TOLERANCE = 1e-7
"""On the residual (9), relative to the size of the data."""


class Row(NamedTuple):
    """One problem solved by one method."""

    problem: str
    method: str
    milliseconds: float
    iterations: int
    residual: float
    error: float


def problem(rows: int, columns: int, metric: str) -> Subproblem:
    """A matrix of rank 5 in noise, b = P W^0 - V, in a metric of the named kind.

    Parameters
    ----------
    rows, columns : int
    metric : {"exp(2R/3)", "eps floor"}
        Log-normal entries, or log-normal entries of which 30% have a factor 1e-6, as where a gradient was always zero.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((rows, columns))
    if metric == "exp(2R/3)":
        diag = np.exp(2.0 * noise / 3.0)
        scale = np.sqrt(diag)
    else:
        diag = np.where(rng.random((rows, columns)) < 0.3, 1e-6, 1.0) * np.exp(0.3 * noise)
        scale = diag
    low_rank = rng.standard_normal((rows, 5)) @ rng.standard_normal((5, columns))
    b = (low_rank / 3.0 + 0.5 * noise) * scale
    singular_values = np.linalg.svd(b, compute_uv=False)
    weight = float(singular_values[int(0.15 * min(rows, columns))])
    return Subproblem(np.zeros_like(b), -b, diag, 1.0, NuclearNorm(weight))


def plain(data: Subproblem, tolerance: float, max_iter: int) -> tuple[np.ndarray, int]:
    """Algorithm 2 with one step size, from the anchor, until the residual (9) is within ``tolerance``."""
    regularizer: Any = data.regularizer
    theta = 1.0 / float(data.metric.max())
    z = data.anchor
    iteration = 0
    while iteration < max_iter:
        iteration += 1
        left, values, right = np.linalg.svd(z - theta * data.gradient(z), full_matrices=False)
        z_next = (left * np.maximum(values - theta * data.weight_sum * regularizer.weight, 0.0)) @ right
        s = (data.metric - 1.0 / theta) * (z_next - z)
        z = z_next
        if np.linalg.norm(s) <= tolerance:
            break
    return z, iteration


def rows(quick: bool) -> list[Row]:
    """Both methods on every problem to the same residual; errors are relative, to a solution of smaller residual."""
    sizes = [(48, 48), (32, 96)] if quick else [(512, 512), (128, 784)]
    result = []
    for shape in sizes:
        for metric in ("exp(2R/3)", "eps floor"):
            data = problem(*shape, metric)
            name = f"{shape[0]} x {shape[1]}, {metric}"
            tolerance = TOLERANCE * data.magnitude
            exact = solve(data, "accelerated", tolerance=1e-4 * tolerance).point
            milliseconds = []
            for _ in range(3):
                clock = time.perf_counter()
                solution = solve(data, "accelerated", tolerance=tolerance)
                milliseconds.append(1e3 * (time.perf_counter() - clock))
            points = {"accelerated": (solution.point, solution.iterations, statistics.median(milliseconds))}
            clock = time.perf_counter()
            z, iterations = plain(data, tolerance, 20_000)
            points["plain, SVD"] = (z, iterations, 1e3 * (time.perf_counter() - clock))
            for method, (point, count, spent) in points.items():
                error = float(np.linalg.norm(point - exact) / np.linalg.norm(exact))
                residual = float(data.residual(point)) / data.magnitude
                result.append(Row(name, method, spent, count, residual, error))
    return result
