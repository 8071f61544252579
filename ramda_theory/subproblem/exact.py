"""Solvers without a tolerance: the closed forms of the regularizers, and ProxSSI's Newton-Raphson for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramda_theory.arrays import Array, to_float64
from ramda_theory.subproblem.problem import Candidate, Subproblem


@dataclass(frozen=True)
class Exact:
    """The regularizer's own ``metric_prox``: a closed form, or the scalar-equation Newton of the group LASSO."""

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        regularizer: Any = problem.regularizer  # only some have a metric_prox
        metric = problem.metric
        if not regularizer.has_metric_prox(metric, problem.weight_sum):
            raise ValueError(
                f"exact: no exact method for {regularizer!r} in this metric; use 'accelerated' (convex psi) or "
                "'proximal_gradient'"
            )
        return Candidate(regularizer.metric_prox(problem.linear, metric, problem.weight_sum), 0)


@dataclass(frozen=True)
class NewtonRaphson:
    """ProxSSI's scalar equation as published (Deleu & Bengio 2021), group LASSO only, kept for comparison.

    Newton-Raphson on sum_i (b_i / (rho d_i + lam))^2 - 1, which is convex and decreasing in rho, from rho = 0; up to
    53 updates where the concave form takes 11.
    """

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        regularizer: Any = problem.regularizer  # only sums of group norms have groups and their weights
        xp = problem.xp
        if not regularizer.sum_of_group_norms:
            raise ValueError(f"newton_raphson solves GroupLasso only, got {regularizer!r}")
        weight = problem.weight_sum * regularizer.weight
        if not weight > 0:
            raise ValueError(f"newton_raphson needs weight_sum * weight > 0, got {weight}")
        b, diag = -problem.linear, to_float64(xp, problem.metric)
        groups = regularizer.groups(b)
        threshold = problem.weight_sum * regularizer.group_weights(b)
        zero = xp.sqrt(groups.total(xp, b**2)) <= threshold
        lam = groups.spread(xp, threshold) if getattr(threshold, "shape", ()) else threshold
        rho = xp.zeros_like(groups.total(xp, b))
        iteration = 0
        while iteration < max_iter:
            iteration += 1
            q = b / (groups.spread(xp, rho) * diag + lam)
            equation = groups.total(xp, q**2) - 1.0
            slope = -2.0 * groups.total(xp, q**2 * diag / (groups.spread(xp, rho) * diag + lam))
            step = xp.where(zero, xp.zeros_like(rho), -equation / xp.where(zero, -xp.ones_like(slope), slope))
            rho = rho + step
            if not bool(xp.any(xp.abs(step) > 1e-14 * rho)):
                break
        rho_entries = groups.spread(xp, rho)
        x = rho_entries * b / (rho_entries * diag + lam)
        return Candidate(xp.where(groups.spread(xp, zero), xp.zeros_like(x), x), iteration)
