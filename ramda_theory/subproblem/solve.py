"""`solve`: hand a subproblem to a solver and judge what comes back by (7), without asking the solver."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial

from ramda_theory.arrays import Array, is_host, namespace, real, to_float64
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.subproblem.admm import ADMM
from ramda_theory.subproblem.als import ALS, OTHERWISE
from ramda_theory.subproblem.exact import Exact, NewtonRaphson
from ramda_theory.subproblem.first_order import Accelerated, ProximalGradient
from ramda_theory.subproblem.problem import Candidate, Solution, Subproblem
from ramda_theory.subproblem.reference import Cvxpy

Solver = Callable[[Subproblem, Array, float, int], Candidate]
"""(problem, start, tolerance, max_iter) -> the candidate to be judged."""

STIFF = 400.0
"""Where the terms that cancel in P W - b are this many times alpha lambda, ADMM takes longer than "als"."""

SOLVERS: dict[str, Solver] = {
    "exact": Exact(),
    "proximal_gradient": ProximalGradient(),
    "accelerated": Accelerated(),
    "admm": ADMM(),
    "als": ALS(),
    "newton_raphson": NewtonRaphson(),
    "cvxpy": Cvxpy(),
}


def solve(
    subproblem: Subproblem,
    method: str | Solver | None = None,
    start: Array | Solution | None = None,
    tolerance: float | None = None,
    max_iter: int = 10_000,
) -> Solution:
    """Minimise a subproblem.

    Parameters
    ----------
    subproblem : Subproblem
    method : str or solver, optional
        One of "exact", "proximal_gradient", "accelerated", "admm", "als", "newton_raphson", "cvxpy", or a configured
        solver such as ``ProximalGradient(step="group")``.  By default exact where an exact method exists, else proximal
        gradient for nonconvex psi and "admm" for convex psi; "als" for a nuclear norm that is small beside the rest.
    start : array or Solution, optional
        W_{t-1}: where iterations begin (else at the anchor) and what the objective condition of (7) compares with
        (else it is not asked for).  A `Solution` of a subproblem like this one stands for its point; "admm" and "als"
        go on from its dual too.
    tolerance : float, optional
        eps_t >= 0 of (7), on the residual of the unscaled Q.  Default: `Subproblem.default_tolerance`.
    max_iter : int
        Limit T2 >= 1 on the iterations.

    Returns
    -------
    Solution
        Never called "solved" unless its residual, computed afresh, is within ``tolerance``.

    Raises
    ------
    ValueError, TypeError
        Unknown method, a method that cannot solve this regularizer, bad ``start``, ``tolerance`` or ``max_iter``.
    """
    solver = choose(subproblem, method)
    tolerance = subproblem.default_tolerance() if tolerance is None else real("tolerance", tolerance, minimum=0.0)
    try:
        max_iter = operator.index(max_iter)
    except TypeError as error:
        raise TypeError(f"max_iter must be an integer, got {max_iter!r}") from error
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")
    admm = solver if isinstance(solver, ADMM) else OTHERWISE if isinstance(solver, ALS) else None
    if isinstance(start, Solution):
        start, dual = start.point, start.dual
        if dual is not None and isinstance(solver, (ADMM, ALS)):
            solver = partial(solver, dual=dual)
    if isinstance(start, (int, float)):
        raise ValueError(f"start must be an array of shape {tuple(subproblem.anchor.shape)}, got the number {start!r}")
    if start is not None:
        xp = namespace(anchor=subproblem.anchor, start=start)
        same_shape(anchor=subproblem.anchor, start=start)
        if not bool(xp.all(xp.isfinite(start))):
            raise ValueError("start must be finite, it holds NaN or Inf")
    if not math.prod(subproblem.anchor.shape):
        return judge(subproblem, Candidate(subproblem.anchor, 0), tolerance, start)
    begin = subproblem.anchor if start is None else start
    candidate = solver(subproblem, begin, tolerance, max_iter)
    solution = judge(subproblem, candidate, tolerance, start)
    if solution.status == "max_iter" and candidate.iterations < max_iter and admm is not None:
        # It stopped since float32 took its own rounding for less than it is.
        more = in_float64(admm, subproblem, begin, tolerance, max_iter, candidate)
        solution = judge(subproblem, more, tolerance, start)
    return solution


def in_float64(
    admm: ADMM, subproblem: Subproblem, start: Array, tolerance: float, max_iter: int, before: Candidate
) -> Candidate:
    """What ADMM makes in float64 of where it ended in float32, with the iterations of both."""
    xp = subproblem.xp
    anchor, grad_sum, metric = (
        to_float64(xp, each) for each in (subproblem.anchor, subproblem.grad_sum, subproblem.metric)
    )
    wide = Subproblem(anchor, grad_sum, metric, subproblem.weight_sum, subproblem.regularizer)
    remaining = max_iter - before.iterations
    more = admm(wide, to_float64(xp, start), tolerance, remaining, before.dual, before.point)
    return more._replace(iterations=before.iterations + more.iterations)


def choose(subproblem: Subproblem, method: str | Solver | None) -> Solver:
    """The solver a ``method`` argument stands for."""
    if method is None:
        regularizer = subproblem.regularizer
        if regularizer.has_metric_prox(subproblem.metric, subproblem.weight_sum):
            return SOLVERS["exact"]
        if is_stiff(subproblem):
            return SOLVERS["als"]
        return SOLVERS["admm" if regularizer.convex else "proximal_gradient"]
    if callable(method) and not isinstance(method, type):
        return method
    if method not in SOLVERS:
        raise ValueError(f"method must be one of {sorted(SOLVERS)} or a solver, got {method!r}")
    return SOLVERS[method]


def is_stiff(subproblem: Subproblem) -> bool:
    """Whether psi is a nuclear norm so small beside the rest that "als" is the faster solver."""
    psi = subproblem.regularizer.as_matrices
    if psi is None or not is_host(subproblem.anchor):
        return False
    return subproblem.magnitude > STIFF * subproblem.weight_sum * float(psi.weight)


def judge(subproblem: Subproblem, candidate: Candidate, tolerance: float, start: Array | None = None) -> Solution:
    """The `Solution` that a candidate is: its structure, its residual and whether it meets (7)."""
    point = candidate.point
    if point.dtype != subproblem.anchor.dtype:
        point = subproblem.xp.astype(point, subproblem.anchor.dtype)
    structure = candidate.structure
    if structure is None:
        structure = subproblem.regularizer.structure(point)
    residual = float(subproblem.residual(point))
    descent = None if start is None else subproblem.increase(point, start) <= 0
    if not residual <= tolerance:
        status = "max_iter"
    elif descent is False:
        status = "no_descent"
    else:
        status = "solved"
    return Solution(point, structure, residual, candidate.iterations, status, tolerance, descent, candidate.dual)
