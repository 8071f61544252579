"""Subproblems with known solutions: random ones, the slowest of a given metric, and nonconvex ones that are flat."""

from __future__ import annotations

import numpy as np

from ramda_theory.regularizers import L1, MCP, SCAD, GroupLasso, NuclearNorm, Regularizer
from ramda_theory.subproblem import Subproblem

SHAPE = (6, 4)
LASSO, GROUP, NUCLEAR = L1(0.02), GroupLasso(0.02, dims=(1,)), NuclearNorm(0.02)
CONVEX: dict[str, Regularizer] = {"l1": LASSO, "group LASSO": GROUP, "nuclear norm": NUCLEAR}
NONCONVEX: dict[str, Regularizer] = {"MCP": MCP(0.5, 3.0), "SCAD": SCAD(0.5, 3.7)}

FORMS = ("(4)", "(6)")
"""Dual averaging's subproblem (alpha = 5, P up to 10) and ProxGen's (eta = 1e-3, P up to 1e-2)."""


def planted(
    psi: Regularizer, condition: float, form: str, seed: int, within: float | None = None
) -> tuple[Subproblem, np.ndarray, np.ndarray]:
    """A subproblem with a prescribed max P / min P, where to start (W_{t-1}) and its solution.

    The solution has half of its pieces zero and a subgradient strictly inside its bounds there; from it follows the
    linear term.  ``within`` is the condition number inside every group (row), the whole of it by default.
    """
    rng = np.random.default_rng(seed)
    alpha, largest_entry = {"(4)": (5.0, 10.0), "(6)": (1e-3, 1e-2)}[form]
    metric = largest_entry * spread_metric(rng, condition, within)
    solution, subgradient = solution_and_subgradient(psi, rng)
    start = solution + 0.5 * rng.standard_normal(SHAPE)
    anchor = start if form == "(6)" else 0.1 * rng.standard_normal(SHAPE)
    # 0 = V + P (W* - W^0) + alpha s  with  s in d psi(W*)
    grad_sum = metric * (anchor - solution) - alpha * subgradient
    return Subproblem(anchor, grad_sum, metric, alpha, psi), start, solution


def spread_metric(rng: np.random.Generator, condition: float, within: float | None) -> np.ndarray:
    """Entries between 1/condition and 1, both reached, evenly spaced in the logarithm, in random places.

    With ``within`` every row spans that factor and the rows' levels make up the rest.
    """
    if within is None:
        return rng.permutation(np.geomspace(1.0 / condition, 1.0, SHAPE[0] * SHAPE[1])).reshape(SHAPE)
    levels = np.geomspace(within / condition, 1.0, SHAPE[0])
    rows = rng.permuted(np.tile(np.geomspace(1.0 / within, 1.0, SHAPE[1]), (SHAPE[0], 1)), axis=1)
    return rng.permutation(levels)[:, None] * rows


def solution_and_subgradient(psi: Regularizer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A point with half of its pieces zero, and an element of d psi there at most 0.8 of its bound."""
    w, inside = rng.standard_normal(SHAPE), rng.uniform(-0.8, 0.8, SHAPE)
    if isinstance(psi, NuclearNorm):
        u, s, vh = np.linalg.svd(w, full_matrices=False)
        kept = np.arange(len(s)) < len(s) // 2
        return (u * np.where(kept, s, 0.0)) @ vh, psi.weight * (u * np.where(kept, 1.0, 0.8)) @ vh
    if isinstance(psi, GroupLasso):
        active = (rng.permutation(SHAPE[0]) < SHAPE[0] // 2)[:, None]
        units = w / np.linalg.norm(w, axis=1, keepdims=True)
        return np.where(active, w, 0.0), psi.weight * np.sqrt(SHAPE[1]) * np.where(active, 1.0, inside[:, :1]) * units
    active = rng.permutation(w.size).reshape(SHAPE) < w.size // 2
    return np.where(active, w, 0.0), psi.weight * np.where(active, np.sign(w), inside)


def slowest_direction(problem: Subproblem) -> tuple[Subproblem, np.ndarray, np.ndarray]:
    """In the metric of ``problem``, where start and solution differ in one entry only, that of the smallest P.

    It is nonzero in both; there prox is a translation, for each of the convex psi here, so that every step of
    Algorithm 2 shortens the error by exactly 1 - min P / max P.
    """
    solution = np.zeros(SHAPE)
    solution[np.unravel_index(np.argmin(problem.metric), SHAPE)] = 1.0
    # All convex psi here are norms, so s = psi(W*) W* is in d psi(W*) if W* is one entry of 1.
    subgradient = float(problem.regularizer.value(solution)) * solution
    grad_sum = problem.metric * (problem.anchor - solution) - problem.weight_sum * subgradient
    slow = Subproblem(problem.anchor, grad_sum, problem.metric, problem.weight_sum, problem.regularizer)
    return slow, 1.5 * solution, solution


def nearly_flat(psi: MCP, seed: int) -> tuple[Subproblem, np.ndarray]:
    """max P / min P = 2, but the curvature P - alpha/gamma on MCP's curved branch falls to 1e-4 of its largest."""
    rng = np.random.default_rng(seed)
    alpha, breakpoint = 3.0, psi.gamma * psi.weight
    curvature = rng.permutation(np.geomspace(1e-4, 1.0, SHAPE[0] * SHAPE[1])).reshape(SHAPE)
    metric = alpha / psi.gamma + curvature
    solution = rng.uniform(0.4, 0.6, SHAPE) * breakpoint
    # 0 = V + P W + alpha (weight - W/gamma)
    problem = Subproblem(np.zeros(SHAPE), -curvature * solution - alpha * psi.weight, metric, alpha, psi)
    return problem, solution + rng.uniform(-0.3, 0.3, SHAPE) * breakpoint
